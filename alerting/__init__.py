"""Who must act now? Alert rules, their routes to people, detectors over the log, and incidents.

A detector reads the log by leaf index like anyone else, and puts its findings on record through a `Recorder`. Imports
the packages' `metrics` modules and the nouns of `correlator` and `collector`.
"""
