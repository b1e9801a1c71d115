"""What the log itself shows of failed controls: gaps, forks, collectors that fell silent, reviews that were not done. Pure.

Time here is the log's: the `recorded` of its entries. A collector is lost when the *log* went on without it. While nothing at all comes in
(the store is away, the correlator stands still) no collector is blamed for it.
"""

from collections.abc import Iterable

import msgspec

from alerting.incidents.condition import Condition
from collector.errors import Malformed
from collector.event import decode_facts, parse_time
from correlator.entry import Entry

__all__ = ["LogWatch"]

_REVIEWS = frozenset({"reviews.list", "review.sign", "review.days", "review.day"})
_LONGEST_STEP_NS = 90_000_000_000
"""Heartbeats come each minute, so a log that lives has no longer pause. What is longer counts as this, or as a third of `lost_seconds`."""

_HOUR_NS = 3_600_000_000_000


class LogWatch:
    """Reads one log, entry by entry.

    Args:
        expected: names of collectors that must be heard.
        lost_seconds: one is lost when the log grew for so long without a batch of it.
        review_hours: 0: reviews are not asked for.
        patience_seconds: a stream that fell silent is believed to be when the log grew for so long after saying so: when a store
            comes back the correlator may call streams silent whose collectors are just about to speak.
        since_ns: nobody is missed in what was recorded before: who is expected now may not have been then.
    """

    def __init__(
        self,
        *,
        expected: Iterable[str],
        lost_seconds: float,
        review_hours: float,
        patience_seconds: float = 0.0,
        since_ns: int = 0,
    ) -> None:
        self._patience_ns = int(patience_seconds * 1e9)
        self._suspected: dict[str, tuple[int, int, Condition]] = {}  # by collector: leaf, `_lived_ns`, what it would be
        self._since_ns = since_ns
        self._missing = False  # whether anybody is missed yet
        self._lost_ns = int(lost_seconds * 1e9)
        self._step_ns = min(_LONGEST_STEP_NS, self._lost_ns // 3)
        self._review_ns = int(review_hours * _HOUR_NS)
        self._lived_ns = 0  # how long the log has grown while we read it
        self._recorded_ns = 0
        self._heard: dict[str, int] = dict.fromkeys(expected, 0)  # by collector, the `_lived_ns` of its last batch
        self._stream: dict[str, str] = {}  # by collector, the stream of its last batch
        self._lost: set[str] = set()
        self._reviewed_ns = 0
        self.touched: set[str] = set()
        """Streams that batches came of since somebody emptied this: a gap of theirs may be filled."""

    def look(self, entry: Entry, leaf: int, origin: str) -> list[Condition]:
        """What this entry says of controls."""
        recorded_ns = parse_time(entry.recorded)
        if self._recorded_ns:
            self._lived_ns += min(max(recorded_ns - self._recorded_ns, 0), self._step_ns)
        else:
            # nobody could review what was not there; where we begin later, nobody has until we read that somebody did
            self._reviewed_ns = recorded_ns - (self._review_ns if leaf else 0)
        if not self._missing and recorded_ns >= self._since_ns:
            self._missing = True
            self._heard = dict.fromkeys(self._heard, self._lived_ns)
        self._recorded_ns = max(recorded_ns, self._recorded_ns)
        found = []
        if entry.kind == "batch":
            found = self._batch(entry, recorded_ns)
        elif entry.kind in ("gap", "fork"):
            found = self._broken(entry, recorded_ns, leaf, origin)
        elif entry.kind == "event" and self._review_ns and _is_access(entry.trail):
            found = self._access(entry, recorded_ns)
        return [*found, *self._silent()]

    @property
    def held(self) -> int | None:
        """The first leaf that says something which is not believed yet: after a restart it is to be read again. None: there is none."""
        return min((leaf for leaf, _, _ in self._suspected.values()), default=None)

    def due(self, now_ns: int) -> list[Condition]:
        """What is overdue at this time. Ask only when all of the log was read."""
        due_ns = self._reviewed_ns + self._review_ns
        if not self._review_ns or not self._reviewed_ns or now_ns <= due_ns:
            return []
        hours = self._review_ns / _HOUR_NS
        detail = f"nobody listed or signed off what calls for a look within {hours:g} hours"
        return [Condition(cause="review_missed", fails=True, time_ns=due_ns, detail=detail)]

    def _batch(self, entry: Entry, recorded_ns: int) -> list[Condition]:
        stream = entry.trail.removeprefix("stream/")
        self.touched.add(stream)
        collector = stream.partition("/")[0]
        promises = _promises(entry)
        # commands and the keeper sign as our recorder, too: that they run does not say that the API does. Of which stream it spoke last
        # nobody knows after a restart; but whoever is not expected can be lost only by heartbeats that it promised
        if not promises and (collector in self._stream or collector not in self._heard):
            return []
        if collector in self._heard:
            self._heard[collector] = self._lived_ns
        if promises:
            self._stream[collector] = stream
        self._lost.discard(collector)
        self._suspected.pop(collector, None)
        # told for every batch: only the keeper knows whether one is open, also from before we were started
        return [_heard(collector, recorded_ns)]

    def _broken(self, entry: Entry, recorded_ns: int, leaf: int, origin: str) -> list[Condition]:
        mark = f"{origin}/{leaf}"
        stream = entry.trail.removeprefix("stream/")
        collector = stream.partition("/")[0]
        detail = entry.detail
        if entry.kind == "fork":
            what = f"batch {detail.get('number')}: {entry.why}"
            return [Condition(cause="fork", subject=stream, fails=True, time_ns=recorded_ns, detail=what, mark=mark)]
        if detail.get("reason") == "silent":
            # the silence of a stream that its collector gave up for another one is none of the collector
            if self._stream.get(collector, stream) != stream:
                return []
            lost = Condition(
                cause="collector_lost",
                subject=collector,
                fails=True,
                time_ns=recorded_ns,
                detail=f"stream {stream}: {entry.why}",
                mark=mark,
            )
            self._suspected[collector] = (leaf, self._lived_ns, lost)
            return []
        first, last = detail.get("first_sequence", -1), detail.get("last_sequence", -1)
        numbers = f"batches {detail.get('first_number')} to {detail.get('last_number')}"
        return [
            Condition(
                cause="gap",
                subject=stream,
                fails=True,
                time_ns=recorded_ns,
                detail=f"{numbers}, {detail.get('reason')}: {entry.why}",
                mark=mark,
                first=first if isinstance(first, int) else -1,
                last=last if isinstance(last, int) else -1,
            )
        ]

    def _access(self, entry: Entry, recorded_ns: int) -> list[Condition]:
        try:
            access = decode_facts(bytes(entry.facts)).access
        except Malformed:
            return []  # `tally check` names it
        if access is None or access.refused or access.action not in _REVIEWS:
            return []
        self._reviewed_ns = max(self._reviewed_ns, recorded_ns)
        return [
            Condition(
                cause="review_missed", fails=False, time_ns=recorded_ns, detail="somebody looked at what calls for it"
            )
        ]

    def _silent(self) -> list[Condition]:
        found: list[Condition] = []
        for collector, (_, said_ns, lost) in list(self._suspected.items()):
            if self._lived_ns - said_ns >= self._patience_ns:
                del self._suspected[collector]
                self._lost.add(collector)
                found.append(lost)
        if not self._missing:
            return found
        for collector, heard_ns in self._heard.items():
            if collector not in self._lost and self._lived_ns - heard_ns > self._lost_ns:
                self._lost.add(collector)
                seconds = (self._lived_ns - heard_ns) / 1e9
                found.append(
                    Condition(
                        cause="collector_lost",
                        subject=collector,
                        fails=True,
                        time_ns=self._recorded_ns,
                        detail=f"it is expected, and the log grew for {seconds:.0f} s without a batch of it",
                    )
                )
        return found


class _Promise(msgspec.Struct):
    heartbeat_seconds: int = 0


_decode_promise = msgspec.json.Decoder(_Promise).decode


def _promises(entry: Entry) -> bool:
    """Whether this batch says that another one follows within some time."""
    try:
        return _decode_promise(str(entry.detail.get("header", ""))).heartbeat_seconds > 0
    except msgspec.DecodeError:
        return False  # `tally check` names it


def _is_access(trail: str) -> bool:
    """Whether this is the trail of what a principal did, of a tenant's or of nobody's."""
    return trail.startswith("access/") or (trail.startswith("tenant/") and trail.split("/")[2:3] == ["access"])


def _heard(collector: str, time_ns: int) -> Condition:
    return Condition(
        cause="collector_lost", subject=collector, fails=False, time_ns=time_ns, detail="a batch of it is in the log"
    )
