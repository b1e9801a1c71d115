"""The ways in of a sidecar: opened together, changed while senders send on, watched, drained and closed together."""

import asyncio
from collections.abc import Callable, Mapping, Sequence

from collector.errors import StateUnknown, TallyError
from collector.receive import Intake
from collector.receive.leaving import Leaving
from collector.way import Switch, Wanted, Way

__all__ = ["OpenWays"]

_LAST_SECONDS = 1.0  # for what is still written on an HTTP connection when everything else has ended
_CHANGE_SECONDS = 5.0  # for what is in flight on a way in that another one replaces


class OpenWays:
    """See the module. For one event loop.

    Args:
        wanted: which there are to be (`collector.waysin.WaysIn.wanted`).
        intake: takes what comes.
        leaving: counts the requests of their HTTP servers.
    """

    def __init__(self, wanted: Mapping[str, Wanted], intake: Intake, *, leaving: Leaving) -> None:
        self._wanted = wanted
        self._intake = intake
        self._leaving = leaving
        self._ways: dict[str, Way] = {}

    @property
    def addresses(self) -> dict[str, str]:
        """Where they listen, by use; see `collector.sidecar.run_sidecar`."""
        found: dict[str, str] = {}
        for way in self._ways.values():
            found |= way.addresses
        return found

    async def open(self) -> dict[str, str]:
        """Open all; returns the addresses.

        Raises as `run_sidecar`; what is open by then is closed by `drain` and `close`.
        """
        for name, wanted in self._wanted.items():
            way = self._ways[name] = _new(name, wanted, self._intake)
            await wanted.open(way)
        return self.addresses

    async def change(
        self, wanted: Mapping[str, Wanted], intake: Intake, *, last: Callable[[], object] = lambda: None
    ) -> Sequence[str]:
        """Have others, and another intake before all; returns the names of those opened, changed and closed.

        One with the same mark stays as it is, connections and all. What listens anew does so before the old listener ends, on the same
        socket where the address is the same. What must be alone is ended first. `last` is called when nothing can fail any more, in
        the turn of the event loop in which the new intake comes into force.

        Raises as `open`: then everything is as it was, and only what had to be ended first has been opened again.
        `StateUnknown`: it could not be.
        """
        other = [name for name, one in wanted.items() if name not in self._ways or self._ways[name].mark != one.mark]
        opened: dict[str, Way] = {}
        ended: list[str] = []
        try:
            for name in sorted(other, key=lambda name: wanted[name].alone):  # what can fail without harm comes first
                if wanted[name].alone and name in self._ways:
                    ended.append(name)
                    await _end(self._ways[name])
                opened[name] = _new(name, wanted[name], intake)
                await wanted[name].open(opened[name])
        except BaseException:
            await asyncio.gather(*(_end(way) for way in opened.values()))
            await self._open_again(ended)
            raise
        gone = [name for name in self._ways if name not in wanted]
        old = [way for name, way in self._ways.items() if name in gone or (name in opened and name not in ended)]
        self._ways = {name: opened.get(name) or self._ways[name] for name in wanted}
        self._wanted, self._intake = wanted, intake
        for way in self._ways.values():
            way.intake.intake = intake
        last()
        await asyncio.gather(*(_end(way) for way in old))
        return [*other, *gone]

    async def _open_again(self, names: Sequence[str]) -> None:
        for name in names:
            way = self._ways[name] = _new(name, self._wanted[name], self._intake)
            try:
                await self._wanted[name].open(way)
            except (TallyError, OSError) as error:
                raise StateUnknown(
                    f"{name} was closed for a change, and cannot be opened as it was: {error}"
                ) from error

    def check(self) -> None:
        """Raises what ended the following of files, or a consumer, if anything did."""
        for way in self._ways.values():
            way.check()

    async def drain(self, grace_seconds: float) -> None:
        """Take nothing more in, finish and acknowledge what is in flight, for at most about `grace_seconds`.

        HTTP servers listen on until `close`: who asks hears that we are stopping, and new requests that they must wait.
        """
        ways = self._ways.values()
        await asyncio.gather(self._leaving.begin(grace_seconds), *(way.drain(grace_seconds) for way in ways))

    async def close(self) -> None:
        """Close what `drain` left open."""
        await asyncio.gather(*(way.close(_LAST_SECONDS) for way in self._ways.values()))


def _new(name: str, wanted: Wanted, intake: Intake) -> Way:
    return Way(name=name, mark=wanted.mark, intake=Switch(intake, name))


async def _end(way: Way) -> None:
    await way.drain(_CHANGE_SECONDS)
    await way.close(_CHANGE_SECONDS)
