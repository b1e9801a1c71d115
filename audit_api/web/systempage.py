"""The page of the ledger itself: how far log and index are, whether anything of a stream is missing."""

from typing import Any

import msgspec

from audit_api.gate import Call, Operation, Reading, Runner
from audit_api.overview import Overview
from audit_api.web.frame import HEADERS, Frame
from audit_api.web.parts import HTML, ZONE, forgiving, manner_of, page, told_trail

__all__ = ["SystemPage"]


class SystemPage:
    """The page, and the operation that it is.

    Args:
        frame: renders it.
        overview: answers ``/v1/status`` and ``/v1/streams``.
    """

    def __init__(self, frame: Frame, *, overview: Overview) -> None:
        self._frame = frame
        self._overview = overview
        self._status, self._streams, _ = overview.operations()

    def operation(self) -> Operation:
        """As the gate takes it."""
        return Operation(
            operation_id="systemPage",
            path="/desk/system",
            tag="page",
            summary="The ledger",
            about="",
            action=self._status.action,
            scoped=True,  # streams are left out for who may see but a part
            roles=self._status.roles,
            read=self.read,
            parameters=(ZONE, *(forgiving(one) for one in self._streams.parameters)),
        )

    async def read(self, call: Call, run: Runner) -> Reading:
        """The state, rendered; raises as the operations do when log or index do not answer."""
        status = msgspec.json.decode((await self._overview.status(call, run)).body)
        streams: dict[str, Any] = {"streams": [], "next": None}
        if call.scope.whole:
            streams = msgspec.json.decode((await self._overview.streams(call, run)).body)
        logs = status.get("logs") or [
            {
                "log": status["ledger"],
                "checkpoint": status["checkpoint"],
                "indexed": status["indexed"],
                "index_lag": status["index_lag"],
            }
        ]
        body = page(
            self._frame,
            "system.html",
            call.session,
            call.principal,
            manner=manner_of(call.request, call.values["zone"]),
            ledger=status["ledger"],
            fingerprint=status["fingerprint"],
            logs=logs,
            streams=[
                one | {"about": told_trail(one["trail"] or "", self._frame.text.known) if one["trail"] else None}
                for one in streams["streams"]
            ],
            following=streams["next"],
            whole=call.scope.whole,
        )
        return Reading(body=body, media_type=HTML, headers=HEADERS)
