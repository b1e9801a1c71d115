"""Trail ids: what a trail is called, and how that name is read back. Pure (docs/format.md, "Trail ids").

    [tenant/<tenant>/] transaction/<id>
                       key/<name>/<value>
                       trace/<32 hex digits>
                       stream/<collector>/<incarnation>
                       access/<principal>
    incident/<32 hex digits>
    ledger/enrolments
    ledger/retirements

A component is percent-encoded UTF-8 (RFC 3986 section 2.1, upper-case hex): unreserved characters and ``:`` and ``@`` stand as they are.
One that would be longer than 200 bytes, or could be mistaken (``.`` and ``..`` in a URL, a value that itself
looks like a hash), is replaced by ``sha256:`` and the hex SHA-256 of the value's UTF-8. So two values never share an id.
"""

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal
from urllib.parse import quote, unquote_to_bytes

from correlator.errors import VerificationError

__all__ = [
    "ENROLMENTS",
    "MAX_COMPONENT_BYTES",
    "RETIREMENTS",
    "TrailId",
    "TrailKind",
    "access_trail",
    "incident_trail",
    "is_incident",
    "is_trail",
    "key_trail",
    "kind_of",
    "meant_trails",
    "parse_trail",
    "stream_trail",
    "trace_trail",
    "transaction_trail",
]

TrailKind = Literal["transaction", "key", "trace", "stream", "access", "ledger", "incident"]

ENROLMENTS = "ledger/enrolments"
"""The trail that tells which keys may sign for which streams."""

RETIREMENTS = "ledger/retirements"
"""The trail that tells which months' events were let go of."""

MAX_COMPONENT_BYTES = 200
"""Longest percent-encoded component; a longer one is replaced by its hash."""

_PLAIN = re.compile(r"[A-Za-z0-9_~:@-][A-Za-z0-9._~:@-]{0,199}", re.ASCII)
_COMPONENT = re.compile(r"(?:[A-Za-z0-9._~:@-]|%[0-9A-F]{2})+", re.ASCII)
_HASHED = re.compile(r"sha256:[0-9a-f]{64}", re.ASCII)
_TRACE = re.compile(r"[0-9a-f]{32}", re.ASCII)
_STREAM = re.compile(r"[a-z0-9](?:[a-z0-9._-]{0,62}[a-z0-9])?/[0-9a-f]{16,64}", re.ASCII)
_PARTS = {"transaction": 1, "key": 2, "trace": 1, "stream": 2, "access": 1, "incident": 1}


@dataclass(frozen=True, slots=True, kw_only=True)
class TrailId:
    """A trail id taken apart.

    Attributes:
        tenant: the tenant it is scoped by, empty when there is none.
        kind: the trail's family.
        name: of a key its name, else empty.
        value: the transaction ID, the key's value, the trace id, the stream id, the principal, the incident; for the trail of
            enrolments ``enrolments``, of retirements ``retirements``. A component that stands as a hash is given as it stands (``sha256:…``).
    """

    tenant: str = ""
    kind: TrailKind
    name: str = ""
    value: str


def _component(text: str) -> str:
    if _PLAIN.fullmatch(text) is not None and not text.startswith("sha256:"):
        return text
    # Facts come from JSON, so a lone surrogate cannot be here; if it is, it must not stop the correlator.
    data = text.encode("utf-8", "surrogatepass")
    encoded = quote(data, safe=":@")
    if len(encoded) > MAX_COMPONENT_BYTES or encoded in (".", "..") or _HASHED.fullmatch(encoded) is not None:
        return f"sha256:{hashlib.sha256(data).hexdigest()}"
    return encoded


def _scope(tenant: str) -> str:
    return f"tenant/{_component(tenant)}/" if tenant else ""


def transaction_trail(transaction: str, tenant: str = "") -> str:
    """The trail of an explicit transaction ID (not empty)."""
    return f"{_scope(tenant)}transaction/{_component(transaction)}"


def key_trail(name: str, value: str, tenant: str = "") -> str:
    """The trail of a business key (name and value not empty)."""
    return f"{_scope(tenant)}key/{_component(name)}/{_component(value)}"


def trace_trail(trace_id: str, tenant: str = "") -> str:
    """The trail of a W3C trace id.

    Raises:
        ValueError: not 32 lower-case hex digits.
    """
    if _TRACE.fullmatch(trace_id) is None:
        raise ValueError("a trace id has 32 lower-case hex digits")
    return f"{_scope(tenant)}trace/{trace_id}"


def stream_trail(stream: str, tenant: str = "") -> str:
    """The trail of a stream: its batches and gaps, and the events that carry no other identity."""
    return f"{_scope(tenant)}stream/{stream}"


def access_trail(principal: str, tenant: str = "") -> str:
    """The trail of what a principal read, or was refused."""
    return f"{_scope(tenant)}access/{_component(principal)}"


def incident_trail(incident: str) -> str:
    """The trail of an incident (`is_incident`): how it was opened, closed and signed off. It has no tenant."""
    return f"incident/{_component(incident)}"


def is_incident(incident: str) -> bool:
    """Whether an incident can have this id: 32 lower-case hex digits."""
    return _TRACE.fullmatch(incident) is not None


def kind_of(trail: str) -> str:
    """The family of a trail id that is known to be well-formed (one that the log holds)."""
    first, _, rest = trail.partition("/")
    return rest.split("/", 2)[1] if first == "tenant" else first


def parse_trail(text: str) -> TrailId:
    """Take a trail id apart, in its one canonical spelling.

    Raises:
        VerificationError: it is not the id of a trail; the message says which part.
    """
    if text in (ENROLMENTS, RETIREMENTS):
        return TrailId(kind="ledger", value=text.partition("/")[2])
    if len(text) > 1_000:
        raise VerificationError("a trail id has at most 1,000 characters")
    parts = text.split("/")
    tenant = ""
    if parts[0] == "tenant":
        if len(parts) < 2:
            raise VerificationError("a trail id that starts with tenant/ goes on with the tenant's name")
        tenant = _value(parts[1], "the tenant")
        parts = parts[2:]
    kind = parts[0] if parts else ""
    if _PARTS.get(kind) != len(parts) - 1:
        families = (
            "transaction/<id>, key/<name>/<value>, trace/<id>, stream/<collector>/<incarnation>, access/<principal>"
            " or incident/<id>"
        )
        raise VerificationError(f"{text[:100]!r} is not the id of a trail: that is {families}")
    if kind == "key":
        return TrailId(
            tenant=tenant,
            kind="key",
            name=_value(parts[1], "the key's name"),
            value=_value(parts[2], "the key's value"),
        )
    if kind == "stream":
        stream = f"{parts[1]}/{parts[2]}"
        if _STREAM.fullmatch(stream) is None:
            raise VerificationError(f"{stream[:150]!r} is not the id of a stream")
        return TrailId(tenant=tenant, kind="stream", value=stream)
    if kind == "incident":
        if tenant or not is_incident(parts[1]):
            raise VerificationError("an incident's id has 32 lower-case hex digits, and no tenant")
        return TrailId(kind="incident", value=parts[1])
    if kind == "trace":
        if _TRACE.fullmatch(parts[1]) is None:
            raise VerificationError("a trace id has 32 lower-case hex digits")
        return TrailId(tenant=tenant, kind="trace", value=parts[1])
    return TrailId(
        tenant=tenant,
        kind="access" if kind == "access" else "transaction",
        value=_value(parts[1], f"the {kind}'s name"),
    )


def _value(component: str, what: str) -> str:
    if len(component) > MAX_COMPONENT_BYTES or _COMPONENT.fullmatch(component) is None:
        raise VerificationError(
            f"{what} in a trail id is not percent-encoded, empty, or longer than {MAX_COMPONENT_BYTES} bytes"
        )
    if _HASHED.fullmatch(component) is not None:
        return component
    try:
        value = unquote_to_bytes(component).decode("utf-8")
    except UnicodeDecodeError as error:
        raise VerificationError(f"{what} in a trail id is not UTF-8") from error
    if _component(value) != component:
        raise VerificationError(f"{what} in a trail id is not in its canonical spelling")
    return value


def is_trail(text: str) -> bool:
    """Whether `parse_trail` takes it."""
    try:
        parse_trail(text)
    except VerificationError:
        return False
    return True


def meant_trails(text: str, tenant: str) -> Iterator[str]:
    """The trail ids that `text` may stand for, likeliest first: a trail id itself, a transaction ID, a trace id."""
    if is_trail(text):
        yield text
    yield transaction_trail(text, tenant)
    if re.fullmatch(r"[0-9a-f]{32}", text):
        yield trace_trail(text, tenant)
