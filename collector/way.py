"""One way in that is open: what it was opened with, where it listens, and how it ends."""

import asyncio
import hashlib
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import msgspec

from collector.receive import Arrival, Intake, Receipt
from collector.receive.http import HttpServer
from collector.rejection import Rejection
from collector.sender import OURSELVES, Sender
from collector.sockets import Held

__all__ = ["Running", "Switch", "Wanted", "Way", "mark_of"]

_log = logging.getLogger("tally.collector")

_MAX_FILE_BYTES = 1_048_576
_FILES = ("tls_certificate", "tls_key", "tls_client_ca", "tls_ca")


class Switch:
    """An `Intake` before the one in force, which another configuration replaces while senders send on. `name`: of the way in, whose share it is."""

    def __init__(self, intake: Intake, name: str = "") -> None:
        self.intake = intake
        self._name = name

    def accept(
        self,
        arrivals: Sequence[Arrival],
        *,
        group_id: bytes | None = None,
        heard: bool = True,
        sender: Sender = OURSELVES,
    ) -> Awaitable[Receipt]:
        """See `Intake.accept`."""
        sender = Sender(self._name, sender.connection)
        return self.intake.accept(arrivals, group_id=group_id, heard=heard, sender=sender)

    async def reject(self, rejections: list[Rejection]) -> None:
        """See `Intake.reject`."""
        await self.intake.reject(rejections)


class Running(Protocol):
    """A way in that fetches what it takes: files, a broker."""

    async def run(self) -> None:
        """Take until `stop`."""

    def stop(self) -> None:
        """Let `run` end after what is in hand."""


@dataclass(slots=True, kw_only=True, eq=False)
class Way:
    """See the module. Filled while it is opened, so that what is open by then can be closed.

    Attributes:
        name: as the settings call it.
        mark: what it was opened with: `mark_of` its settings.
        intake: takes what comes.
        addresses: where it listens, by use.
        held: its listening sockets.
        closing: ends what listens: takes nothing more, finishes what is in flight, within so many seconds.
        serving: its HTTP servers, which end last.
        running: what fetches, with its task.
        ends: what is let go of in the very end.
    """

    name: str
    mark: bytes
    intake: Switch
    addresses: dict[str, str] = field(default_factory=dict)
    held: list[Held] = field(default_factory=list)
    closing: list[Callable[[float], Awaitable[object]]] = field(default_factory=list)
    serving: list[HttpServer] = field(default_factory=list)
    running: list[tuple[Running, asyncio.Task[None]]] = field(default_factory=list)
    ends: list[Callable[[], object]] = field(default_factory=list)

    def run(self, running: Running) -> None:
        """Let it fetch."""
        self.running.append((running, asyncio.create_task(running.run())))

    def check(self) -> None:
        """Raises what ended something that fetches, if anything did."""
        for _, task in self.running:
            if task.done():
                task.result()

    async def drain(self, grace_seconds: float) -> None:
        """Take nothing more in, finish and acknowledge what is in flight. HTTP servers go on until `close`. Raises nothing, as `close` does: see `_each`."""
        if not self.serving:
            self._let_go()
        await self._each(
            *(close(grace_seconds) for close in self.closing),
            *(_end(one, task, grace_seconds) for one, task in self.running),
        )

    async def close(self, grace_seconds: float) -> None:
        """Close what `drain` left open."""
        self._let_go()
        await self._each(*(server.stop(grace_seconds) for server in self.serving))
        await self._each(*(_call(end) for end in self.ends))

    async def _each(self, *endings: Awaitable[object]) -> None:
        """Await all. One that fails is told of and keeps nothing else from its end: the spool is not drained before all ways have ended."""
        for outcome in await asyncio.gather(*endings, return_exceptions=True):
            if isinstance(outcome, BaseException):
                _log.error("%s did not end in order: %s: %s", self.name, type(outcome).__name__, outcome)

    def _let_go(self) -> None:
        for held in self.held:
            held.release()
        self.held.clear()


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """A way in that some settings ask for.

    Attributes:
        mark: `mark_of` what it is opened with.
        open: opens it, and puts into the `Way` what it has opened.
        alone: two of it cannot be there at a time, not even for a moment: the old one is ended before.
    """

    mark: bytes
    open: Callable[[Way], Awaitable[None]]
    alone: bool = False


def mark_of(*settings: Any) -> bytes:
    """A digest of these settings and of what stands in the files that they name: another one means that the way is another.

    A file that cannot be read has no content here; whoever opens the way says so.
    """
    digest = hashlib.sha256()
    for one in settings:
        digest.update(msgspec.json.encode(one) + b"\0")
        for file in _files_of(one):
            try:
                with Path(file).open("rb") as stream:
                    digest.update(hashlib.sha256(stream.read(_MAX_FILE_BYTES)).digest())
            except OSError:
                digest.update(b"-")
    return digest.digest()


def _files_of(settings: Any) -> Sequence[str]:
    if not isinstance(settings, msgspec.Struct):
        return ()
    found: list[str] = []
    for name in settings.__struct_fields__:
        value = getattr(settings, name)
        if name.endswith("_files") and isinstance(value, dict):
            found += [value[key] for key in sorted(value)]
        elif (name in _FILES or name.endswith("_file")) and isinstance(value, str) and value:
            found.append(value)
    return found


async def _call(end: Callable[[], object]) -> None:
    end()


async def _end(running: Running, task: asyncio.Task[None], grace_seconds: float) -> None:
    """Let it finish what it has in hand, note where it was, and leave."""
    running.stop()
    _, late = await asyncio.wait([task], timeout=grace_seconds)
    for one in late:
        one.cancel()
    await asyncio.wait([task])
    if not task.cancelled() and (error := task.exception()) is not None:
        _log.error("%s ended: %s: %s", type(running).__name__, type(error).__name__, error)
