"""Incidents: a control that failed, put on record when it fails and when it works again (docs/incidents.md).

What shows it are `Condition`s: read off the log (`watch.py`), asked of what runs (`probes.py`), or told by Alertmanager (`told.py`). The
`Keeper` makes incidents of them, one at a time for each cause, through a `Recorder`; `outside.py` tells somebody outside that we live.
"""
