"""What tests of several real processes have in common."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.killing import Process


@pytest.fixture
def processes() -> Iterator[list[Process]]:
    """A list for the processes that a test starts: what is still running in the end is killed."""
    started: list[Process] = []
    yield started
    for process in started:
        process.kill()
