"""A `tally up` that is asked: by the command line, by its API, and by the addresses of its processes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx

from tests.support.tally_up import Up


class Installed:
    """A running `tally up`.

    Attributes:
        folder: of its configuration and data.
        urls: of each process by its name (`collector-side`, `correlator`, `api`).
        pids: the same with process ids.
    """

    def __init__(self, folder: Path, up: Up, token: str) -> None:
        self.folder = folder
        self.urls = up.urls
        self.pids = up.pids
        self._headers = {"authorization": f"Bearer {token}"}
        self._http = httpx.Client(timeout=30)

    @property
    def targets(self) -> dict[str, str]:
        """Job to host:port, as Prometheus wants it."""
        return {name: url.removeprefix("http://") for name, url in self.urls.items()}

    def tally(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """A `tally` command with this installation's configuration."""
        return tally(self.folder, *arguments)

    def incidents(self) -> list[dict[str, Any]]:
        """Those that the log has. May be asked from several threads."""
        answer = httpx.get(f"{self.urls['api']}/v1/incidents", headers=self._headers, timeout=30)
        found: list[dict[str, Any]] = answer.raise_for_status().json()["incidents"]
        return found

    def close(self) -> None:
        """Give the connections back."""
        self._http.close()


def tally(folder: Path, *arguments: str, seconds: float = 60.0) -> subprocess.CompletedProcess[str]:
    """A `tally` command with the configuration in this folder."""
    command = [sys.executable, "-m", "deploy.cli", "--config", str(folder / "tally.toml"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=seconds)


def auditor_token(folder: Path) -> str:
    """A token of an auditor's, added before anything runs there."""
    return str(json.loads(tally(folder, "token", "add", "ann", "--role", "auditor", "--json").stdout)["token"])
