"""What the tests of the ways in share: an intake in memory."""

from __future__ import annotations

import pytest

from tests.support.memory_intake import MemoryIntake


@pytest.fixture
def intake() -> MemoryIntake:
    return MemoryIntake()
