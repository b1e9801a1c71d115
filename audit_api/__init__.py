"""Who may see it? Serves trails, proofs, exports and the log itself over HTTP, and puts each reading on record.

Owns accesses and exports. An access is durable before its answer goes out, and is itself an entry in a trail: reading
is evidence. Imports `correlator` and `collector`'s nouns.
"""
