"""The demo does what it says: every payment gets the verdict that it should, the proof holds, and nothing is left running."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_the_demo(repo_root: Path, tmp_path: Path) -> None:
    here = tmp_path / "examples" / "payments"
    shutil.copytree(
        repo_root / "examples" / "payments", here, ignore=shutil.ignore_patterns("tally-data", "__pycache__")
    )
    environment = os.environ | {"PYTHONPATH": str(repo_root), "COLUMNS": "110"}
    environment.pop("TALLY_CONFIG", None)
    run = [sys.executable, str(here / "run.py")]
    done = subprocess.run(run, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == "", "nothing complains"
    assert "unexpected" not in done.stdout
    table = dict(re.findall(r"^ +\d+  (\w+) +(\w+)$", done.stdout, re.MULTILINE))
    assert table["forget"] == "incomplete"
    assert table["compensation"] == table["timeout"] == "compensated"
    assert table["success"] == table["decline"] == table["retry"] == "complete"
    assert "Missing   notified: customer.notified of notifications" in done.stdout
    assert "Proof     verified: " in done.stdout
    assert "\nTRUE: " in done.stdout
    assert re.search(r"\[\d{4}[ -]?\d\d[\d*]\*[*\d -]+~card:", done.stdout), "a card number shows masked"
    seconds = int(re.search(r"done in (\d+) s", done.stdout)[1])  # type: ignore[index]
    assert seconds < 60

    data = here / "tally-data"
    assert list((data / "run").glob("*.json")) == [], "everything was stopped"
    kept = [path for path in data.rglob("*") if path.is_file()]
    for number in ("4111 1111 1111 1111", "5555-5555-5555-4444", "378282246310005"):
        assert [path for path in kept if number.encode() in path.read_bytes()] == [], "a card number reached the disk"

    def tally(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "deploy.cli", "--config", str(here / "tally.toml"), *arguments]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)

    checked = tally("check")
    assert checked.returncode == 0, checked.stdout
    undone = re.search(r"tally trail (\S+) +# a payment that was undone", done.stdout)
    assert undone is not None
    story = tally("trail", undone[1])
    assert story.returncode == 0
    assert all(step in story.stdout for step in ("card.charged", "card.refunded", "funds.released", "COMPENSATED"))
    done_well = tally("find", "--status", "complete", "--service", "notifications").stdout.split()[3]
    traces = re.findall(r"trace/[0-9a-f]{32} \(", tally("trail", done_well, "--width", "140").stdout)
    assert len(traces) == 2, "the asynchronous step ran in a trace of its own, and is in the story"
