"""The life of a month from its first event to its retirement, told through the command, on whatever store the workshop has."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.deploy.conftest import EVENTS, event

if TYPE_CHECKING:
    from tests.deploy.conftest import Cli, Workshop

OLD = "2020.01"
OLD_NS = 1_577_880_000_000_000_000  # 2020-01-01T12:00:00Z


def old_clock() -> int:
    """A sidecar's clock in the first month."""
    return OLD_NS


def two_months(workshop: Workshop) -> None:
    """A ledger with payments of January 2020 and of now; everything is in the log."""
    workshop.collect(EVENTS, clock=old_clock)
    workshop.correlate(clock=old_clock)
    workshop.collect([event("received", "p3", second=4), event("paid", "p3", second=5)])
    workshop.correlate()


def keep_months(workshop: Workshop, months: int, holds: str = "") -> None:
    """Set the policy."""
    text = re.sub(r"\n\[retention].*", "", workshop.file.read_text(), flags=re.DOTALL)
    workshop.file.write_text(f"{text}\n[retention]\nkeep_months = {months}\n{holds}")


def retain(cli: Cli, *options: str) -> tuple[int, dict[str, Any]]:
    """Exit code, and what is told of each month."""
    code, out, err = cli("retain", "--json", *options)
    assert out, err
    return code, {one["month"]: one for one in json.loads(out)["months"]}


def retire(workshop: Workshop, cli: Cli) -> None:
    """Put the first month's retirement on record, let the correlator take it in, and carry it out."""
    keep_months(workshop, 1)
    code, told = retain(cli, "--apply", "--wait", "0")
    assert (code, told[OLD]["action"]) == (1, "stays")
    assert "not in the log yet" in told[OLD]["why"]
    workshop.correlate()
    code, told = retain(cli, "--apply")
    assert (code, told[OLD]["action"]) == (0, "gone"), told


def is_told_everywhere(workshop: Workshop, cli: Cli, folder: Path, *, bundled: int = 3) -> None:
    """What the month's trails say afterwards: proved as before, and that their events were retired; so many of them in p1's bundle."""
    code, out, _ = cli("check")
    assert code == 0, out
    assert "4 of them retired by policy" in out
    story = json.loads(cli("trail", "p1", "--json")[1])
    assert story["proof"]["state"] == "verified", story["proof"]
    assert len(story["steps"]) == 3
    assert all(
        step["message"].startswith(f"(retired by policy with {OLD}, on record at leaf") for step in story["steps"]
    )
    bundle = folder / "p1.zip"
    assert cli("export", "p1", "-o", str(bundle))[0] == 0
    code, out, _ = cli("verify", str(bundle), "--key", str(workshop.places.log_vkey))
    assert code == 0, out
    assert f"{bundled} retired by policy" in out
    assert "withheld" not in out
    story = json.loads(cli("trail", "p3", "--json")[1])
    assert [step["message"] for step in story["steps"]] == ["received p3", "paid p3"]
