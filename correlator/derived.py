"""The state that a correlator derives from the log under its settings: the same for the writer and for its standby."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import msgspec

from correlator.progress import FlowTracker
from correlator.settings import CorrelatorSettings
from correlator.shards import split_origin
from correlator.state import EntryReader, State

__all__ = ["open_state", "placement_of"]


def open_state(
    folder: Path,
    reader: EntryReader,
    size: int,
    *,
    origin: str,
    settings: CorrelatorSettings,
    progress: Callable[[int, int], None] | None = None,
) -> State:
    """The state that a correlator with these settings works with, brought up to the log's first `size` leaves; see `State.open`.

    `origin`: of the log, which says which shard it is.
    """
    return State.open(
        folder,
        reader,
        size,
        fingerprint=_fingerprint(origin, settings),
        flows=lambda cold: FlowTracker(cold, settings.flows),
        hot_trails=settings.hot_trails,
        shard=split_origin(origin)[1],
        progress=progress,
    )


def placement_of(settings: CorrelatorSettings) -> str:
    """What decides an event's trail beside the event itself, as 64 hex digits; `v` rises when `correlator.stitch` decides otherwise.

    Of a cut ledger it is the same for all shards, from the first event on.
    """
    rules = {"key_order": settings.key_order, "recorders": sorted(settings.recorders), "v": 1}
    return hashlib.sha256(msgspec.json.encode(rules, order="sorted")).hexdigest()


def _fingerprint(origin: str, settings: CorrelatorSettings) -> str:
    """Of what the state follows from beside the log. Other flows begin again, so that they count from the log's start."""
    return hashlib.sha256(msgspec.json.encode([origin, settings.flows], order="sorted")).hexdigest()
