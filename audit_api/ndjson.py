"""Lists as lines of JSON (``application/x-ndjson``), page after page while they are sent, so that a list may be of any length.

The last line is an object with ``"end": true`` and counts. A stream that broke off has none, so nobody takes a part for the whole.
"""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Self

import msgspec

from audit_api.problems import Problem

__all__ = ["NDJSON", "LineStream", "Lines", "Room", "wants_lines"]

NDJSON = "application/x-ndjson"

Lines = tuple[Sequence[bytes], Any]
"""A page: each line's JSON, and what the next page is asked for with; None: there is none."""

_encode = msgspec.json.Encoder().encode


def wants_lines(accept: str) -> bool:
    """Whether an Accept header asks for lines, and not for one document as well."""
    return NDJSON in accept and "application/json" not in accept


class Room:
    """How many streams may be under way at once. In one event loop.

    Args:
        most: so many.
    """

    def __init__(self, most: int) -> None:
        self._left = most

    def enter(self) -> None:
        """Take a place; raises the problem ``too-many-requests`` when there is none."""
        if self._left <= 0:
            raise Problem("too-many-requests", "too many lists are being sent just now", headers={"Retry-After": "5"})
        self._left -= 1

    def leave(self) -> None:
        """Give the place back."""
        self._left += 1


class LineStream:
    """A `audit_api.streaming.ByteStream` of pages of lines. Holds one page.

    Args:
        first: the first page, which was read before the access went on record.
        following: reads the page that is asked for with this.
        counted: what the lines are called in the last one, as in ``{"end":true,"trails":12}``.
        more: further members of the last line.
        room: the place that is given back at the end; it has been taken, so whoever is handed this closes it or hands it on.
        lead: lines before the first page, which are not counted.
    """

    def __init__(
        self,
        first: Lines,
        following: Callable[[Any], Awaitable[Lines]],
        *,
        counted: str,
        room: Room,
        more: dict[str, Any] | None = None,
        lead: Sequence[bytes] = (),
    ) -> None:
        self._page: Lines | None = first
        self._following = following
        self._counted = counted
        self._more = more or {}
        self._lead: Sequence[bytes] = lead
        self._room: Room | None = room
        self._count = 0
        self._ended = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        if self._ended:
            raise StopAsyncIteration
        while self._page is not None:  # any number of pages in a row may be empty: the index looked, and found nothing
            found, following = self._page
            lines, self._lead = [*self._lead, *found], ()
            self._count += len(found)
            self._page = await self._following(following) if following is not None else None
            if lines:
                return b"\n".join(lines) + b"\n"
        self._ended = True
        return _encode({"end": True, **self._more, self._counted: self._count}) + b"\n"

    async def aclose(self) -> None:
        """Give the place back; once."""
        if self._room is not None:
            self._room.leave()
            self._room = None
