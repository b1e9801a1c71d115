"""Follows the logs by leaf index: what they tell of incidents is learnt, what they show of failed controls is observed.

After a restart the incidents are found by the index, and what it does not have yet by reading on; the cursor says below which leaves
everything that was seen is on record already. What is read again below it is remembered, and opens and closes nothing.
"""

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from alerting.incidents.condition import Condition
from alerting.incidents.keeper import Keeper
from alerting.incidents.metrics import IncidentMetrics
from alerting.incidents.watch import LogWatch
from collector.event import parse_time
from correlator.entry import Entry, decode_entry
from correlator.incidents import Incidents
from correlator.index import TrailIndex, TrailQuery
from correlator.log import LogReader

__all__ = ["LogFollower", "WatchedLog", "incidents_of"]

_CHUNK = 2_048
_PAGE = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchedLog:
    """A log of the ledger: its origin, what reads it, and its index."""

    origin: str
    reader: LogReader
    index: TrailIndex


def incidents_of(index: TrailIndex, reader: LogReader, into: Incidents) -> int:
    """Gather the incidents of a log by its index; gives how many leaves of the log that covers.

    Raises:
        Overloaded: log or index did not answer.
        NotFound: nothing is published yet.
        VerificationError: an entry was changed.
    """
    size = min(index.size(), reader.tree().size)
    below: int | None = None
    while True:
        page = index.find(TrailQuery(kind="incident"), size=size, below=below, limit=_PAGE)
        for one in page.trails:
            for leaf in index.leaves(one.trail, size=size):
                into.add(decode_entry(reader.entry(leaf)), leaf)
        if page.next_below is None:
            return size
        below = page.next_below


class LogFollower:
    """Reads one ledger's logs as they grow. For one thread.

    Args:
        logs: the only one, or one for each shard; what is of streams is read off the first, for each holds all of it.
        keeper: of the incidents.
        watch: what entries show.
        positions: how far it had come, by origin.
        lacks: whether something of a stream is missing still.
        metrics: where to count.
    """

    def __init__(
        self,
        logs: Sequence[WatchedLog],
        *,
        keeper: Keeper,
        watch: LogWatch,
        positions: Mapping[str, int],
        lacks: Callable[[str], bool],
        metrics: IncidentMetrics,
    ) -> None:
        self._logs = logs
        self._keeper = keeper
        self._watch = watch
        self._lacks = lacks
        self._metrics = metrics
        self._recorded = dict(positions)
        self._next: dict[str, int] = {}
        self._seen: deque[Condition] = deque()
        """Conditions that the keeper has not had yet."""
        self.caught_up = False
        """Whether the last step read all that there was."""

    def positions(self) -> dict[str, int]:
        """How far it has come: below these leaves everything that was seen is on record."""
        if not self._seen:
            held = self._watch.held
            for at, log in enumerate(self._logs):
                origin = log.origin
                if origin not in self._next:
                    continue
                leaf = self._next[origin] if at or held is None else min(held, self._next[origin])
                self._recorded[origin] = max(self._recorded.get(origin, 0), leaf)
        return dict(self._recorded)

    def begin(self, *, remember_ns: int) -> None:
        """Gather what there is, once, before the first step. Entries recorded after `remember_ns` are read again. Raises as `step`."""
        for log in self._logs:
            if log.origin in self._next:
                continue
            covered = incidents_of(log.index, log.reader, self._keeper.incidents)
            start = min(self._recorded.get(log.origin, 0), covered)
            self._next[log.origin] = _first_after(log.reader, start, remember_ns)
        for one in self._keeper.incidents.all():
            if one.cause == "gap" and one.open:
                self._watch.touched.add(one.subject)
        self._metrics.gathered = True
        self._metrics.show(self._keeper.incidents)  # what was open before we were started, too

    def step(self) -> int:
        """Look at what each log has next; gives how many leaves that were.

        Raises:
            Overloaded: log, index or spool did not answer; call again later, nothing is passed over.
            VerificationError: the log was changed.
            NotFound: nothing is published yet.
            StateUnknown: the spool failed.
        """
        seen = behind = 0
        self._observe()
        for at, log in enumerate(self._logs):
            size = log.reader.tree().size
            start = self._next[log.origin]
            end = min(size, start + _CHUNK)
            for leaf, line in enumerate(log.reader.entries(start, end), start):
                self._take(decode_entry(line), leaf, log.origin, streams=at == 0)
                self._observe()
            seen += end - start
            behind += size - end
        self._filled()
        self._metrics.behind.set(behind)
        self.caught_up = not behind
        return seen

    def _take(self, entry: Entry, leaf: int, origin: str, *, streams: bool) -> None:
        self._keeper.learn(entry, leaf)
        if streams or entry.kind == "event":
            found = self._watch.look(entry, leaf, origin)
            if leaf >= self._recorded.get(origin, 0):
                self._seen += found
        self._next[origin] = leaf + 1

    def _observe(self) -> None:
        while self._seen:
            self._keeper.observe(self._seen[0])
            self._seen.popleft()

    def _filled(self) -> None:
        """End the gaps of which nothing is missing any more, as far as the index knows all that was read."""
        first = self._logs[0]
        touched = [one for one in self._watch.touched if self._keeper.incidents.open_of("gap", one)]
        if touched and first.index.size() < self._next[first.origin]:
            return
        for stream in touched:
            if not self._lacks(stream):
                time_ns = parse_time(decode_entry(first.reader.entry(self._next[first.origin] - 1)).recorded)
                what = "nothing is missing any more"
                self._keeper.observe(Condition(cause="gap", subject=stream, fails=False, time_ns=time_ns, detail=what))
        self._watch.touched.clear()


def _first_after(reader: LogReader, known: int, time_ns: int) -> int:
    """The first leaf below `known` that was recorded at `time_ns` or later, else `known`. Entries' times never decrease along a log."""
    low, high = 0, known
    while low < high:
        middle = (low + high) // 2
        if parse_time(decode_entry(reader.entry(middle)).recorded) < time_ns:
            low = middle + 1
        else:
            high = middle
    return low
