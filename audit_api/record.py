"""What the gate puts on record: each access and refusal before its answer leaves, and of refusals that cost their sender nothing a count."""

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from audit_api.accesses import AccessRecorder, Asked, access_event, surplus_event
from audit_api.auth import ANONYMOUS
from audit_api.limits import RefusalBudget
from audit_api.metrics import ApiMetrics
from audit_api.problems import Problem, not_on_record
from audit_api.settings import ApiSettings
from collector.event import Event

__all__ = ["Record"]

_log = logging.getLogger("tally.api")


class Record:
    """Puts accesses on record. Used in the event loop; close it.

    Args:
        recorder: makes them durable; used by several threads.
        settings: limits.
        clock: Unix time in nanoseconds.
        monotonic: seconds that only go forward.
        metrics: where to count.
    """

    def __init__(
        self,
        recorder: AccessRecorder,
        *,
        settings: ApiSettings,
        clock: Callable[[], int],
        monotonic: Callable[[], float],
        metrics: ApiMetrics,
    ) -> None:
        self._recorder = recorder
        self._clock = clock
        self._monotonic = monotonic
        self._metrics = metrics
        self._refusals = RefusalBudget(per_minute=settings.anonymous_refusals_a_minute, clock=clock)
        # Many record: each waits for the disk, and those that wait at once share its sync.
        self._threads = ThreadPoolExecutor(settings.recorder_threads, thread_name_prefix="tally-api-record")

    async def take(
        self, asked: Asked, *, principal: str, problem: Problem | None, status: int, head: int = -1
    ) -> Problem | None:
        """Put an access, or with `problem` a refusal, on record; gives the problem when that cannot be done."""
        try:
            await self._surplus()
            # what costs its sender nothing, and what no principal answers for
            free = ("unauthenticated", "too-many-requests")
            bounded = problem is not None and (principal == ANONYMOUS or problem.kind.name in free)
            if bounded and not self._refusals.take(principal):
                self._metrics.surplus_refusals.inc()
                return None
            await self._durable(
                access_event(
                    asked,
                    principal=principal,
                    status=problem.kind.status if problem is not None else status,
                    now_ns=self._clock(),
                    head=head,
                    refused=problem.kind.name if problem is not None else "",
                )
            )
        except Exception as error:  # noqa: BLE001 - whatever it is: what is not on record is not served
            _log.error("an access could not be put on record: %s", error)
            return not_on_record(error)
        return None

    async def _surplus(self, *, all_of_it: bool = False) -> None:
        """Record the refusals of minutes that are over; raises as the recorder does."""
        over = self._refusals.surplus(all_of_it=all_of_it)
        while over:
            try:
                await self._durable(surplus_event(over[-1], now_ns=self._clock()))
            except Exception:
                self._refusals.give_back(over)
                raise
            over.pop()

    async def _durable(self, event: Event) -> None:
        started = self._monotonic()
        await asyncio.get_running_loop().run_in_executor(self._threads, self._recorder.record, event)
        self._metrics.accesses.inc()
        self._metrics.record_seconds.observe(self._monotonic() - started)

    async def close(self) -> None:
        """Record what was only counted so far, and let the threads go."""
        try:
            await self._surplus(all_of_it=True)
        except Exception as error:  # noqa: BLE001 - a stop goes on; the log of this process says what was lost
            _log.error("counted refusals could not be put on record: %s", error)
        self._threads.shutdown(wait=True)
