"""The account of an imported file: what became of each of its rows."""

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from collector.batch import StreamId
from collector.prepare import Prepared
from collector.rejection import Rejection

__all__ = ["BrokenOff", "FileAccount"]


@dataclass(slots=True, kw_only=True)
class FileAccount:
    """What became of a file's rows: `rows` is the sum of `stored`, `duplicates` and `dead_lettered`.

    Attributes:
        reasons: label of the refusal → how many rows.
        first: label of the refusal → the first such row, by file and number, and what is wrong with it.
        marks: mark, without the place that it names → how many stored or repeated rows carry it.
        again: true when the whole file had been imported before, and nothing of it was taken now.
        number: of which import of the file this is the stream; more than 1 only where it was asked for once more.
    """

    stream: StreamId
    rows: int = 0
    stored: int = 0
    duplicates: int = 0
    dead_lettered: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    first: dict[str, str] = field(default_factory=dict)
    marks: Counter[str] = field(default_factory=Counter)
    again: bool = False
    number: int = 1

    def count_marks(self, prepared: Prepared) -> None:
        """Count the marks of the events that rows became, each kind once an event: what stands before the colon."""
        for marks in prepared.marks:
            self.marks.update({mark.partition(":")[0] for mark in marks})

    def refuse(self, refused: Iterable[Rejection], masked: Callable[[str], str]) -> None:
        """Count rows as dead letters, each by the label of its refusal.

        `masked` takes out of a text what must not be shown: a reason may quote what it is about.
        """
        for one in refused:
            label = one.error.label
            self.dead_lettered += 1
            self.reasons[label] += 1
            if label not in self.first:
                place = f"{one.origin.file} row {one.origin.row}: " if one.origin else ""
                self.first[label] = place + masked(one.error.reason)


class BrokenOff(Exception):
    """A file could not be read to its end.

    Attributes:
        account: of the rows before, which the store has.
        why: what reading it raised.
    """

    def __init__(self, account: FileAccount, why: Exception) -> None:
        super().__init__(str(why))
        self.account = account
        self.why = why
