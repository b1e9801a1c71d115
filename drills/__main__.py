"""Runs the drills and prints their tables as Markdown. `python -m drills [tamper|sigkill …]`; both by default. Exit code 1: one failed."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

from drills.sigkill import sigkill_table
from drills.tamper import tamper_table

_KILLS = int(os.environ.get("TALLY_KILLS", "200"))
_SEED = int(os.environ.get("TALLY_SEED", "7"))


def main() -> int:
    """Parse the command line and run; gives the exit code."""
    parser = argparse.ArgumentParser(prog="python -m drills", description=__doc__)
    parser.add_argument("parts", nargs="*", choices=["tamper", "sigkill", []], default=[])
    parser.add_argument("--kills", type=int, default=_KILLS, help=f"SIGKILLs (TALLY_KILLS; default {_KILLS})")
    parser.add_argument("--seed", type=int, default=_SEED, help=f"of the instants (TALLY_SEED; default {_SEED})")
    parser.add_argument("--folder", type=Path, default=None, help="where to write; kept when a drill fails")
    arguments = parser.parse_args()
    parts = arguments.parts or ["tamper", "sigkill"]
    failed = 0
    with tempfile.TemporaryDirectory(prefix="tally-drill-", dir=arguments.folder) as name:
        if "tamper" in parts:
            failed += tamper_table(Path(name) / "tamper")
        if "sigkill" in parts:
            failed += sigkill_table(Path(name) / "sigkill", kills=arguments.kills, seed=arguments.seed)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
