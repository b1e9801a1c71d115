"""How a pipeline stands: what metrics, readiness and `tally status` tell of it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from collector.batch import StreamId

__all__ = ["PipelineState"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PipelineState:
    """A snapshot for metrics and `tally status`.

    `waiting_seconds`: for how long, at most, the oldest event that the store does not have has been waiting; `waiting_groups`: how many groups' senders wait for the store;
    `resent_batches`: how many batches the store had lost and got again, since the start;
    `failed_rounds`: how often shipping had to be tried again, since the start; `refusing`: why events are not taken just now, and
    `store_trouble` why they are not shipped; both are empty when all is well.
    """

    stream: StreamId
    spool_bytes: int
    waiting_events: int
    waiting_seconds: float
    waiting_groups: int
    shipped_number: int
    acknowledged_number: int
    breaker_open: bool
    failed_rounds: int
    torn_bytes: int
    damaged: Sequence[Path]
    forks: int
    resent_batches: int
    refusing: str
    store_trouble: str
    last_error: str
    failed: str
