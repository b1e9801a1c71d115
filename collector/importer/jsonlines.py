"""JSON lines (https://jsonlines.org): each line an Event as we write it, or any other object, taken as a free record."""

from collector.event import Origin
from collector.receive import Arrival
from collector.receive.json_lines import arrival_of_line

__all__ = ["arrival_of_json_line"]


def arrival_of_json_line(line: bytes, *, origin: Origin, source_id: bytes) -> Arrival:
    """The event of one line, recognised by its own id (a span, ``log.record.uid``) or else by `source_id`; raises `Malformed`."""
    arrival = arrival_of_line(line, origin=origin)
    return arrival if arrival.source_id else Arrival(event=arrival.event, source_id=source_id)
