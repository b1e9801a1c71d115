"""All senders, one after the other or some at once, and what became of their events: a row of Markdown each."""

from __future__ import annotations

import queue
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

from drills.matrix.away import ClusterStore
from drills.matrix.programs import Programs
from drills.matrix.running import Outcome, Plan, run
from drills.matrix.sender import Sender
from drills.matrix.senders import senders
from tests.servers.opensearch import Cluster

__all__ = ["FULL", "SHORT", "matrix_table", "row"]

FULL = Plan(events=100_000, kills=(0.1, 0.7), away=0.3, away_seconds=60.0, spool_bytes=16 * 1024**2, quiet_seconds=6.0)
"""Killed three times, the second time while the store is away for a minute."""

SHORT = Plan(events=2_000, kills=(), away=0.05, away_seconds=5.0, spool_bytes=400_000, quiet_seconds=1.5)
"""Killed once, while the store is away for five seconds: what CI runs."""

_HEAD = (
    "| sender | way in | events | acknowledged | stored | lost | doubled | given up, and said so | told later | longest wait s | s |\n"
    "|---|---|---|---|---|---|---|---|---|---|---|"
)


def matrix_table(folder: Path, *, plan: Plan = FULL, names: Sequence[str] = (), at_once: int = 1) -> int:
    """Run senders and print the table; gives how many broke a promise.

    Args:
        folder: an empty one.
        plan: what happens to each of them.
        names: of senders; empty: all.
        at_once: how many run at the same time, each with an OpenSearch of its own.
    """
    folder.mkdir(parents=True, exist_ok=True)
    failed = 0
    with ExitStack() as stack:
        programs = stack.enter_context(Programs(folder / "programs"))  # beside the folders that are named after senders
        table = senders(programs)
        wanted = [table[name] for name in names or table]
        clusters: queue.SimpleQueue[Cluster] = queue.SimpleQueue()
        for _ in range(at_once):
            clusters.put(stack.enter_context(Cluster(data=folder)))
        print(f"\n{_HEAD}", flush=True)
        pool = stack.enter_context(ThreadPoolExecutor(at_once))

        def go(sender: Sender) -> str | Outcome:
            cluster = clusters.get()
            try:
                return run(sender, plan, ClusterStore(cluster, sender.name), folder / sender.name)
            except pytest.skip.Exception as missing:  # what tests are skipped for: a tool is not there
                return f"skipped: {missing}"
            finally:
                clusters.put(cluster)

        for sender, became in zip(wanted, pool.map(go, wanted), strict=True):
            if isinstance(became, str):
                print(f"| {sender.title} | {sender.way} | {became} |", flush=True)
                continue
            broken = became.broken(len(plan.kills) + 1)
            print(row(became) + "".join(f"\n\n**{sender.name}: {text}**\n" for text in broken), flush=True)
            failed += bool(broken)
    return failed


def row(outcome: Outcome) -> str:
    """A line of the table."""
    sender = outcome.sender
    acked = f"{len(outcome.acked):,}" if sender.tells else "not told"
    given_up = f"{outcome.given_up:,}" if sender.gives_up else ""
    doubled = f"{outcome.doubled:,}"
    return (
        f"| {sender.title} | {sender.way} | {outcome.events:,} | {acked} | {outcome.in_store:,} | {outcome.lost:,} |"
        f" {doubled} | {given_up} | {outcome.refusals:,} | {outcome.held_seconds:.0f} | {outcome.seconds:.0f} |"
    )
