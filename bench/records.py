"""The load: payment events as a service's Fluent logger sends them, the same at every run."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from hashlib import sha256
from typing import Any

import msgpack

__all__ = ["EVENTS_A_TRANSACTION", "chunk_message", "record", "single_message"]

EVENTS_A_TRANSACTION = 20
_START_SECONDS = 1_700_000_000


def record(at: int, a_transaction: int = EVENTS_A_TRANSACTION) -> dict[str, Any]:
    """The record of event number `at`: `a_transaction` events a transaction, in one trace, of five services."""
    transaction = at // a_transaction
    return {
        "service.name": ("gateway", "payments", "ledger", "risk", "notifications")[at % 5],
        "event_name": f"payment.step{at % EVENTS_A_TRANSACTION}",
        "message": f"step {at % EVENTS_A_TRANSACTION} of the payment is done, the balance was checked and the amount reserved",
        "level": "INFO",
        "http.status_code": 200,
        "order_id": f"order-{transaction:x}",
        "user": "alice",
        "amount": "12.50",
        "currency": "EUR",
        "transaction_id": f"tx-{transaction}",
        # random-looking, as real ids are: the card scan must not be measured on runs of zeros
        "trace_id": sha256(b"trace %d" % transaction).hexdigest()[:32],
        "span_id": sha256(b"span %d" % at).hexdigest()[:16],
    }


def _entry(at: int, a_transaction: int = EVENTS_A_TRANSACTION) -> list[Any]:
    return [
        msgpack.ExtType(0, struct.pack(">II", _START_SECONDS + at // 1000, at % 1000 * 1_000_000)),
        record(at, a_transaction),
    ]


def chunk_message(first: int, count: int, *, chunk: str, a_transaction: int = EVENTS_A_TRANSACTION) -> bytes:
    """A PackedForward message of `count` events with a chunk id, which asks for an ack."""
    entries = b"".join(msgpack.packb(_entry(at, a_transaction)) for at in range(first, first + count))
    return bytes(msgpack.packb(["payments.app", entries, {"chunk": chunk, "size": count}]))


def single_message(at: int, *, chunk: str) -> bytes:
    """A Message of one event with a chunk id."""
    time, fields = _entry(at)
    return bytes(msgpack.packb(["payments.app", time, fields, {"chunk": chunk}]))


def records_packed(count: int, size: int) -> Iterator[bytes]:
    """The same events as MessagePack arrays of `size` records: what the floor decodes."""
    for first in range(0, count, size):
        yield msgpack.packb([record(at) for at in range(first, min(first + size, count))])
