"""The subcommands of `tally`, one file each, imported only when they are called: `tally --help` and an idle sidecar stay small."""
