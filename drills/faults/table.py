"""The faults, each with how it is made and undone, who must be told, and within what time."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass

from drills.faults.demo import EVERYDAY
from drills.faults.setting import Setting
from drills.installation import until

__all__ = ["FAULTS", "STORE_FAULTS", "Fault"]

_SKEW_NS = 2_000_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One fault.

    Attributes:
        name: for the command line.
        made: what is done, in words.
        make: makes it, and undoes it at the block's end.
        alert: the alert that tells people; empty: none can, and the incident is what is measured.
        also: alerts that may follow, of the same fault.
        cause: of its incident; empty: an alert alone.
        later: its incident can come into the log only after it.
        bound_seconds: from the fault to the webhook, or to the incident.
        over_seconds: from its end until nothing of it is left.
    """

    name: str
    made: str
    make: Callable[[Setting], AbstractContextManager[None]]
    alert: str = ""
    also: Sequence[str] = ()
    cause: str = ""
    later: bool = False
    bound_seconds: float = 45.0
    over_seconds: float = 60.0


@contextmanager
def _sidecar_killed(made: Setting) -> Iterator[None]:
    made.here.apart.kill()
    yield
    made.here.apart.start()


@contextmanager
def _alertmanager_hangs(made: Setting) -> Iterator[None]:
    made.alertmanager.pause()
    try:
        yield
    finally:
        made.alertmanager.resume()


@contextmanager
def _event_changed(made: Setting) -> Iterator[None]:
    with closing(sqlite3.connect(made.folder / "tally-data" / "store.sqlite", timeout=30)) as store:
        batch, was = store.execute("SELECT batch, events FROM bodies ORDER BY batch LIMIT 1").fetchone()

        def put(events: bytes) -> None:
            with store:
                store.execute("UPDATE bodies SET events = ? WHERE batch = ?", (events, batch))

        put(bytes([was[0] ^ 1]) + was[1:])
        try:
            yield
        finally:
            put(was)


@contextmanager
def _clock_off(made: Setting) -> Iterator[None]:
    made.clock.ahead_ns = _SKEW_NS
    try:
        yield
    finally:
        made.clock.ahead_ns = 0


@contextmanager
def _rehearsed(made: Setting, what: str) -> Iterator[None]:
    """All customers rehearse this (examples/payments/shoppers.py)."""
    made.mood = (what,) * len(EVERYDAY)
    try:
        yield
    finally:
        made.mood = EVERYDAY


@contextmanager
def _store_killed(made: Setting) -> Iterator[None]:
    server = made.cluster.nodes[0]
    server.kill()
    yield
    server.start()
    made.cluster.wait()
    until("the store answers", lambda: made.here.tally("status").returncode == 0)


FAULTS: Sequence[Fault] = (
    Fault(
        name="sidecar",
        made="a sidecar is killed (SIGKILL), and nobody starts it again",
        make=_sidecar_killed,
        alert="TallyCollectorMissing",
        cause="collector_lost",
    ),
    Fault(
        name="alert-path",
        made="Alertmanager hangs (SIGSTOP)",
        make=_alertmanager_hangs,
        cause="alert_path_broken",
    ),
    Fault(
        name="tamper",
        made="a byte of an event is changed in the store",
        make=_event_changed,
        alert="TallyVerificationFailed",
        cause="verification_failed",
    ),
    Fault(
        name="clock",
        made="a sidecar's clock is two seconds off, by the time server that it asks every 16 s",
        make=_clock_off,
        alert="TallyClockOffset",
        cause="clock_off",
        bound_seconds=75.0,
    ),
    Fault(
        name="saga",
        made="payments are paid, and not one customer is told (a step that the flow declares)",
        make=lambda made: _rehearsed(made, "forget"),
        alert="TallyTransactionsIncomplete",
        bound_seconds=60.0,
        over_seconds=120.0,
    ),
    Fault(
        name="errors",
        made="the ledger refuses every capture: all that payments and the gateway answer is an error, and each payment is undone",
        make=lambda made: _rehearsed(made, "compensation"),
        alert="TallyErrorBudgetBurnsFast",
        also=("TallyErrorBudgetBurns",),
        bound_seconds=120.0,
        over_seconds=1_320.0,  # the slowest burn looks back six hours, which are eighteen minutes here
    ),
)

STORE_FAULTS: Sequence[Fault] = (
    Fault(
        name="store",
        made="the store's only node is killed (OpenSearch, SIGKILL)",
        make=_store_killed,
        alert="TallyStoreUnavailable",
        cause="store_outage",
        later=True,
        over_seconds=120.0,
    ),
)
