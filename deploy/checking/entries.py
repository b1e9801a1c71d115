"""What the log's entries say, checked from the first leaf to the last against each other and against the event store.

Every trail's chain; every stream's batches, their signatures, keys and chain; and that each logged batch is in the store as it was
signed, with one entry for each of its events, whose bytes say what the entry says. The same functions judge here as in
`correlator.verify`, so that what this passes, a bundle passes.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from collector.batch import BatchHeader, EventRef, SignedHeader, StreamId
from collector.errors import NotFound, VerificationError
from collector.store import EventStore
from correlator.entry import Entry
from correlator.proved import EnrolledKey, check_placement, open_batch_entry, open_enrolment, open_entry, open_event
from correlator.retired import meant_for
from correlator.shards import split_origin
from correlator.streams import StreamState
from correlator.trail import parse_trail
from deploy.checking import DAMAGE, Account, Finding
from deploy.checking.heads import Heads, Last
from deploy.checking.retired import RetiredCheck
from deploy.gaps import gaps_in_words

__all__ = ["EntryCheck"]

_STREAM_ENTRIES = ("batch", "gap", "fork")
_WAITING_A_TURN = 32


@dataclass(slots=True)
class _Stream:
    """A stream as far as the entries told of it: its state, keys, and what the last batch of it still owes, or has `here`."""

    state: StreamState
    keys: dict[str, EnrolledKey] = field(default_factory=dict)
    owed: dict[int, tuple[bytes, bytes | None]] = field(default_factory=dict)
    key: EnrolledKey | None = None
    here: bytearray = field(default_factory=bytearray)
    first: int = 0


class EntryCheck:
    """Give it every entry in order (`visit`), then ask for the rest (`finish`). Findings go to `tell`.

    Args:
        store: the event store.
        origin: the log's, which says of which ledger it is, and which shard of it.
        heads: of no trail yet.
        tell: gets each finding.
        wanted: of which batches the store is asked; None: of all.

    Attributes:
        retired: what was let go of by policy.
    """

    def __init__(
        self,
        *,
        store: EventStore,
        origin: str,
        heads: Heads,
        tell: Callable[[Finding], None],
        wanted: Callable[[BatchHeader], bool] | None = None,
    ) -> None:
        self.retired = RetiredCheck(tell)
        self._wanted = wanted
        self.account = Account()
        self.digests: dict[str, dict[int, str]] = {}
        """For each stream the digest of each logged header, for the check of the spools."""
        self.here: dict[str, dict[int, bytearray]] = {}
        """Of a shard's log: for each stream and logged batch, how often each of its events has an entry here."""
        self._store = store
        self._ledger, self._shard = split_origin(origin)
        self._tell = tell
        # read before the log is: what the log takes in meanwhile may be acknowledged meanwhile
        self._acknowledged = {stream: store.acknowledged(stream) for stream in store.streams()}
        self._heads = heads
        self._streams: dict[str, _Stream] = {}
        self._recorded = ""

    def visit(self, first: int, entries: Sequence[bytes]) -> Iterator[tuple[int, Entry]]:
        """Check these consecutive entries; gives (leaf, entry) of those that can be read."""
        for leaf, data in enumerate(entries, first):
            self.account.leaves += 1
            try:
                entry = open_entry(data, "the entry")
                if not self._shard.may_hold(entry.trail, entry.kind, meant_for(entry)):
                    self._found(entry.trail, "it belongs into another shard's log", leaf)
                self._chain(leaf, entry, data)
                self._content(leaf, entry)
            except VerificationError as error:
                self._found(f"log leaf {leaf}", str(error), leaf)
                continue
            yield leaf, entry

    def finish_batches(self) -> None:
        """What the end shows of the batches that were visited."""
        for name, stream in self._streams.items():
            self._owed_by(name, stream)

    def finish(self) -> None:
        """What only the end shows: what is missing still, and what the store holds beside the log."""
        self.finish_batches()
        self.account.trails = self._heads.trails
        self.account.streams = len(self._streams)
        for name, stream in self._streams.items():
            self._open_gaps(name, stream.state)
        self.retired.finish()
        self.account.retired = self.retired.events
        self._beside()

    # ---------------------------------------------------------------------------------------------------------- entries

    def _found(self, where: str, problem: str, leaf: int = -1) -> None:
        self._tell(Finding(where=where, problem=problem, leaf=leaf))

    def _chain(self, leaf: int, entry: Entry, data: bytes) -> None:
        """The trail's chain: position, and leaf and hash of the entry before; recorded time never goes back."""
        last = Last(position=entry.position, leaf=leaf, hash=hashlib.sha256(b"\x00" + data).digest())
        before = self._heads.follow(entry.trail, last)
        expected = 0 if before is None else before.position + 1
        if entry.position != expected:
            self._found(entry.trail, f"the entry says position {entry.position} where {expected} comes", leaf)
        told = None if entry.previous is None else (entry.previous.leaf, entry.previous.hash)
        if told != (None if before is None else (before.leaf, before.hash.hex())):
            self._found(entry.trail, f"position {entry.position} does not name the entry before it", leaf)
        if entry.recorded < self._recorded:
            self._found(entry.trail, f"recorded {entry.recorded}, before the leaf in front of it", leaf)
        self._recorded = max(self._recorded, entry.recorded)

    def _content(self, leaf: int, entry: Entry) -> None:
        if entry.kind == "event":
            self._event(leaf, entry)
        elif entry.kind == "enrolment":
            key = open_enrolment(entry, "the enrolment")
            stream = self._stream(key.stream)
            stream.state.on_enrolment(entry.detail)
            stream.keys[key.key] = key
        elif entry.kind in _STREAM_ENTRIES:
            name = parse_trail(entry.trail).value
            stream = self._stream(name)
            if entry.kind == "batch":
                self._batch(leaf, entry, stream)
            elif entry.kind == "gap":
                stream.state.on_gap(entry.detail, leaf)
            else:
                stream.state.on_fork(entry.detail, leaf)
                self._found(f"stream {name}", f"a fork: {entry.why}", leaf)

    def _stream(self, name: str) -> _Stream:
        stream = self._streams.get(name)
        if stream is None:
            stream = self._streams[name] = _Stream(state=StreamState(stream=name))
        return stream

    # ---------------------------------------------------------------------------------------------------------- batches

    def _batch(self, leaf: int, entry: Entry, stream: _Stream) -> None:
        signed = open_batch_entry(entry, self._ledger, "the batch")
        header = signed.header
        name = f"stream {header.stream}"
        self.account.batches += 1
        self.retired.batch(leaf, header, signed.digest, entry.recorded)
        self._owed_by(header.stream, stream)
        stream.key = stream.keys.get(header.key)
        if stream.key is None:
            self._found(name, f"batch {header.number} is signed by a key that no earlier entry enrolled", leaf)
        state = stream.state
        gap = state.gap_of(header.number)
        if gap is not None:
            before = gap.before if header.number == gap.first else header.previous
            after = gap.after if header.number == gap.last and gap.after else signed.digest
            if (header.previous, signed.digest) != (before, after):
                self._found(name, f"batch {header.number}, which came late, does not fit into its gap", leaf)
        elif header.number < state.next_number:
            self._found(name, f"batch {header.number} is in the log twice", leaf)
            return
        elif header.number > state.next_number:
            passed = f"batches {state.next_number} to {header.number - 1} are passed over without a gap entry"
            self._found(name, passed, leaf)
        elif header.first != state.next_sequence or not _continues(state, header.previous):
            self._found(name, f"batch {header.number} does not follow batch {header.number - 1}", leaf)
        state.on_batch(header, signed.digest, 0)
        self.digests.setdefault(header.stream, {})[header.number] = signed.digest
        if self._wanted is None or self._wanted(header):
            self._stored(leaf, signed, stream)

    def _stored(self, leaf: int, signed: SignedHeader, stream: _Stream) -> None:
        """The store holds the batch as it was signed; what its events' entries must say is noted down."""
        header = signed.header
        name = f"store, batch {header.number} of stream {header.stream}"
        last = header.first + header.count - 1
        held = f" (events {header.first} to {last})" if header.count else ""
        try:
            stored = self._store.batch(StreamId(header.stream), header.number)
        except DAMAGE as error:
            self._found(name, f"{error}{held}", leaf)
            return
        if stored is None:
            self._found(name, f"it is in the log, and the store has lost it{held}", leaf)
            return
        if stored.data != signed.data:
            self._found(name, f"the store holds another header than the log{held}", leaf)
            return
        refs = [EventRef(stream=StreamId(header.stream), sequence=header.first + at) for at in range(header.count)]
        bodies = self._bodies(leaf, header, refs)
        lines = zip(refs, stored.facts_lines(), bodies, strict=True)
        stream.owed = {ref.sequence: (line, body) for ref, line, body in lines}
        if self._shard.count > 1:
            self.here.setdefault(header.stream, {})[header.number] = stream.here = bytearray(header.count)
            stream.first = header.first

    def _bodies(self, leaf: int, header: BatchHeader, refs: Sequence[EventRef]) -> Sequence[bytes | None]:
        """The events' bytes, None for those that the store cannot give."""
        try:
            return self._store.events(refs)
        except DAMAGE:
            pass
        absent = self._absent(refs)
        more = f" (and {len(refs) - 1} more events of the same batch)" if len(refs) > 1 else ""
        if absent:
            self.retired.absent(leaf, header, f"{absent}{more}")
            return [None] * len(refs)
        bodies: list[bytes | None] = []
        problems: list[str] = []
        for ref in refs:
            try:
                bodies += self._store.events([ref])
            except DAMAGE as error:
                bodies.append(None)
                problems.append(str(error))
        more = f" (and {len(problems) - 1} more events of the same batch)" if len(problems) > 1 else ""
        if problems:
            self._found("store", f"{problems[0]}{more}", leaf)
        return bodies

    def _absent(self, refs: Sequence[EventRef]) -> str:
        """What the store says of these events if it has none of them; by its first, last and middle one."""
        told = ""
        for at in sorted({0, len(refs) // 2, len(refs) - 1}, reverse=True):
            try:
                self._store.events([refs[at]])
            except NotFound as error:
                told = str(error)
            except DAMAGE:
                return ""
            else:
                return ""
        return told

    def _event(self, leaf: int, entry: Entry) -> None:
        self.account.events += 1
        stream = self._stream(entry.stream)
        line, data = stream.owed.pop(entry.sequence, (b"", None))
        if 0 <= entry.sequence - stream.first < len(stream.here):
            at = entry.sequence - stream.first
            stream.here[at] = min(stream.here[at] + 1, 255)
        name = f"event {entry.sequence} of stream {entry.stream}"
        try:
            proved = open_event(entry, data, name)
            if stream.key is not None:
                check_placement(proved, stream.key)
            self.retired.entry(leaf, entry)
        except VerificationError as error:
            self._found("store" if data is not None else "log", str(error), leaf)
            return
        if line and proved.facts_line != line:
            self._found(name, "its entry says other facts than its collector signed", leaf)

    def _owed_by(self, name: str, stream: _Stream) -> None:
        """A batch's events come into the log with it: those that did not are missing. Of shards only all logs together can show it."""
        if stream.owed and self._shard.count == 1:
            first, last = min(stream.owed), max(stream.owed)
            self._found(f"stream {name}", f"{len(stream.owed)} events of {first} to {last} have no entry in the log")
        stream.owed = {}

    # -------------------------------------------------------------------------------------------------------------- end

    def _open_gaps(self, name: str, state: StreamState) -> None:
        for lack in gaps_in_words(state):
            logged = not lack.refused
            self._tell(Finding(where=f"stream {name}", problem=lack.words, leaf=lack.leaf, logged=logged))

    def _beside(self) -> None:
        """What the store holds that the log does not: batches that wait, and a log that forgot what it had promised."""
        for name in self._store.streams():
            state = self._stream(name).state
            logged = (state.missing[0].first if state.missing else state.next_number) - 1
            told = self._acknowledged.get(name, 0)
            if told > logged:
                self._found(
                    f"stream {name}",
                    f"the log once held batch {told}, and now holds {logged}: it was rolled back or replaced",
                )
            try:
                self.account.waiting += self._waiting(name, state.next_number - 1)
            except DAMAGE as error:
                self._found("store", str(error))

    def unlogged(self) -> Iterator[BatchHeader]:
        """The headers in the store that the log does not hold and may take yet: of no stream that it has stopped taking, none that it refused.

        Raises as the store does.
        """
        for name in self._store.streams():
            state = self._stream(name).state
            if state.frozen:
                continue
            for gap in state.missing:
                # what is there is asked for, not each number: a gap may have more of them than a lifetime has seconds
                number = gap.first - 1
                while number < gap.last and (late := self._store.batches_after({name: number}, _WAITING_A_TURN)):
                    for one in late:
                        if one.header.number <= gap.last and not state.told_of(one.header.number):
                            yield one.header
                    number = late[-1].header.number
            number = state.next_number - 1
            while batches := self._store.batches_after({name: number}, _WAITING_A_TURN):
                yield from (one.header for one in batches)
                number = batches[-1].header.number

    def _waiting(self, stream: StreamId, number: int) -> int:
        """How many batches after this number the store holds; a few at a time, since each comes with its facts."""
        waiting = 0
        while batches := self._store.batches_after({stream: number}, _WAITING_A_TURN):
            waiting += len(batches)
            number = batches[-1].header.number
        return waiting


def _continues(state: StreamState, previous: str) -> bool:
    """Whether the next header may name this one as the one before it; behind a gap nobody can know which that was."""
    missing = state.missing
    return previous == state.head or bool(missing and missing[-1].last == state.next_number - 1)
