"""The time axis of a story, and what its clocks betray. Pure.

Most stories happen in milliseconds and then wait: on an even axis all that matters would be one line wide. So a stretch in which
nothing happened, when it is long beside what did happen, is folded to a fixed width and marked as folded.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from audit_api.web.rows import Row

__all__ = ["WIDTH", "Axis", "Bar", "Disorder", "Fold", "axis_of", "disorders"]

WIDTH = 1000
"""Units across; the drawing stretches to whatever room there is."""

_FOLD_WIDTH = 60
_MAX_FOLDS = 6
_LEAST_BAR = 4.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """Where something stands on the axis, in units from its left; `width` is 0 for an instant."""

    left: float
    width: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Fold:
    """A stretch of `nanoseconds` in which nothing happened, drawn between `left` and `right`."""

    left: float
    right: float
    nanoseconds: int


class Axis:
    """Maps times to places. Made by `axis_of`.

    Args:
        pieces: ascending, touching (from, to, left, right) of the axis; times in Unix nanoseconds.
        folds: those of them that are folded.
    """

    def __init__(self, pieces: Sequence[tuple[int, int, float, float]], folds: Sequence[Fold]) -> None:
        self._pieces = pieces
        self.folds = tuple(folds)
        self.start_ns = pieces[0][0] if pieces else 0
        self.length_ns = pieces[-1][1] - pieces[0][0] if pieces else 0

    def place(self, at_ns: int) -> float:
        """Units from the left."""
        for start, end, left, right in self._pieces:
            if at_ns <= end:
                share = (at_ns - start) / (end - start) if end > start else 0.0
                return left + min(max(share, 0.0), 1.0) * (right - left)
        return float(WIDTH)

    def bar(self, row: Row) -> Bar | None:
        """Where this row stands; None when it states no time."""
        if row.start_ns is None or row.kind != "event":
            return None
        left = self.place(row.start_ns)
        if row.end_ns is None or row.end_ns < row.start_ns:
            return Bar(left=round(min(left, WIDTH - _LEAST_BAR), 1), width=0.0)
        width = max(self.place(row.end_ns) - left, _LEAST_BAR)
        return Bar(left=round(min(left, WIDTH - width), 1), width=round(width, 1))


def axis_of(rows: Iterable[Row]) -> Axis:
    """The axis for these rows: as long as their stated times are."""
    spans = sorted(
        (row.start_ns, max(row.end_ns or row.start_ns, row.start_ns))
        for row in rows
        if row.kind == "event" and row.start_ns is not None
    )
    if not spans:
        return Axis((), ())
    busy: list[list[int]] = []
    for start, end in spans:
        if busy and start <= busy[-1][1]:
            busy[-1][1] = max(busy[-1][1], end)
        else:
            busy.append([start, end])
    total = busy[-1][1] - busy[0][0]
    idle = sorted(
        ((after[0] - before[1], before[1], after[0]) for before, after in pairwise(busy)),
        reverse=True,
    )
    folded: dict[int, int] = {}
    rest = total
    for length, start, end in idle[:_MAX_FOLDS]:
        if length > 0.5 * rest:  # longer than all that is left of the story
            folded[start] = end
            rest -= length
    scale = (WIDTH - _FOLD_WIDTH * len(folded)) / rest if rest else 0.0
    pieces: list[tuple[int, int, float, float]] = []
    folds: list[Fold] = []
    at, left = busy[0][0], 0.0
    for start, end in [*sorted(folded.items()), (busy[-1][1], busy[-1][1])]:
        right = left + (start - at) * scale
        pieces.append((at, start, left, right))
        if end > start:
            folds.append(Fold(left=round(right, 1), right=round(right + _FOLD_WIDTH, 1), nanoseconds=end - start))
            pieces.append((start, end, right, right + _FOLD_WIDTH))
            right += _FOLD_WIDTH
        at, left = end, right
    return Axis(pieces, folds)


@dataclass(frozen=True, slots=True, kw_only=True)
class Disorder:
    """By their own clocks `child` began `nanoseconds` before `parent` called it: one of the two clocks is off by at least that much."""

    parent: str
    child: str
    nanoseconds: int
    name: str


def disorders(rows: Sequence[Row]) -> list[Disorder]:
    """The worst such contradiction of each pair of services, worst first. A cause precedes its effect, whatever clocks say."""
    spans = {row.span_id: row for row in rows if row.is_span and row.span_id and row.start_ns is not None}
    worst: dict[tuple[str, str], Disorder] = {}
    for row in spans.values():
        parent = spans.get(row.parent_span_id)
        if parent is None or parent.service == row.service or row.start_ns is None or parent.start_ns is None:
            continue
        early = parent.start_ns - row.start_ns
        pair = parent.service, row.service
        if early > 0 and (pair not in worst or worst[pair].nanoseconds < early):
            worst[pair] = Disorder(parent=parent.service, child=row.service, nanoseconds=early, name=row.name)
    return sorted(worst.values(), key=lambda one: -one.nanoseconds)


def services_in_order(rows: Iterable[Row]) -> Mapping[str, int]:
    """Each service's number, in the order of appearance: its colour."""
    found: dict[str, int] = {}
    for row in rows:
        if row.service:
            found.setdefault(row.service, len(found))
    return found
