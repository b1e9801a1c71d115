"""What could not be taken, on its way to the dead letters."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from collector.errors import Malformed
from collector.event import Origin

__all__ = ["Rejection", "first_of", "place_in"]

_TOGETHER = 512
_TOGETHER_BYTES = 1024**2


@dataclass(frozen=True, slots=True)
class Rejection:
    """An input that is no event, and why.

    Attributes:
        raw: the input as it came.
        error: what is wrong with it, and where.
        origin: who sent it, as far as that is known.
        source_id: at most 64 bytes; names the input where its source does: coming again it makes no second letter. Empty: nothing names it.
    """

    raw: bytes
    error: Malformed
    origin: Origin | None
    source_id: bytes = b""


def place_in(group_id: bytes | None, at: int, *, decoded: bool = False) -> bytes:
    """Names an input by its place in a group that its source sends again as it was; empty where the group has no name.

    `decoded`: it was, and could not be taken all the same. Places of such are counted by themselves.
    """
    return hashlib.sha256(b"%b\0%d\0%d" % (group_id, decoded, at)).digest()[:16] if group_id else b""


def first_of(rejections: Sequence[Rejection]) -> Sequence[Rejection]:
    """So many from the front as are to be written and synced together: at least one, if there is one."""
    size_bytes = count = 0
    for one in rejections[:_TOGETHER]:
        size_bytes += len(one.raw)
        if count and size_bytes > _TOGETHER_BYTES:
            break
        count += 1
    return rejections[:count]
