"""Runs the drills and prints their tables as Markdown. `python -m drills [PART …]`; by default all. Exit code 1: one failed."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

from drills.faults.running import faults_table, quiet_hour
from drills.faults.table import FAULTS, STORE_FAULTS
from drills.hostile.running import FULL, hostile_drill, print_hostile
from drills.matrix.table import matrix_table
from drills.opensearch import OPENSEARCH_PARTS, opensearch_tables
from drills.sigkill import sigkill_table
from drills.tamper import tamper_table

_KILLS = int(os.environ.get("TALLY_KILLS", "200"))
_SEED = int(os.environ.get("TALLY_SEED", "7"))
_OUTAGE_SECONDS = float(os.environ.get("TALLY_OUTAGE_SECONDS", "180"))
_PARTS = ("tamper", "sigkill", "opensearch", *OPENSEARCH_PARTS, "hostile", "faults", "quiet", "matrix")


def main() -> int:
    """Parse the command line and run; gives the exit code."""
    parser = argparse.ArgumentParser(prog="python -m drills", description=__doc__)
    parser.add_argument("parts", nargs="*", choices=[*_PARTS, []], default=[], metavar="PART", help=", ".join(_PARTS))
    parser.add_argument("--kills", type=int, default=_KILLS, help=f"SIGKILLs (TALLY_KILLS; default {_KILLS})")
    parser.add_argument("--seed", type=int, default=_SEED, help=f"of the instants (TALLY_SEED; default {_SEED})")
    parser.add_argument(
        "--outage-seconds",
        type=float,
        default=_OUTAGE_SECONDS,
        help=f"how long OpenSearch is away (TALLY_OUTAGE_SECONDS; default {_OUTAGE_SECONDS:.0f})",
    )
    parser.add_argument("--events", type=int, default=5_000, help="acknowledged between what goes wrong on OpenSearch")
    faults = [fault.name for fault in (*FAULTS, *STORE_FAULTS)]
    parser.add_argument(
        "--faults", nargs="+", default=(), choices=faults, metavar="NAME", help=f"{', '.join(faults)}; default: all"
    )
    parser.add_argument(
        "--quiet-seconds",
        type=float,
        default=None,
        help="without a fault: before the faults (default 180: an hour of their rules' time), or the part `quiet` (default 3600)",
    )
    parser.add_argument("--senders", nargs="+", default=(), metavar="NAME", help="of the matrix (default: all)")
    parser.add_argument("--at-once", type=int, default=1, help="senders of the matrix that run at the same time")
    parser.add_argument(
        "--folder", type=Path, default=None, help="where to write (default: the system's folder for temporary files)"
    )
    arguments = parser.parse_args()
    parts = arguments.parts or ["tamper", "sigkill", "hostile", "faults", "opensearch"]
    failed = 0
    with tempfile.TemporaryDirectory(prefix="tally-drill-", dir=arguments.folder) as name:
        folder = Path(name)
        folder.chmod(0o755)  # the server of a drill may run as somebody else
        if "tamper" in parts:
            failed += tamper_table(folder / "tamper")
        if "sigkill" in parts:
            failed += sigkill_table(folder / "sigkill", kills=arguments.kills, seed=arguments.seed)
        wanted = OPENSEARCH_PARTS if "opensearch" in parts else [part for part in OPENSEARCH_PARTS if part in parts]
        if wanted:
            failed += opensearch_tables(
                folder, wanted, outage_seconds=arguments.outage_seconds, events=arguments.events
            )
        if "hostile" in parts:
            failed += print_hostile(hostile_drill(folder / "hostile", FULL))
        if "faults" in parts:
            seconds = 180.0 if arguments.quiet_seconds is None else arguments.quiet_seconds
            failed += faults_table(folder, names=arguments.faults, quiet_seconds=seconds)
        if "quiet" in parts:
            failed += quiet_hour(folder, seconds=arguments.quiet_seconds or 3_600.0)
        if "matrix" in parts:
            failed += matrix_table(folder / "matrix", names=arguments.senders, at_once=arguments.at_once)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
