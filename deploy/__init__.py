"""How does it run? The configuration, the `tally` command, and the descriptions of every place that runs it.

Owns `Config` and the command line. The only package that may import all the others: it puts the processes together,
and nothing imports it.
"""
