"""A record's name, and what of it becomes the event."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from hypothesis import given
from hypothesis import strategies as st

from collector.receive.kafka.message import message_of_record, source_id


@dataclass(frozen=True, kw_only=True)
class Record:
    topic: str = "orders"
    partition: int = 0
    offset: int = 0
    timestamp: int = 1_700_000_000_000
    key: bytes | None = None
    value: bytes | None = b"{}"
    headers: tuple[tuple[str, bytes], ...] = field(default=())


def test_a_record_is_recognised_and_what_a_topic_made_anew_holds_is_another() -> None:
    record = Record(key=b"k")
    assert source_id(record) == source_id(replace(record, headers=(("a", b"b"),)))
    assert len(source_id(record)) == 38
    others = [
        replace(record, topic="orders2"),
        replace(record, partition=1),
        replace(record, offset=1),
        replace(record, timestamp=1),
        replace(record, key=None),
        replace(record, key=b""),
        replace(record, value=None),
        replace(record, key=b"k{", value=b"}"),
    ]
    assert len({source_id(one) for one in (record, *others)}) == 1 + len(others)


def test_tombstones_keys_and_times() -> None:
    message = message_of_record(Record(key=b"\xff", value=None, timestamp=-1, partition=3, offset=9))
    assert (message.value, message.time, message.origin.tag, message.origin.offset) == (None, "", "orders/3", 9)
    assert message.attributes["messaging.kafka.message.key"] == b"\xff"
    assert message.attributes["messaging.kafka.message.tombstone"] is True
    assert message_of_record(Record()).time == "2023-11-14T22:13:20.000000000Z"
    assert "messaging.kafka.message.key" not in message_of_record(Record()).attributes


@given(st.integers(-(2**63), 2**63 - 1), st.integers(0, 2**63 - 1), st.binary(max_size=20))
def test_any_record(timestamp: int, offset: int, value: bytes) -> None:
    message = message_of_record(Record(timestamp=timestamp, offset=offset, value=value))
    assert len(message.source_id or b"") == 38
