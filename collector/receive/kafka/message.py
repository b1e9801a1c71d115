"""A record of Kafka becomes a message with a name, by which it is recognised when it is read again. Pure."""

import hashlib
from collections.abc import Sequence
from typing import Any, Protocol

from collector.errors import Malformed
from collector.event import Origin, format_time
from collector.receive.brokermessage import BrokerMessage

__all__ = ["RECEIVER", "KafkaRecord", "message_of_record", "source_id"]

RECEIVER = "kafka"
"""`Origin.receiver` of what comes from Kafka."""


class KafkaRecord(Protocol):
    """What is read of the library's record: `timestamp` in milliseconds since 1970, −1 for none."""

    @property
    def topic(self) -> str: ...  # noqa: D102 - as Kafka has it
    @property
    def partition(self) -> int: ...  # noqa: D102
    @property
    def offset(self) -> int: ...  # noqa: D102
    @property
    def timestamp(self) -> int: ...  # noqa: D102
    @property
    def key(self) -> bytes | None: ...  # noqa: D102
    @property
    def value(self) -> bytes | None: ...  # noqa: D102
    @property
    def headers(self) -> Sequence[tuple[str, bytes | None]]: ...  # noqa: D102


def source_id(record: KafkaRecord) -> bytes:
    """The record's name: 38 bytes.

    Topic, partition and offset name a record for as long as its topic lives. A topic that is made anew counts from 0 again, so timestamp, key and
    value are part of the name: what another topic of that name holds at the same place is another record.
    """
    digest = hashlib.sha256()
    for part in (record.topic.encode("utf-8", "surrogatepass"), record.key, record.value):
        digest.update(b"\0" if part is None else b"\1" + len(part).to_bytes(8, "big") + part)
    for number in (record.partition, record.offset, record.timestamp):
        digest.update(number.to_bytes(8, "big", signed=True))
    return b"kafka\0" + digest.digest()


def message_of_record(record: KafkaRecord) -> BrokerMessage:
    """What the record holds, with OpenTelemetry's attributes (https://opentelemetry.io/docs/specs/semconv/messaging/kafka/)."""
    attributes: dict[str, Any] = {
        "messaging.system": "kafka",
        "messaging.destination.name": record.topic,
        "messaging.destination.partition.id": str(record.partition),
        "messaging.kafka.offset": record.offset,
    }
    if record.key is not None:
        attributes["messaging.kafka.message.key"] = _text_or_bytes(record.key)
    if record.value is None:
        attributes["messaging.kafka.message.tombstone"] = True
    return BrokerMessage(
        value=record.value,
        headers=tuple((name, value if value is not None else b"") for name, value in record.headers),
        time=_time(record.timestamp),
        attributes=attributes,
        origin=Origin(receiver=RECEIVER, tag=f"{record.topic}/{record.partition}", offset=record.offset),
        source_id=source_id(record),
    )


def _text_or_bytes(data: bytes) -> str | bytes:
    try:
        return data.decode()
    except UnicodeDecodeError:
        return data


def _time(milliseconds: int) -> str:
    if milliseconds < 0:
        return ""
    try:
        return format_time(milliseconds * 1_000_000)
    except Malformed:
        return ""
