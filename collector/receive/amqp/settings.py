"""The settings of RabbitMQ: each ``[[collector.amqp]]`` in ``tally.toml`` is a queue to consume."""

from typing import Annotated

import msgspec

from collector.receive.brokermessage import Format
from collector.receive.connecting import check_connecting
from collector.receive.listening import is_this_machine

__all__ = ["AmqpSettings"]


class AmqpSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A queue to consume.

    Attributes:
        queue: its name. It is there already, or see `declare`.
        name: what metrics call this entry; empty: its queue.
        host, port: where the broker is; 5671 is usual with TLS.
        virtual_host: in which the queue is.
        declare: make the queue (durable, bound to nothing but the default exchange) where it is not there.
        prefetch: most messages that are in hand without an acknowledgement.
        format: how a message is read: `json` (anything but an object is a dead letter), `text`, `raw` as bytes, or `auto`: as JSON if it is an
            object, else as text.
        service: `service.name` of messages that do not name one.
        tenant: of messages that do not name one.
        transaction_header: header that holds the transaction's ID, in any case; empty: none.
        heartbeat_seconds: a connection that is silent for twice as long is over.
        tls: whether to speak TLS.
        tls_ca: PEM file that the broker's certificate is checked against; empty: the system's authorities.
        tls_certificate, tls_key: PEM files, for brokers that ask for a client's certificate; both or neither.
        user: name to log in with.
        password_file: file with its password; empty: it is `guest`, whom a broker lets in from its own machine alone.
        unprotected: speak to another machine without TLS: who is between them reads messages and password.
    """

    queue: Annotated[str, msgspec.Meta(min_length=1, max_length=255)]
    name: Annotated[str, msgspec.Meta(max_length=64)] = ""
    host: Annotated[str, msgspec.Meta(min_length=1)] = "127.0.0.1"
    port: Annotated[int, msgspec.Meta(ge=1, le=65_535)] = 5672
    virtual_host: str = "/"
    declare: bool = False
    prefetch: Annotated[int, msgspec.Meta(ge=1, le=8_192)] = 1_000
    format: Format = "auto"
    service: str = ""
    tenant: str = ""
    transaction_header: str = ""
    heartbeat_seconds: Annotated[int, msgspec.Meta(ge=1, le=3_600)] = 30
    tls: bool = False
    tls_ca: str = ""
    tls_certificate: str = ""
    tls_key: str = ""
    user: str = "guest"
    password_file: str = ""
    unprotected: bool = False

    def __post_init__(self) -> None:
        """Refuse what would protect less than it seems to."""
        check_connecting(self)
        if not (self.tls or self.unprotected or is_this_machine(self.host)):
            raise ValueError(f"connecting to {self.host} needs tls = true, or unprotected = true")

    @property
    def label(self) -> str:
        """What metrics and the log call the entry."""
        return self.name or self.queue
