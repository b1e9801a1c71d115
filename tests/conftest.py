"""Fixtures that every folder of tests may use."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.support.need import need

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
