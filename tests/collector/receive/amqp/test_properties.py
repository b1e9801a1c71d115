"""Frames whose properties AMQP permits: each is read, for one that is not would end the connection each time it comes."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pamqp import commands, frame, header

from collector.receive.amqp.properties import UNREADABLE, read_all_properties

TIMESTAMP, HEADERS, MESSAGE_ID = (commands.Basic.Properties.flags[one] for one in ("timestamp", "headers", "message_id"))  # fmt: skip


def properties_of(flags: int, encoded: bytes) -> Any:
    """What the library reads of a content header, as a broker sends it."""
    read_all_properties()
    content = b"\0\x3c\0\0" + (1).to_bytes(8) + flags.to_bytes(2) + encoded
    _, _, read = frame.unmarshal(b"\x02\0\x01" + len(content).to_bytes(4) + content + b"\xce")
    assert isinstance(read, header.ContentHeader)
    return read.properties


@pytest.mark.parametrize(
    ("number", "time"),
    [
        (0, datetime(1970, 1, 1, tzinfo=UTC)),
        (1_700_000_000, datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC)),
        (1_700_000_000_999, datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC)),
        (1_700_000_000_000_000, datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC)),
        (1_700_000_000_000_000_000, datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC)),
        (2**63, None),
        (2**64 - 1, None),  # -1, to a publisher that counts with a sign
    ],
)
def test_a_time_is_told_by_its_size(number: int, time: datetime | None) -> None:
    assert properties_of(TIMESTAMP, number.to_bytes(8)).timestamp == time


@given(st.integers(0, 2**64 - 1))
def test_any_time_is_read(number: int) -> None:
    properties_of(TIMESTAMP, number.to_bytes(8))


@given(st.binary(max_size=200))
def test_any_headers_and_any_name_are_read(data: bytes) -> None:
    properties = properties_of(HEADERS | MESSAGE_ID, len(data).to_bytes(4) + data + bytes([len(data)]) + data)
    assert properties.message_id == data.decode("utf-8", "surrogateescape")
    assert isinstance(properties.headers, dict)


def test_headers_that_cannot_be_read_are_kept_as_bytes() -> None:
    table = b"\x01\xffI\0\0\0\x01"
    assert properties_of(HEADERS, len(table).to_bytes(4) + table).headers == {UNREADABLE: table}
    deep = b""
    for _ in range(5_000):
        deep = b"\x01aF" + len(deep).to_bytes(4) + deep
    assert properties_of(HEADERS, len(deep).to_bytes(4) + deep).headers == {UNREADABLE: deep}
    assert properties_of(HEADERS, b"\0\0\0\x0b\x01tT" + (1_700_000_000_000_000).to_bytes(8)).headers == {
        "t": datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC)
    }
