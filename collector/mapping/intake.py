"""Mappings in front of an intake: what the ways in have decoded is mapped before it is normalised, masked and written."""

from collections.abc import Awaitable, Sequence

from collector.mapping.mapper import Mapper
from collector.receive import Arrival, Intake, Receipt
from collector.rejection import Rejection
from collector.sender import OURSELVES, Sender

__all__ = ["MappedIntake"]


class MappedIntake:
    """An `Intake` that maps, then hands on. A group that is handed over again is mapped again, to the same events."""

    def __init__(self, intake: Intake, mapper: Mapper) -> None:
        self._intake = intake
        self._map = mapper.map

    def accept(
        self,
        arrivals: Sequence[Arrival],
        *,
        group_id: bytes | None = None,
        heard: bool = True,
        sender: Sender = OURSELVES,
    ) -> Awaitable[Receipt]:
        """See `Intake.accept`."""
        mapped = [self._map(arrival) for arrival in arrivals]
        return self._intake.accept(mapped, group_id=group_id, heard=heard, sender=sender)

    async def reject(self, rejections: list[Rejection]) -> None:
        """See `Intake.reject`."""
        await self._intake.reject(rejections)
