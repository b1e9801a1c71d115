"""Whole events over Forward, as another collector relays them (`collector.relay`): ``[time, {"event": name, "bytes": event}]`` in PackedForward mode.

The message's option says so, ``"tallystick": "canonical"``. The name is the event's stream and sequence there, the bytes are the canonical ones of its spool
(`collector.event`). What only a collector says of an event is said anew here, and what the other one said is kept as the attribute `relay`. The time beside it
is that of shipping, for servers that know records alone.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec
from msgspec.msgpack import Ext

from collector.canonical import Normaliser
from collector.errors import Malformed
from collector.event import MAX_EVENT_BYTES, WRAPPING_LEVELS, may_hold_large_doubles
from collector.receive.census import count_json
from collector.receive.event_line import EventLine, arrival_of_event
from collector.receive.forward_group import Group

__all__ = ["CANONICAL_EVENTS", "Relayed", "add_events", "are_canonical_events"]

CANONICAL_EVENTS: Mapping[str, str] = {"tallystick": "canonical"}
"""The option that says it."""

_MAX_VALUES = 4 * 2**20
"""Of all events of a message: as many as stand in one event that is as long as any may be, and more than in a relay's chunk, which is shorter."""


class Relayed(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A record: an event that another collector has taken.

    Attributes:
        event: its name there, for people who look for it.
        bytes: its canonical JSON.
    """

    event: str
    bytes: bytes


class _RelayedLine(EventLine, forbid_unknown_fields=True):
    """An event with what only a collector says of it."""

    observed: str = ""
    origin: dict[str, Any] = msgspec.field(default_factory=dict)
    marks: list[str] = msgspec.field(default_factory=list)
    access: dict[str, Any] = msgspec.field(default_factory=dict)


_decode_entry = msgspec.msgpack.Decoder(tuple[Ext | int | float, Relayed]).decode
_decode_line = msgspec.json.Decoder(_RelayedLine).decode


def are_canonical_events(option: Mapping[Any, Any]) -> bool:
    """Whether a message's option says that its records are whole events."""
    return option.get("tallystick") == "canonical"


def add_events(group: Group, entries: Iterable[bytes], observed: str) -> int:
    """Add the event of each entry to the group, or what is wrong with it; returns how many entries there were.

    No event is decoded that is longer than any collector takes, nor what stands behind 4,194,304 values: three bytes may become a hundred.
    """
    count, left = 0, _MAX_VALUES
    for raw in entries:
        count += 1
        try:
            relayed = _decode_entry(raw)[1]
            left = _left_behind(relayed.bytes, left)
            arrival = arrival_of_event(_line(relayed), origin=group.origin, service="", observed=observed)
        except Malformed as error:
            group.refused.append((raw, Malformed(error.reason, where=f"record {count}", label=error.label)))
        except (ValueError, RecursionError) as error:  # DecodeError and UnicodeDecodeError are ValueErrors
            reason = f"not an event as another collector writes it: {error}"
            group.refused.append((raw, Malformed(reason, where=f"record {count}", label="bad_event")))
        else:
            group.arrivals.append(arrival)
    return count


def _left_behind(data: bytes, left: int) -> int:
    """How many values may stand in the events behind this one. Raises Malformed: it is too long, or has more."""
    if len(data) > MAX_EVENT_BYTES:
        raise Malformed(f"an event of more than {MAX_EVENT_BYTES} bytes", label="too_large")
    left -= count_json(data)
    if left < 0:
        raise Malformed(f"in a message of more than {_MAX_VALUES} values: this is behind", label="too_large")
    return left


def _line(relayed: Relayed) -> _RelayedLine:
    line = _decode_line(relayed.bytes)
    if may_hold_large_doubles(relayed.bytes):
        # that all its bytes are canonical is not proved, as it is not of other events: they are encoded anew
        plain = Normaliser(canonical=True).value(msgspec.to_builtins(line), -WRAPPING_LEVELS)
        line = msgspec.convert(plain, _RelayedLine)
    theirs = {"observed": line.observed, "origin": line.origin, "marks": line.marks, "access": line.access}
    said: dict[str, Any] = {"event": relayed.event, **{name: value for name, value in theirs.items() if value}}
    if "relay" in line.attributes:
        said["before"] = line.attributes["relay"]
    line.attributes["relay"] = said
    return line
