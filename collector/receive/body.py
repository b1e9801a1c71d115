"""Bodies of HTTP requests, never larger than allowed, compressed or not."""

from collections.abc import AsyncIterator
from dataclasses import dataclass

from starlette.requests import ClientDisconnect, Request

from collector.errors import Malformed
from collector.receive.inflate import gunzip
from collector.receive.room import Claim, Pace
from collector.sender import Sender

__all__ = ["BodyLimits", "ClientDisconnect", "chunks_of", "media_type", "read_body", "sender_of"]


@dataclass(frozen=True, slots=True, kw_only=True)
class BodyLimits:
    """`max_body_bytes` as sent, `max_inflated_bytes` after decompression."""

    max_body_bytes: int = 64 * 2**20
    max_inflated_bytes: int = 64 * 2**20


def media_type(request: Request) -> str:
    """The request's media type without parameters, in lower case; empty when it names none."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


async def read_body(request: Request, limits: BodyLimits, claim: Claim, pace: Pace | None = None) -> bytes:
    """The whole body, decompressed; `claim` holds room for it, and `pace` looks at how fast it comes.

    Raises:
        Malformed: too large (``too_large``), in an unknown coding (``bad_encoding``), or no gzip (``bad_gzip``).
        Overloaded: there is no room for it, or it comes too slowly for what it holds (`Pace`).
        ClientDisconnect: the sender left before the end.
    """
    pieces: list[bytes] = []
    async for piece in chunks_of(request, limits, claim, pace):
        if _coding(request) != "gzip":  # that is in the claim already
            claim.add(len(piece))
        pieces.append(piece)
    return b"".join(pieces)  # of a single piece no copy


async def chunks_of(
    request: Request, limits: BodyLimits, claim: Claim, pace: Pace | None = None
) -> AsyncIterator[bytes]:
    """The body piece by piece as it arrives; a compressed one in one piece, held in `claim`. Raises as `read_body`."""
    coding = _coding(request)
    if coding not in {"identity", "gzip", ""}:
        raise Malformed("Content-Encoding must be gzip or identity", label="bad_encoding")
    stated = request.headers.get("content-length", "")
    if stated.isdecimal() and len(stated) < 20 and int(stated) > limits.max_body_bytes:
        raise Malformed(f"a body of more than {limits.max_body_bytes} bytes", label="too_large")
    size = 0
    held = bytearray()
    pace = pace or Pace()
    async for piece in request.stream():
        pace.check(len(piece), claim.held_bytes)
        size += len(piece)
        if size > limits.max_body_bytes:
            raise Malformed(f"a body of more than {limits.max_body_bytes} bytes", label="too_large")
        if coding == "gzip":
            claim.add(len(piece))
            held += piece
        elif piece:
            yield piece
    if coding == "gzip":
        content = gunzip(held, max_bytes=limits.max_inflated_bytes)
        del held
        claim.add(len(content))
        yield content


def _coding(request: Request) -> str:
    return request.headers.get("content-encoding", "identity").strip().lower()


def sender_of(request: Request) -> Sender:
    """The connection that a request came on."""
    return Sender(connection=hash(request.client))
