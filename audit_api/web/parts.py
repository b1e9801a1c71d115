"""Parts that pages share: parameters of forms, and what every template is given."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any
from urllib.parse import parse_qsl

from starlette.requests import Request

from audit_api.auth import Principal
from audit_api.identity.sessions import Session
from audit_api.parameters import Parameter
from audit_api.web.frame import Frame
from audit_api.web.locales import Manner, locale_of, zone_of
from correlator.errors import VerificationError
from correlator.trail import parse_trail

__all__ = ["HTML", "ZONE", "asked_path", "forgiving", "given", "manner_of", "page", "told_trail"]

_MAX_QUERY_BYTES = 4_096


def _zone(text: str) -> str:
    zone_of(text.strip())
    return text.strip() or "UTC"


ZONE = Parameter(name="zone", about="The zone of times.", schema={"type": "string"}, parse=_zone, default="UTC")


def forgiving(parameter: Parameter) -> Parameter:
    """The same parameter for a form, which sends its empty fields as well: an empty one is not given."""

    def parse(text: str) -> Any:
        return parameter.parse(text.strip()) if text.strip() else parameter.default

    return replace(parameter, parse=parse)


HTML = "text/html; charset=utf-8"


def manner_of(request: Request, zone: str = "UTC") -> Manner:
    """How a reader reads: by the ``Accept-Language`` header, and in this zone."""
    return Manner(locale=locale_of(request.headers.get("accept-language", "")), zone=zone_of(zone), zone_name=zone)


def given(request: Request) -> Mapping[str, str]:
    """The query as it was sent, by name: a form as it was filled in. Empty when it is no query that a form makes."""
    query = request.scope.get("query_string", b"")
    try:
        return dict(parse_qsl(query.decode("ascii"), max_num_fields=50)) if len(query) <= _MAX_QUERY_BYTES else {}
    except ValueError:
        return {}


def asked_path(request: Request) -> str:
    """What was asked for, as it was sent: the path, and the query where there is one."""
    path = request.scope.get("raw_path", b"").partition(b"?")[0].decode("ascii", "replace")
    query = request.scope.get("query_string", b"").decode("ascii", "replace")
    return f"{path}?{query}" if query else path


def page(frame: Frame, template: str, session: Session | None, principal: Principal | None, **values: Any) -> bytes:
    """A page with the head that all have: who is signed in and why they read, and the token with which they sign out."""
    csrf, purpose = (session.csrf, session.purpose) if session is not None else ("", "")
    return frame.render(template, principal=principal, csrf=csrf, purpose=purpose, **values)


def told_trail(trail: str, known: Callable[[str, str], str]) -> dict[str, str]:
    """A trail id for people: its kind in words, and what is told apart by it."""
    try:
        parts = parse_trail(trail)
    except VerificationError:
        return {"trail": trail, "kind": "", "value": trail, "tenant": ""}
    kind = known(f"kinds.{parts.kind}", parts.kind)
    if parts.name:
        kind = f"{kind} {parts.name}"
    return {"trail": trail, "kind": kind, "value": parts.value, "tenant": parts.tenant}
