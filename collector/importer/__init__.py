"""Files of logs and spans as rows: what `tally import` reads.

`ImportFile` opens a file (plain or gzip; CSV, JSON lines or Docker's JSON log lines, told by content) and gives its rows, each
an `Arrival` or a `Rejection`, in the file's order and without holding more than a few MiB of it. What a CSV's columns mean is said by a mapping
(`collector.importer.mapping`), written by whoever knows the file. A row's bytes depend on the file alone: never on the clock,
on another file, or on when it is imported.
"""
