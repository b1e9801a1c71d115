"""Why somebody reads: said with the request, and put on record with the access.

It is text that a person wrote, so it goes into the access event, which protection looks at and retention lets go of, and not into the log's
facts, which stay for ever.
"""

from urllib.parse import parse_qsl

from starlette.requests import Request

from audit_api.clipped import clipped
from audit_api.identity.sessions import Session
from audit_api.parameters import Parameter
from audit_api.problems import Problem

__all__ = ["HEADER", "MAX_PURPOSE", "PURPOSE", "as_kept", "demand_purpose", "purpose_of"]

HEADER = "Tally-Purpose"
MAX_PURPOSE = 200

PURPOSE = Parameter(
    name="purpose",
    about=f"Why this is read, for the record, which keeps the first {MAX_PURPOSE} characters; the header `{HEADER}` says the same, and counts first.",
    schema={"type": "string", "maxLength": 1000, "pattern": "^[^\\u0000]*$"},
)


def as_kept(said: str) -> str:
    """What somebody said, in one line and cut to what goes on record."""
    return clipped("".join(char if char.isprintable() else " " for char in said).strip(), MAX_PURPOSE)


def purpose_of(request: Request, session: Session | None = None) -> str:
    """What the request says, else what was said in its session; cut to what goes on record. Empty: nothing."""
    said = request.headers.get(HEADER, "")
    if said:
        try:
            said = said.encode("latin-1").decode("utf-8")  # a header is octets (RFC 9110 section 5.5); ours are UTF-8
        except UnicodeDecodeError:
            pass  # or what ISO 8859-1 says they are
    else:
        query = request.scope.get("query_string", b"")[:8_192].decode("latin-1")
        said = next((value for name, value in parse_qsl(query, max_num_fields=None) if name == PURPOSE.name), "")
    return as_kept(said) or (session.purpose if session is not None else "")


def demand_purpose(request: Request, session: Session | None = None) -> None:
    """Nothing, if the request or its session says why; raises the problem ``purpose-needed``."""
    if not purpose_of(request, session):
        raise Problem(
            "purpose-needed", f"say why you read this, with the header {HEADER} or the parameter {PURPOSE.name}"
        )
