"""What tests with other people's senders and servers share: programs that are built once a session."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from drills.matrix.programs import Programs


@pytest.fixture(scope="session")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Programs]:
    """Senders' programs, and brokers."""
    with Programs(tmp_path_factory.mktemp("programs")) as made:
        yield made


@pytest.fixture(scope="session")
def packages(programs: Programs) -> Path:
    """A folder with the programs in JavaScript and the packages of the lock file."""
    return programs.npm
