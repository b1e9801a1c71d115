"""Fingerprints of a file's contents: is this still, or again, what was read? Pure.

An inode's number is given to another file once its file is gone, and a file may be emptied and filled again under the same number. So beside
the number the head of the contents counts (its first 1,024 bytes, or as many as there were), and what stands before some of the places up to
which it was read. A file that has all of it has what was read; one that lacks the last place but has an earlier one is an unfinished
or older copy.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

__all__ = ["HEAD_BYTES", "MARKS", "Likeness", "Mark", "Prints", "likeness"]

HEAD_BYTES = 1_024
"""How much of the head, and how much before each place, is compared."""

MARKS = 8
"""How many places are remembered."""

Reader = Callable[[int, int], bytes]
"""Gives the bytes at an offset, at most so many; fewer at the end of the file."""


class Mark(NamedTuple):
    """The SHA-256 of the `size` bytes that stand before `offset`, hex."""

    offset: int
    size: int
    digest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Prints:
    """What is known of some contents: the head's length and SHA-256 (hex), and the newest `Mark`s, ascending."""

    head_bytes: int = 0
    head: str = ""
    marks: tuple[Mark, ...] = ()

    @property
    def read_to(self) -> int:
        """Contents that are these have at least so many bytes."""
        return max(self.head_bytes, self.marks[-1].offset if self.marks else 0)

    def after(self, head: bytes, read_to: int, before: bytes) -> "Prints":
        """The prints once the contents were read up to `read_to`.

        `head`: their first bytes, at most `HEAD_BYTES` and none at or behind `read_to`; `before`: the bytes before `read_to`.
        """
        before = before[-HEAD_BYTES:]
        mark = Mark(read_to, len(before), digest(before))
        older = tuple(one for one in self.marks if one.offset < read_to)
        grown = head[: min(HEAD_BYTES, read_to)]
        return Prints(head_bytes=len(grown), head=digest(grown), marks=(*older, mark)[-MARKS:])


class Likeness(NamedTuple):
    """How a file's contents compare with prints.

    `same`: they are these contents, whole as far as they were read. `older`: they agree as far as they go, at two places or more before that
    one. Neither: they are others, or too short to be told from others that begin alike.
    """

    same: bool = False
    older: bool = False


def likeness(prints: Prints, size: int, read: Reader) -> Likeness:
    """Compare a file of `size` bytes with prints. Prints of nothing are like nothing."""
    if not prints.head_bytes or size < prints.head_bytes or digest(read(0, prints.head_bytes)) != prints.head:
        return Likeness()

    def held(mark: Mark) -> bool:
        return digest(read(mark.offset - mark.size, mark.size)) == mark.digest

    within = [mark for mark in prints.marks if mark.offset <= size]
    if within == list(prints.marks):
        return Likeness(same=held(within[-1]))
    return Likeness(older=len(within) > 1 and all(map(held, within)))


def digest(data: bytes) -> str:
    """SHA-256, hex."""
    return hashlib.sha256(data).hexdigest()
