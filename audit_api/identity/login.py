"""Logging a browser in with a token, and out again. The forms are the page's; these are what they are sent to."""

from dataclasses import dataclass
from typing import Any

from audit_api.bodies import FORM
from audit_api.gate import Call, Operation, Reading, Runner
from audit_api.identity.crosssite import CSRF_FIELD, local_path
from audit_api.identity.door import Door
from audit_api.problems import Problem

__all__ = ["LOGIN_SCHEMAS", "Logins"]

_PATH = {"type": "string", "description": "A path of this API's own.", "maxLength": 2000}
LOGIN_SCHEMAS: dict[str, dict[str, Any]] = {
    "LogIn": {
        "type": "object",
        "properties": {"token": {"type": "string", "maxLength": 4096}, "next": _PATH},
        "required": ["token"],
        "additionalProperties": False,
        "example": {"token": "tally_…", "next": "/"},
    },
    "LogOut": {
        "type": "object",
        "properties": {CSRF_FIELD: {"type": "string", "description": "The session's token."}, "next": _PATH},
        "required": [],
        "additionalProperties": False,
        "example": {"next": "/"},
    },
}
"""The forms, as JSON Schemas."""

_NEXT = "`next`, a path of this API's own, says where to go then; whatever else it holds leads to `/`."


@dataclass(frozen=True, slots=True)
class Logins:
    """The operations on sessions."""

    door: Door

    def operations(self) -> list[Operation]:
        """Log in, log out."""
        return [
            Operation(
                operation_id="logIn",
                method="POST",
                path="/login",
                tag="sessions",
                summary="Log a browser in with a token",
                about=(
                    "Takes `token` from an HTML form and answers with a session's cookie. The token is never part of a URL. "
                    + _NEXT
                ),
                action="session.login",
                roles=frozenset(),
                recorded=True,
                read=self.log_in,
                body_limit_bytes=8_192,
                body_types={FORM: ("LogIn", None)},
                success=303,
                problems=("bad-body", "unauthenticated", "cross-site"),
            ),
            Operation(
                operation_id="logOut",
                method="POST",
                path="/logout",
                tag="sessions",
                summary="Log a browser out",
                about="Ends the session at once, here and not in the browser alone. " + _NEXT,
                action="session.logout",
                scoped=True,
                roles=frozenset({"auditor", "sre", "admin"}),
                read=self.log_out,
                purposeless=True,  # who has not said why they read can still end their session
                body_limit_bytes=8_192,
                body_types={FORM: ("LogOut", None)},
                success=303,
                problems=("bad-body", "cross-site"),
            ),
        ]

    async def log_in(self, call: Call, _: Runner) -> Reading:
        """A session for who sends a valid token; one that the browser had is ended."""
        token = call.form.get("token", "").strip()
        if not token:
            raise Problem("bad-body", "the field token is missing")
        principal, holds = await self.door.lasting(token)
        self.door.sessions.close(call.request)  # never the id that the browser had before (CWE-384)
        session, cookie = self.door.sessions.open(principal, holds)
        return _go(call, cookie, asker=principal.name, session=session.name)

    async def log_out(self, call: Call, _: Runner) -> Reading:
        """The session is over."""
        return _go(call, self.door.sessions.close(call.request))


def _go(call: Call, cookie: str, *, asker: str = "", session: str = "") -> Reading:
    headers = {"Location": local_path(call.form.get("next", "/")), "Set-Cookie": cookie}
    return Reading(body=b"", media_type="text/plain", headers=headers, asker=asker, session=session)
