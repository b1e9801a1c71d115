"""`make bench`: what Tallystick costs, beside what the same work costs at the least, measured in the same run.

Figures are CPU microseconds an event, summed over Tallystick's processes (the load maker apart), events a second, latencies,
bytes. Each is printed beside its floor: the same records decoded, hashed and inserted into SQLite by a minimal loop, and a
bare fdatasync. Machines differ and are shared: trust the ratios, not the single figures.
"""
