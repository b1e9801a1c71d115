"""The trail index checked against the log: made anew beside it, and compared row by row.

Both give their trails newest first, so they are read side by side, a page of each at a time. Where the two do not stand at the same
leaf, the trail is looked for by its name on the other side: what is told does not depend on where a row has been moved.
"""

import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from correlator.check import head_size
from correlator.entry import Entry
from correlator.errors import NotFound, Overloaded, StateUnknown
from correlator.index import IndexedLeaf, TrailIndex, TrailQuery, TrailSummary
from correlator.index.sqlite import SqliteIndex
from correlator.storage import LogStorage
from deploy.checking import DAMAGE, Finding
from deploy.checking.pages import PagedIndex, page_differences
from deploy.checking.tables import table_differences
from deploy.config import Config
from deploy.indexing import index_is_embedded, open_index
from deploy.places import Places

__all__ = ["IndexCheck", "index_check"]

_LEAVES_A_TURN = 8_192
_TRAILS_A_PAGE = 1_000
_LEAVES_A_LOOK = 65_536
_MAX_FINDINGS = 100


class IndexCheck:
    """Give it the log's entries in order (`visit`), then compare (`finish`).

    Args:
        index: the index in question; it may grow meanwhile.
        fresh: an empty one.
        tables: gives the differences of what is searched, the index and the fresh one having been given so many leaves.
        tell: gets each finding.
    """

    def __init__(
        self,
        *,
        index: TrailIndex,
        fresh: TrailIndex,
        tables: Callable[[int], Iterable[tuple[str, str]]],
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
        unknown: list[str] = []  # to the log: told last, and of so many only that there are more
        for found, ours in _side_by_side(_trails(self._index, self._size), _trails(self._fresh, self._size)):
            if ours is not None:
                self._compare(found if found is not None else _of_name(self._index, ours.trail, self._size), ours)
            elif (
                found is not None
                and len(unknown) <= _MAX_FINDINGS
                and _of_name(self._fresh, found.trail, self._size) is None
            ):
                unknown.append(found.trail)
        for trail in unknown:
            self._found(trail, "the index knows it, and the log does not")
        for trail, problem in self._tables(self._size):
            self._found(trail, problem)

    def _compare(self, found: TrailSummary | None, ours: TrailSummary) -> None:
        if found is None:
            self._found(ours.trail, "the index does not know it")
            return
        if ours.links_left_out and not self._moved():  # which of a hub's links are told is each index's choice
            same = self._index.all_links(ours.trail) == self._fresh.all_links(ours.trail)
            found = replace(found, links=ours.links if same else ())
        if found != ours and not (self._moved() and _grown(found, ours)):
            fields = [name for name in TrailSummary.__dataclass_fields__ if getattr(found, name) != getattr(ours, name)]
            self._found(ours.trail, f"the index says otherwise of it than the log: {', '.join(fields)}")
        elif not self._same_leaves(ours):
            self._found(ours.trail, "the index names other leaves than the log has of it")

    def _moved(self) -> bool:
        """Whether the index has grown since the start: asked after what is compared was read."""
        return self._index.size() != self._size

    def _same_leaves(self, summary: TrailSummary) -> bool:
        for start in range(0, summary.entries, _LEAVES_A_LOOK):
            limit = min(_LEAVES_A_LOOK, summary.entries - start)
            theirs, ours = (
                list(index.leaves(summary.trail, start=start, limit=limit, size=self._size))
                for index in (self._index, self._fresh)
            )
            if theirs != ours:
                return False
        return True

    def _found(self, trail: str, problem: str) -> None:
        self._told += 1
        if self._told <= _MAX_FINDINGS:
            self._tell(Finding(where=f"index, {trail}" if trail else "index", problem=problem))
        elif self._told == _MAX_FINDINGS + 1:
            self._tell(Finding(where="index", problem="and more: make it anew with `tally reindex`"))


def _grown(found: TrailSummary, ours: TrailSummary) -> bool:
    """Whether what differs is only what a trail gains by growing: the correlator went on while we looked."""
    gained = (
        "first_time",
        "last_time",
        "services",
        "events",
        "keys",
        "amounts",
        "status",
        "links",
        "links_left_out",
        "hub",
    )
    return replace(found, **{name: getattr(ours, name) for name in gained}) == ours


def _trails(index: TrailIndex, size: int) -> Iterator[TrailSummary]:
    below: int | None = None
    while True:
        page = index.find(TrailQuery(), size=size, below=below, limit=_TRAILS_A_PAGE)
        yield from page.trails
        if page.next_below is None:
            return
        below = page.next_below


def _side_by_side(
    theirs: Iterator[TrailSummary], ours: Iterator[TrailSummary]
) -> Iterator[tuple[TrailSummary | None, TrailSummary | None]]:
    """Both sides, newest first: pairs of the same trail at the same leaf, else one of them alone."""
    found, own = next(theirs, None), next(ours, None)
    while found is not None or own is not None:
        if found is None or (own is not None and own.first_leaf > found.first_leaf):
            yield None, own
            own = next(ours, None)
        elif own is None or found.first_leaf > own.first_leaf:
            yield found, None
            found = next(theirs, None)
        elif found.trail != own.trail:
            yield found, None
            yield None, own
            found, own = next(theirs, None), next(ours, None)
        else:
            yield found, own
            found, own = next(theirs, None), next(ours, None)


def _of_name(index: TrailIndex, trail: str, size: int) -> TrailSummary | None:
    """The trail as the index has it below this size, or None."""
    try:
        first_leaf = index.trail(trail).first_leaf
    except NotFound:
        return None
    page = index.find(TrailQuery(), size=size, below=first_leaf + 1, limit=1).trails
    return page[0] if page and page[0].trail == trail else None


@contextmanager
def index_check(
    config: Config, places: Places, *, log: LogStorage, tell: Callable[[Finding], None]
) -> Iterator[IndexCheck | None]:
    """An `IndexCheck` of the index of `log`, with the fresh one in a temporary folder; None, and told, if it cannot be opened.

    Raises:
        ConfigError: ``[index]`` cannot be used.
        Overloaded: the cluster does not answer, from which no finding follows.
    """
    embedded = index_is_embedded(config)
    try:
        index = open_index(config, places, read_only=True)
    except (NotFound, Overloaded, StateUnknown) as error:
        if isinstance(error, Overloaded) and not embedded:
            raise
        tell(Finding(where="index", problem=str(error)))
        yield None
        return
    with tempfile.TemporaryDirectory(prefix="tally-check-") as folder:
        fresh_path = Path(folder) / "index.sqlite"
        fresh = SqliteIndex(fresh_path, hub_links=config.correlator.hub_links)
        check = None
        try:
            try:
                check = IndexCheck(
                    index=index,
                    fresh=fresh,
                    tables=lambda size: (
                        page_differences(index, fresh_path, size=size, reached=lambda: head_size(log))
                        if isinstance(index, PagedIndex)
                        else table_differences(places.index, fresh_path, size=size)
                    ),
                    tell=tell,
                )
            except DAMAGE as error:
                tell(Finding(where="index", problem=f"it cannot be read: {error}"))
            yield check
        finally:
            fresh.close()
            index.close()
