"""POST /v1/events: JSON lines over HTTP (https://github.com/ndjson/ndjson-spec), for whoever has an HTTP client and nothing else.

The body is taken in parts of `part_lines` lines as it arrives, so that a long body needs little memory; the answer comes after
the last part's fsync and counts what became of each line. With the header ``Idempotency-Key`` a request sent again is recognised part by
part, also when the first try broke off in the middle; one that says something else under the same key is another. Without it a repeated request is stored again, except for lines that carry an id
(spans, ``log.record.uid``).
"""

import hashlib
import re
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from collector.errors import Malformed, Overloaded
from collector.event import Origin, format_time
from collector.receive import Arrival, Intake
from collector.receive.body import BodyLimits, ClientDisconnect, chunks_of, media_type, sender_of
from collector.receive.json_lines import arrival_of_line
from collector.receive.problem import json_response, overloaded, problem
from collector.receive.room import Claim, Room
from collector.receive.turns import Share, Turns
from collector.rejection import Rejection, place_in
from collector.sender import Sender

__all__ = ["NdjsonReceiver"]

_MEDIA_TYPES = ("application/x-ndjson", "application/ndjson", "application/jsonl", "application/x-jsonlines")
_MAX_KEY_CHARACTERS = 255
_ERRORS_SHOWN = 10
_SPACE = 0x20
_EMPTY_LINES = re.compile(rb"[ \t\v\f\r\n]*\n")
_EMPTY_BYTES = 2**20
"""So much of empty lines is passed over in one go before other connections get their turn."""


@dataclass(slots=True, kw_only=True)
class _Account:
    """What became of a request's lines: `lines` is the sum of the other three."""

    lines: int = 0
    stored: int = 0
    duplicates: int = 0
    dead_lettered: int = 0
    errors: list[dict[str, Any]] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__slots__}


class NdjsonReceiver:
    """The endpoint's handler and its route.

    Args:
        intake: takes the events.
        clock: Unix time in nanoseconds; stamps `observed`.
        limits: of one body.
        max_line_bytes: longer lines become dead letters.
        part_lines, part_bytes: when so many lines or bytes have come, they are made durable together.
        room: for the bodies of all requests together.
        turns: shares of the event loop's time.
        refused: called with a reason for each refused request: ``media_type``, ``too_large``, ``bad_gzip``, ``bad_encoding``,
            ``idempotency_key``, ``overloaded``, ``connection_lost``.
    """

    def __init__(
        self,
        intake: Intake,
        *,
        clock: Callable[[], int],
        limits: BodyLimits | None = None,
        max_line_bytes: int = 2**20,
        part_lines: int = 1_000,
        part_bytes: int = 4 * 2**20,
        room: Room | None = None,
        turns: Turns | None = None,
        refused: Callable[[str], object] = lambda _reason: None,
    ) -> None:
        self._intake = intake
        self._clock = clock
        self._limits = limits or BodyLimits()
        self._max_line_bytes = max_line_bytes
        self._part_lines = part_lines
        self._part_bytes = part_bytes
        self._room = room or Room(128 * 2**20)
        self._refused = refused
        self._turns = turns or Turns()

    @property
    def routes(self) -> list[Route]:
        """The routes to mount."""
        return [Route("/v1/events", self.post, methods=["POST"])]

    async def post(self, request: Request) -> Response:
        """Take a body of JSON lines; answers 200 with the account, also when some lines became dead letters."""
        if media_type(request) not in _MEDIA_TYPES:
            self._refused("media_type")
            return problem(415, "Unsupported media type", f"send JSON lines as {_MEDIA_TYPES[0]}, one object a line")
        key = request.headers.get("idempotency-key", "")
        if len(key) > _MAX_KEY_CHARACTERS:
            self._refused("idempotency_key")
            return problem(400, "Bad request", f"Idempotency-Key has more than {_MAX_KEY_CHARACTERS} characters")
        account = _Account()
        try:
            with self._room.claim() as claim:
                await self._take(request, key.encode("latin-1"), account, claim)
        except Overloaded as error:
            self._refused("overloaded")
            return overloaded(error, taken=account.as_json())
        except ClientDisconnect:
            self._refused("connection_lost")
            return Response(status_code=400)  # nobody hears it
        except Malformed as error:
            self._refused(error.label)
            status = {"too_large": 413, "bad_encoding": 415}.get(error.label, 400)
            return problem(status, "The body was not taken to its end", str(error), taken=account.as_json())
        return json_response(account.as_json())

    async def _take(self, request: Request, key: bytes, account: _Account, claim: Claim) -> None:
        observed = format_time(self._clock())
        origin = Origin(receiver="ndjson")
        sender = sender_of(request)
        arrivals: list[Arrival] = []
        refused: list[tuple[bytes, Malformed, int]] = []
        number = size = 0
        said = hashlib.sha256()  # all lines so far: another body under the same key is no re-send of this one
        async for number, line in self._lines(request, claim, self._turns.of(sender)):
            if len(line) <= self._max_line_bytes and not line.strip():
                continue
            size += len(line)
            claim.add(len(line))
            if key:
                said.update(line + b"\n")
            try:
                if len(line) > self._max_line_bytes:
                    raise Malformed(f"a line of more than {self._max_line_bytes} bytes", label="too_large")
                arrivals.append(arrival_of_line(line, origin=origin, observed=observed))
            except Malformed as error:
                refused.append((line, error, number))
            if len(arrivals) + len(refused) >= self._part_lines or size >= self._part_bytes:
                await self._part(arrivals, refused, _part_id(key, number, said.digest()), account, sender)
                arrivals, refused = [], []
                claim.add(-size)
                size = 0
        await self._part(arrivals, refused, _part_id(key, number, said.digest()), account, sender)

    async def _part(
        self,
        arrivals: list[Arrival],
        refused: list[tuple[bytes, Malformed, int]],
        part_id: bytes | None,
        account: _Account,
        sender: Sender,
    ) -> None:
        """Make a part durable. A crash between the dead letters and the events: the request is sent again, and one with a key has the same dead letters."""
        await self._turns.of(sender).turn()
        rejections: list[Rejection] = []
        for raw, error, line in refused:
            named = Malformed(
                error.reason, where=f"line {line}" + (f", {error.where}" if error.where else ""), label=error.label
            )
            rejections.append(Rejection(raw, named, Origin(receiver="ndjson", row=line), place_in(part_id, line)))
            if len(account.errors) < _ERRORS_SHOWN:
                account.errors.append({"line": line, "reason": str(named)})
        await self._intake.reject(rejections)
        account.lines += len(refused)
        account.dead_lettered += len(refused)
        if arrivals:
            receipt = await self._intake.accept(arrivals, group_id=part_id, sender=sender)
            account.lines += len(arrivals)
            account.stored += receipt.stored
            account.duplicates += receipt.duplicates
            account.dead_lettered += receipt.dead_lettered

    async def _lines(self, request: Request, claim: Claim, share: Share) -> AsyncIterator[tuple[int, bytes]]:
        """Number and bytes of the body's lines, without their ends; an over-long one is cut to one byte more than allowed.

        Of many empty lines in a row it gives the last: they compress to nothing, so a short body may hold millions of them.
        """
        most = self._max_line_bytes + 1
        held = b""
        number, skipping = 1, False
        async for piece in chunks_of(request, self._limits, claim):
            start = 0
            while (end := piece.find(b"\n", start)) >= 0:
                if piece[start] <= _SPACE and not held and not skipping:
                    run = _EMPTY_LINES.match(piece, start, start + _EMPTY_BYTES)
                    if run is not None:
                        end = run.end() - 1
                        number += piece.count(b"\n", start, end)
                        start = end
                        await share.turn()
                if not skipping:
                    yield number, (held + piece[start : min(end, start + most)])[:most]
                number, held, skipping = number + 1, b"", False
                start = end + 1
            if not skipping:
                held += piece[start : start + most]
                if len(held) >= most:
                    yield number, held[:most]
                    held, skipping = b"", True
        if held:
            yield number, held


def _part_id(key: bytes, last_line: int, said: bytes) -> bytes | None:
    if not key:
        return None
    return hashlib.sha256(b"ndjson\0%d\0%b\0%d\0%b" % (len(key), key, last_line, said)).digest()
