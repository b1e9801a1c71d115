"""How HTTP servers leave: while a sidecar drains, they listen on, finish what they have begun, and ask for patience in place of new requests.

A listener that closes first would tell a load balancer and a scraper nothing, and cut a keep-alive connection in the moment in which its sender
uses it again. So ``/readyz`` says why, ``/metrics`` shows the drain, and a new request hears 503 with Retry-After and ``Connection: close``
(RFC 9110 sections 15.6.4 and 10.2.3), which every sender of ours tries again.
"""

import asyncio
from collections.abc import Callable
from typing import Any

from collector.errors import Overloaded
from collector.receive.problem import problem, retry_after

__all__ = ["Leaving"]

_ALWAYS = frozenset({"/metrics", "/livez", "/readyz"})
_RETRY_AFTER_SECONDS = 2.0
"""About what a sidecar takes to start again."""


class Leaving:
    """Counts the requests under way of all applications that it wraps, and turns new ones away from `begin` on.

    `refused`: called with ``stopping`` for each request that is turned away.
    """

    def __init__(self, *, refused: Callable[[str], object] = lambda _reason: None) -> None:
        self._refused = refused
        self._under_way = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self.begun = False

    def wrap(self, application: Any) -> Any:
        """The ASGI application behind the count."""

        async def served(scope: Any, receive: Any, send: Any) -> None:
            if scope["type"] != "http" or scope["path"] in _ALWAYS:
                await application(scope, receive, send)
                return
            if self.begun:
                self._refused("stopping")
                later = Overloaded("the collector is stopping", retry_after_seconds=_RETRY_AFTER_SECONDS)
                headers = {**retry_after(later), "Connection": "close"}
                await problem(503, "Overloaded", str(later), headers=headers)(scope, receive, send)
                return
            self._under_way += 1
            self._idle.clear()
            try:
                await application(scope, receive, send)
            finally:
                self._under_way -= 1
                if not self._under_way:
                    self._idle.set()

        return served

    async def begin(self, grace_seconds: float) -> None:
        """Turn away what comes from now on; returns when what came before is answered, at most after `grace_seconds`."""
        self.begun = True
        try:
            await asyncio.wait_for(self._idle.wait(), grace_seconds)
        except TimeoutError:
            pass  # a request that comes in drop by drop: nothing of it was taken, and it is told so when the server closes
