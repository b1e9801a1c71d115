"""Bodies that come slowly: what a sender holds half read, others cannot have."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from starlette.requests import Request

from collector.errors import Overloaded
from collector.receive.body import BodyLimits, read_body
from collector.receive.room import Pace, Room


class Coming:
    """A body that comes in pieces, each so many seconds after the one before."""

    def __init__(self, pieces: Sequence[tuple[float, bytes]], *, coding: str = "identity") -> None:
        self.left = list(pieces)
        self.seconds = 0.0
        self.pace = Pace(clock=lambda: self.seconds)
        headers = [(b"content-encoding", coding.encode())]
        self.request = Request({"type": "http", "method": "POST", "headers": headers}, self._receive)

    async def _receive(self) -> dict[str, Any]:
        after_seconds, piece = self.left.pop(0)
        self.seconds += after_seconds
        return {"type": "http.request", "body": piece, "more_body": bool(self.left)}

    def read(self, room: Room) -> bytes:
        async def reading() -> bytes:
            with room.claim() as claim:
                return await read_body(self.request, BodyLimits(), claim, self.pace)

        return asyncio.run(reading())


@pytest.mark.parametrize("coding", ["identity", "gzip"])
def test_a_byte_now_and_then_does_not_hold_the_room(coding: str) -> None:
    room = Room(2**20)
    trickling = Coming([(0.0, bytes(2**20 - 1_000)), *((30.0, b"x") for _ in range(1_000))], coding=coding)
    with pytest.raises(Overloaded, match="slowly"):
        trickling.read(room)
    assert trickling.seconds <= 180.0
    assert room.used_bytes == 0


def test_a_slow_line_is_read_to_its_end() -> None:
    steady = Coming([(5.0, bytes(10_000)) for _ in range(90)])  # seven and a half minutes
    assert len(steady.read(Room(2**20))) == 900_000
    assert Coming([(59.0, b"x") for _ in range(9)]).read(Room(2**20)) == b"x" * 9
