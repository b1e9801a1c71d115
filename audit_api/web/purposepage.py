"""The page that asks why somebody reads, and keeps what they say with their session."""

from collections.abc import Callable

from starlette.requests import Request

from audit_api.auth import ROLES
from audit_api.bodies import FORM
from audit_api.gate import Call, Operation, Reading, Runner
from audit_api.identity.crosssite import local_path
from audit_api.identity.sessions import Session
from audit_api.parameters import Parameter
from audit_api.problems import Problem
from audit_api.purpose import MAX_PURPOSE, as_kept
from audit_api.web.frame import HEADERS, PREFIX, Frame
from audit_api.web.parts import HTML, asked_path, page

__all__ = ["PurposePage"]

_PATH = f"{PREFIX}/purpose"
_FIRST = f"{PREFIX}/trails"


class PurposePage:
    """The form, and what it does.

    Args:
        frame: renders it.
        keep: keeps a purpose with the session of a request.
    """

    def __init__(self, frame: Frame, keep: Callable[[Request, str], None]) -> None:
        self._frame = frame
        self._keep = keep

    def operations(self) -> list[Operation]:
        """As the gate takes them. They show nothing of the ledger, so whoever has any role may ask, and says no purpose."""
        return [
            Operation(
                operation_id="purposePage",
                path=_PATH,
                tag="page",
                summary="Why do you read?",
                about="",
                action="purpose.ask",
                scoped=True,
                roles=frozenset(ROLES),
                read=self.read,
                parameters=(Parameter(name="next", about="", schema={"type": "string"}, default=""),),
                purposeless=True,
            ),
            Operation(
                operation_id="statePurposePage",
                path=_PATH,
                tag="page",
                summary="Say why you read",
                about="",
                action="purpose.state",
                scoped=True,
                roles=frozenset(ROLES),
                read=self.state,
                method="POST",
                success=303,
                body_limit_bytes=16_384,
                body_types={FORM: ("SignOff", None)},
                purposeless=True,
            ),
        ]

    async def read(self, call: Call, run: Runner) -> Reading:  # noqa: ARG002 - nothing is read
        """The form."""
        return Reading(body=self.form(call.session, call.values["next"]), media_type=HTML, headers=HEADERS)

    async def state(self, call: Call, run: Runner) -> Reading:  # noqa: ARG002 - nothing is read
        """Keep what the form says, and go on to where its reader was going."""
        purpose = as_kept(call.form.get("purpose", ""))
        if not purpose:
            raise Problem("purpose-needed", "the form's field purpose is empty")
        self._keep(call.request, purpose)
        headers = {**HEADERS, "Location": _following(call.form.get("next", ""))}
        return Reading(
            body=b"", media_type="text/plain", headers=headers, status=303, notes={"purpose.stated": purpose}
        )

    def form(self, session: Session | None, following: str, *, message: str = "", demanded: bool = False) -> bytes:
        """The form, which leads to this path of ours. `demanded`: without a purpose its reader does not get there."""
        principal = session.principal if session is not None else None
        return page(
            self._frame, "purpose.html", session, principal,
            next=_following(following), message=message, demanded=demanded, most=MAX_PURPOSE,
        )  # fmt: skip

    def asked_instead(self, request: Request, session: Session) -> bytes:
        """The form in the place of what was asked for without a purpose."""
        if request.method != "GET" or request.url.path == _PATH:
            return self.form(session, _FIRST, message="needed" if request.url.path == _PATH else "lost", demanded=True)
        return self.form(session, asked_path(request), demanded=True)


def _following(text: str) -> str:
    """A path of ours to go on to; the first page for what is none, and for the address alone."""
    path = local_path(text)
    return path if path != "/" else _FIRST
