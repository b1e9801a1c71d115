"""SIGKILL at random instants, over the whole ledger, and what must hold afterwards."""

from __future__ import annotations

from pathlib import Path

from tests.support.killing import sigkill_drill

__all__ = ["sigkill_table"]


def sigkill_table(folder: Path, *, kills: int, seed: int) -> int:
    """Run the drill and print its table; gives how many of its promises were broken."""
    done = sigkill_drill(folder, kills=kills, seed=seed, least_events=500)
    targets = ", ".join(f"{name} {count}" for name, count in sorted(done.kills.items()))
    broken = {
        "acknowledged and not stored": len(done.lost),
        "stored twice": len(done.doubled),
        "stored without an entry in the log": abs(done.stored - done.entries),
        "batches that still wait": done.waiting,
        "findings of `tally check`": len(done.findings),
        "processes that did not stop cleanly in the end": sum(code != 0 for code in done.exit_codes),
    }
    print(f"\n| {done.kills.total()} SIGKILLs, seed {seed} | |")
    print("|---|---|")
    print(f"| killed | {targets} |")
    print(f"| of these while starting again | {done.killed_while_starting} |")
    print(f"| chunks acknowledged | {done.chunks:,} |")
    print(f"| sends without an answer (many while nobody listened), repeated | {done.resends:,} |")
    print(f"| events acknowledged | {done.acknowledged:,} |")
    print(f"| events stored | {done.stored:,} |")
    for what, count in broken.items():
        print(f"| **{what}** | {count} |")
    for line in (*done.lost[:10], *done.doubled[:10], *done.findings[:10]):
        print(f"\n{line}")
    return sum(count > 0 for count in broken.values())
