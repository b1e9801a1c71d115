"""The account of an imported file: what became of each of its rows."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from collector.batch import StreamId
from collector.prepare import Prepared
from collector.receive import Arrival

__all__ = ["FileAccount"]


@dataclass(slots=True, kw_only=True)
class FileAccount:
    """What became of a file's rows: `rows` is the sum of `stored`, `duplicates` and `dead_lettered`.

    Attributes:
        reasons: label of the refusal → how many rows.
        marks: mark → how many stored or repeated rows carry it.
        again: true when the whole file had been imported before, and nothing of it was taken now.
        number: of which import of the file this is the stream; more than 1 only where it was asked for once more.
    """

    stream: StreamId
    rows: int = 0
    stored: int = 0
    duplicates: int = 0
    dead_lettered: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    marks: Counter[str] = field(default_factory=Counter)
    again: bool = False
    number: int = 1

    def count_marks(self, arrivals: Sequence[Arrival], prepared: Prepared) -> None:
        """Count the marks of the arrivals that `prepared` was made of, but of those that it refused."""
        refused = {one.at for one in prepared.refused}
        for at, arrival in enumerate(arrivals):
            if arrival.event.marks and at not in refused:
                self.marks.update(arrival.event.marks)
