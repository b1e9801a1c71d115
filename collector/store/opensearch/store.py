"""`EventStore` on an OpenSearch cluster.

A batch is stored by three requests: has its number been taken (a real-time get)? then its events and facts; then its
signed header, which is what makes it stored. What a crash in between leaves: events and facts without a header, which
nobody is shown; the shipper sends the same batch again, finds them there, and adds the header.

Batches and events are read by id with real-time gets, never by searching, because a search does not see what was written
just now. An answer that is not whole is `Overloaded`, never an absence.
"""

import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import accumulate, pairwise

import msgspec

from collector.batch import Batch, BatchHeader, EventRef, SignedHeader, StreamId
from collector.errors import Conflict, NotFound, Overloaded, StateUnknown, VerificationError
from collector.store.opensearch import documents
from collector.store.opensearch.connection import Connection, Document, Refusal, path_of
from collector.store.opensearch.headers import Headers, place_of
from collector.store.opensearch.hearing import Watch
from collector.store.opensearch.layout import Layout
from collector.store.opensearch.registry import Registry, registry_document, registry_id
from collector.store.opensearch.writing import Creation, create, raise_number, settle
from collector.store.settings import StoreSettings

__all__ = ["OpenSearchStore"]

_EVENTS_A_GET = 128
_KNOWN_BATCHES = 65_536
_LOOK_BEYOND_SECONDS = 1.0


class _Settings(msgspec.Struct):
    settings: dict[str, str]


class _Acknowledged(msgspec.Struct):
    number: int


class OpenSearchStore:
    """`collector.store.EventStore` on OpenSearch; makes the indexes that are missing.

    Args:
        settings: where the cluster is, and how its indexes are made.
        read_only: for reading alone; the indexes must be there.
        late: ask the cluster nothing yet; it is looked at, and what is missing is made, before the first use. For who has
            something to do while it is down: each method then raises what is told below.
        watch: is told of every request.
        clock: monotonic seconds.
        look_beyond_seconds: how often it is asked whether a stream goes on behind a gap that is larger than the numbers
            asked for; a smaller gap is seen at once.

    Raises:
        NotFound: to be read alone, and there is no store yet.
        Overloaded: the cluster does not answer.
        StateUnknown: an index of our name was not made by us.
        OSError: a certificate or the password's file cannot be read.
    """

    keeps_headers = True

    def __init__(
        self,
        settings: StoreSettings,
        *,
        read_only: bool = False,
        late: bool = False,
        watch: Watch | None = None,
        clock: Callable[[], float] = time.monotonic,
        look_beyond_seconds: float = _LOOK_BEYOND_SECONDS,
    ) -> None:
        self._layout = Layout(prefix=settings.prefix, shards=settings.shards, replicas=settings.replicas)
        self._copies = settings.copies
        self._connection = Connection(settings, watch=watch)
        self._headers = Headers(self._connection, self._layout, clock=clock, look_beyond_seconds=look_beyond_seconds)
        self._registry = Registry(self._connection, self._layout.streams)
        self._read_only = read_only
        self._ready: set[str] = set()
        self._registered: set[str] = set()
        self._headed: OrderedDict[tuple[StreamId, int], None] = OrderedDict()
        if late:
            return
        try:
            self._open()
        except BaseException:
            self._connection.close()
            raise

    def close(self) -> None:
        """See `EventStore.close`."""
        self._connection.close()

    # ------------------------------------------------------------------------------------------------------------ writing

    def place(self, created: str) -> str:
        """The index of the month."""
        return self._layout.place(created)

    def append(self, batch: Batch) -> None:
        """See `EventStore.append`."""
        self._open()
        header = batch.signed.header
        if self._is_stored(batch.signed):
            settle(self._connection, self._layout.batches)
            return
        place = place_of(header, self._layout)
        self._must_be_ours(place if header.count else "")
        self._register(StreamId(header.stream), place)
        facts = documents.facts_documents(batch.signed.facts)
        if header.count:
            index = self._layout.facts(place)
            digest = batch.signed.digest
            more = [
                Creation(
                    index=index, id=documents.facts_id(header.stream, header.number, digest, part), document=facts[part]
                )
                for part in range(len(facts))
            ]
            self._create_events(batch, place, more)
        # a crash before this line: not stored. After it: stored, and a repeat finds it
        document = documents.header_document(batch.signed, len(facts))
        id_ = documents.header_id(header.stream, header.number)
        outcome = create(
            self._connection, [Creation(index=self._layout.batches, id=id_, document=document)], copies=self._copies
        )
        self._must_not_refuse(outcome.refused)
        if outcome.taken:
            if not self._is_stored(batch.signed):
                raise StateUnknown(f"{self._connection.name} has and has not batch {header.number} of {header.stream}")
            settle(self._connection, self._layout.batches)

    def _is_stored(self, signed: SignedHeader) -> bool:
        """Whether this header is there. Raises `Conflict` when another is there under its number, or what is no header at all."""
        header = signed.header
        try:
            data = self._headers.data(StreamId(header.stream), header.number)
        except VerificationError as error:
            raise Conflict(str(error)) from error
        if data is None:
            return False
        if data != signed.data:
            raise Conflict(f"another batch {header.number} of stream {header.stream} is stored already")
        return True

    def _create_events(self, batch: Batch, place: str, more: Iterable[Creation]) -> None:
        header = batch.signed.header
        offsets = list(accumulate(batch.lengths, initial=0))
        bodies = [batch.events[start:end] for start, end in pairwise(offsets)]
        creations = [
            Creation(
                index=place,
                id=documents.event_id(header.stream, sequence),
                document=documents.event_document(body, sequence, header),
            )
            for sequence, body in enumerate(bodies, header.first)
        ]
        outcome = create(self._connection, [*creations, *more], copies=self._copies)
        taken = list(outcome.taken)
        if outcome.refused:
            # the mapping will not have them: kept as bytes, for what has a number is always storable
            self._must_not_refuse([one for one in outcome.refused if one[0] >= len(creations)])
            raws = [
                Creation(
                    index=place,
                    id=creations[at].id,
                    document=documents.raw_event_document(bodies[at], header.first + at, header, reason),
                )
                for at, reason in outcome.refused
            ]
            again = create(self._connection, raws, copies=self._copies)
            self._must_not_refuse(again.refused)
            taken += [outcome.refused[at][0] for at in again.taken]
        known = set(taken)
        unindexed = sum(at not in known and documents.is_unindexed(one.document) for at, one in enumerate(creations))
        fresh = sum(at not in known for at, _ in outcome.refused)
        if unindexed or fresh:
            self._connection.watch.unindexed(unindexed + fresh)
        # facts are named after their header, so what is there is the same; an event's id is another's if the spool was cloned
        self._must_be_the_same(header, creations, bodies, [at for at in taken if at < len(creations)])
        if taken:
            settle(self._connection, place, self._layout.facts(place))

    def _must_be_the_same(
        self, header: BatchHeader, creations: Sequence[Creation], bodies: Sequence[bytes], taken: Sequence[int]
    ) -> None:
        for start in range(0, len(taken), _EVENTS_A_GET):
            some = taken[start : start + _EVENTS_A_GET]
            found = self._connection.documents([(creations[at].index, creations[at].id) for at in some])
            for at, one in zip(some, found, strict=True):
                name = f"event {header.first + at} of stream {header.stream}"
                if not one.found:
                    raise StateUnknown(f"{self._connection.name} has and has not {name}")
                try:
                    stored = documents.stored_event(bytes(one.source), name)
                except VerificationError as error:
                    raise Conflict(str(error)) from error
                if stored.data != bodies[at] or stored.batch != header.number:
                    raise Conflict(f"another {name} is stored already, for batch {stored.batch}")

    def _register(self, stream: StreamId, place: str) -> None:
        id_ = registry_id(stream, place)
        if id_ in self._registered:
            return
        creation = Creation(index=self._layout.streams, id=id_, document=registry_document(stream, place))
        self._must_not_refuse(create(self._connection, [creation], copies=self._copies).refused)
        self._registered.add(id_)

    def _must_not_refuse(self, refused: Sequence[tuple[int, str]]) -> None:
        if refused:
            raise StateUnknown(
                f"{self._connection.name} refuses a document that is always to be taken: {refused[0][1]}"
            )

    def _open(self) -> None:
        for index in self._layout.fixed():
            self._make_ready(index)

    def _must_be_ours(self, place: str) -> None:
        """The indexes that a batch goes to are there, and append-only: asked before each, in one small request.

        A bulk makes an index that is missing, and not as we do. So one that was dropped since the last batch (a month that was
        retired, an administrator's mistake) must be made by us first. Index templates and `action.auto_create_index` close the
        moment between this look and the bulk; without them, an index that came by itself then is found by the next batch.
        """
        indexes = [self._layout.streams, self._layout.batches]
        if place:
            indexes += [place, self._layout.facts(place)]
        if not set(indexes) <= self._ready:
            for index in indexes:
                self._make_ready(index)
            return
        try:
            self._check(*indexes)
        except Refusal as refusal:
            if refusal.status != 404:
                raise
            self._ready.difference_update(indexes)
            self._registered.clear()
            for index in indexes:
                self._make_ready(index)

    def _make_ready(self, index: str) -> None:
        """The index is there and as we make it; a writer makes it when it is not."""
        if index in self._ready:
            return
        try:
            self._check(index)
        except Refusal as refusal:
            if refusal.status != 404:
                raise
            if self._read_only:
                raise NotFound(
                    f"{self._connection.name}: no event store with the prefix {self._layout.prefix} yet"
                ) from refusal
            try:
                self._connection.ask("PUT", path_of(index), self._layout.body(index))
            except Refusal as other:
                if other.kind != "resource_already_exists_exception":
                    raise
            self._check(index)
        self._ready.add(index)

    def _check(self, *indexes: str) -> None:
        # a node's own word will do: it knows of every index that it has written to
        params = {"flat_settings": "true", "local": "true"}
        path = path_of(",".join(indexes), "_settings", "index.append_only.enabled")
        answer = self._connection.json(dict[str, _Settings], "GET", path, params=params)
        for index in indexes:
            if self._layout.is_append_only(index):
                name, found = index, answer.get(index, _Settings(settings={}))
                if found.settings.get("index.append_only.enabled") != "true":
                    raise StateUnknown(f"{name} can be changed: it is not append-only, so it was not made by us")

    def acknowledge(self, frontier: Mapping[StreamId, int], *, part: int = 1, parts: int = 1) -> None:
        """See `EventStore.acknowledge`.

        Each shard has a number of its own. It raises that one, then the stream's to the least of all. Of two shards that do so at
        once, the one whose own number came later reads both; a crash in between is made good by the next word, or the next start.
        """
        self._open()
        wanted = {stream: number for stream, number in frontier.items() if number > 0}
        if not set(wanted) <= set(self._registry.streams()):
            self._registry.read()
            known = set(self._registry.streams())
            wanted = {stream: number for stream, number in wanted.items() if stream in known}
        if not wanted:
            return
        try:
            if parts > 1:
                shares = {_share(stream, part, parts): number for stream, number in wanted.items()}
                raise_number(self._connection, self._layout.acknowledged, shares)
                wanted = self._least(list(wanted), parts)
            if wanted:
                raise_number(self._connection, self._layout.acknowledged, wanted)
        except Overloaded:
            self._ready.discard(self._layout.acknowledged)  # it may be gone: the next call looks
            raise

    def _least(self, streams: Sequence[StreamId], parts: int) -> dict[StreamId, int]:
        """What every shard has given its word for; a stream of which one has said nothing is left out."""
        shares = [_share(stream, part, parts) for stream in streams for part in range(1, parts + 1)]
        told = self._connection.documents([(self._layout.acknowledged, share) for share in shares])
        numbers = [self._number(one) for one in told]
        least = {stream: min(numbers[at * parts : at * parts + parts]) for at, stream in enumerate(streams)}
        return {stream: number for stream, number in least.items() if number > 0}

    # ------------------------------------------------------------------------------------------------------------ reading

    def acknowledged(self, stream: StreamId) -> int:
        """See `EventStore.acknowledged`."""
        self._open()
        (found,) = self._connection.documents([(self._layout.acknowledged, stream)])
        return self._number(found)

    def _number(self, one: Document) -> int:
        """The number in a document, 0 if it is not there. What is none is no answer: a log that gives its word writes over it."""
        if not one.found:
            return 0
        try:
            return msgspec.json.decode(one.source, type=_Acknowledged).number
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            where = f"the document {one.id} of {one.index}"
            raise Overloaded(f"{self._connection.name}: {where} is not of our making: {error}") from error

    def streams(self) -> Sequence[StreamId]:
        """See `EventStore.streams`. A stream is there from before its first batch is: nobody can miss one."""
        self._open()
        self._registry.read()
        return self._registry.streams()

    def batch(self, stream: StreamId, number: int) -> SignedHeader | None:
        """See `EventStore.batch`."""
        self._open()
        found = self._headers.read([(stream, number)])
        return found[0] if found else None

    def batches_after(self, frontier: Mapping[StreamId, int], limit: int) -> Sequence[SignedHeader]:
        """See `EventStore.batches_after`. A gap of more than `limit` numbers is passed after `look_beyond_seconds`."""
        self._open()
        return self._headers.after(frontier, limit)

    def events(self, refs: Sequence[EventRef]) -> Sequence[bytes]:
        """See `EventStore.events`."""
        self._open()
        found: list[bytes] = []
        for at in range(0, len(refs), _EVENTS_A_GET):
            found += self._events(refs[at : at + _EVENTS_A_GET])
        return found

    def _events(self, refs: Sequence[EventRef]) -> list[bytes]:
        found: dict[EventRef, documents.StoredEvent] = {}
        if not all(self._registry.places(ref.stream) for ref in refs):
            self._registry.read()
        self._find(refs, found, 1)
        if len(found) < len(set(refs)):
            self._registry.read()  # a month has begun meanwhile
            self._find([ref for ref in refs if ref not in found], found, None)
        for ref in refs:
            if ref not in found:
                raise NotFound(f"event {ref.sequence} of stream {ref.stream} is not in the store")
        self._must_have_headers(found)
        return [found[ref].data for ref in refs]

    def _find(self, refs: Sequence[EventRef], found: dict[EventRef, documents.StoredEvent], months: int | None) -> None:
        """Look for the events in the latest so many months in which their streams wrote; None: in all of them."""
        wanted = [(ref, place) for ref in dict.fromkeys(refs) for place in self._registry.places(ref.stream)[:months]]
        places = [(place, documents.event_id(ref.stream, ref.sequence)) for ref, place in wanted]
        for (ref, _), one in zip(wanted, self._connection.documents(places, retired=True), strict=True):
            if one.found:
                name = f"event {ref.sequence} of stream {ref.stream}"
                stored = documents.stored_event(bytes(one.source), name)
                if (stored.stream, stored.sequence) != (ref.stream, ref.sequence):
                    raise VerificationError(f"{name} in the store: its document is another event's")
                found[ref] = stored

    def _must_have_headers(self, found: Mapping[EventRef, documents.StoredEvent]) -> None:
        """An event whose batch has no header is not stored: its sending was broken off."""
        named = {(ref.stream, stored.batch): ref for ref, stored in found.items()}
        missing = self._headers.missing([one for one in named if one not in self._headed])
        for one in missing:
            ref = named[one]
            raise NotFound(f"event {ref.sequence} of stream {ref.stream} is not in the store: its batch is not whole")
        self._headed.update(dict.fromkeys(named))
        while len(self._headed) > _KNOWN_BATCHES:
            self._headed.popitem(last=False)


def _share(stream: StreamId, part: int, parts: int) -> StreamId:
    """The id of the document that says what one shard's log holds of a stream; no stream is called so."""
    return StreamId(f"{stream} {part}/{parts}")
