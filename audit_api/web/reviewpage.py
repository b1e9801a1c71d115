"""The page of reviews: days and what of them is open, what waits to be looked at, and the forms that sign a trail or a day off."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any
from urllib.parse import urlencode

import msgspec

from audit_api.bodies import FORM
from audit_api.gate import Call, Operation, Reading, Runner
from audit_api.identity.crosssite import local_path
from audit_api.parameters import Parameter
from audit_api.problems import Problem
from audit_api.reviewdays import ReviewDays, day_of, span_of
from audit_api.reviews import DECISIONS, EXCEPTIONS, Reviews
from audit_api.trails import trail_target
from audit_api.web.frame import HEADERS, PREFIX, Frame
from audit_api.web.parts import HTML, ZONE, forgiving, manner_of, page, told_trail
from correlator.index import TrailSummary

__all__ = ["ReviewPage"]

_PATH = f"{PREFIX}/reviews"
_DAYS_PATH = f"{PREFIX}/review-days"
_TEXT = {"type": "string"}
_SHOWN_DAYS = 14
_SHOW = ("open", "all")


def _show(text: str) -> str:
    if text not in _SHOW:
        raise ValueError(f"it is none of {', '.join(_SHOW)}")
    return text


class ReviewPage:
    """The page, and the operations that it is.

    Args:
        frame: renders it.
        reviews: lists exceptions, signs them off.
        days: the same for days.
    """

    def __init__(self, frame: Frame, *, reviews: Reviews, days: ReviewDays) -> None:
        self._frame = frame
        self._reviews = reviews
        self._days = days
        self._list, self._sign = reviews.operations()
        self._list_days, self._sign_day = days.operations()

    def operations(self) -> list[Operation]:
        """As the gate takes them."""
        (cursor,) = (one for one in self._list.parameters if one.name == "cursor")
        show = Parameter(name="show", about="", schema=_TEXT, parse=_show, default="open")
        day = Parameter(name="day", about="", schema=_TEXT, parse=day_of)
        signed = Parameter(name="signed", about="", schema=_TEXT)
        form: dict[str, Any] = {
            "method": "POST",
            "success": 303,
            "tag": "page",
            "about": "",
            "body_limit_bytes": 16_384,
        }
        return [
            Operation(
                operation_id="reviewPage",
                path=_PATH,
                tag="page",
                summary="Reviews",
                about="",
                action=self._list.action,
                scoped=self._list.scoped,
                roles=self._list.roles,
                read=self.read,
                parameters=(ZONE, *(forgiving(one) for one in (cursor, show, day, signed))),
            ),
            Operation(
                operation_id="signOffPage",
                path=f"{_PATH}/{{trail:path}}",
                summary=self._sign.summary,
                action=self._sign.action,
                scoped=self._sign.scoped,
                roles=self._sign.roles,
                target=trail_target(f"{_PATH}/"),
                path_parameters=self._sign.path_parameters,
                read=self.sign,
                body_types={FORM: ("SignOff", None)},
                **form,
            ),
            Operation(
                operation_id="signDayPage",
                path=f"{_DAYS_PATH}/{{day}}",
                summary=self._sign_day.summary,
                action=self._sign_day.action,
                scoped=self._sign_day.scoped,
                roles=self._sign_day.roles,
                target=self._sign_day.target,
                path_parameters=self._sign_day.path_parameters,
                read=self.sign_day,
                body_types={FORM: ("DaySignOff", None)},
                **form,
            ),
        ]

    async def read(self, call: Call, run: Runner) -> Reading:
        """The page: of a day, or of all time."""
        day, show = call.values["day"], call.values["show"]
        asked: dict[str, Any] = {one.name: one.default for one in self._list.parameters}
        asked["cursor"] = call.values["cursor"]
        if day:
            asked["since"], asked["until"] = span_of(day)
        found = msgspec.json.decode((await self._reviews.list(replace(call, values=asked), run)).body)
        manner = manner_of(call.request, call.values["zone"])
        here = {"day": day, "show": show if show != "open" else "", "zone": call.values["zone"]}
        rows = [self._row(one) for one in found["exceptions"] if show == "all" or one["open"]]
        body = page(
            self._frame,
            "reviews.html",
            call.session,
            call.principal,
            manner=manner,
            rows=rows,
            passed=len(found["exceptions"]) - len(rows),
            days=await self._told_days(call, run, day),
            day=day,
            show=show,
            zone=call.values["zone"],
            signed=call.values["signed"],
            decisions=DECISIONS,
            following=_address(here, cursor=found["next"]) if found["next"] else "",
            first=_address(here) if call.values["cursor"] is not None else "",
            other=_address({**here, "show": "all" if show == "open" else ""}),
        )
        return Reading(body=body, media_type=HTML, headers=HEADERS)

    async def _told_days(self, call: Call, run: Runner, day: str) -> Sequence[Mapping[str, Any]]:
        """The last days, or the one that is shown; none for who sees but a part of the ledger."""
        if not call.scope.whole:
            return []
        values = {"until": day, "days": 1 if day else _SHOWN_DAYS}
        told = msgspec.json.decode((await self._days.list(replace(call, values=values), run)).body)["days"]
        return [one | {"address": _address({"day": one["day"], "zone": call.values["zone"]})} for one in told]

    def _row(self, told: Mapping[str, Any]) -> dict[str, Any]:
        trail = told["trail"]
        return {
            **told_trail(trail["trail"], self._frame.text.known),
            "status": trail["status"],
            "first": trail["first_time"] or "",
            "services": trail["services"],
            "open": told["open"],
            "signed": told["signed"],
        }

    # The forms --------------------------------------------------------------------------------------------------------

    def asked_of(self, call: Call, told: Mapping[str, Any]) -> bool:
        """Whether a story's page asks for a sign-off: its trail calls for one, and who reads it may give one."""
        return told["status"] in EXCEPTIONS and call.has_role("auditor", "admin")

    async def standing(self, call: Call, run: Runner) -> dict[str, Any]:
        """How the trail that the call names stands, for the form on its story's page."""

        def look() -> dict[str, Any]:
            summary: TrailSummary = self._reviews.logs.seen(call.target["trail"], call.scope)
            return self._reviews.standing(summary)

        found: dict[str, Any] = await run(look)
        return found | {"decisions": DECISIONS}

    async def sign(self, call: Call, run: Runner) -> Reading:
        """The sign-off of the form, through the operation of the API; then the queue."""
        body = {
            "head": _whole(call.form.get("head", "")),
            "decision": call.form.get("decision", ""),
            "note": call.form.get("note", "").replace("\r\n", "\n").strip(),
        }
        reading = await self._reviews.sign(replace(call, body=msgspec.json.encode(body)), run)
        return _went(reading, _address({"signed": call.target["trail"]}))

    async def sign_day(self, call: Call, run: Runner) -> Reading:
        """The same for a day."""
        body = {
            "open": _whole(call.form.get("open", "")),
            "note": call.form.get("note", "").replace("\r\n", "\n").strip(),
        }
        reading = await self._days.sign(replace(call, body=msgspec.json.encode(body)), run)
        return _went(reading, _address({"signed": call.target["day"]}))


def _whole(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) <= 15):
        raise Problem("bad-body", "the form is not as the page made it: open it again")
    return int(text)


def _went(reading: Reading, address: str) -> Reading:
    """The same on record, and the browser goes there."""
    headers = {**HEADERS, "Location": local_path(address)}
    return replace(reading, body=b"", media_type="text/plain", headers=headers, status=303)


def _address(shown: Mapping[str, str], **more: str) -> str:
    pairs = {name: value for name, value in {**shown, **more}.items() if value and (name, value) != ("zone", "UTC")}
    return f"{_PATH}?{urlencode(pairs)}" if pairs else _PATH
