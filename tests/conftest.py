"""Fixtures that every folder of tests may use."""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.support.need import need
from tests.support.s3_server import BUCKET, S3Server, s3_server

pytest_plugins = ["tests.servers.fixtures"]

# In CI a failure must be the commit's, not the dice's, and a slow shared core is no finding.
settings.register_profile("ci", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("desk", deadline=None)
settings.load_profile("ci" if os.environ.get("CI", "").lower() == "true" else "desk")


@pytest.fixture(scope="session")
def repo_root() -> Path:
    """The folder that holds `tests/`: the checkout, or CI's copy of the tests beside an installed wheel."""
    return Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def data_dir(repo_root: Path) -> Path:
    """The real data sets: the folder named by `TALLY_DATA`, else `../shared/data` beside the checkout. Read-only."""
    named = os.environ.get("TALLY_DATA")
    folder = Path(named) if named else repo_root.parent / "shared" / "data"
    need(folder.is_dir(), f"no data sets at {folder}: set TALLY_DATA to the folder that holds them")
    return folder


@pytest.fixture(scope="session")
def _s3_server() -> Iterator[S3Server]:
    with s3_server() as server:
        yield server


_prefixes = count()


@pytest.fixture
def s3(_s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> S3Server:
    """An S3 server that runs; its credentials are in the environment. For tests marked ``objectstore``."""
    for name, value in _s3_server.environment.items():
        monkeypatch.setenv(name, value)
    return _s3_server


@pytest.fixture
def s3_url(s3: S3Server) -> str:
    """A place on it that no other test uses."""
    return f"s3://{BUCKET}/test-{next(_prefixes)}/log"
