"""The search page: a form whose fields are the parameters of ``GET /v1/trails``, and what they find."""

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any
from urllib.parse import urlencode

import msgspec
from starlette.requests import Request

from audit_api.gate import Call, Operation, Reading, Runner
from audit_api.identity.sessions import Session
from audit_api.parameters import Parameter
from audit_api.parameters import time as api_time
from audit_api.problems import Problem
from audit_api.trails import Trails
from audit_api.web.frame import HEADERS, Frame
from audit_api.web.locales import ZONES, Manner, local_to_rfc3339
from audit_api.web.parts import HTML, ZONE, forgiving, given, manner_of, page, told_trail
from audit_api.web.searches import ANY_KIND, SearchForms, address_of, conditions_of
from collector.errors import Malformed
from correlator.index import AmountRange
from correlator.index.vocabulary import KINDS, STATUSES

__all__ = ["SearchPage"]

_MAX_FACETS = 12
_TEXT = {"type": "string"}


def _kind(text: str) -> str:
    if text not in (*KINDS, ANY_KIND):
        raise ValueError(f"it is none of {', '.join((*KINDS, ANY_KIND))}")
    return text


_NAMES = (
    *("text", "transaction", "key", "service", "status", "tenant", "filter"),
    *("since", "until", "currency", "least", "most", "kind", "zone"),
)


def _shown(given: Mapping[str, str]) -> dict[str, str]:
    shown = {name: given.get(name, "").strip() for name in _NAMES}
    return shown | {"kind": shown["kind"] or "transaction", "zone": shown["zone"] or "UTC"}


class SearchPage:
    """The page, and the operation that it is.

    Args:
        frame: renders it.
        trails: finds.
        forms: for searches that are kept; None: none are.
    """

    def __init__(self, frame: Frame, trails: Trails, forms: SearchForms | None = None) -> None:
        self._forms = forms
        self._frame = frame
        self._trails = trails
        find, _ = trails.operations()
        own = {"since", "until", "amount", "kind"}
        self._fields = tuple(forgiving(one) for one in find.parameters if one.name not in own)
        self._find = find

    def operation(self) -> Operation:
        """As the gate takes it."""
        extra = tuple(
            forgiving(Parameter(name=name, about="", schema=_TEXT, default=""))
            for name in ("since", "until", "currency", "least", "most")
        )
        kind = forgiving(Parameter(name="kind", about="", schema=_TEXT, parse=_kind, default="transaction"))
        return Operation(
            operation_id="searchPage",
            path="/desk/trails",
            tag="page",
            summary="Search",
            about="",
            action=self._find.action,
            scoped=self._find.scoped,
            roles=self._find.roles,
            read=self.read,
            parameters=(*self._fields, *extra, kind, ZONE),
        )

    async def read(self, call: Call, run: Runner) -> Reading:
        """A page of results; raises `Problem` for what cannot be searched for."""
        manner = manner_of(call.request, call.values["zone"])
        asked = self._asked(call.values, manner)
        # what this request accepts is this page's matter: as lines there would be a stream, which has a place and no body
        reading = await self._trails.find(replace(call, values=asked, accept=""), run)
        here = address_of(conditions_of(_shown(given(call.request))))
        saved = await self._forms.shown(call, run, here) if self._forms is not None else None
        body = await asyncio.to_thread(self._page, call, manner, reading.body, saved)
        return Reading(body=body, media_type=HTML, headers=HEADERS)

    def _page(self, call: Call, manner: Manner, answer: bytes, saved: Any) -> bytes:
        """The page of what was found. It takes milliseconds, in which other requests are answered."""
        found = msgspec.json.decode(answer)
        shown = _shown(given(call.request))
        return page(
            self._frame,
            "search.html",
            call.session,
            call.principal,
            manner=manner,
            shown=shown,
            trails=[self._row(one, manner) for one in found["trails"]],
            size=found["size"],
            facets=self._facets(found["trails"], shown),
            following=self._address(shown, cursor=found["next"]) if found["next"] else "",
            first=self._address(shown) if call.values["cursor"] is not None else "",
            narrowed=sorted(name for name in shown if name not in ("zone", "text", "kind", "status") and shown[name]),
            problem=None,
            saved=saved,
            fields=[(name, text) for name, text in shown.items() if text],
            **self.choices(),
        )

    def refused(self, problem: Problem, request: Request, session: Session | None) -> bytes:
        """The form as it was filled in, with what is wrong with it."""
        return page(
            self._frame,
            "search.html",
            session,
            session.principal if session is not None else None,
            manner=manner_of(request),
            shown=_shown(given(request)),
            trails=[],
            size=0,
            facets=[],
            following="",
            first="",
            narrowed=["all"],
            problem={"parameter": problem.extra.get("parameter", ""), "detail": problem.detail},
            saved=None,
            fields=[],
            **self.choices(),
        )

    def choices(self) -> dict[str, Any]:
        """What the form offers."""
        return {"kinds": (*KINDS, ANY_KIND), "statuses": STATUSES, "zones": ZONES}

    def _asked(self, values: Mapping[str, Any], manner: Manner) -> dict[str, Any]:
        asked: dict[str, Any] = {field.name: values[field.name] for field in self._fields}
        asked["kind"] = "" if values["kind"] == ANY_KIND else values["kind"]
        for name in ("since", "until"):
            try:
                asked[name] = api_time(local_to_rfc3339(values[name], manner.zone)) if values[name] else ""
            except (ValueError, Malformed, OverflowError) as error:
                raise Problem("bad-parameter", str(error), parameter=name) from error
        least, most, currency = (values[name].strip() for name in ("least", "most", "currency"))
        asked["amount"] = None
        if least or most or currency:
            try:
                asked["amount"] = AmountRange.parse(f"{currency or '?'}:{least}..{most}")
            except ValueError as error:
                name = "currency" if not currency else "least"
                raise Problem("bad-parameter", str(error), parameter=name) from error
        return asked

    def _row(self, told: Mapping[str, Any], manner: Manner) -> dict[str, Any]:
        return {
            **told_trail(told["trail"], self._frame.text.known),
            "status": told["status"],
            "entries": told["entries"],
            "first": told["first_time"] or "",
            "last": told["last_time"] or "",
            "services": told["services"],
            "keys": told["keys"],
            "amounts": [manner.monies(one["least"], one["most"], one["currency"]) for one in told["amounts"]],
        }

    def _facets(self, trails: Sequence[Mapping[str, Any]], shown: Mapping[str, str]) -> list[dict[str, Any]]:
        """Of what is on this page: which verdicts and services, how many of each, and the search narrowed to it."""
        counted = {
            "status": Counter(one["status"] for one in trails),
            "service": Counter(name for one in trails for name in one["services"]),
        }
        return [
            {
                "name": name,
                "values": [
                    {
                        "value": value,
                        "count": count,
                        "chosen": shown[name] == value,
                        "address": self._address({**shown, name: "" if shown[name] == value else value}),
                    }
                    for value, count in counts.most_common(_MAX_FACETS)
                ],
            }
            for name, counts in counted.items()
            if counts
        ]

    @staticmethod
    def _address(shown: Mapping[str, str], **more: str) -> str:
        pairs = {name: value for name, value in {**shown, **more}.items() if value}
        return f"/desk/trails?{urlencode(pairs)}"
