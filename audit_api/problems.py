"""What went wrong, as RFC 9457 problem details (``application/problem+json``) with stable type URIs.

`PROBLEMS` is the whole list: no other problem is ever answered, and docs/api.md explains each.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
from starlette.responses import Response

from collector.errors import NotFound, Overloaded, TallyError, VerificationError

__all__ = [
    "MEDIA_TYPE",
    "PROBLEMS",
    "Problem",
    "ProblemKind",
    "not_on_record",
    "problem_of",
    "problem_response",
    "too_many",
]

MEDIA_TYPE = "application/problem+json"
_PREFIX = "urn:tallystick:problem:"


@dataclass(frozen=True, slots=True, kw_only=True)
class ProblemKind:
    """One kind of problem: the last word of its type URI, its HTTP status, its title, and what it means for a caller."""

    name: str
    status: int
    title: str
    meaning: str

    @property
    def type(self) -> str:
        """The type URI (RFC 9457 section 3.1.1)."""
        return _PREFIX + self.name


def _kinds(*rows: tuple[str, int, str, str]) -> dict[str, ProblemKind]:
    return {
        name: ProblemKind(name=name, status=status, title=title, meaning=meaning)
        for name, status, title, meaning in rows
    }


PROBLEMS: Mapping[str, ProblemKind] = _kinds(
    ("bad-parameter", 400, "A parameter cannot be used", "Correct the parameter that `parameter` names."),
    ("no-body", 400, "Requests take no body", "Send the request without a body."),
    ("bad-body", 400, "The body cannot be used", "Correct the body; `detail` says what is wrong with it."),
    ("purpose-needed", 400, "A purpose is needed", "Say why you read this, with the header `Tally-Purpose`."),
    ("unauthenticated", 401, "A valid token is needed", "Send `Authorization: Bearer <token>` with a valid token."),
    ("forbidden", 403, "Your roles do not allow this", "`roles` lists the roles of which one is needed."),
    ("cross-site", 403, "Another site's request", "Send it from a page of this API, with its session's CSRF token."),
    ("not-found", 404, "There is no such thing", "Nothing stands under this name in the log as it is published."),
    ("not-logged-yet", 404, "Stored, but not in the log yet", "The correlator has not come that far: try again."),
    ("no-route", 404, "There is no such path", "See the OpenAPI document at /openapi.json."),
    ("method-not-allowed", 405, "This path does not take this method", "`Allow` lists those that it takes."),
    ("body-too-large", 413, "The body is too large", "Send at most `limit` bytes."),
    ("unsupported-media-type", 415, "The body is of another type", "Send one of the types that `detail` names."),
    ("not-done", 409, "The export is not done", "Ask for the job until `state` is `done`."),
    (
        "range-not-satisfiable",
        416,
        "The range has none of the file's bytes",
        "`Content-Range` says how many there are.",
    ),
    ("changed-since", 409, "It has changed since", "The trail has grown since it was looked at: look again."),
    ("name-taken", 409, "The name is taken", "Choose another name."),
    ("too-many-kept", 409, "You keep as many as you may", "Delete one of yours first."),
    ("precondition-failed", 412, "It has been changed", "Read it again: `If-Match` names another state of it."),
    ("still-open", 409, "The incident is not over", "Wait for its end, or say `over` if you know that it ended."),
    ("signed-already", 409, "It is signed off already", "Read who has answered for it, and what they said."),
    (
        "export-too-large",
        422,
        "The export would be too large",
        "More than `limit` of what `detail` names: leave linked trails out.",
    ),
    ("format-unavailable", 422, "This server cannot write that format", "The extra that it needs is not installed."),
    ("too-many-requests", 429, "Too many requests", "Wait for the seconds that `Retry-After` says."),
    ("evidence-damaged", 500, "The evidence does not hold", "Log or store were changed; `tally check` says where."),
    ("internal", 500, "Something went wrong here", "It is in this process's log; nothing about it is told outside."),
    ("unavailable", 503, "Not available now", "Log, index or store do not answer: try again."),
    (
        "not-on-record",
        503,
        "The access cannot be recorded",
        "Nothing is served whose access is not durable: try again.",
    ),
)


class Problem(Exception):
    """Ends a request. `kind` is a name of `PROBLEMS`; `extra` are extension members, `headers` go with the response."""

    def __init__(self, kind: str, detail: str, *, headers: Mapping[str, str] | None = None, **extra: Any) -> None:
        super().__init__(detail)
        self.kind = PROBLEMS[kind]
        self.detail = detail
        self.headers = dict(headers or {})
        self.extra = extra


def problem_of(error: TallyError) -> Problem:
    """The problem that stands for one of our own errors."""
    if isinstance(error, NotFound):
        return Problem("not-found", str(error))
    if isinstance(error, Overloaded):
        return Problem("unavailable", str(error), headers=_retry_after(error.retry_after_seconds))
    if isinstance(error, VerificationError):
        return Problem("evidence-damaged", str(error))
    return Problem("internal", "an error that this process has logged")


def _retry_after(seconds: float) -> dict[str, str]:
    return {"Retry-After": str(max(1, math.ceil(seconds)))}


def too_many(seconds: float, detail: str = "you ask more often than you may") -> Problem:
    """The problem of who asks too often and may again in so many seconds."""
    return Problem("too-many-requests", detail, headers=_retry_after(seconds))


def not_on_record(error: Exception) -> Problem:
    """The problem of an access that is not durable."""
    wait = error.retry_after_seconds if isinstance(error, Overloaded) else 5.0
    return Problem(
        "not-on-record", "the access could not be put on record, so nothing is served", headers=_retry_after(wait)
    )


def problem_response(problem: Problem, *, instance: str = "") -> Response:
    """The answer (RFC 9457 section 3). `instance` is the path asked for."""
    members: dict[str, Any] = {
        "type": problem.kind.type,
        "title": problem.kind.title,
        "status": problem.kind.status,
        "detail": problem.detail,
    }
    if instance:
        members["instance"] = instance
    body = msgspec.json.encode(members | problem.extra)
    return Response(body, status_code=problem.kind.status, media_type=MEDIA_TYPE, headers=problem.headers)
