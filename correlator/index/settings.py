"""The trail index's part of ``tally.toml``: the table ``[index]``. The keys are those of ``[store]``."""

from collector.store.settings import StoreSettings

__all__ = ["IndexSettings"]


class IndexSettings(StoreSettings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where trails are found. It can be another cluster than the store's, or the same one under another user.

    Attributes:
        urls: empty: one SQLite file in `data`. Else the nodes of an OpenSearch cluster, ``https://host:9200``; whichever answers is asked. Needs the extra ``tallystick[opensearch]``.
        ca_file: PEM file of the authority that signed the nodes' certificates; empty: the system's authorities.
        client_certificate, client_key: PEM files, where the cluster knows its clients by certificate; both or neither.
        user: name for basic authentication; empty: none.
        password_file: file whose first line is the user's password.
        prefix: what the index's names begin with: ``tally-trails``; one prefix for each ledger.
        shards: primary shards of the index; taken up by the next `tally reindex`.
        replicas: copies of each shard beside the primary; taken up by the next `tally reindex`.
        copies: how many copies of a shard must be there before anything is written to it: 1 is the primary alone, at most 1 + `replicas`.
        timeout_seconds: how long an answer may take; for a correlator with a standby, at most its `take_over_seconds` less `renew_seconds`.
    """
