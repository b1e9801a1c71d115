"""A disk between whose operations another process has its turn: races of writers, without threads, at the place that the test chooses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.support.faulty_disk import FaultyDisk


class Interrupted:
    """A disk on which something else may happen before any operation: another process has the machine then."""

    def __init__(self, disk: FaultyDisk) -> None:
        self._disk = disk
        self._left = 0
        self._meanwhile: Callable[[], None] = lambda: None

    def interrupt(self, after: int, meanwhile: Callable[[], None]) -> None:
        """Let this happen before the operation after so many; once."""
        self._left, self._meanwhile = after, meanwhile

    @property
    def waits(self) -> bool:
        """Whether it has not happened yet."""
        return self._left > 0

    def __getattr__(self, name: str) -> Any:
        operation = getattr(self._disk, name)

        def interrupted(*arguments: Any, **named: Any) -> Any:
            self.tick()
            return operation(*arguments, **named)

        return interrupted

    def tick(self) -> None:
        """An operation comes."""
        self._left -= 1
        if self._left == 0:
            self._meanwhile()
