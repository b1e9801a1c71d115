"""A group: events that arrived together, and how their sender hears what became of them."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import msgspec

from collector.errors import TooLarge
from collector.frame import MAX_FRAME_BYTES
from collector.sender import OURSELVES, Sender

__all__ = [
    "MAX_GROUP_EVENTS",
    "MAX_ID_BYTES",
    "Deliver",
    "Done",
    "Group",
    "Spooled",
    "check_fits",
    "checked_size",
    "deliver_here",
]

_log = logging.getLogger(__name__)

MAX_GROUP_EVENTS = 32_768
"""Most events in one group: a batch is whole groups, and holds at most `collector.batch.MAX_BATCH_EVENTS`."""

MAX_ID_BYTES = 255
"""Longest group or source id: its length is one byte in a frame."""


class Group(msgspec.Struct, frozen=True, kw_only=True):
    """Events that arrived together and are acknowledged together.

    `source_ids` and `events` and `facts` run side by side; an id is empty where the source gives none. `sender` is whose share they count against.
    """

    group_id: bytes = b""
    source_ids: Sequence[bytes]
    events: Sequence[bytes]
    facts: Sequence[bytes]
    sender: Sender = OURSELVES


@dataclass(frozen=True, slots=True, kw_only=True)
class Spooled:
    """What became of a group: how many events were written, from which sequence on, and how many were there before.

    `kept`: where some were written and some were there before, the places in the group of those that were written.
    """

    first: int
    stored: int
    duplicates: int
    kept: Sequence[int] = field(default=(), compare=False)


def checked_size(group: Group) -> int:
    """The bytes of a group's events and facts.

    Raises:
        ValueError: no frame can hold the group, or ids, events and facts do not stand side by side.
    """
    if not len(group.events) == len(group.facts) == len(group.source_ids):
        raise ValueError("a group's source ids, events and facts do not stand side by side")
    if len(group.events) > MAX_GROUP_EVENTS:
        raise ValueError(f"a group of {len(group.events)} events; at most {MAX_GROUP_EVENTS}")
    if max(len(group.group_id), *map(len, group.source_ids), 0) > MAX_ID_BYTES:
        raise ValueError(f"an id of more than {MAX_ID_BYTES} bytes")
    size = sum(map(len, group.events)) + sum(map(len, group.facts))
    if size > MAX_FRAME_BYTES // 2:
        raise ValueError(f"a group of {size} bytes; at most {MAX_FRAME_BYTES // 2}")
    return size


def check_fits(size_bytes: int, limit_bytes: int) -> None:
    """Raises `TooLarge`: a group of so many bytes is more than the spool may hold, however empty it is."""
    if size_bytes > limit_bytes:
        raise TooLarge(
            f"{size_bytes} bytes of events in one group, more than the {limit_bytes} that the spool takes at all (spool.max_bytes without what is shared out): send less at a time"
        )


Done = Callable[[Spooled | Exception], None]
Deliver = Callable[[Sequence[tuple[Done, Spooled | Exception]]], None]


def deliver_here(outcomes: Sequence[tuple[Done, Spooled | Exception]]) -> None:
    """Call each `done` in the committing thread: the default. An event loop passes a function that hops to its thread once."""
    for done, outcome in outcomes:
        try:
            done(outcome)
        except Exception:  # noqa: BLE001 - whatever it is, the others must hear all the same
            _log.exception("a sender could not be told what became of its group")
