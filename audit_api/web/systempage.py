"""The page of the ledger itself: how far log and index are, whether anything of a stream is missing."""

from collections.abc import Awaitable, Callable, Mapping

import msgspec

from audit_api.gate import Call, Operation, Reading, Runner
from audit_api.overview import Overview
from audit_api.web.frame import HEADERS, Frame
from audit_api.web.locales import Manner
from audit_api.web.parts import ZONE, forgiving, told_trail

__all__ = ["SystemPage"]


class SystemPage:
    """The page, and the operation that it is.

    Args:
        frame: renders it.
        overview: answers ``/v1/status`` and ``/v1/streams``.
        look: what ``/readyz`` asks: why requests cannot be answered now; empty: they can.
    """

    def __init__(self, frame: Frame, *, overview: Overview, look: Callable[[], Awaitable[list[str]]]) -> None:
        self._frame = frame
        self._overview = overview
        self._look = look
        self._status, self._streams, _ = overview.operations()

    def operation(self) -> Operation:
        """As the gate takes it; what it reads is put in with each request."""
        return Operation(
            operation_id="systemPage",
            path="/desk/system",
            tag="page",
            summary="The ledger",
            about="",
            action=self._status.action,
            roles=self._status.roles,
            read=self._status.read,
            parameters=(ZONE, *(forgiving(one) for one in self._streams.parameters)),
        )

    async def page(self, call: Call, run: Runner, manner: Manner, _: Mapping[str, str]) -> Reading:
        """The state, rendered."""
        status = msgspec.json.decode((await self._overview.status(call, run)).body)
        streams = msgspec.json.decode((await self._overview.streams(call, run)).body)
        logs = status.get("logs") or [
            {
                "log": status["ledger"],
                "checkpoint": status["checkpoint"],
                "indexed": status["indexed"],
                "index_lag": status["index_lag"],
            }
        ]
        body = self._frame.render(
            "system.html",
            principal=call.principal,
            manner=manner,
            ledger=status["ledger"],
            fingerprint=status["fingerprint"],
            logs=logs,
            reasons=await self._look(),
            streams=[
                one | {"about": told_trail(one["trail"] or "", self._frame.text.known) if one["trail"] else None}
                for one in streams["streams"]
            ],
            following=streams["next"],
        )
        return Reading(body=body, media_type="text/html; charset=utf-8", headers=HEADERS)
