"""What a spool refuses, and why: said in the log when it begins and when it is over, and asked for by metrics and `tally status`."""

import logging
import time
from collections.abc import Callable

from collector.errors import Overloaded

__all__ = ["Refusals"]

_log = logging.getLogger(__name__)

_RETRY_AFTER_SECONDS = 5.0

_CURRENT_SECONDS = 60.0
"""So long after a refusal it counts as current: a sender that was told to wait comes again much sooner."""

_LEAST_BETWEEN_LINES_SECONDS = 5.0
"""A spool at its bound may take a small group between two large ones that it refuses: the log need not have a line for each."""


class Refusals:
    """Of one spool. `monotonic`: seconds that never go back."""

    def __init__(self, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._reason = ""
        self._at = 0.0
        self._told: float | None = None
        self._is_told = False
        self._share = False

    @property
    def now(self) -> str:
        """Why events are refused; empty while they are taken, or when nobody has tried for a minute."""
        return self._reason if self._reason and self._monotonic() - self._at <= _CURRENT_SECONDS else ""

    def note(self, reason: str, *, share: bool = False) -> None:
        """A group was refused, and its sender told so; `share` as in `refuse`."""
        fresh = not self.now or (self._share and not share)
        self._share = share
        self._reason, self._at = reason, self._monotonic()
        if fresh and (self._told is None or self._at - self._told >= _LEAST_BETWEEN_LINES_SECONDS):
            self._told = self._at
            self._is_told = True
            _log.warning("no events are taken: %s", reason)

    def refuse(self, reason: str, *, share: bool = False) -> Overloaded:
        """Note it; returns the error to raise. `share`: the sender has its share, and others may still be taken from."""
        self.note(reason, share=share)
        return Overloaded(reason, retry_after_seconds=_RETRY_AFTER_SECONDS)

    def over(self, *, full: bool = False) -> None:
        """A group was taken. `full`: of who has its share, none would be."""
        if full and self._share:
            return
        self._reason = ""
        if self._is_told:
            self._is_told = False
            _log.info("events are taken again")
