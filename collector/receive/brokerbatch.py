"""Messages of a broker that are in hand and not durable yet, and how long they wait when they cannot be taken."""

import os
from collections.abc import Callable

from collector.errors import Malformed, Overloaded
from collector.receive import Arrival, Intake
from collector.receive.brokermessage import BrokerMessage, Reading, arrival_of_broker_message
from collector.receive.portions import Portions
from collector.rejection import Rejection

__all__ = ["BrokerBatch", "Pressure"]

_MAX_BACKOFF_SECONDS = 5.0


class BrokerBatch:
    """A batch in the order in which it came.

    Args:
        reading: how its messages are read.
        observed: when they came, RFC 3339.
        random: gives as many random bytes as asked for.

    Attributes:
        count: of its messages.
    """

    def __init__(self, reading: Reading, *, observed: str, random: Callable[[int], bytes] = os.urandom) -> None:
        self._reading = reading
        self._observed = observed
        self._arrivals: list[Arrival] = []
        self._refusals: list[Rejection] = []
        self._random = random
        self._portions: Portions | None = None
        self.count = 0

    def add(self, message: BrokerMessage, *, again: bool = False) -> None:
        """Add a message. `again`: the broker has handed it out before; where nothing tells whether it was taken then, the event is marked."""
        self.count += 1
        try:
            arrival = arrival_of_broker_message(message, self._reading, observed=self._observed)
        except Malformed as error:
            self._refusals.append(Rejection(message.value or b"", error, message.origin, message.source_id or b""))
            return
        if again and arrival.source_id is None:
            arrival.event.marks.append("redelivered")
        self._arrivals.append(arrival)

    async def store(self, intake: Intake) -> None:
        """Make the events durable, and dead letters of what cannot be read.

        Raises:
            Overloaded: not all of it is. Called again it does the rest, and what was done by then is recognised. Nothing can be added any more.
        """
        await intake.reject(self._refusals)
        if self._portions is None:
            # a name, where messages have none: what the spool has, but the store had not in time, is recognised when it is tried again
            named = any(arrival.source_id is None for arrival in self._arrivals)
            self._portions = Portions(self._arrivals, group_id=self._random(16) if named else None)
        await self._portions.hand_over(intake)


class Pressure:
    """How long what cannot be taken now waits: as long as the intake says, and longer each time, up to 5 seconds."""

    def __init__(self) -> None:
        self._seconds = 0.0

    def felt(self, error: Overloaded) -> float:
        """It could not be taken: the seconds to wait before the next trial."""
        self._seconds = min(max(error.retry_after_seconds, 2 * self._seconds), _MAX_BACKOFF_SECONDS)
        return self._seconds

    def eased(self) -> None:
        """Nothing waits any more."""
        self._seconds = 0.0
