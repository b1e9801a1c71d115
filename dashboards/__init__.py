"""How is it doing? Grafana boards, built from the metrics that each process declares.

Owns the boards. Imports nothing but the packages' `metrics` modules, so that a board cannot show what nothing measures.
"""
