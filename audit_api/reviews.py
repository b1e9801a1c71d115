"""The review queue (PCI DSS 4.0.1, 10.4.1 to 10.4.3): which trails of a time call for a look, and who has looked, and said what.

There is no list that could be lost: an exception is a trail that stands badly, and a sign-off is an access like any other, with a decision
and a note in its event, made durable before it is answered. It holds up to the last entry that was there then: a trail that grows calls again.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import msgspec

from audit_api.accesses import SIGNED
from audit_api.answers import summary_json
from audit_api.gate import Call, Operation, Reading, Runner
from audit_api.identity.scope import EVERYTHING, RowScope, find_seen
from audit_api.logs import LoggedAccess, Logs, ServedLog
from audit_api.parameters import encode_bounds, encode_cursor
from audit_api.problems import Problem
from audit_api.search_parameters import search_parameters, search_query
from audit_api.settings import ApiSettings
from audit_api.trails import TRAIL_PARAMETER, trail_target
from collector.errors import Malformed, NotFound, VerificationError
from collector.event import decode_event
from correlator.index import TrailQuery, TrailSummary
from correlator.index.condition import And, Has

__all__ = ["DECISIONS", "EXCEPTIONS", "MAX_COUNTED", "MAX_NOTE", "REVIEW_SCHEMAS", "Reviews", "noted"]

DECISIONS = ("explained", "escalated", "corrected")
EXCEPTIONS = ("failed", "incomplete", "error", "gap")
"""How trails stand that call for a look."""

MAX_NOTE = 2_000
MAX_COUNTED = 1_000
"""Most trails that a count looks at."""
_COUNTED_PAGES = 20
_JSON = "application/json"
_encode = msgspec.json.Encoder().encode


class SignOff(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is sent to sign a trail off: its last leaf as it was seen, a decision, and a note for who reads it later."""

    head: int
    decision: str
    note: str = ""


def _object(properties: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": [*properties],
        "additionalProperties": False,
        **more,
    }


_SUMMARY = {"$ref": "#/components/schemas/TrailSummary"}
_TEXT, _NUMBER = {"type": "string"}, {"type": "integer"}
REVIEW_SCHEMAS: dict[str, dict[str, Any]] = {
    "SignOff": {
        **_object(
            {
                "head": {**_NUMBER, "minimum": 0, "description": "`last_leaf` of the trail as it was looked at."},
                "decision": {**_TEXT, "enum": list(DECISIONS)},
                "note": {
                    **_TEXT,
                    "maxLength": MAX_NOTE,
                    "description": "For who reads it later; masked like all text.",
                },
            },
            example={"head": 23, "decision": "explained", "note": "the notifier was down, case 2026/17"},
        ),
        "required": ["head", "decision"],
    },
    "SignedOff": _object({"trail": _TEXT, "head": _NUMBER}, example={"trail": "transaction/PAY-1", "head": 23}),
    "ReviewPage": _object(
        {
            "size": {**_NUMBER, "description": "As in TrailPage."},
            "exceptions": {
                "type": "array",
                "items": _object(
                    {
                        "trail": _SUMMARY,
                        "open": {"type": "boolean", "description": "Whether nobody has signed it off as it stands."},
                        "signed": {
                            "type": "array",
                            "description": "Sign-offs, oldest first; of the latest, up to 20.",
                            "items": _object(
                                {
                                    "leaf": {**_NUMBER, "description": "Of the entry that records it."},
                                    "time": _TEXT,
                                    "principal": _TEXT,
                                    "head": _NUMBER,
                                    "decision": _TEXT,
                                    "note": {**_TEXT, "description": "Empty where retention has let go of it."},
                                }
                            ),
                        },
                    }
                ),
            },
            "next": {"type": ["string", "null"]},
        },
        example={"size": 35, "exceptions": [], "next": None},
    ),
}


@dataclass(frozen=True, slots=True)
class Reviews:
    """The operations on the review queue."""

    logs: Logs
    settings: ApiSettings

    def operations(self) -> list[Operation]:
        """List exceptions, sign one off."""
        roles = frozenset({"auditor", "admin"})
        return [
            Operation(
                operation_id="listExceptions",
                path="/v1/reviews",
                tag="reviews",
                summary="Trails that call for a look",
                about=(
                    f"Trails that stand as {', '.join(EXCEPTIONS)}, newest first, each with who has signed it off; the parameters are those of "
                    "the search, of which `since` and `until` say the time that is reviewed. `open` is false when a sign-off covers all of the trail."
                ),
                action="reviews.list",
                scoped=True,
                roles=roles,  # type: ignore[arg-type]  # two of the roles
                read=self.list,
                parameters=search_parameters(self.logs, self.settings),
                answers={_JSON: ("ReviewPage", None)},
            ),
            Operation(
                operation_id="signOff",
                path="/v1/reviews/{trail:path}",
                method="POST",
                tag="reviews",
                summary="Sign a trail off",
                about=(
                    "Puts on record that who asks has looked at the trail up to `head`, and what came of it. The record is the entry of this "
                    "access, with the decision and the note in its event; it stands among the trail's accesses. A trail that has grown meanwhile is refused."
                ),
                action=SIGNED,
                scoped=True,
                roles=roles,  # type: ignore[arg-type]  # two of the roles
                read=self.sign,
                target=trail_target("/v1/reviews/"),
                path_parameters={"trail": TRAIL_PARAMETER},
                body_limit_bytes=16_384,
                body_types={_JSON: ("SignOff", None)},
                success=201,
                answers={_JSON: ("SignedOff", None)},
                problems=("not-found", "changed-since", "bad-body"),
            ),
        ]

    # The list ---------------------------------------------------------------------------------------------------------

    async def list(self, call: Call, run: Runner) -> Reading:
        """A page of exceptions."""
        return Reading(body=_encode(await run(self._page, call.values, call.scope)))

    def _page(self, values: Mapping[str, Any], scope: RowScope) -> dict[str, Any]:
        query = _calling(search_query(values))
        size, found, following = self._found(query, scope, cursor=values["cursor"], limit=values["limit"])
        rows = [
            self.standing(one) | ({"trail": summary_json(one) | {"log": log.key.name}} if self.logs.cut else {})
            for log, one in found
        ]
        encoded = None
        if following is not None:
            encoded = encode_bounds(size, following) if self.logs.cut else encode_cursor(size, following[0])
        return {"size": size, "exceptions": rows, "next": encoded}

    def _found(
        self, query: TrailQuery, scope: RowScope, *, cursor: Any, limit: int
    ) -> tuple[int, Sequence[tuple[ServedLog, TrailSummary]], tuple[int, ...] | None]:
        """How many leaves are looked at, a page of trails with their logs, and the bounds of the next one."""
        if self.logs.cut:
            found = self.logs.find(query, cursor=cursor, limit=limit, scope=scope)
            return found.size, found.trails, found.bounds or None
        log = self.logs.all[0]
        index = log.evidence.index
        size, below = cursor if cursor is not None else (min(index.size(), log.evidence.tree().size), None)
        page = find_seen(index, query, scope, size=size, below=below, limit=limit)
        return size, [(log, one) for one in page.trails], None if page.next_below is None else (page.next_below,)

    def counted(self, since: str, until: str) -> tuple[int, int, bool]:
        """How many trails whose span meets this time call for a look, how many of them are open, and whether there are more than were counted."""
        query = _calling(TrailQuery(since=since, until=until))
        exceptions = still_open = 0
        cursor: Any = None
        for _ in range(_COUNTED_PAGES):
            size, found, following = self._found(query, EVERYTHING, cursor=cursor, limit=200)
            exceptions += len(found)
            still_open += sum(not self.is_signed(one) for _, one in found)
            if following is None:
                return exceptions, still_open, False
            if exceptions >= MAX_COUNTED:
                break
            cursor = (size, following if self.logs.cut else following[0])
        return exceptions, still_open, True

    def is_signed(self, summary: TrailSummary) -> bool:
        """Whether a sign-off covers all of the trail."""
        return any(one.access.head >= summary.last_leaf for one in self.logs.signed(summary.trail))

    def standing(self, summary: TrailSummary) -> dict[str, Any]:
        """How an exception stands: the trail, whether it is open, and who has signed it off."""
        signed = self.logs.signed(summary.trail)
        return {
            "trail": summary_json(summary),
            "open": not any(one.access.head >= summary.last_leaf for one in signed),
            "signed": [self._signed(one) for one in signed],
        }

    def _signed(self, one: LoggedAccess) -> dict[str, Any]:
        attributes = noted(one)
        return {
            "leaf": one.access.leaf,
            "time": one.access.time,
            "principal": one.access.principal,
            "head": one.access.head,
            "decision": str(attributes.get("review.decision", "")),
            "note": str(attributes.get("review.note", "")),
        }

    # The sign-off -----------------------------------------------------------------------------------------------------

    async def sign(self, call: Call, run: Runner) -> Reading:
        """The answer to a sign-off: that it is on record, which it is when this leaves."""
        trail = call.target["trail"]
        summary: TrailSummary = await run(self.logs.seen, trail, call.scope)
        signed = _sign_off(call.body)
        if signed.head != summary.last_leaf:
            raise Problem(
                "changed-since", f"the trail's last leaf is {summary.last_leaf}, and {signed.head} was looked at"
            )
        notes = {"review.decision": signed.decision, **({"review.note": signed.note} if signed.note else {})}
        return Reading(body=_encode({"trail": trail, "head": signed.head}), trail=trail, head=signed.head, notes=notes)


def noted(one: LoggedAccess) -> Mapping[str, Any]:
    """The attributes of a sign-off's event; empty where retention has let go of it."""
    evidence = one.log.evidence
    try:
        events = evidence.events(evidence.entries([one.access.leaf]))
        return decode_event(events[one.access.leaf]).attributes if one.access.leaf in events else {}
    except (NotFound, Malformed, VerificationError) as error:  # that somebody signed is in the log; the note is not
        return {"review.note": f"(the note cannot be read: {error})"}


def _calling(query: TrailQuery) -> TrailQuery:
    """The query, of trails that call for a look."""
    calls = Has(field="status", values=EXCEPTIONS)
    return replace(query, condition=calls if query.condition is None else And((query.condition, calls)))


def _sign_off(body: bytes) -> SignOff:
    try:
        signed = msgspec.json.decode(body, type=SignOff)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Problem("bad-body", str(error)) from error
    if signed.head < 0 or signed.decision not in DECISIONS or len(signed.note) > MAX_NOTE or "\0" in signed.note:
        raise Problem(
            "bad-body", f"`decision` is one of {', '.join(DECISIONS)}, `note` has at most {MAX_NOTE} characters"
        )
    return signed
