"""The settings of Kafka: each ``[[collector.kafka]]`` in ``tally.toml`` is a member of a consumer group."""

from typing import Annotated, Literal

import msgspec

from collector.receive.brokermessage import Format
from collector.receive.connecting import check_connecting

__all__ = ["KafkaSettings"]

_Broker = Annotated[str, msgspec.Meta(pattern=r"^(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\]):[0-9]{1,5}$")]
_Topic = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9._-]{1,249}$")]


class KafkaSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Topics to consume, as a member of a consumer group.

    Attributes:
        brokers: `host:port` of one broker or more; the others are heard of from them.
        topics: names of the topics.
        group: of the consumer; collectors with the same one share the partitions.
        name: what metrics call this entry; empty: its group.
        instance: name of this member in its group (static membership), for a collector that comes back within the session to keep its
            partitions; different in each collector. Empty: none.
        start: where a partition begins that the group has no offset of: `earliest` or `latest`.
        format: how a message is read: `json` (anything but an object is a dead letter), `text`, `raw` as bytes, or `auto`: as JSON if it is an
            object, else as text.
        service: `service.name` of messages that do not name one.
        tenant: of messages that do not name one.
        transaction_header: header that holds the transaction's ID, in any case; empty: none.
        batch_messages: most messages of one turn.
        commit_seconds: offsets are committed so often, and when partitions are given back.
        session_timeout_seconds: a member that is not heard of for so long loses its partitions; within the broker's bounds (6 to 1,800).
        tls: whether to speak TLS.
        tls_ca: PEM file that brokers' certificates are checked against; empty: the system's authorities.
        tls_certificate, tls_key: PEM files, for brokers that ask for a client's certificate; both or neither.
        sasl: mechanism by which the collector says who it is; empty: none. `PLAIN` needs TLS.
        user: its name, for SASL.
        password_file: file with its password.
    """

    brokers: Annotated[tuple[_Broker, ...], msgspec.Meta(min_length=1)]
    topics: Annotated[tuple[_Topic, ...], msgspec.Meta(min_length=1)]
    group: Annotated[str, msgspec.Meta(min_length=1, max_length=249)] = "tallystick"
    name: Annotated[str, msgspec.Meta(max_length=64)] = ""
    instance: Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9._-]{0,249}$")] = ""
    start: Literal["earliest", "latest"] = "earliest"
    format: Format = "auto"
    service: str = ""
    tenant: str = ""
    transaction_header: str = ""
    batch_messages: Annotated[int, msgspec.Meta(ge=1, le=8_192)] = 2_000
    commit_seconds: Annotated[float, msgspec.Meta(ge=0.01, le=3_600)] = 1.0
    session_timeout_seconds: Annotated[float, msgspec.Meta(ge=1.0, le=1_800.0)] = 10.0
    tls: bool = False
    tls_ca: str = ""
    tls_certificate: str = ""
    tls_key: str = ""
    sasl: Literal["", "PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = ""
    user: str = ""
    password_file: str = ""

    def __post_init__(self) -> None:
        """Refuse what would protect less than it seems to."""
        check_connecting(self)
        if bool(self.sasl) != bool(self.user) or bool(self.sasl) != bool(self.password_file):
            raise ValueError("sasl, user and password_file go together")
        if self.sasl == "PLAIN" and not self.tls:
            raise ValueError("sasl = PLAIN sends the password as it is: it needs tls = true")

    @property
    def label(self) -> str:
        """What metrics and the log call the entry."""
        return self.name or self.group
