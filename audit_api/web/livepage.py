"""The page of what happens now: the newest trails and verdicts as a list, which a script goes on with from `/v1/live`."""

from typing import Any

from audit_api.gate import Call, Operation, Reading, Runner
from audit_api.live import Live
from audit_api.parameters import Parameter
from audit_api.web.frame import HEADERS, PREFIX, Frame
from audit_api.web.parts import HTML, ZONE, forgiving, manner_of, page, told_trail
from correlator.index.vocabulary import KINDS

__all__ = ["LivePage"]

SHOWN = 50
"""Lines of the page as it is served; the script keeps more, and no more than four times as many."""
_ANY_KIND = "any"


def _kind(text: str) -> str:
    if text not in (*KINDS, _ANY_KIND):
        raise ValueError(f"it is none of {', '.join((*KINDS, _ANY_KIND))}")
    return text


class LivePage:
    """The page, and the operation that it is.

    Args:
        frame: renders it.
        live: tells what happens.
    """

    def __init__(self, frame: Frame, live: Live) -> None:
        self._frame = frame
        self._live = live
        (self._read,) = live.operations()

    def operation(self) -> Operation:
        """As the gate takes it."""
        kind = Parameter(name="kind", about="", schema={"type": "string"}, parse=_kind, default="transaction")
        return Operation(
            operation_id="livePage",
            path=f"{PREFIX}/live",
            tag="page",
            summary="What happens now",
            about="",
            action=self._read.action,
            scoped=self._read.scoped,
            roles=self._read.roles,
            read=self.read,
            parameters=(ZONE, forgiving(kind)),
        )

    async def read(self, call: Call, run: Runner) -> Reading:
        """The newest, newest first, and the place from which a script goes on."""
        kind = call.values["kind"]
        asked = "" if kind == _ANY_KIND else kind
        told, place = await self._live.latest(run, call.scope, kind=asked, most=SHOWN)
        body = page(
            self._frame,
            "live.html",
            call.session,
            call.principal,
            manner=manner_of(call.request, call.values["zone"]),
            rows=[self._row(name, what) for name, what in told],
            place=place,
            kind=kind,
            asked=asked,
            kinds=(*KINDS, _ANY_KIND),
            zone=call.values["zone"],
            most=SHOWN * 4,
            script_texts=self._frame.text.below("live_script")
            | {f"kind_{name}": self._frame.text(f"kinds.{name}") for name in KINDS}
            | self._frame.text.below("status"),
        )
        return Reading(body=body, media_type=HTML, headers=HEADERS)

    def _row(self, name: str, what: dict[str, Any]) -> dict[str, Any]:
        return {
            **told_trail(what["trail"], self._frame.text.known),
            "recorded": what["recorded"],
            "verdict": str(what.get("verdict", {}).get("verdict", "")) if name == "verdict" else "",
        }
