"""What a stream needs of a destination, and how records that are refused are made smaller until they are taken."""

from collections.abc import Callable, Sequence
from typing import Protocol

from audit_api.siem.record import Record
from collector.errors import Overloaded, TallyError

__all__ = ["Destination", "Refused", "deliver"]


class Destination(Protocol):
    """Takes records, in order. For one thread. Contract: `tests/audit_api/siem/test_destinations.py`."""

    def send(self, records: Sequence[Record]) -> None:
        """All of them are taken on return, some perhaps with less in them (`Record.refused`).

        Raises:
            Overloaded: the destination is away, busy, or takes nothing from us. Some may have been taken; call again with all of them.
        """

    def close(self) -> None:
        """Let go of connections."""


class Refused(TallyError):
    """The destination will never take what it was sent as it is."""


def deliver(records: Sequence[Record], post: Callable[[Sequence[Record]], Sequence[Record]]) -> None:
    """Post records in order. What is refused together is posted in halves, what is refused alone with less in it.

    Args:
        records: what is to be there on return.
        post: gives those of its records that were refused one by one; raises `Refused` when all of them were, and `Overloaded`.

    Raises:
        Overloaded: as `post`; and when even a bare record is refused: nothing of an event is in it, so the destination takes nothing from us.
    """
    waiting: list[Sequence[Record]] = [records] if records else []
    while waiting:
        part = waiting.pop()
        try:
            refused = post(part)
        except Refused as error:
            if len(part) > 1:
                middle = len(part) // 2
                waiting += [part[middle:], part[:middle]]
                continue
            refused, reason = part, str(error)
        else:
            reason = "refused alone"
        for one in reversed(refused):
            less = one.refused()
            if less is None:
                raise Overloaded(f"it refuses {one.mark.id} with nothing of the event in it: {reason}")
            waiting.append([less])
