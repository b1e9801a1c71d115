"""An answer that is made while it is sent, so that it may be of any length."""

import asyncio
import logging
from collections.abc import Mapping
from contextlib import aclosing
from typing import Protocol, Self

from starlette.responses import Response, StreamingResponse
from starlette.types import Message, Receive, Scope, Send

__all__ = ["STALL_SECONDS", "ByteStream", "StreamedAnswer", "answer_of"]

STALL_SECONDS = 60.0
"""A reader that takes nothing for so long is let go of: what makes the answer is bounded, and others wait for it."""

_REPEATED_SECONDS = 0.05

_log = logging.getLogger("tally.api")


class ByteStream(Protocol):
    """Bytes that are made one part after the other. Closed in any case, even when nothing was asked of it."""

    def __aiter__(self) -> Self:
        """Itself."""

    async def __anext__(self) -> bytes:
        """The next part."""

    async def aclose(self) -> None:
        """Let go of what it holds; may be called again."""


class StreamedAnswer(StreamingResponse):
    """Sends what a `ByteStream` makes, and closes it whatever happens.

    Where that fails the connection is broken off without the end that HTTP demands (RFC 9112 section 8), so that no reader takes the
    beginning for the whole.

    Args:
        parts: the body's bytes.
        status: of the answer.
        media_type: of the body.
        headers: further headers.
        stall_seconds: see `STALL_SECONDS`.
    """

    def __init__(
        self,
        parts: ByteStream,
        *,
        status: int = 200,
        media_type: str,
        headers: Mapping[str, str],
        stall_seconds: float = STALL_SECONDS,
    ) -> None:
        super().__init__(parts, status_code=status, media_type=media_type, headers=dict(headers))
        self._parts = parts
        self._stall_seconds = stall_seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See `starlette.responses.Response`; a reader that is gone before the first part closes the stream, too."""
        async with aclosing(self._parts):
            await super().__call__(scope, receive, send)

    async def listen_for_disconnect(self, receive: Receive) -> None:
        """Return once the reader is gone; a server that repeats the (empty) request instead of waiting does not keep us busy."""
        while (await receive())["type"] != "http.disconnect":  # noqa: ASYNC110 - it waits for a message, not for a state
            await asyncio.sleep(_REPEATED_SECONDS)

    async def stream_response(self, send: Send) -> None:
        """Send everything; raises what the stream raises, and TimeoutError when the reader takes nothing."""

        async def patiently(message: Message) -> None:
            async with asyncio.timeout(self._stall_seconds):
                await send(message)

        try:
            await super().stream_response(patiently)
        except Exception as error:
            _log.error("a streamed answer was broken off: %s", str(error) or type(error).__name__)
            raise


def answer_of(body: bytes | ByteStream, status: int, *, media_type: str, headers: Mapping[str, str]) -> Response:
    """The answer with this body: whole, or made while it is sent."""
    if isinstance(body, bytes):
        return Response(body, status_code=status, media_type=media_type, headers=dict(headers))
    return StreamedAnswer(body, status=status, media_type=media_type, headers=headers)
