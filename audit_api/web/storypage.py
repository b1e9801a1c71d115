"""The page of a trail: its story as a time line, what is missing, how it was judged, its proof, and who looked at it."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from audit_api.gate import Call, Operation, Reading, Runner
from audit_api.logs import Logs
from audit_api.parameters import Parameter, whole_number
from audit_api.settings import ApiSettings
from audit_api.trails import TRAIL_PARAMETER, Trails, trail_target
from audit_api.web.axis import WIDTH, axis_of, disorders, services_in_order
from audit_api.web.exports import exports_for
from audit_api.web.flows import Step, amendments, late_facts, steps_of, verdicts_of
from audit_api.web.frame import HEADERS, Frame
from audit_api.web.gathering import Gathered, Gathering
from audit_api.web.locales import Manner
from audit_api.web.parts import HTML, ZONE, manner_of, page, told_trail
from audit_api.web.reviewpage import ReviewPage
from audit_api.web.rows import Row, by_stated_time, nested
from collector.errors import Malformed
from collector.event import format_time
from correlator.flow import CompiledFlow, Flow
from correlator.trail import access_trail

__all__ = ["StoryPage"]

_BAD = ("incomplete", "failed", "error", "gap")


class StoryPage:
    """The page, and the operation that it is.

    Args:
        frame: renders it.
        logs: the ledger's.
        trails: the operations on trails.
        settings: limits.
        flows: as they are declared now.
        reviews: whether a story calls for a sign-off.
    """

    def __init__(
        self,
        frame: Frame,
        *,
        logs: Logs,
        trails: Trails,
        settings: ApiSettings,
        flows: Sequence[Flow],
        reviews: ReviewPage,
    ) -> None:
        self._frame = frame
        self._reviews = reviews
        self._logs = logs
        self._flows = [(flow, CompiledFlow(flow)) for flow in flows]
        self._gathering = Gathering(logs, trails, settings)
        _, read = trails.operations()
        self._read = read

    def operation(self, formats: frozenset[str] = frozenset()) -> Operation:
        """As the gate takes it. `formats`: those that a trail can be exported in, besides bundles."""
        return Operation(
            operation_id="storyPage",
            path="/desk/trails/{trail:path}",
            tag="page",
            summary="A trail's story",
            about="",
            action=self._read.action,
            scoped=self._read.scoped,
            roles=self._read.roles,
            read=partial(self.read, formats=formats),
            target=trail_target("/desk/trails/"),
            path_parameters={"trail": TRAIL_PARAMETER},
            parameters=(
                ZONE,
                Parameter(
                    name="start",
                    about="Position of the first entry.",
                    schema={},
                    parse=whole_number(0, 1 << 53),
                    default=0,
                ),
            ),
        )

    async def read(self, call: Call, run: Runner, *, formats: frozenset[str] = frozenset()) -> Reading:
        """The story, rendered; `formats` as in `operation`."""
        manner = manner_of(call.request, call.values["zone"])
        gathered = await self._gathering.read(call, run)
        review = None
        summary = gathered.answer["summary"]
        if self._reviews.asked_of(call, summary):
            # what is signed is what was shown: neither what a later page holds, nor what came while this one was made
            shown = {"head": gathered.head, "whole": gathered.head >= summary["last_leaf"]}
            review = await self._reviews.standing(call, run) | shown
        return Reading(
            body=await asyncio.to_thread(self._shown, gathered, manner, call, formats, review),
            media_type=HTML,
            headers=HEADERS,
            trail=call.target["trail"],
            head=gathered.head,
        )

    def _shown(self, gathered: Gathered, manner: Manner, call: Call, formats: frozenset[str], review: Any) -> bytes:
        """The page. It takes milliseconds, in which other requests are answered."""
        values = self._values(gathered, manner, call)
        roles = call.principal.roles if call.principal else frozenset()
        values["exports"] = exports_for(call.target["trail"], roles, formats)
        values["review"] = review
        return page(self._frame, "story.html", call.session, call.principal, manner=manner, **values)

    def _values(self, gathered: Gathered, manner: Manner, call: Call) -> dict[str, Any]:
        answer = gathered.answer
        trail, summary = answer["trail"], answer["summary"]
        own = [row for row in gathered.rows if row.trail == trail]
        verdicts = verdicts_of(own)
        newest = {verdict.flow: verdict for verdict in verdicts}
        judged_at = verdicts[0].leaf if verdicts else None
        if judged_at is not None and all(self._logs.of(name) is self._logs.of(trail) for name in gathered.trails):
            gathered = replace(
                gathered,
                rows=[replace(row, late=row.kind == "event" and row.leaf > judged_at) for row in gathered.rows],
            )
        events = nested([row for row in gathered.rows if row.kind == "event"])
        found = [row for row in gathered.rows if row.kind in ("gap", "fork")]
        shown = sorted([*events, *found], key=by_stated_time)
        flows = [(flow.name, steps_of(flow, own, newest.get(flow.name))) for flow in self._declared(trail)]
        known = {name for name, _ in flows}
        flows += [
            (name, [Step(name=step, service="", event="", state="missing") for step in verdict.missing])
            for name, verdict in newest.items()
            if name not in known
        ]
        axis = axis_of(shown)
        status = "error" if summary["status"] == "ok" and any(row.error for row in events) else summary["status"]
        return {
            "about": told_trail(trail, self._frame.text.known),
            "summary": summary,
            "status": status,
            "bad": status in _BAD,
            "checkpoint": answer["checkpoint"],
            "keys": summary["keys"],  # without amounts: the index has those by themselves
            "amounts": [manner.monies(one["least"], one["most"], one["currency"]) for one in summary["amounts"]],
            "services": services_in_order(shown),
            "line": _line(shown, flows),
            "events": len(events),
            "axis": axis,
            "width": WIDTH,
            "disorders": disorders(events),
            "measured": any(row.corrected_ns is not None for row in events),
            "flows": flows,
            "verdicts": list(newest.values()),
            "missing": [(name, step) for name, steps in flows for step in steps if step.state == "missing"],
            "amendments": amendments(verdicts),
            "late": late_facts(events) if judged_at is not None else [],
            "links": self._links(gathered),
            "traces_left_out": answer["story"]["traces_left_out"],
            "related_left_out": answer["story"]["related_left_out"],
            "cut": gathered.cut,
            "start": call.values["start"],
            "following": answer["next"],
            "zone": call.values["zone"],
            "torn": gathered.torn,
            "entries": len(gathered.rows),
            "trails": gathered.trails,
            "accesses": [
                one | {"trail": access_trail(one["principal"])} for one in reversed(answer["accesses"]["entries"])
            ],
            "accesses_complete": answer["accesses"]["complete"],
            "provable": call.has_role("auditor", "admin"),
            "corrected": _corrected,
            "script_texts": self._frame.text.below("proof_script"),
        }

    def _declared(self, trail: str) -> list[Flow]:
        return [flow for flow, compiled in self._flows if compiled.applies_to(trail)]

    def _links(self, gathered: Gathered) -> list[dict[str, Any]]:
        """The trails that this one is tied to, each with what ties them; `followed`: its entries are part of the story."""
        story, trail = gathered.answer["story"], gathered.answer["trail"]
        why: dict[str, str] = {}
        for row in gathered.rows:
            if row.kind == "link" and row.trail == trail:
                why.setdefault(str(row.detail.get("to", "")), row.why)
        links = [
            told_trail(name, self._frame.text.known)
            | {"why": why.get(name, ""), "part": "behind" if name in gathered.behind else "followed"}
            for name in story["traces"]
        ]
        links += [
            told_trail(one["trail"], self._frame.text.known)
            | {"why": one["through"] or why.get(one["trail"], ""), "part": "through" if one["through"] else "related"}
            for one in story["related"]
        ]
        links += [told_trail(name, self._frame.text.known) | {"why": "", "part": "hub"} for name in story["hubs"]]
        return links


def _corrected(row: Row) -> str:
    """The corrected time as text; empty where it is none, or lies beyond what RFC 3339 can say."""
    try:
        return format_time(row.corrected_ns) if row.corrected_ns is not None else ""
    except Malformed:
        return ""


def _line(rows: Sequence[Row], flows: Sequence[tuple[str, Sequence[Step]]]) -> list[tuple[str, Row | Step]]:
    """What is shown one below the other: the rows, and each missing step behind the steps that it comes after."""
    line: list[tuple[str, Row | Step]] = [("row", row) for row in rows]
    for _, steps in flows:
        leaves = {step.name: step.leaf for step in steps}
        for step in steps:
            if step.state != "missing":
                continue
            before = {leaves.get(name, -1) for name in step.after} - {-1}
            places = [at for at, (_, one) in enumerate(line) if isinstance(one, Row) and one.leaf in before]
            line.insert(max(places) + 1 if places else len(line), ("missing", step))
    return line
