"""Mappings in front of an intake: what the ways in have decoded is mapped before it is normalised, masked and written."""

from collections.abc import Awaitable, Sequence

from collector.errors import Malformed
from collector.event import Origin
from collector.mapping.mapper import Mapper
from collector.receive import Arrival, Intake, Receipt

__all__ = ["MappedIntake"]


class MappedIntake:
    """An `Intake` that maps, then hands on. A group that is handed over again is mapped again, to the same events."""

    def __init__(self, intake: Intake, mapper: Mapper) -> None:
        self._intake = intake
        self._map = mapper.map

    def accept(
        self, arrivals: Sequence[Arrival], *, group_id: bytes | None = None, heard: bool = True
    ) -> Awaitable[Receipt]:
        """See `Intake.accept`."""
        return self._intake.accept([self._map(arrival) for arrival in arrivals], group_id=group_id, heard=heard)

    async def reject(self, raw: bytes, error: Malformed, origin: Origin, *, source_id: bytes = b"") -> None:
        """See `Intake.reject`."""
        await self._intake.reject(raw, error, origin, source_id=source_id)
