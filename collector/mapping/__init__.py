"""Mappings of records: what the fields of a log that others defined mean (gateways' access logs, legacy formats), declared in TOML.

`language` is what may be declared, `places` what it may fill, `convert` and `mapper` do it, `presets/` holds those for well-known gateways, and `intake` puts
a `Mapper` in front of the sidecar's intake. docs/mappings.md is the page for users; ``tally map`` tries a mapping on a file.
"""
