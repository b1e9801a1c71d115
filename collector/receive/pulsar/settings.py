"""The settings of Pulsar: each ``[[collector.pulsar]]`` in ``tally.toml`` is a consumer of a subscription."""

from typing import Annotated, Literal

import msgspec

from collector.receive.brokermessage import Format
from collector.receive.connecting import check_connecting

__all__ = ["PulsarSettings"]

_Broker = Annotated[str, msgspec.Meta(pattern=r"^(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\]):[0-9]{1,5}$")]
_Topic = Annotated[
    str,
    msgspec.Meta(
        pattern=r"^(?:(?:persistent://)?[A-Za-z0-9_=:.-]+/[A-Za-z0-9_=:.-]+/)?[A-Za-z0-9_=:.%-]+$", max_length=512
    ),
]


class PulsarSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Topics to consume, as a consumer of a subscription.

    Attributes:
        brokers: `host:port` of one broker, or a proxy, or more; which broker has a topic is heard from them.
        topics: names of topics, partitioned or not: `orders`, which is in `public/default`, or `persistent://tenant/namespace/orders`. They are
            persistent ones: others keep nothing that could be read again.
        subscription: its name; collectors with the same one share the messages.
        subscription_type: how they do: `key_shared`: the messages of a key, in order, go to one of them; `shared`: to whom has room; `failover`: a
            partition goes to one of them, and what that one had ahead comes twice when another takes it over.
        name: what metrics call this entry; empty: its subscription.
        start: where a subscription begins that is not there yet: `earliest` or `latest`.
        format: how a message is read: `json` (anything but an object is a dead letter), `text`, `raw` as bytes, or `auto`: as JSON if it is an
            object, else as text.
        service: `service.name` of messages that do not name one.
        tenant: of messages that do not name one; Pulsar's own tenant is not asked.
        transaction_property: property that holds the transaction's ID, in any case; empty: none.
        batch_messages: most messages of one turn.
        prefetch: so many more the brokers send ahead, over all topics.
        tls: whether to speak TLS.
        tls_ca: PEM file that brokers' certificates are checked against; empty: the system's authorities.
        tls_certificate, tls_key: PEM files, for brokers that ask for a client's certificate; both or neither.
        token_file: file with the token by which the collector says who it is, read anew whenever it connects; empty: none. It needs TLS.
    """

    brokers: Annotated[tuple[_Broker, ...], msgspec.Meta(min_length=1)]
    topics: Annotated[tuple[_Topic, ...], msgspec.Meta(min_length=1)]
    subscription: Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_=:.-]{1,249}$")] = "tallystick"
    subscription_type: Literal["key_shared", "shared", "failover"] = "key_shared"
    name: Annotated[str, msgspec.Meta(max_length=64)] = ""
    start: Literal["earliest", "latest"] = "earliest"
    format: Format = "auto"
    service: str = ""
    tenant: str = ""
    transaction_property: str = ""
    batch_messages: Annotated[int, msgspec.Meta(ge=1, le=8_192)] = 1_000
    prefetch: Annotated[int, msgspec.Meta(ge=1, le=8_192)] = 1_000
    tls: bool = False
    tls_ca: str = ""
    tls_certificate: str = ""
    tls_key: str = ""
    token_file: str = ""

    def __post_init__(self) -> None:
        """Refuse what would protect less than it seems to."""
        check_connecting(self)
        if self.token_file and not self.tls:
            raise ValueError("token_file is sent as it is: it needs tls = true")

    @property
    def label(self) -> str:
        """What metrics and the log call the entry."""
        return self.name or self.subscription
