"""Shards: one ledger cut by hash of the trail id over several logs, each with its own writer (docs/format.md, "Shards"). Pure.

A log's origin says which shard it is: ``<ledger>/shard-<number>-of-<count>``; a ledger that is not cut has one log, and its origin
is the ledger's own name. So who reads a log needs nothing else to know which trails may stand in it.
"""

import re
from dataclasses import dataclass
from hashlib import sha256

from correlator.note import Verifier
from correlator.trail import kind_of

__all__ = ["MAX_SHARDS", "WHOLE", "Shard", "every_shard", "key_of_log", "shard_of", "split_origin"]

MAX_SHARDS = 64
"""Each shard's log holds every batch's entry, so more of them cost more and help less."""

_OF_STREAMS = frozenset({"batch", "gap", "fork", "enrolment"})
_NAME = re.compile(r"(.+)/shard-([1-9][0-9]?)-of-([1-9][0-9]?)", re.ASCII | re.DOTALL)


def shard_of(trail: str, count: int) -> int:
    """The number, 1 to `count`, of the shard of this trail: the first 8 bytes of SHA-256 of its id, big-endian, modulo `count`, plus 1."""
    return 1 + int.from_bytes(sha256(trail.encode("utf-8")).digest()[:8], "big") % count


@dataclass(frozen=True, slots=True, kw_only=True)
class Shard:
    """Number `number` of `count` shards; 1 of 1 is a ledger that is not cut.

    Raises:
        ValueError: there is no such shard.
    """

    number: int = 1
    count: int = 1

    def __post_init__(self) -> None:
        """Refuse a number outside of 1 to `count`, and a count outside of 1 to `MAX_SHARDS`."""
        if not 1 <= self.number <= self.count <= MAX_SHARDS:
            raise ValueError(f"there is no shard {self.number} of {self.count}; at most {MAX_SHARDS} are possible")

    @property
    def name(self) -> str:
        """What its files and its origin are called after; empty for a ledger that is not cut."""
        return f"shard-{self.number}-of-{self.count}" if self.count > 1 else ""

    def origin(self, ledger: str) -> str:
        """The origin of its log."""
        return f"{ledger}/{self.name}" if self.count > 1 else ledger

    def holds(self, trail: str) -> bool:
        """Whether this is the trail's shard."""
        return self.count == 1 or shard_of(trail, self.count) == self.number

    def takes(self, trail: str, meant: int) -> bool:
        """Whether an event of this trail stands in its log; `meant`: the number of the shard that the event itself names, 0 where it names none."""
        return self.number == meant if 1 <= meant <= self.count else self.holds(trail)

    def may_hold(self, trail: str, kind: str, meant: int = 0) -> bool:
        """Whether an entry of this kind in this trail may stand in its log; `meant` as in `takes`.

        What tells of streams stands in each shard's log, so that each can be proved alone; all else only in its trail's, or where it is meant to.
        """
        return self.takes(trail, meant) or (kind in _OF_STREAMS and kind_of(trail) in ("stream", "ledger"))


WHOLE = Shard()
"""A ledger that is not cut."""


def every_shard(count: int) -> tuple[Shard, ...]:
    """The shards of a ledger that is cut into `count`, by number; 1: the one that is all of it. Raises ValueError as `Shard`."""
    return tuple(Shard(number=number, count=count) for number in range(1, count + 1))


def split_origin(origin: str) -> tuple[str, Shard]:
    """The ledger and the shard that a log's origin names; an origin that names none is the ledger's own."""
    found = _NAME.fullmatch(origin)
    if found is not None:
        number, count = int(found[2]), int(found[3])
        if 2 <= count <= MAX_SHARDS and number <= count:
            return found[1], Shard(number=number, count=count)
    return origin, WHOLE


def key_of_log(verifier: Verifier, origin: str) -> Verifier:
    """The key that signs the log `origin` if it is a shard of the ledger that `verifier` names; else `verifier` itself.

    A ledger's one key signs the logs of all its shards, each under that log's origin.
    """
    ledger, _ = split_origin(origin)
    return verifier.named(origin) if origin != ledger and ledger == verifier.name else verifier
