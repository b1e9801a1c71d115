"""The state that a correlator derives from the log under its settings: the same for the writer and for its standby."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import msgspec

from correlator.progress import FlowTracker
from correlator.settings import CorrelatorSettings
from correlator.state import EntryReader, State

__all__ = ["open_state"]


def open_state(
    folder: Path,
    reader: EntryReader,
    size: int,
    *,
    ledger: str,
    settings: CorrelatorSettings,
    progress: Callable[[int, int], None] | None = None,
) -> State:
    """The state that a correlator with these settings works with, brought up to the log's first `size` leaves; see `State.open`."""
    return State.open(
        folder,
        reader,
        size,
        fingerprint=_fingerprint(ledger, settings),
        flows=lambda cold: FlowTracker(cold, settings.flows),
        hot_trails=settings.hot_trails,
        progress=progress,
    )


def _fingerprint(ledger: str, settings: CorrelatorSettings) -> str:
    """Of what the state follows from beside the log. Other flows begin again, so that they count from the log's start."""
    return hashlib.sha256(msgspec.json.encode([ledger, settings.flows], order="sorted")).hexdigest()
