"""A tail over a folder of a test: looks and takes its turns when the test says so, and dies without a word."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from collector.disk import Disk, OsDisk
from collector.receive.tail.kubernetes_api import Pods
from collector.receive.tail.settings import MultilineSettings, TailSettings
from collector.receive.tail.tailer import Tailer
from collector.receive.turns import Turns
from tests.support.memory_intake import MemoryIntake


class Clock:
    """Both clocks, moved by the test alone."""

    def __init__(self) -> None:
        self.seconds = 1_000.0

    def monotonic(self) -> float:
        return self.seconds

    def wall(self) -> int:
        return 1_767_225_600_000_000_000 + int(self.seconds * 1e9)


class Tailing:
    """What outlives a tail's process: files, checkpoint, intake; and what was told of it.

    Attributes:
        reports: by label the last report: bytes behind, open files, waiting files.
    """

    def __init__(self, folder: Path, *, disk: Disk | None = None, root: Path | None = None, **settings: Any) -> None:
        self.logs = folder / "logs"
        self.logs.mkdir(exist_ok=True)
        settings.setdefault("paths", (f"{self.logs}/*.log",))
        if isinstance(settings.get("multiline"), dict):
            settings["multiline"] = MultilineSettings(**settings["multiline"])
        self.entries: tuple[TailSettings, ...] = (TailSettings(**settings),)
        self.disk: Disk = disk or OsDisk()
        self.root = root or folder / "tail"
        self.intake = MemoryIntake()
        self.clock = Clock()
        self.pods: Pods | None = None
        self.turns: Turns | None = None
        self.reports: dict[str, tuple[int, int, int]] = {}
        self.minted = 0

    def random(self, count: int) -> bytes:
        self.minted += 1
        return self.minted.to_bytes(count, "big")

    def tailer(self) -> Tailer:
        return Tailer(
            self.entries,
            self.root,
            intake=self.intake,
            disk=self.disk,
            clock=self.clock.wall,
            monotonic=self.clock.monotonic,
            random=self.random,
            pods=self.pods,
            turns=self.turns,
            report=self._report,
        )

    def _report(self, label: str, *state: int) -> None:
        self.reports[label] = state  # type: ignore[assignment]  # a report has three numbers

    @contextmanager
    def life(self) -> Iterator[Callable[[], Awaitable[None]]]:
        """A process's life: what it gives looks once and takes turns until there is nothing to do. It ends without a last word."""
        tailer = self.tailer()

        async def go() -> None:
            await tailer.look()
            while await tailer.turn():
                pass
            tailer._say()

        try:
            yield go
        finally:
            tailer._watch.close()

    def look(self, *steps: Callable[[], object], seconds: float = 2.0) -> None:
        """One life: look and read, then each step followed by the same, `seconds` apart."""

        async def story() -> None:
            with self.life() as go:
                await go()
                for step in steps:
                    step()
                    self.clock.seconds += seconds
                    await go()

        asyncio.run(story())

    @property
    def bodies(self) -> list[Any]:
        """The bodies of all events, in their order."""
        return [event.body for event in self.intake.events]


def write(path: Path, text: str | bytes) -> None:
    """Append to a file, as a service does."""
    with path.open("ab") as file:
        file.write(text.encode() if isinstance(text, str) else text)


def copytruncate(path: Path, copy: Path) -> None:
    """Rotate as logrotate does with ``copytruncate``."""
    copy.write_bytes(path.read_bytes())
    with path.open("r+b") as file:
        file.truncate(0)
