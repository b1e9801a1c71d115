"""Makes entries: each gets its position and previous entry in its trail, its bytes and its leaf hash, once.

A `Chain` is one publish in the making. It changes the state as it goes; the entries become true when the log has published
them. An event's entry is written from a template, because a general encoder takes several times as long;
``tests/correlator/test_chain.py`` proves the bytes equal to those of `encode_entry`.
"""

import base64
import hashlib
from collections.abc import Sequence
from typing import Any

import msgspec

from collector.batch import SignedHeader
from collector.errors import Malformed
from collector.event import Facts, are_plain, are_safe, decode_facts, encode_facts, format_time
from correlator.entry import Entry, Kind, Previous, encode_entry
from correlator.flow import Verdict
from correlator.flowmetrics import ToldVerdict
from correlator.index import IndexedLeaf
from correlator.index.leaves import EventRun, Leaves
from correlator.state import Head, State
from correlator.stitch import Placement, Stitcher
from correlator.trail import ENROLMENTS, parse_trail, stream_trail

__all__ = ["MAX_FACTS_BYTES", "Chain", "read_facts"]

MAX_FACTS_BYTES = 16_384
"""Longest facts line that is accepted (docs/format.md section 3): an entry's other fields have room beside it, and so have an index's terms."""

_string = msgspec.json.Encoder().encode
_encode_lines = msgspec.json.Encoder(order="sorted").encode_lines
_decode_lines = msgspec.json.Decoder(Facts).decode_lines
_sha256 = hashlib.sha256
_leaf_hash = _sha256(b"\x00").copy  # saves finding the algorithm again for each entry


def read_facts(signed: SignedHeader) -> tuple[Sequence[bytes], Sequence[Facts]]:
    """The facts lines of a batch, as they are and decoded.

    Raises:
        Malformed: a line is too long, cannot be read, or is not canonical: its entry could not be read back.
    """
    lines = signed.facts_lines()
    if len(max(lines, key=len, default=b"")) <= MAX_FACTS_BYTES:
        try:
            # all lines at once: half of the time that it takes one by one
            decoded = _decode_lines(signed.facts)
            if (
                len(decoded) == len(lines)
                and _encode_lines(decoded) == signed.facts
                and _are_usual(signed.facts, decoded)
            ):
                return lines, decoded
        except (ValueError, RecursionError):  # msgspec's errors and UnicodeDecodeError are ValueErrors
            pass
    return lines, _read_one_by_one(signed, lines)


def _are_usual(data: bytes, decoded: Sequence[Facts]) -> bool:
    """Whether the fast encoder's word is enough: no name beyond ASCII, and no large integer."""
    if not data.isascii() and not all(map(are_plain, decoded)):
        return False
    return all(map(are_safe, decoded))


def _read_one_by_one(signed: SignedHeader, lines: Sequence[bytes]) -> Sequence[Facts]:
    """As `read_facts`, and says which line it is that cannot be taken."""
    decoded = []
    for at, line in enumerate(lines):
        if len(line) > MAX_FACTS_BYTES:
            raise Malformed(f"the facts of event {signed.header.first + at} have {len(line)} bytes")
        facts = decode_facts(line)
        if encode_facts(facts) != line or not are_safe(facts):
            raise Malformed(f"the facts of event {signed.header.first + at} are not in canonical form")
        decoded.append(facts)
    return decoded


class Chain:
    """The entries of one publish.

    Attributes:
        entries, hashes: bytes and leaf hashes, in leaf order.
        indexed: the same for the index.
        events: how many of them are events.
        others: those that are no events.
        created: when the batches were cut that brought events, as their headers say.
        late_events: how many of the events filled a gap.
        verdicts: those that were made.

    Args:
        state: read and changed.
        stitcher: places events.
        now_ns: the wall clock. When it went back, `recorded` repeats the log's last time and says so.
    """

    def __init__(self, state: State, stitcher: Stitcher, now_ns: int) -> None:
        self._state = state
        self._stitcher = stitcher
        self.recorded_ns = max(now_ns, state.recorded_ns)
        self._recorded = format_time(self.recorded_ns)
        self._stepped = now_ns < state.recorded_ns
        self.entries: list[bytes] = []
        self.hashes: list[bytes] = []
        self.indexed = Leaves(state.leaves, self.entries)
        self.events = 0
        self.others: list[Entry] = []
        self.created: list[str] = []
        self.late_events = 0
        self.verdicts: list[ToldVerdict] = []
        self._beginning = b'{"clock_stepped":true,"facts":' if self._stepped else b'{"facts":'
        # by id, placements whose links all stand, and how their entries end; held here, so that the id stays theirs
        self._met: dict[int, tuple[Placement, bytes]] = {}
        self._cut = state.shard.count > 1
        self._held: dict[str, bool] = {}

    def add(self, trail: str, kind: Kind, detail: dict[str, Any], why: str = "") -> int:
        """An entry that is no event; returns its leaf index.

        Raises:
            VerificationError: `trail` is no trail id: once published, the entry could never be read back.
        """
        state = self._state
        leaf = state.leaves
        known = state.head(trail)
        if known is None:
            parse_trail(trail)
        entry = Entry(
            v=1,
            trail=trail,
            position=0 if known is None else known.position + 1,
            previous=None if known is None else Previous(leaf=known.leaf, hash=known.hash.hex()),
            kind=kind,
            recorded=self._recorded,
            clock_stepped=self._stepped,
            why=why,
            detail=detail,
        )
        links = (0 if known is None else known.links) + (kind == "link")
        self._append(entry, encode_entry(entry), links)
        return leaf

    def _append(self, entry: Entry, data: bytes, links: int) -> None:
        state = self._state
        leaf = state.leaves
        entry_hash = _sha256(b"\x00" + data).digest()
        state.put_head(entry.trail, Head(entry.position, leaf, entry_hash, links))
        state.leaves = leaf + 1
        state.recorded_ns = self.recorded_ns
        self.entries.append(data)
        self.hashes.append(entry_hash)
        self.indexed.parts.append(IndexedLeaf(leaf=leaf, entry=entry))
        self.others.append(entry)

    def add_batch(self, signed: SignedHeader, lines: Sequence[bytes], facts: Sequence[Facts], why: str = "") -> None:
        """A batch: its own entry in the stream's trail, then its events, each in its trail, and their links.

        Of a ledger that is cut into shards: of the events those of this shard's trails, and of each link this shard's side.
        """
        header = signed.header
        if not len(lines) == len(facts) == header.count:
            raise ValueError(f"{len(lines)} lines and {len(facts)} facts of {header.count} events")
        detail = {"header": signed.data.decode(), "signature": base64.b64encode(signed.signature).decode()}
        self.add(stream_trail(header.stream), "batch", detail, why)
        stream = self._state.stream(header.stream)
        stream.on_batch(header, signed.digest, self.recorded_ns)
        recorder = stream.role == "recorder"
        placements = self._stitcher.place_all(facts, header.stream, recorder=recorder)
        start, count = 0, len(placements)
        before = self.events
        while start < count:
            placed, end = placements[start], start + 1
            fresh = id(placed) not in self._met
            while not fresh and end < count and placements[end] is placed:
                end += 1
            if not self._cut or (self._takes(placed) if placed.shard else self._holds(placed.trail)):
                self._add_events(placed, header.stream, header.first + start, lines[start:end], facts[start:end])
                self.events += end - start
            if fresh:  # its links come right after its first event
                self._ending(placed)
                self._add_links(placed, f"event {header.first + start} of {header.stream}")
            start = end
        if self.events > before:
            self.created.append(header.created)
            self.late_events += self.events - before if why else 0
        if self._state.flows.declared:
            for placed, one in zip(placements, facts, strict=True):
                own = recorder and (one.access is not None or one.retirement is not None)
                if not own and (not self._cut or self._holds(placed.trail)):
                    trails = [placed.trail, *(other for other, _ in placed.links)]
                    self._state.flows.on_event(trails, one, self.recorded_ns)

    def _holds(self, trail: str) -> bool:
        """Whether the trail is of this shard, where there are several; a batch names the same few again and again."""
        known = self._held.get(trail)
        if known is None:
            known = self._held[trail] = self._state.shard.holds(trail)
        return known

    def _takes(self, placed: Placement) -> bool:
        return self._state.shard.takes(placed.trail, placed.shard)

    def _add_events(
        self, placed: Placement, stream: str, sequence: int, lines: Sequence[bytes], facts: Sequence[Facts]
    ) -> None:
        """The entries of a run of events that are placed alike, from this sequence on."""
        state = self._state
        trail, recorded = placed.trail, self._recorded
        beginning, ending = self._beginning, self._ending(placed)
        leaf = state.leaves
        known = state.head(trail)
        position, links = (0, 0) if known is None else (known.position + 1, known.links)
        chained = "" if known is None else _chained(known.hash, known.leaf)
        self.indexed.parts.append(EventRun(leaf=leaf, position=position, trail=trail, facts=facts))
        entry_hash = b""
        for line in lines:
            fields = (
                f',"kind":"event","position":{position},{chained}"recorded":"{recorded}","sequence":{sequence}'
                f',"stream":"{stream}'
            )
            data = beginning + line + fields.encode() + ending
            leaf_hash = _leaf_hash()
            leaf_hash.update(data)
            entry_hash = leaf_hash.digest()
            self.entries.append(data)
            self.hashes.append(entry_hash)
            chained = _chained(entry_hash, leaf)
            position += 1
            sequence += 1
            leaf += 1
        state.put_head(trail, Head(position - 1, leaf - 1, entry_hash, links))
        state.leaves = leaf

    def _ending(self, placed: Placement) -> bytes:
        """How the entry of an event that is placed so ends, from behind the stream's id on."""
        known = self._met.get(id(placed))
        if known is not None:
            return known[1]
        ending = b'","trail":"%b","v":1,"why":%b}' % (placed.trail.encode(), _string(placed.why))
        self._met[id(placed)] = placed, ending
        return ending

    def _add_links(self, placed: Placement, because: str) -> None:
        for other, reason in placed.links:
            mine = not self._cut or self._holds(placed.trail) or self._holds(other)
            if mine and not self._state.linked(placed.trail, other):
                self._add_link(placed.trail, other, f"{reason} ({because})")

    def _add_link(self, one: str, other: str, why: str) -> None:
        for trail, to in ((one, other), (other, one)):
            # a trail of another shard: that one reads the same event, and writes this side of the link into its own log
            if not self._cut or self._holds(trail):
                self.add(trail, "link", {"to": to}, why)
        self._state.put_link(one, other)

    def add_enrolment(self, *, stream: str, key: str, how: str, role: str) -> None:
        """A key may sign for a stream from now on."""
        detail = {"stream": stream, "key": key, "how": how, "role": role}
        self.add(ENROLMENTS, "enrolment", detail, f"the first batch of {stream}")
        self._state.enrol(detail)

    def add_gap(
        self,
        stream: str,
        reason: str,
        *,
        first_number: int,
        last_number: int,
        first_sequence: int,
        last_sequence: int,
        why: str,
    ) -> None:
        """Something of a stream is missing, or cannot be accepted; −1 where a bound is not known."""
        detail = {
            "reason": reason,
            "first_number": first_number,
            "last_number": last_number,
            "first_sequence": first_sequence,
            "last_sequence": last_sequence,
        }
        leaf = self.add(stream_trail(stream), "gap", detail, why)
        self._state.stream(stream).on_gap(detail, leaf)

    def add_fork(self, stream: str, *, number: int, logged: str, found: str, frozen: bool, why: str) -> None:
        """Two headers claim one number of a stream; `frozen`: its own chain broke, nothing more of it is accepted."""
        detail: dict[str, Any] = {"number": number, "logged": logged, "found": found}
        if frozen:
            detail["frozen"] = True
        leaf = self.add(stream_trail(stream), "fork", detail, why)
        self._state.stream(stream).on_fork(detail, leaf)

    def add_verdict(self, trail: str, verdict: Verdict) -> None:
        """What became of a flow in this trail, as far as is known now."""
        detail = {
            "flow": verdict.flow,
            "verdict": verdict.verdict,
            "missing": list(verdict.missing),
            "reason": verdict.reason,
        }
        progress = self._state.flows.progress_of(trail, verdict.flow)
        if progress is not None:
            told = ToldVerdict(verdict.flow, verdict.verdict, progress.currency, revised=bool(progress.verdict))
            self.verdicts.append(told)
        self.add(trail, "verdict", detail)
        self._state.flows.on_verdict(trail, detail)


def _chained(entry_hash: bytes, leaf: int) -> str:
    """The field `previous` of an entry, as it stands inside."""
    return f'"previous":{{"hash":"{entry_hash.hex()}","leaf":{leaf}}},'
