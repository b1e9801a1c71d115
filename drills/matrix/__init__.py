"""The matrix: other people's senders, unmodified, against a collector that is killed and whose store goes away, and the account at the end.

`drills.matrix.senders` is the table of senders, `drills.matrix.running` one run of one of them, `drills.matrix.table` all of them as Markdown. The
programs that use each sender stand in ``tests/clients``; `drills.matrix.programs` builds or fetches what they need.
"""
