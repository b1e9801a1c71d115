"""What README.md shows is what happens."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.pages import FENCE


@pytest.fixture(scope="module")
def readme(repo_root: Path) -> str:
    return (repo_root / "README.md").read_text(encoding="utf-8")


def block(readme: str, heading: str, at: int) -> str:
    section = readme.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    return [match["text"] for match in FENCE.finditer(section)][at]


def test_the_first_verified_trail_is_within_forty_lines(readme: str) -> None:
    assert "tally verify" in "\n".join(readme.splitlines()[:40])


def test_the_first_verified_trail(readme: str, repo_root: Path, tmp_path: Path) -> None:
    commands = block(readme, "The first verified trail", 0)
    assert commands.startswith('export PATH="$PWD/.venv/bin:$PATH"\n')
    tools = tmp_path / ".venv" / "bin"
    tools.mkdir(parents=True)
    (tools / "tally").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m deploy.cli "$@"\n')
    (tools / "tally").chmod(0o755)
    environment = os.environ | {"PYTHONPATH": str(repo_root), "COLUMNS": "100"}
    environment.pop("TALLY_CONFIG", None)
    done = subprocess.run(
        ["sh", "-e", "-c", commands], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr

    def steady(text: str) -> str:
        """Without what differs each time: the token of a card number and the log's key."""
        text = re.sub(r"~card:[a-z]{4}…", "~card:…", text)
        return re.sub(r"localhost/tallystick\+[0-9a-f]{8}", "localhost/tallystick+…", text)

    assert steady(block(readme, "The first verified trail", 1)) in steady(done.stdout)
    assert "\nTRUE: " in done.stdout


def test_the_addresses_are_the_defaults(readme: str) -> None:
    from deploy.config import Config

    config = Config()
    assert f"Forward, `127.0.0.1:{config.collector.forward.port}`" in readme
    assert f"OTEL_EXPORTER_OTLP_ENDPOINT=http://127.0.0.1:{config.collector.http.port}`" in readme
    assert f"http://127.0.0.1:{config.collector.http.port}/v1/events" in readme
    assert f"http://127.0.0.1:{config.audit_api.port}/openapi.json" in readme
