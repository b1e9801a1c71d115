"""The ways in, one file each. A receiver decodes its wire format into `Arrival`s and hands them to an `Intake`.

`Intake` is what a receiver needs from the sidecar, declared here by its consumer: `collector.intake` implements it. A
receiver acknowledges its sender only after what `accept` returned is done: after the fsync, or, with ``ack = "store"``, when the store has it.
"""

from collections.abc import Awaitable, Sequence
from typing import Protocol

import msgspec

from collector.event import Event
from collector.rejection import Rejection
from collector.sender import OURSELVES, Sender

__all__ = ["Arrival", "Intake", "Receipt"]


class Arrival(msgspec.Struct, frozen=True, kw_only=True):
    """An event as a receiver decoded it: values not yet normalised, redacted or stitched.

    `source_id`: what the source calls this event (span id, ``log.record.uid``), so that a re-send is recognised; None
    when the source gives no id. At most 64 bytes.

    `plain`: the receiver's decoder has seen that attributes, resource and body hold nothing but texts, booleans, nulls and integers
    within ±(2^53−1), under names that are texts, and that times and ids have their form. It spares a second look.
    """

    event: Event
    source_id: bytes | None = None
    plain: bool = False


class Receipt(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a group: each event was stored, recognised as one stored before, or put into the dead letters.

    `refused`: of those in the dead letters the place in the group, from 0, and the reason, for a way in that answers event by event.
    """

    stored: int = 0
    duplicates: int = 0
    dead_lettered: int = 0
    refused: tuple[tuple[int, str], ...] = ()


class Intake(Protocol):
    """Takes groups of events in; what it has returned for is durable."""

    def accept(
        self,
        arrivals: Sequence[Arrival],
        *,
        group_id: bytes | None = None,
        heard: bool = True,
        sender: Sender = OURSELVES,
    ) -> Awaitable[Receipt]:
        """Normalise, redact and spool; what is returned is done after the fsync, or when the store has the group.

        A future where possible, so that a receiver that only waits for the end needs no task for it. What is raised may be
        raised by the call itself or while waiting.

        `group_id` names the whole group (a Forward chunk, the SHA-256 of a request body): a group seen before is all duplicates.
        An event that cannot be taken (too large, too deep, refused by protection) becomes a dead letter, the rest goes on.
        `sender`: whose share of the spool it counts against; a receiver tells its connections apart, and which way in it is stands in already.
        `heard`: whether a sender waits for the answer; if none does, nobody waits for the store.

        Raises:
            TooLarge: the group is larger than all that the spool may hold: nothing of it was taken, and never will be.
            Overloaded: the group was not taken, or the store did not have it in time: the sender is to try again. In the second
                case it is kept, and recognised then by its ids. Never the second when `heard` is false.
        """

    async def reject(self, rejections: list[Rejection]) -> None:
        """Put undecodable inputs into the dead letters with their reasons; redacted, cut to a bound, durable on return.

        What is durable is taken from the front of the list: called again with it after an error, the rest is done.

        Raises:
            Overloaded: the dead letters are full.
        """
