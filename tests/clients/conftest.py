"""What tests with other people's senders and servers share: the npm packages of the lock file."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.need import need

HERE = Path(__file__).resolve().parent


@pytest.fixture(scope="session")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the programs in JavaScript and the packages of the lock file."""
    need(shutil.which("node") and shutil.which("npm"), "the programs in JavaScript need node and npm")
    folder = tmp_path_factory.mktemp("clients")
    for name in (".npmrc", "package.json", "package-lock.json"):
        shutil.copy(HERE / name, folder)
    for path in HERE.glob("*.mjs"):
        shutil.copy(path, folder)
    done = subprocess.run(
        ["npm", "ci", "--ignore-scripts", "--no-progress"], cwd=folder, capture_output=True, text=True, check=False
    )
    need(done.returncode == 0, f"npm ci did not succeed: {done.stderr}")
    return folder
