"""The trail index checked against the log: made anew beside it, and compared row by row."""

import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from correlator.entry import Entry
from correlator.errors import NotFound, Overloaded, StateUnknown
from correlator.index import IndexedLeaf, TrailIndex, TrailQuery, TrailSummary
from correlator.index.sqlite import SqliteIndex
from deploy.checking import DAMAGE, Finding
from deploy.checking.tables import table_differences

__all__ = ["IndexCheck", "index_check"]

_LEAVES_A_TURN = 8_192
_TRAILS_A_PAGE = 1_000
_MAX_FINDINGS = 100


class IndexCheck:
    """Give it the log's entries in order (`visit`), then compare (`finish`).

    Args:
        index: the index in question; it may grow meanwhile.
        fresh: an empty one.
        tables: gives the differences of what is searched: called with the size, and whether the index has grown meanwhile.
        tell: gets each finding.
    """

    def __init__(
        self,
        *,
        index: TrailIndex,
        fresh: TrailIndex,
        tables: Callable[[int, bool], Iterable[tuple[str, str]]],
        tell: Callable[[Finding], None],
    ) -> None:
        self._index = index
        self._fresh = fresh
        self._tables = tables
        self._tell = tell
        self._size = index.size()
        self._turn: list[IndexedLeaf] = []
        self._told = 0
        self._next = 0
        self._holes = False

    def visit(self, leaf: int, entry: Entry) -> None:
        """The log's next entry; one that could not be read is left out, and then nothing is compared in the end."""
        self._holes = self._holes or leaf != self._next
        self._next = leaf + 1
        if leaf < self._size and not self._holes:
            self._turn.append(IndexedLeaf(leaf=leaf, entry=entry))
            if len(self._turn) >= _LEAVES_A_TURN:
                self._apply()

    def _apply(self) -> None:
        turn, self._turn = self._turn, []
        self._fresh.apply(turn)

    def finish(self, *, log_holds: bool) -> None:
        """Compare, unless what was visited is known not to be what the log once held (`log_holds` false)."""
        if self._holes or not log_holds:
            return
        self._apply()
        if self._fresh.size() < self._size:
            self._found("", f"it has {self._size} leaves, and the log only {self._fresh.size()}: it is of another log")
            return
        theirs = _by_trail(self._index, self._size)
        moved = self._index.size() != self._size
        for ours in _trails(self._fresh, self._size):
            found = theirs.pop(ours.trail, None)
            if found is None:
                self._found(ours.trail, "the index does not know it")
            elif found != ours and not (moved and _grown(found, ours)):
                fields = [
                    name for name in TrailSummary.__dataclass_fields__ if getattr(found, name) != getattr(ours, name)
                ]
                self._found(ours.trail, f"the index says otherwise of it than the log: {', '.join(fields)}")
            elif self._leaves(self._index, ours) != self._leaves(self._fresh, ours):
                self._found(ours.trail, "the index names other leaves than the log has of it")
        for trail in theirs:
            self._found(trail, "the index knows it, and the log does not")
        for trail, problem in self._tables(self._size, moved or self._index.size() != self._size):
            self._found(trail, problem)

    def _leaves(self, index: TrailIndex, summary: TrailSummary) -> list[int]:
        return list(index.leaves(summary.trail, limit=summary.entries, size=self._size))

    def _found(self, trail: str, problem: str) -> None:
        self._told += 1
        if self._told <= _MAX_FINDINGS:
            self._tell(Finding(where=f"index, {trail}" if trail else "index", problem=problem))
        elif self._told == _MAX_FINDINGS + 1:
            self._tell(Finding(where="index", problem="and more: make it anew with `tally reindex`"))


def _grown(found: TrailSummary, ours: TrailSummary) -> bool:
    """Whether what differs is only what a trail gains by growing: the correlator went on while we looked."""
    gained = ("first_time", "last_time", "services", "keys", "status", "links", "hub")
    return replace(found, **{name: getattr(ours, name) for name in gained}) == ours


def _trails(index: TrailIndex, size: int) -> Iterator[TrailSummary]:
    below: int | None = None
    while True:
        page = index.find(TrailQuery(), size=size, below=below, limit=_TRAILS_A_PAGE)
        yield from page.trails
        if page.next_below is None:
            return
        below = page.next_below


def _by_trail(index: TrailIndex, size: int) -> dict[str, TrailSummary]:
    return {summary.trail: summary for summary in _trails(index, size)}


@contextmanager
def index_check(path: Path, *, hub_links: int, tell: Callable[[Finding], None]) -> Iterator[IndexCheck | None]:
    """An `IndexCheck` of the index file, with the fresh one in a temporary folder; None, and told, if it cannot be opened."""
    try:
        index = SqliteIndex(path, hub_links=hub_links, read_only=True)
    except (NotFound, Overloaded, StateUnknown) as error:
        tell(Finding(where="index", problem=str(error)))
        yield None
        return
    with tempfile.TemporaryDirectory(prefix="tally-check-") as folder:
        fresh_path = Path(folder) / "index.sqlite"
        fresh = SqliteIndex(fresh_path, hub_links=hub_links)
        check = None
        try:
            try:
                check = IndexCheck(
                    index=index,
                    fresh=fresh,
                    tables=lambda size, grown: table_differences(path, fresh_path, size=size, grown=grown),
                    tell=tell,
                )
            except DAMAGE as error:
                tell(Finding(where="index", problem=f"it cannot be read: {error}"))
            yield check
        finally:
            fresh.close()
            index.close()
