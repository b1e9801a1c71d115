"""A delivery of RabbitMQ becomes a message; one with a message id has a name by which it is recognised when it comes again. Pure."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec

from collector.errors import Malformed
from collector.event import Origin, format_time
from collector.receive.brokermessage import BrokerMessage

__all__ = ["RECEIVER", "Delivery", "message_of_delivery", "source_id"]

RECEIVER = "rabbitmq"
"""`Origin.receiver` of what comes from RabbitMQ."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """What is read of the library's message (AMQP 0-9-1, basic.deliver and the properties of class basic). Empty: it has none."""

    queue: str
    exchange: str = ""
    routing_key: str = ""
    body: bytes
    headers: Mapping[str, Any]
    message_id: str = ""
    correlation_id: str = ""
    app_id: str = ""
    type: str = ""
    time: datetime | None = None


def source_id(delivery: Delivery) -> bytes | None:
    """The message's name, 41 bytes; None where its sender gave it no message id: then nothing tells it from its like.

    Sender (``app_id``) and body are part of it, so that two senders who count alike lose nothing. The queue is not: what an exchange puts into
    several queues is one message.
    """
    if not delivery.message_id:
        return None
    digest = hashlib.sha256()
    for part in (delivery.app_id, delivery.message_id):
        data = part.encode("utf-8", "surrogatepass")
        digest.update(len(data).to_bytes(8, "big") + data)
    digest.update(delivery.body)
    return b"rabbitmq\0" + digest.digest()


def message_of_delivery(delivery: Delivery) -> BrokerMessage:
    """What the delivery holds, with OpenTelemetry's attributes (https://opentelemetry.io/docs/specs/semconv/messaging/rabbitmq/)."""
    stated = {
        "messaging.destination.name": delivery.exchange or delivery.queue,
        "messaging.destination.subscription.name": delivery.queue,
        "messaging.rabbitmq.destination.routing_key": delivery.routing_key,
        "messaging.message.id": delivery.message_id,
        "messaging.message.conversation_id": delivery.correlation_id,
        "messaging.rabbitmq.message.type": delivery.type,
        "messaging.rabbitmq.message.app_id": delivery.app_id,
    }
    attributes: dict[str, Any] = {"messaging.system": "rabbitmq"}
    attributes |= {name: value for name, value in stated.items() if value}
    return BrokerMessage(
        value=delivery.body,
        headers=tuple((str(name), _bytes(value)) for name, value in delivery.headers.items()),
        time=_time(delivery.time),
        attributes=attributes,
        origin=Origin(receiver=RECEIVER, tag=delivery.queue),
        source_id=source_id(delivery),
    )


def _bytes(value: Any) -> bytes:
    """A header's value; what is neither text nor bytes as JSON, and what JSON has no form for as Python shows it."""
    if isinstance(value, bytes | bytearray):
        return bytes(value)
    if isinstance(value, str):
        return value.encode("utf-8", "surrogatepass")
    try:
        return msgspec.json.encode(value)
    except (TypeError, ValueError, OverflowError, RecursionError):
        return repr(value).encode("utf-8", "surrogatepass")


def _time(time: datetime | None) -> str:
    if time is None:
        return ""
    try:
        return format_time(round(time.timestamp()) * 1_000_000_000)  # AMQP has whole seconds
    except (Malformed, OverflowError, OSError, ValueError):
        return ""
