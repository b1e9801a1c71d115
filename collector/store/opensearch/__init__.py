"""The distributed event store: an OpenSearch cluster, in which what was written stays as it was written.

`OpenSearchStore` (in `collector.store.opensearch.store`) is the `collector.store.EventStore`; `layout` says which indexes
there are, `documents` what stands in them. Needs the extra ``tallystick[opensearch]``.
"""
