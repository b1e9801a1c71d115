"""The recorder: how our own processes put something on record. Durable on return, shipped like any service's events.

The API records accesses and refusals with it before it answers; detectors and erasures will, later.
"""

import threading

from collector.batch import EventRef, StreamId
from collector.errors import Overloaded
from collector.event import Event
from collector.pipeline import Pipeline
from collector.prepare import Preparer
from collector.receive import Arrival
from collector.spool import Group, Spooled

__all__ = ["Recorder"]

_PATIENCE_SECONDS = 30.0


class Recorder:
    """Records single events through a pipeline of its own. Thread-safe: concurrent records share one sync."""

    def __init__(self, *, pipeline: Pipeline, preparer: Preparer) -> None:
        self._pipeline = pipeline
        self._preparer = preparer

    def record(self, event: Event) -> EventRef:
        """Make the event durable in the spool; returns its id.

        Raises:
            Malformed: the event cannot be taken (our own mistake).
            Overloaded: the spool is full or the disk does not answer; the caller must not go on as if it were recorded.
            StateUnknown: the disk failed; the process must restart.
        """
        stream, result = self._recorded(Arrival(event=event))
        return EventRef(stream=stream, sequence=result.first)

    def record_once(self, event: Event, source_id: bytes) -> bool:
        """As `record`, unless an event of this id (at most 64 bytes) is on record already; whether it was recorded now. Raises as `record`."""
        _, result = self._recorded(Arrival(event=event, source_id=source_id))
        return result.stored > 0

    def _recorded(self, arrival: Arrival) -> tuple[StreamId, Spooled]:
        prepared = self._preparer.prepare([arrival])
        if prepared.refused:
            raise prepared.refused[0].error
        told = threading.Event()
        outcome: list[Spooled | Exception] = []

        def done(result: Spooled | Exception) -> None:
            outcome.append(result)
            told.set()

        group = Group(source_ids=prepared.source_ids, events=prepared.events, facts=prepared.facts)
        stream = self._pipeline.append(group, done)
        if not told.wait(_PATIENCE_SECONDS):
            raise Overloaded("the disk did not answer in time", retry_after_seconds=5.0)
        result = outcome[0]
        if isinstance(result, Exception):
            raise result
        return stream, result
