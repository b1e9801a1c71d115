"""What people are shown of a bundle: its entries, with what is known of each. Pure."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from collector.errors import Malformed
from collector.event import Facts, decode_facts
from correlator.entry import Entry, decode_entry
from correlator.errors import VerificationError
from correlator.retired import RetiredMonth, retired_events
from correlator.trail import RETIREMENTS

if TYPE_CHECKING:
    from correlator.bundle import BundleLine, Contents

__all__ = ["Shown", "shown_of"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """One entry.

    Attributes:
        main: whether it is of the trail that the bundle is of, not of one that goes with it.
        facts: of an event, else None.
        retired: what took an event's bytes by policy, if the bundle tells so.
    """

    trail: str
    main: bool
    line: "BundleLine"
    entry: Entry
    facts: Facts | None
    retired: RetiredMonth | None


def shown_of(contents: "Contents") -> Iterator[Shown]:
    """The entries in the bundle's order. Retirements that only go with it are none: they are said of each event that they concern.

    Raises:
        VerificationError: an entry in it cannot be read.
    """
    retired = retired_events(contents)
    for at, part in enumerate(contents.trails):
        if at and part.trail == RETIREMENTS:
            continue
        for line in part.lines:
            entry = decode_entry(line.entry)
            yield Shown(
                trail=part.trail,
                main=at == 0,
                line=line,
                entry=entry,
                facts=_facts(entry),
                retired=retired.get((entry.stream, entry.sequence)),
            )


def _facts(entry: Entry) -> Facts | None:
    if entry.kind != "event":
        return None
    try:
        return decode_facts(bytes(entry.facts))
    except Malformed as error:
        raise VerificationError(f"the facts at position {entry.position} of {entry.trail}: {error}") from error
