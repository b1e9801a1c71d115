"""The event store's part of ``tally.toml``: the table ``[store]``. Every key is optional, unknown ones are refused."""

from typing import Annotated

import msgspec

__all__ = ["StoreSettings"]

_Url = Annotated[str, msgspec.Meta(pattern=r"^https?://[^/@\s]+/?$")]


class StoreSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where shipped batches are kept. No secret stands here: each is in a file of its own, relative to the configuration.

    Attributes:
        urls: empty: one SQLite file in `data`. Else the nodes of an OpenSearch cluster, ``https://host:9200``; whichever answers is asked. Needs the extra ``tallystick[opensearch]``.
        ca_file: PEM file of the authority that signed the nodes' certificates; empty: the system's authorities.
        client_certificate, client_key: PEM files, where the cluster knows its clients by certificate; both or neither.
        user: name for basic authentication; empty: none.
        password_file: file whose first line is the user's password.
        prefix: what the names of our indexes begin with.
        shards: primary shards of each month's indexes.
        replicas: copies of each shard beside the primary.
        copies: how many copies of a shard must be there before anything is written to it: 1 is the primary alone, at most 1 + `replicas`.
        timeout_seconds: how long an answer may take; for a correlator with a standby, at most its `take_over_seconds` less `renew_seconds`.
    """

    urls: list[_Url] = []
    ca_file: str = ""
    client_certificate: str = ""
    client_key: str = ""
    user: str = ""
    password_file: str = ""
    prefix: Annotated[str, msgspec.Meta(pattern=r"^[a-z][a-z0-9-]{0,40}$")] = "tally"
    shards: Annotated[int, msgspec.Meta(ge=1, le=1_024)] = 1
    replicas: Annotated[int, msgspec.Meta(ge=0, le=16)] = 0
    copies: Annotated[int, msgspec.Meta(ge=1, le=17)] = 1
    timeout_seconds: Annotated[float, msgspec.Meta(ge=0.1, le=600.0)] = 30.0
