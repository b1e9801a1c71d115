"""A delivery of Pulsar becomes a message with a name, by which it is recognised when it is delivered again. Pure."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from collector.errors import Malformed
from collector.event import Origin, format_time
from collector.receive.brokermessage import BrokerMessage

__all__ = ["RECEIVER", "Delivery", "message_of_delivery", "source_id"]

RECEIVER = "pulsar"
"""`Origin.receiver` of what comes from Pulsar."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """What is read of the library's message. Times are milliseconds since 1970, 0: none. Empty: it has none.

    Attributes:
        topic: the full name, that of the partition where the topic has some.
        subscription: by which it came.
        ledger, entry, batch_index: its place; the index is −1 where its entry holds no other.
        partition: −1: its topic has none.
        value: its bytes; None: it has none (a tombstone).
        properties: None: they are not UTF-8, and cannot be read.
    """

    topic: str
    subscription: str
    ledger: int
    entry: int
    partition: int
    batch_index: int
    value: bytes | None
    properties: Mapping[str, str] | None
    key: str = ""
    ordering_key: str = ""
    producer: str = ""
    published_ms: int = 0
    event_ms: int = 0


def source_id(delivery: Delivery) -> bytes:
    """The message's name: 39 bytes.

    Topic, ledger, entry and place in its batch name a message for as long as its cluster lives; the topic's name tells the partition. A cluster that
    is made anew counts its ledgers from the beginning, so the time of publishing, key and value are part of the name.
    """
    digest = hashlib.sha256()
    for part in (delivery.topic.encode("utf-8", "surrogatepass"), delivery.key.encode("utf-8", "surrogatepass")):
        digest.update(len(part).to_bytes(8, "big") + part)
    for number in (delivery.ledger, delivery.entry, delivery.batch_index, delivery.published_ms):
        digest.update(number.to_bytes(8, "big", signed=True))
    digest.update(b"\0" if delivery.value is None else b"\1" + delivery.value)
    return b"pulsar\0" + digest.digest()


def message_of_delivery(delivery: Delivery) -> BrokerMessage:
    """What the delivery holds, with OpenTelemetry's attributes where it has some (https://opentelemetry.io/docs/specs/semconv/messaging/).

    Its time is the one that its sender states for the event, else that of publishing.
    """
    published = _time(delivery.published_ms)
    stated = _time(delivery.event_ms)
    place = (delivery.ledger, delivery.entry, delivery.partition, delivery.batch_index)
    attributes: dict[str, Any] = {
        "messaging.system": "pulsar",
        "messaging.destination.name": delivery.topic,
        "messaging.destination.subscription.name": delivery.subscription,
        "messaging.message.id": ":".join(map(str, place)),
    }
    if delivery.partition >= 0:
        attributes["messaging.destination.partition.id"] = str(delivery.partition)
    further = {
        "messaging.pulsar.message.key": delivery.key,
        "messaging.pulsar.message.ordering_key": delivery.ordering_key,
        "messaging.pulsar.producer.name": delivery.producer,
        "messaging.pulsar.message.publish_time": published if stated else "",
    }
    attributes |= {name: value for name, value in further.items() if value}
    if delivery.value is None:
        attributes["messaging.pulsar.message.tombstone"] = True
    properties = delivery.properties
    return BrokerMessage(
        value=delivery.value,
        headers=tuple((name, value.encode("utf-8", "surrogatepass")) for name, value in (properties or {}).items()),
        headers_cut=properties is None,
        time=stated or published,
        attributes=attributes,
        origin=Origin(receiver=RECEIVER, tag=delivery.topic),
        source_id=source_id(delivery),
    )


def _time(milliseconds: int) -> str:
    if milliseconds <= 0:
        return ""
    try:
        return format_time(milliseconds * 1_000_000)
    except Malformed:
        return ""
