"""The trail index on an OpenSearch cluster: one document a trail, however many entries it has.

`OpenSearchIndex` (in `correlator.index.opensearch.index`) is the `correlator.index.TrailIndex`; `documents` says what stands in
it, `generations` under which names it lies and how a new one takes the old one's place. Needs the extra
``tallystick[opensearch]``.
"""
