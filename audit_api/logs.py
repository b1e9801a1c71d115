"""The logs that are served: the ledger's only one, or, where the ledger is cut into shards, each shard's, told apart by trail.

Used by one thread at a time, like the `Evidence` of each log. A ledger that is not cut is one of one log, and answers as it always did.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from audit_api.accesses import DAY_KEY, AccessHistory, PastAccess
from audit_api.evidence import Evidence, SignedTree
from audit_api.identity.scope import EVERYTHING, RowScope, find_seen
from collector.errors import NotFound, Overloaded, VerificationError
from collector.store import EventStore
from correlator.index import TrailIndex, TrailQuery, TrailSummary
from correlator.log import LogReader
from correlator.note import Verifier
from correlator.shards import WHOLE, Shard, shard_of
from correlator.statement import Statement, open_statement
from correlator.statementwriter import continuing
from correlator.storage import LogStorage
from correlator.story import MAX_RELATED, StoryTrails, story
from correlator.trail import parse_trail

__all__ = ["FoundTrails", "LoggedAccess", "Logs", "ServedLog"]

_MAX_LOOKS = 1_000
"""Related trails of one story that are read at most to find those which a principal sees: each is read to know that."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedLog:
    """One log of the ledger with all that it is read with.

    Attributes:
        evidence: its index, its reader and the ledger's store.
        storage: the same log's objects, served under their C2SP paths as they are.
        key: its public key, under its origin.
        shard: which one it is; by default all of the ledger.
    """

    evidence: Evidence
    storage: LogStorage
    key: Verifier
    shard: Shard = WHOLE

    def size(self) -> int:
        """Leaves that are published and indexed; 0 before the first publish. Raises as `Evidence.tree`, but for `NotFound`."""
        try:
            return min(self.evidence.index.size(), self.evidence.tree().size)
        except NotFound:
            return 0


@dataclass(frozen=True, slots=True, kw_only=True)
class LoggedAccess:
    """A past access, and the log that its entry is in."""

    access: PastAccess
    log: ServedLog


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundTrails:
    """A page of a search over several logs.

    Attributes:
        size: leaves of all logs together when the search began.
        trails: each trail with its log, newest first.
        bounds: for each log, below which leaf index the next page goes on; 0: it has no more. Empty: there is no next page.
    """

    size: int
    trails: Sequence[tuple[ServedLog, TrailSummary]]
    bounds: tuple[int, ...]


class Logs:
    """All logs of one ledger.

    Args:
        logs: by shard; one that is no shard, where the ledger is not cut.
        key: the ledger's public key, under the ledger's name.
        monotonic: seconds that only go forward.
        root: where the ledger's root is, for its joint statement; needed where it is cut.

    Raises:
        ValueError: a shard is missing, or there is no root.
    """

    def __init__(
        self,
        logs: Sequence[ServedLog],
        *,
        key: Verifier,
        monotonic: Callable[[], float],
        root: LogStorage | None = None,
    ) -> None:
        self.all = tuple(logs)
        self.key = key
        self._root = root
        self._stated: tuple[bytes, Statement] | None = None
        if [log.shard for log in self.all] != [
            Shard(number=at + 1, count=len(self.all)) for at in range(len(self.all))
        ]:
            raise ValueError("the logs are not those of all shards, in order")
        if self.cut and root is None:
            raise ValueError("a ledger that is cut into shards has a root")
        self._histories = [AccessHistory(evidence=log.evidence, monotonic=monotonic) for log in self.all]

    @classmethod
    def whole(
        cls,
        *,
        index: TrailIndex,
        reader: LogReader,
        storage: LogStorage,
        key: Verifier,
        store: EventStore,
        monotonic: Callable[[], float],
    ) -> "Logs":
        """Of a ledger that is not cut."""
        evidence = Evidence(index=index, reader=reader, store=store)
        return cls([ServedLog(evidence=evidence, storage=storage, key=key)], key=key, monotonic=monotonic)

    @property
    def cut(self) -> bool:
        """Whether there are shards."""
        return len(self.all) > 1

    @property
    def store(self) -> EventStore:
        """The one store of all logs."""
        return self.all[0].evidence.store

    def of(self, trail: str) -> ServedLog:
        """The log that a trail stands in."""
        return self.all[shard_of(trail, len(self.all)) - 1]

    def of_event(self, trail: str, meant: int) -> ServedLog:
        """The log that an event of this trail stands in; `meant`: the number of the shard that it names itself (`Shard.takes`)."""
        return next(log for log in self.all if log.shard.takes(trail, meant))

    def named(self, name: str) -> ServedLog:
        """The log of the shard of this name, such as ``shard-2-of-3``; raises `NotFound`."""
        for log in self.all:
            if log.shard.name == name:
                return log
        raise NotFound(f"the ledger has no log {name[:100]!r}")

    def seen(self, trail: str, scope: RowScope) -> TrailSummary:
        """What the index tells of a trail; raises the same `NotFound` when there is none and when the scope does not see it."""
        try:
            summary = self.of(trail).evidence.index.trail(trail)
        except NotFound:
            summary = None
        if summary is None or not scope.sees(summary):
            raise NotFound(f"there is no trail {trail}")
        return summary

    def story(self, trail: str, scope: RowScope = EVERYTHING) -> StoryTrails:
        """The trails of a trail's story that are seen; raises `NotFound` when there is no such trail.

        A trail whose shard's log has nothing of it yet, though another's links to it already, counts as one without links.
        """
        self.of(trail).evidence.index.is_hub(trail)
        if scope.whole:
            return story(trail, self._summary, self._is_hub)

        def read(name: str) -> TrailSummary:
            told = self._summary(name)
            return replace(told, links=tuple(link for link in told.links if scope.sees_id(link)))

        told = story(trail, read, self._is_hub, most_related=_MAX_LOOKS)
        related, left_out = self._seen_of([one.trail for one in told.related], scope)
        hubs, hubs_left_out = self._seen_of(told.hubs, scope)
        return replace(
            told,
            traces=tuple(one for one in told.traces if scope.sees(self._summary(one))),
            related=tuple(one for one in told.related if one.trail in related),
            related_left_out=left_out + hubs_left_out + told.related_left_out,
            hubs=tuple(hubs),
        )

    def _seen_of(self, trails: Sequence[str], scope: RowScope) -> tuple[list[str], int]:
        """Of these those that are seen, as many as a story tells; and how many more may be, which were not looked at."""
        found: list[str] = []
        for at, trail in enumerate(trails):
            if len(found) == MAX_RELATED:
                return found, len(trails) - at
            if scope.sees(self._summary(trail)):
                found.append(trail)
        return found, 0

    def _summary(self, trail: str) -> TrailSummary:
        try:
            return self.of(trail).evidence.index.trail(trail)
        except NotFound:
            if not self.cut:
                raise
            return TrailSummary(trail=trail, entries=0, first_leaf=-1, last_leaf=-1)

    def _is_hub(self, trail: str) -> bool:
        try:
            return self.of(trail).evidence.index.is_hub(trail)
        except NotFound:
            if not self.cut:
                raise
            return False

    # Accesses ---------------------------------------------------------------------------------------------------------

    def accesses(self, trail: str) -> tuple[list[LoggedAccess], bool]:
        """The latest accesses of a trail, oldest first, and whether none was passed over.

        Each principal's stand in the log that their own trail hashes to, so those of several logs are in the order of their times.
        """
        found = []
        complete = True
        for log, history in zip(self.all, self._histories, strict=True):
            try:
                found += [LoggedAccess(access=access, log=log) for access in history.of(trail)]
            except NotFound:
                if not self.cut:
                    raise
                continue  # that shard has not published anything
            except (Overloaded, VerificationError):
                if not self.cut:
                    raise
                complete = False  # one log's trouble, which /readyz tells, keeps no trail of another from being read
            complete = complete and history.complete
        if self.cut:
            found.sort(key=lambda one: (one.access.time, one.log.shard.number, one.access.leaf))
        return found, complete

    def signed(self, trail: str) -> list[LoggedAccess]:
        """The latest sign-offs of a trail, oldest first; of those that can be read."""
        found = []
        for log, history in zip(self.all, self._histories, strict=True):
            try:
                found += [LoggedAccess(access=access, log=log) for access in history.signed(trail)]
            except NotFound:
                continue  # that log has not published anything
        return sorted(found, key=lambda one: (one.access.time, one.log.shard.number, one.access.leaf))

    def day_signed(self, day: str) -> tuple[list[LoggedAccess], set[str]]:
        """Who signed a day off: the accesses that did, oldest first, of those that were looked at; and all principals, from the index."""
        found: list[LoggedAccess] = []
        principals: set[str] = set()
        for log, history in zip(self.all, self._histories, strict=True):
            page = log.evidence.index.find(TrailQuery(kind="access", key=(DAY_KEY, day)), size=log.size(), limit=50)
            here = {parse_trail(one.trail).value for one in page.trails if log.shard.holds(one.trail)}
            principals |= here
            try:
                found += [LoggedAccess(access=access, log=log) for access in history.day_signed(day, here)]
            except NotFound:
                continue  # that log has not published anything
        return sorted(found, key=lambda one: (one.access.time, one.log.shard.number, one.access.leaf)), principals

    # Search -----------------------------------------------------------------------------------------------------------

    def find(
        self,
        query: TrailQuery,
        *,
        cursor: tuple[int, Sequence[int]] | None = None,
        limit: int = 50,
        scope: RowScope = EVERYTHING,
    ) -> FoundTrails:
        """A page of the trails that match, newest first; with the cursor of the page before those that follow it.

        Newest is whose first entry was recorded last. Within a log that is the order of leaves, so a bound for each log says what was
        told already, whatever is appended meanwhile; between logs it is as good as their correlators' clocks.

        A page ends, and may be short or empty, where the index of a log gave up looking so that others have their turn: what is next there is
        not known, so nothing of another log that is older than that may be told before it.

        Args:
            query: the conditions.
            cursor: `size` and `bounds` of the page before.
            limit: most trails, at least 1.
            scope: what is seen.

        Raises:
            VerificationError: the log holds another entry than it signed where a trail begins.
        """
        sizes = [log.size() for log in self.all]
        size, bounds = (sum(sizes), sizes) if cursor is None else cursor
        after = [min(bound, now) for bound, now in zip(bounds, sizes, strict=True)]
        runs = [
            self._run(log, query, scope, size=now, below=bound, limit=limit)
            for log, now, bound in zip(self.all, sizes, after, strict=True)
        ]
        # each log's next, with when it was recorded; None: the log was looked through down to there, and no further
        heads: dict[int, tuple[str, TrailSummary | None]] = {}
        trails: list[tuple[ServedLog, TrailSummary]] = []
        moved: Sequence[int] = range(len(runs))
        while True:
            for at in moved:
                head = next(runs[at], None)
                if isinstance(head, int):
                    heads[at], after[at] = (self._recorded(at, head), None), head
                elif head is not None:
                    heads[at] = (self._recorded(at, head.first_leaf), head)
            if not heads or len(trails) >= limit:
                break
            newest = max(heads, key=lambda at: (heads[at][0], -at))
            _, told = heads[newest]
            if told is None:
                break
            del heads[newest]
            trails.append((self.all[newest], told))
            after[newest] = told.first_leaf
            moved = (newest,)
        following = tuple(bound if at in heads else 0 for at, bound in enumerate(after)) if heads else ()
        return FoundTrails(size=size, trails=trails, bounds=following)

    def _run(
        self, log: ServedLog, query: TrailQuery, scope: RowScope, *, size: int, below: int | None, limit: int
    ) -> Iterator[TrailSummary | int]:
        """The trails of one log that match, newest first; of those that stand in every log, its own alone.

        Where the index gave up looking before there were `limit` of them, the last is the leaf that it had come down to.
        """
        while below:
            page = find_seen(log.evidence.index, query, scope, size=size, below=below, limit=limit)
            yield from (one for one in page.trails if log.shard.holds(one.trail))
            below = page.next_below
            if below and len(page.trails) < limit:
                yield below
                return

    def _recorded(self, at: int, leaf: int) -> str:
        (one,) = self.all[at].evidence.entries([leaf])
        return one.entry.recorded

    # Trees ------------------------------------------------------------------------------------------------------------

    def trees(self) -> list[SignedTree]:
        """The latest checkpoint of each log that has one, in order."""
        trees = []
        for log in self.all:
            try:
                trees.append(log.evidence.tree())
            except NotFound:
                continue
        return trees

    def statement(self) -> tuple[bytes, Statement]:
        """The joint statement as it was signed, and what it says, once every log was shown to continue it.

        That is shown once for each statement: from then on each log's reader holds it to the tree that was seen.

        Raises:
            NotFound: there is none.
            VerificationError: its signature is false, it is of other shards, or a log does not continue what it says.
        """
        raw = self._root.read_head() if self._root is not None else None
        if raw is None:
            raise NotFound("the ledger has no joint statement")
        if self._stated is not None and self._stated[0] == raw:
            return self._stated
        statement = open_statement(raw, self.key)
        if statement.count != len(self.all):
            raise VerificationError(f"the joint statement is of {statement.count} shards, {len(self.all)} are served")
        for log, known in zip(self.all, statement.trees, strict=True):
            continuing(log.evidence.reader, known)
        self._stated = raw, statement
        return self._stated
