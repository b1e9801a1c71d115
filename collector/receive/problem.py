"""Errors over HTTP, as RFC 9457 problem details, and how a request says that it is too much for now."""

import math
from typing import Any

import msgspec
from starlette.responses import Response

from collector.errors import Overloaded

__all__ = ["json_response", "overloaded", "problem"]


def json_response(value: Any, *, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """`value` as JSON."""
    return Response(msgspec.json.encode(value), status, headers, media_type="application/json")


def problem(
    status: int, title: str, detail: str = "", *, headers: dict[str, str] | None = None, **members: Any
) -> Response:
    """A problem details object (RFC 9457 section 3): `title` is the kind, `detail` this one, `members` further fields."""
    body = {"type": "about:blank", "title": title, "status": status}
    if detail:
        body["detail"] = detail
    return Response(msgspec.json.encode({**body, **members}), status, headers, media_type="application/problem+json")


def retry_after(error: Overloaded) -> dict[str, str]:
    """The header Retry-After in whole seconds, at least one (RFC 9110 section 10.2.3)."""
    return {"Retry-After": str(max(1, math.ceil(error.retry_after_seconds)))}


def overloaded(error: Overloaded, **members: Any) -> Response:
    """503 with Retry-After: nothing of what this answers was taken, or `members` say what was."""
    return problem(503, "Overloaded", str(error), headers=retry_after(error), **members)
