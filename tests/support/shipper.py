"""Makes the batches of a stream as a collector would, in the plainest way, for tests of what comes after."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from collector.batch import Batch, BatchHeader, Fork, facts_root, sign_header
from collector.event import Event, encode_event, encode_facts, facts_of, format_time

LEDGER = "ledger.example/test"
START_NS = 1_767_225_600_000_000_000  # 2026-01-01T00:00:00Z
TRACE = "0af7651916cd43dd8448eb211c80319c"


def key_of(seed: int) -> Ed25519PrivateKey:
    """A key that protects nothing."""
    return Ed25519PrivateKey.from_private_bytes(bytes([seed]) * 32)


class Shipper:
    """One stream. `batch` makes the next batch; appending it to a store is the test's."""

    def __init__(
        self,
        stream: str = "gateway/0123456789abcdef",
        *,
        key: Ed25519PrivateKey | None = None,
        ledger: str = LEDGER,
        heartbeat_seconds: int = 60,
    ) -> None:
        self.stream = stream
        self._key = key or key_of(1)
        self._ledger = ledger
        self._heartbeat_seconds = heartbeat_seconds
        self.number = 0
        self.sequence = 0
        self.previous = ""

    @property
    def public(self) -> str:
        """The public key, hex."""
        return self._key.public_key().public_bytes_raw().hex()

    def batch(
        self,
        *events: Event,
        found: Mapping[str, str] | None = None,
        closed: bool = False,
        fork: Fork | None = None,
        **changed: Any,
    ) -> Batch:
        """The next batch; `changed` header fields lie, as a tamperer who has the key would."""
        encoded = [encode_event(event, exact=True) for event in events]
        lines = [
            encode_facts(facts_of(event, digest, dict(found or {})))
            for event, (_, digest) in zip(events, encoded, strict=True)
        ]
        self.number += 1
        fields: dict[str, Any] = {
            "v": 1,
            "ledger": self._ledger,
            "stream": self.stream,
            "number": self.number,
            "first": self.sequence,
            "count": len(events),
            "previous": self.previous,
            "facts_root": facts_root(lines),
            "key": self.public,
            "created": format_time(START_NS + self.number * 1_000_000_000),
            "clock": None,
            "place": "",
            "heartbeat_seconds": self._heartbeat_seconds,
            "closed": closed,
            "fork": fork,
        }
        signed = sign_header(BatchHeader(**(fields | changed)), self._key, b"".join(line + b"\n" for line in lines))
        self.sequence += len(events)
        self.previous = signed.digest
        data = [one for one, _ in encoded]
        return Batch(signed=signed, events=b"".join(data), lengths=[len(one) for one in data])

    def clone(self) -> Shipper:
        """A copy that goes on from here, as a cloned spool would."""
        other = Shipper(self.stream, key=self._key, ledger=self._ledger, heartbeat_seconds=self._heartbeat_seconds)
        other.number, other.sequence, other.previous = self.number, self.sequence, self.previous
        return other


def pay(transaction: str = "", **fields: Any) -> Event:
    """An event of a payment service."""
    service = fields.pop("service", "gateway")
    return Event(transaction=transaction, resource={"service.name": service} if service else {}, **fields)


def texts(events: Sequence[Event]) -> list[bytes]:
    """The events' canonical bytes."""
    return [encode_event(event, exact=True)[0] for event in events]
