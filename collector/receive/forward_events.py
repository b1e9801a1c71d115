"""Whole events over Forward, as another collector relays them (`collector.relay`): ``[time, event]`` in PackedForward mode.

The message's option says so, ``"tallystick": "event"``; each record is then a map of the fields of an `Event` that a sender may set
(`collector.receive.event_line`), and is taken as that event. The time beside it is for servers that know records alone.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec
from msgspec.msgpack import Ext

from collector.errors import Malformed
from collector.receive.event_line import EventLine, arrival_of_event
from collector.receive.forward_group import Group

__all__ = ["WHOLE_EVENTS", "add_events", "are_whole_events"]

WHOLE_EVENTS: Mapping[str, str] = {"tallystick": "event"}
"""The option that says it."""

_decode = msgspec.msgpack.Decoder(tuple[Ext | int | float, EventLine]).decode


def are_whole_events(option: Mapping[Any, Any]) -> bool:
    """Whether a message's option says that its records are whole events."""
    return option.get("tallystick") == "event"


def add_events(group: Group, entries: Iterable[bytes], observed: str) -> int:
    """Add the event of each entry to the group, or what is wrong with it; returns how many entries there were."""
    count = 0
    for raw in entries:
        count += 1
        try:
            _, line = _decode(raw)
            arrival = arrival_of_event(line, origin=group.origin, service="", observed=observed)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            reason = f"not an event as another collector writes it: {error}"
            group.refused.append((raw, Malformed(reason, where=f"record {count}", label="bad_event")))
        except Malformed as error:
            group.refused.append((raw, Malformed(error.reason, where=f"record {count}", label=error.label)))
        else:
            group.arrivals.append(arrival)
    return count
