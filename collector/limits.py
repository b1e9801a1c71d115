"""Every bound of a pipeline, in one value."""

from dataclasses import dataclass, field

from collector.heal import HealLimits
from collector.retry import RetryLimits
from collector.ship import BatchLimits
from collector.spool import SpoolLimits

__all__ = ["PipelineLimits"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PipelineLimits:
    """Every bound of a pipeline.

    `linger_seconds`: how long a batch that is not half full (`enough_events`) waits for more; `release_seconds`: how often the store is asked what the log
    holds; `journal_ids`: how many source ids are remembered; `max_age_seconds`: while the oldest event that the store does not have has waited
    longer, nothing is taken; 0: it may wait for ever.
    """

    spool: SpoolLimits = field(default_factory=SpoolLimits)
    batch: BatchLimits = field(default_factory=BatchLimits)
    retry: RetryLimits = field(default_factory=RetryLimits)
    heal: HealLimits = field(default_factory=HealLimits)
    linger_seconds: float = 0.05
    release_seconds: float = 2.0
    journal_ids: int = 2_000_000
    max_age_seconds: float = 0.0

    @property
    def enough_events(self) -> int:
        """So many waiting events are shipped without lingering: half a batch, since whoever waits for an ack meanwhile waits for all of it."""
        return max(1, self.batch.events // 2)
