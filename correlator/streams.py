"""What the correlator knows of a stream: how far the log has it, what is missing, whether it still speaks. Pure.

Everything here follows from the entries in the stream's own trail, so it can be rebuilt by reading them again.
"""

from bisect import bisect_right
from operator import attrgetter
from typing import Any

import msgspec

from collector.batch import BatchHeader

__all__ = ["FREEZING", "Missing", "StreamState"]

FREEZING = frozenset({"bad_signature", "bad_facts", "bad_chain", "not_enrolled"})
"""Reasons of a gap at which the stream stops, until the store holds a batch that does follow: nothing else of it is accepted.

Of a batch that had been missing they stop nothing: what follows it is in the log already.
"""


_first = attrgetter("first")


class Missing(msgspec.Struct, kw_only=True):
    """A run of batches that the store did not have when the next one came.

    Attributes:
        first, last: numbers, inclusive.
        before: digest of header ``first - 1`` (empty for number 0).
        after: what header ``last + 1`` names as its previous; empty until that one is logged.
        first_sequence: sequence of the first event missing; `last_sequence` of the last (``first_sequence - 1`` if none).
        leaf: the gap entry.
        refused: numbers among them under which the store then held a batch that does not fit: the log says so, once.
    """

    first: int
    last: int
    before: str
    after: str = ""
    first_sequence: int
    last_sequence: int
    leaf: int
    refused: list[int] = []


class StreamState(msgspec.Struct, kw_only=True):
    """A stream's frontier.

    Attributes:
        next_number: number of the next batch to log.
        head: digest of header ``next_number - 1``; empty before the first.
        next_sequence: sequence of the next event.
        key: the key enrolled for it, hex; empty before its first batch was accepted. `role`: what it was enrolled as.
        heartbeat_seconds: what its last header promised.
        closed: its last batch said so.
        seen_ns: recorded time of its last batch.
        silent: a gap entry says that it missed its heartbeat, and it has not spoken since.
        frozen: why it stopped: what the store holds next does not follow; empty while it does.
        missing: what is still missing, ascending.
    """

    stream: str
    next_number: int = 1
    head: str = ""
    next_sequence: int = 0
    key: str = ""
    role: str = ""
    heartbeat_seconds: int = 0
    closed: bool = False
    seen_ns: int = 0
    silent: bool = False
    frozen: str = ""
    missing: list[Missing] = []

    @property
    def collector(self) -> str:
        """The name of the collector whose stream this is."""
        return self.stream.partition("/")[0]

    def on_enrolment(self, detail: dict[str, Any]) -> None:
        """An entry of kind enrolment names this stream."""
        self.key = detail["key"]
        self.role = detail["role"]

    def on_gap(self, detail: dict[str, Any], leaf: int) -> None:
        """An entry of kind gap."""
        reason = detail["reason"]
        if reason == "silent":
            self.silent = True
        elif reason in FREEZING:
            if detail["first_number"] < self.next_number:
                self._refuse(detail["first_number"])
            else:
                self.frozen = f"gap entry at leaf {leaf}: {reason}"
        else:
            gap = Missing(
                first=detail["first_number"],
                last=detail["last_number"],
                before=self.head,
                first_sequence=detail["first_sequence"],
                last_sequence=detail["last_sequence"],
                leaf=leaf,
            )
            self.missing.append(gap)
            self.next_number = gap.last + 1
            self.next_sequence = gap.last_sequence + 1

    def on_fork(self, detail: dict[str, Any], leaf: int) -> None:
        """An entry of kind fork; it freezes the stream only if the stream's own chain broke."""
        if detail.get("frozen"):
            self.frozen = f"fork entry at leaf {leaf}"
        number, logged = detail.get("number"), detail.get("logged")
        for gap in self.missing if logged else ():
            # a batch that had been missing did not chain to what the log has beside the gap
            if (number, logged) == (gap.first - 1, gap.before):
                self._refuse(gap.first)
            elif (number, logged) == (gap.last, gap.after):
                self._refuse(gap.last)

    def on_batch(self, header: BatchHeader, digest: str, recorded_ns: int) -> None:
        """An entry of kind batch: the next one, or one that was missing, which says nothing of how the stream goes on."""
        if header.number < self.next_number:
            self._fill(header, digest)
            return
        self.seen_ns = recorded_ns
        self.silent = False
        self.frozen = ""
        if self.missing and self.missing[-1].last == header.number - 1:
            self.missing[-1].after = header.previous
        self.next_number = header.number + 1
        self.next_sequence = header.first + header.count
        self.head = digest
        self.heartbeat_seconds = header.heartbeat_seconds
        self.closed = header.closed

    def gap_of(self, number: int) -> Missing | None:
        """The run of missing batches that this number is in. O(log n) in the number of such runs."""
        at = self._at(number)
        return self.missing[at] if at >= 0 and number <= self.missing[at].last else None

    def told_of(self, number: int) -> bool:
        """Whether nothing is to be said when the store's batch of this number is not accepted: the log says it, or has the batch."""
        if number >= self.next_number:
            return bool(self.frozen)
        gap = self.gap_of(number)
        return gap is None or number in gap.refused

    def _at(self, number: int) -> int:
        """The index of the last run of missing batches that begins at or before this number; -1 before the first."""
        return bisect_right(self.missing, number, key=_first) - 1

    def _refuse(self, number: int) -> None:
        gap = self.gap_of(number)
        if gap is not None and number not in gap.refused:
            gap.refused = [*gap.refused, number]

    def _fill(self, header: BatchHeader, digest: str) -> None:
        gap = self.gap_of(header.number)
        assert gap is not None, "a batch entry for a number that is logged already"
        number, end = header.number, header.first + header.count
        parts = []
        if gap.first < number:
            parts.append(
                Missing(
                    first=gap.first,
                    last=number - 1,
                    before=gap.before,
                    after=header.previous,
                    first_sequence=gap.first_sequence,
                    last_sequence=header.first - 1,
                    leaf=gap.leaf,
                    refused=[one for one in gap.refused if one < number],
                )
            )
        if number < gap.last:
            parts.append(
                Missing(
                    first=number + 1,
                    last=gap.last,
                    before=digest,
                    after=gap.after,
                    first_sequence=end,
                    last_sequence=gap.last_sequence,
                    leaf=gap.leaf,
                    refused=[one for one in gap.refused if one > number],
                )
            )
        at = self._at(number)
        self.missing[at : at + 1] = parts
