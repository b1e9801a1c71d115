"""Days under review (PCI DSS 4.0.1, 10.4.1): what of each day calls for a look, what of that is open, and who has signed the day off.

A day is one of UTC. A trail is of each day that its span of stated times meets, also of one on which it has no event: it was under way then,
and the list of exceptions with the same bounds shows it. A day's sign-off is an access like a trail's (`audit_api.reviews`); the day stands in the entry's facts as the key
`review_day`, so that the index answers for ever which days are signed, and by whom. What was open, and the note, are in its event.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from typing import Any
from urllib.parse import unquote_to_bytes

import msgspec
from starlette.requests import Request

from audit_api.accesses import DAY_KEY, DAY_SIGNED
from audit_api.gate import Call, Operation, Reading, Runner
from audit_api.logs import LoggedAccess, Logs
from audit_api.parameters import Parameter, whole_number
from audit_api.problems import Problem
from audit_api.reviews import MAX_COUNTED, MAX_NOTE, Reviews, noted
from audit_api.settings import ApiSettings
from collector.event import format_time

__all__ = ["DAY_SCHEMAS", "ReviewDays", "day_of", "span_of"]

MAX_DAYS = 31
_WATCHED_DAYS = 92
_LOOK_AGAIN_SECONDS = 30.0
_PATH = "/v1/review-days"
_JSON = "application/json"
_DAY = {"type": "string", "format": "date", "description": "A day of UTC."}
_NUMBER, _TEXT, _TRUTH = {"type": "integer"}, {"type": "string"}, {"type": "boolean"}
_SIGNED = {
    "principal": _TEXT,
    "time": {"type": ["string", "null"]},
    "leaf": {
        "type": ["integer", "null"],
        "description": "Of the entry that records it; null, like what follows: too far back in `access/<principal>`.",
    },
    "open": {"type": ["integer", "null"], "description": "How many were open; null where retention let go of it."},
    "note": _TEXT,
}
_DAY_EXAMPLE = {
    "day": "2026-01-01",
    "over": True,
    "required": False,
    "exceptions": 1,
    "open": 1,
    "more": False,
    "signed": [],
}


def _object(properties: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": dict(properties),
        "required": [*properties],
        "additionalProperties": False,
        **more,
    }


DAY_SCHEMAS: Mapping[str, dict[str, Any]] = {
    "DaySignOff": {
        **_object(
            {
                "open": {**_NUMBER, "minimum": 0, "description": "`open` of the day as it was looked at."},
                "note": {
                    **_TEXT,
                    "maxLength": MAX_NOTE,
                    "description": "For who reads it later; masked like all text.",
                },
            },
            example={"open": 1, "note": "the notifier's failure is case 2026/17"},
        ),
        "required": ["open"],
    },
    "DaySigned": _object(
        {
            "day": _DAY,
            "exceptions": _NUMBER,
            "open": _NUMBER,
            "more": {**_TRUTH, "description": "The day has more than were counted."},
        },
        example={"day": "2026-01-01", "exceptions": 1, "open": 1, "more": False},
    ),
    "ReviewDays": _object(
        {
            "days": {
                "type": "array",
                "items": _object(
                    {
                        "day": _DAY,
                        "over": {**_TRUTH, "description": "Only a day that is over can be signed off."},
                        "required": {**_TRUTH, "description": "It has to be signed off (`daily_review_since`)."},
                        "exceptions": {
                            **_NUMBER,
                            "description": "Trails that call for a look and were under way on that day: it lies in, or meets, their span of stated times.",
                        },
                        "open": {**_NUMBER, "description": "Those that nobody has signed off as they stand."},
                        "more": {
                            **_TRUTH,
                            "description": f"There are more than {MAX_COUNTED}, and only so many were counted.",
                        },
                        "signed": {"type": "array", "items": _object(_SIGNED), "description": "Oldest first."},
                    }
                ),
            }
        },
        example={"days": [_DAY_EXAMPLE]},
    ),
}


class DaySignOff(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is sent to sign a day off: how much of it was open as it was looked at, and a note for who reads it later."""

    open: int
    note: str = ""


def day_of(text: str) -> str:
    """A day, ``2026-01-31``; raises ValueError for what is none."""
    if re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", text, re.ASCII) is None:
        raise ValueError("it is no day such as 2026-01-31")
    return date.fromisoformat(text).isoformat()


def span_of(day: str) -> tuple[str, str]:
    """Where a day begins and where it ends, as events state times: the end is the next day's beginning."""
    following = (date.fromisoformat(day) + timedelta(days=1)).isoformat() if day < date.max.isoformat() else day
    return f"{day}T00:00:00.000000000Z", f"{following}T00:00:00.000000000Z"


@dataclass(slots=True, kw_only=True)
class ReviewDays:
    """The operations on days, and what is told of those that nobody signed.

    Attributes:
        reviews: the operations on exceptions.
        logs: the ledger's.
        settings: since when days have to be signed.
        clock: Unix time in nanoseconds.
    """

    reviews: Reviews
    logs: Logs
    settings: ApiSettings
    clock: Callable[[], int]
    _known: set[str] = field(default_factory=set)
    _looked: tuple[float, int] | None = None

    def operations(self) -> list[Operation]:
        """List days, sign one off. Both are for who sees all of the ledger: else one would sign for what one cannot see."""
        common: dict[str, Any] = {"tag": "reviews", "roles": frozenset({"auditor", "admin"})}
        return [
            Operation(
                operation_id="listReviewDays",
                path=_PATH,
                summary="Days, what of them is open, and who has signed them off",
                about="Newest first. A day's exceptions are those that `/v1/reviews` lists with its beginning and end as `since` and `until`.",
                action="review.days",
                read=self.list,
                parameters=(
                    Parameter(
                        name="until",
                        about="The newest day that is listed; by default today.",
                        schema={"type": "string", "format": "date"},
                        parse=day_of,
                        example="2026-01-01",
                    ),
                    Parameter(
                        name="days",
                        about="How many.",
                        schema={"type": "integer", "minimum": 1, "maximum": MAX_DAYS, "default": 14},
                        parse=whole_number(1, MAX_DAYS),
                        default=14,
                        example=3,
                    ),
                ),
                answers={_JSON: ("ReviewDays", None)},
                **common,
            ),
            Operation(
                operation_id="signDay",
                path=f"{_PATH}/{{day}}",
                method="POST",
                success=201,
                summary="Sign a day off",
                about=(
                    "Puts on record that who asks has reviewed the day, with how much of it was open, which may be all. If more or less is open "
                    "than `open` says, it is refused. Only a day that is over can be signed; it may be signed again."
                ),
                action=DAY_SIGNED,
                read=self.sign,
                target=_day_target,
                path_parameters={"day": ("The day.", {"type": "string", "format": "date"}, "2026-01-01")},
                body_limit_bytes=16_384,
                body_types={_JSON: ("DaySignOff", None)},
                answers={_JSON: ("DaySigned", None)},
                problems=("changed-since",),
                **common,
            ),
        ]

    async def list(self, call: Call, run: Runner) -> Reading:
        """Days, newest first; each is a step of its own for the thread that reads."""
        newest = date.fromisoformat(call.values["until"] or self.today())
        count = min(call.values["days"], newest.toordinal())
        days = [await run(self._day, (newest - timedelta(days=back)).isoformat()) for back in range(count)]
        return Reading(body=msgspec.json.encode({"days": days}))

    async def sign(self, call: Call, run: Runner) -> Reading:
        """The answer to a day's sign-off: that it is on record, which it is when this leaves."""
        return await run(self._sign, call.target["day"], _sign_off(call.body))  # type: ignore[no-any-return]  # what `run` gives is Any

    def today(self) -> str:
        """The day that it is."""
        return format_time(self.clock())[:10]

    def _sign(self, day: str, signed: DaySignOff) -> Reading:
        if day >= self.today():
            raise Problem("bad-parameter", f"{day} is not over", parameter="day")
        exceptions, still_open, more = self.reviews.counted(*span_of(day))
        if signed.open != still_open:
            raise Problem("changed-since", f"{still_open} are open, and {signed.open} were seen")
        notes = {"review.day": day, "review.exceptions": str(exceptions), "review.open": str(still_open)}
        if more:
            notes["review.more"] = "true"  # the day has more than were counted
        return Reading(
            body=msgspec.json.encode({"day": day, "exceptions": exceptions, "open": still_open, "more": more}),
            head=-1 if self.logs.cut else self.logs.all[0].size() - 1,
            keys={DAY_KEY: day},
            notes=notes | ({"review.note": signed.note} if signed.note else {}),
        )

    def _day(self, day: str) -> dict[str, Any]:
        exceptions, still_open, more = self.reviews.counted(*span_of(day))
        return {
            "day": day,
            "over": day < self.today(),
            "required": bool(self.settings.daily_review_since) and day >= self.settings.daily_review_since,
            "exceptions": exceptions,
            "open": still_open,
            "more": more,
            "signed": self._signed(day),
        }

    def _signed(self, day: str) -> Sequence[Mapping[str, Any]]:
        accesses, principals = self.logs.day_signed(day)
        told = [self._told(one) for one in accesses]
        far = sorted(principals - {one.access.principal for one in accesses})
        return [*({"principal": name, "time": None, "leaf": None, "open": None, "note": ""} for name in far), *told]

    def _told(self, one: LoggedAccess) -> dict[str, Any]:
        attributes = noted(one)
        number = str(attributes.get("review.open", ""))
        return {
            "principal": one.access.principal,
            "time": one.access.time,
            "leaf": one.access.leaf,
            "open": int(number) if number.isdecimal() else None,
            "note": str(attributes.get("review.note", "")),
        }

    # What nobody signed -----------------------------------------------------------------------------------------------

    def unsigned(self, now_seconds: float) -> int:
        """How many days should be signed and are not: of the last three months, since the first that has to be, over for a day or longer.

        Looked for every half minute at most; a day that is signed stays so. Raises as the index does.
        """
        first = self.settings.daily_review_since
        if not first:
            return 0
        if self._looked is not None and now_seconds - self._looked[0] < _LOOK_AGAIN_SECONDS:
            return self._looked[1]
        newest = date.fromisoformat(self.today()) - timedelta(days=2)
        days = [(newest - timedelta(days=back)).isoformat() for back in range(_WATCHED_DAYS)]
        for day in days:
            if day >= first and day not in self._known and self.logs.day_signed(day)[1]:
                self._known.add(day)
        missing = sum(day >= first and day not in self._known for day in days)
        self._looked = now_seconds, missing
        return missing


def _day_target(request: Request) -> Mapping[str, Any]:
    text = unquote_to_bytes(str(request.path_params.get("day", ""))).decode("utf-8", "replace")
    try:
        return {"day": day_of(text)}
    except ValueError as error:
        raise Problem("bad-parameter", str(error), parameter="day") from error


def _sign_off(body: bytes) -> DaySignOff:
    try:
        signed = msgspec.json.decode(body, type=DaySignOff)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Problem("bad-body", str(error)) from error
    if signed.open < 0 or len(signed.note) > MAX_NOTE or "\0" in signed.note:
        raise Problem("bad-body", f"`open` is a count, `note` has at most {MAX_NOTE} characters")
    return signed
