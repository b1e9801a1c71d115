"""A small real ledger, made through our own writers: signed batches, stitched entries, a published log, a store, an index.

`SmallLedger` plays collector and correlator in one process and in the plainest way, so that what reads a ledger (bundles,
verification, the API) can be tested on one without waiting for running processes.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from collector.batch import Batch, BatchHeader, Clock, EventRef, SignedHeader, StreamId, facts_root, sign_header
from collector.event import Event, Facts, encode_event, encode_facts, facts_of, format_time
from collector.store import EventStore
from correlator.entry import Entry, Kind, Previous, decode_entry, encode_entry
from correlator.index import IndexedLeaf, TrailIndex
from correlator.log import AuditLog
from correlator.merkle import leaf_hash
from correlator.note import Signer
from correlator.reader import LogReader
from correlator.stitch import Stitcher
from correlator.storage.memory import MemoryStorage
from correlator.trail import ENROLMENTS, stream_trail

LEDGER = "ledger.example/payments"
START_NS = 1_767_225_600_000_000_000  # 2026-01-01T00:00:00Z

SIGNER = Signer(name=LEDGER, private_key=Ed25519PrivateKey.from_private_bytes(bytes(range(32))))
"""The log's key: a test vector, it protects nothing."""

COLLECTOR_KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(1, 33)))


class _Clock:
    """Moves on by a millisecond whenever it is asked."""

    def __init__(self) -> None:
        self.now_ns = START_NS

    def __call__(self) -> int:
        self.now_ns += 1_000_000
        return self.now_ns


@dataclass
class _Stream:
    number: int = 0
    first: int = 0
    previous: str = ""


@dataclass
class SmallLedger:
    """Collector and correlator in the plainest form; `publish` makes what was shipped visible to readers.

    Args:
        store: takes the batches.
        index: takes the entries.
        measured: what the collectors' next headers say of their clocks.
        heartbeat_seconds: what the next headers promise.
    """

    store: EventStore
    index: TrailIndex
    storage: MemoryStorage = field(default_factory=MemoryStorage)
    clock: _Clock = field(default_factory=_Clock)
    stitcher: Stitcher = field(default_factory=Stitcher)
    measured: Clock | None = None
    heartbeat_seconds: int = 60

    def __post_init__(self) -> None:
        self.log = AuditLog.open(self.storage, SIGNER, clock=self.clock, writer_id="test")
        self.reader = LogReader(self.storage, SIGNER.verifier)
        self._heads: dict[str, tuple[int, Previous]] = {}
        self._streams: dict[str, _Stream] = {}
        self._links: set[frozenset[str]] = set()
        self._pending: list[IndexedLeaf] = []

    def ship(
        self,
        stream: str,
        events: Sequence[Event],
        *,
        role: str = "collector",
        found: Mapping[str, str] | None = None,
        foreign: Mapping[int, bytes] | None = None,
    ) -> list[EventRef]:
        """One batch of `stream`: stored, then stitched. `found` is the rule text of each identity of every event.

        `foreign`: for some events, by place, what stands in their stead as bytes, signed as they would be.
        """
        state = self._streams.setdefault(stream, _Stream())
        if state.number == 0:
            detail = {"stream": stream, "key": _public(COLLECTOR_KEY), "how": "first use", "role": role}
            self._add(trail=ENROLMENTS, kind="enrolment", detail=detail)
        state.number += 1
        encoded = [encode_event(event, exact=True) for event in events]
        for at, other in (foreign or {}).items():
            encoded[at] = other, hashlib.sha256(other).hexdigest()
        facts = [facts_of(event, digest, dict(found or {})) for event, (_, digest) in zip(events, encoded, strict=True)]
        lines = [encode_facts(one) for one in facts]
        header = BatchHeader(
            v=1,
            ledger=LEDGER,
            stream=stream,
            number=state.number,
            first=state.first,
            count=len(events),
            previous=state.previous,
            facts_root=facts_root(lines),
            key=_public(COLLECTOR_KEY),
            created=format_time(self.clock()),
            clock=self.measured,
            place="",
            heartbeat_seconds=self.heartbeat_seconds,
            closed=False,
            fork=None,
        )
        signed = sign_header(header, COLLECTOR_KEY, b"".join(line + b"\n" for line in lines))
        data = [one for one, _ in encoded]
        self.store.append(Batch(signed=signed, events=b"".join(data), lengths=[len(one) for one in data]))
        state.first += len(events)
        state.previous = signed.digest
        self.add_batch(signed)
        refs = [EventRef(stream=StreamId(stream), sequence=header.first + at) for at in range(len(events))]
        for ref, one in zip(refs, facts, strict=True):
            self.add_event(ref, one, recorder=role == "recorder")
        return refs

    def add_batch(self, signed: SignedHeader) -> None:
        """The entry of a batch header."""
        detail = {"header": signed.data.decode(), "signature": base64.b64encode(signed.signature).decode()}
        self._add(trail=stream_trail(signed.header.stream), kind="batch", detail=detail)

    def add_event(self, ref: EventRef, facts: Facts, *, recorder: bool = False) -> None:
        """The entry of an event, and the links that it makes."""
        place = self.stitcher.place(facts, ref.stream, recorder=recorder)
        self._add(
            trail=place.trail,
            kind="event",
            why=place.why,
            stream=ref.stream,
            sequence=ref.sequence,
            facts=msgspec.Raw(encode_facts(facts)),
        )
        for other, why in place.links:
            pair = frozenset((place.trail, other))
            if pair not in self._links:
                self._links.add(pair)
                reason = f"event {ref.sequence} of {ref.stream}: {why}"
                self._add(trail=place.trail, kind="link", why=reason, detail={"to": other})
                self._add(trail=other, kind="link", why=reason, detail={"to": place.trail})

    def add_verdict(self, trail: str, verdict: str, missing: Sequence[str] = ()) -> None:
        """A verdict entry."""
        detail = {"flow": "payment", "verdict": verdict, "missing": list(missing), "reason": "deadline passed"}
        self._add(trail=trail, kind="verdict", detail=detail)

    def _add(self, *, trail: str, kind: Kind, **fields: Any) -> None:
        position, previous = self._heads.get(trail, (0, None))
        recorded = format_time(self.clock())
        entry = Entry(v=1, trail=trail, position=position, previous=previous, kind=kind, recorded=recorded, **fields)
        data = encode_entry(entry)
        leaf = self.log.next_leaf_index
        self.log.append([data])
        self._heads[trail] = (position + 1, Previous(leaf=leaf, hash=leaf_hash(data).hex()))
        self._pending.append(IndexedLeaf(leaf=leaf, entry=decode_entry(data)))

    def publish(self) -> None:
        """Publish, then index."""
        self.log.publish()
        self.index.apply(self._pending)
        self._pending = []


def _public(key: Ed25519PrivateKey) -> str:
    return key.public_key().public_bytes_raw().hex()


def payment(number: int, step: int, service: str, name: str, **fields: Any) -> Event:
    """One step of a payment: `step` seconds after it began, in the payment's own trace unless `fields` say otherwise."""
    time = format_time(START_NS + number * 60_000_000_000 + step * 1_000_000_000)
    given: dict[str, Any] = {
        "time": time,
        "observed": time,
        "event_name": name,
        "resource": {"service.name": service},
        "transaction": f"PAY-{number}",
        "trace_id": f"{number + 1:032x}",
        "span_id": f"{step + 1:016x}",
        "attributes": {"amount": 1250, "currency": "EUR"},
    }
    return Event(**(given | fields))


def small_story(ledger: SmallLedger, payments: int = 3) -> None:
    """Some payments over two services: each with events of its own, one that only its trace names, a key, and a verdict."""
    for number in range(payments):
        ledger.ship(
            "gateway/00000000000000aa",
            [
                payment(number, 0, "gateway", "payment.requested", keys={"order_id": f"O-{number}"}, actor="ann"),
                payment(number, 1, "gateway", "http.request", transaction=""),
            ],
            found={"transaction": "attributes.payment_id", "order_id": "attributes.order_id"},
        )
        ledger.ship(
            "ledger/00000000000000bb",
            [
                payment(number, 2, "ledger", "payment.booked", outcome="success", body="übertragen"),
                payment(number, 3, "ledger", "cache.miss", transaction="", trace_id="", span_id=""),
            ],
            found={"transaction": "baggage"},
        )
        verdict = "complete" if number % 2 == 0 else "incomplete"
        ledger.add_verdict(f"transaction/PAY-{number}", verdict, () if number % 2 == 0 else ("notified",))
    ledger.publish()
