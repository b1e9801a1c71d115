"""What is written to OpenSearch and read back: documents as bytes. Pure.

An event's document holds its canonical bytes as they are (member `event`), because those are what was hashed; OpenSearch
gives a document's source back byte by byte. Beside them stand the fields that OpenSearch Dashboards, Grafana and Data
Prepper look for, under their names, copied out of the event for searching alone.

What cannot stand in such a document (no JSON, or a shape that the mapping refuses) is kept as base64 and marked
`unindexed`: it is not found by searching, and comes back all the same.
"""

import binascii
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from collector.batch import BatchHeader, SignedHeader
from collector.errors import Malformed, VerificationError
from collector.event import parse_time

__all__ = [
    "StoredEvent",
    "StoredHeader",
    "event_document",
    "event_id",
    "facts_documents",
    "facts_id",
    "facts_of_documents",
    "header_document",
    "header_id",
    "is_unindexed",
    "raw_event_document",
    "stored_event",
    "stored_header",
]

MAX_FACTS_BYTES = 4 * 1024**2
"""A batch's facts are cut into documents of about this size: a large batch must not exceed what a server takes at once."""

_BODY_CHARACTERS = 32_768
"""So much of a body can be searched; the event holds all of it."""

_STATUS_CODES = {"": 0, "OK": 1, "ERROR": 2}


class _Resource(msgspec.Struct, frozen=True):
    service_name: Any = msgspec.field(name="service.name", default="")


class _Span(msgspec.Struct):
    name: str = ""
    parent_span_id: str = ""
    kind: str = ""
    end: str = ""
    status: str = ""
    status_message: str = ""
    trace_state: str = ""


class _Seen(msgspec.Struct):
    """The members of an event that are searched for; the others are passed over undecoded."""

    time: str = ""
    observed: str = ""
    severity_number: int = 0
    severity_text: str = ""
    event_name: str = ""
    body: msgspec.Raw = msgspec.Raw()
    resource: _Resource = _Resource()
    trace_id: str = ""
    span_id: str = ""
    span: _Span | None = None
    transaction: str = ""
    tenant: str = ""
    keys: dict[str, str] = {}
    actor: str = ""
    outcome: str = ""


class _TraceGroup(msgspec.Struct, rename="camel"):
    """Of a root span: what lists of traces show (Data Prepper's traceGroupFields)."""

    end_time: str
    duration_in_nanos: int
    status_code: int


class _Document(msgspec.Struct, kw_only=True, omit_defaults=True, rename="camel"):
    timestamp: str = msgspec.field(name="@timestamp")
    observed_timestamp: str = ""
    trace_id: str = ""
    span_id: str = ""
    parent_span_id: str = ""
    trace_state: str = ""
    service_name: str = ""
    severity_number: int = 0
    severity_text: str = ""
    name: str = ""
    kind: str = ""
    start_time: str = ""
    end_time: str = ""
    duration_in_nanos: int = -1
    status_code: int = msgspec.field(name="status.code", default=-1)
    status_message: str = msgspec.field(name="status.message", default="")
    trace_group: str = ""
    trace_group_fields: _TraceGroup | None = None
    body: str = ""
    transaction: str = ""
    tenant: str = ""
    keys: list[str] = []
    actor: str = ""
    outcome: str = ""
    stream: str
    sequence: int
    batch: int
    event: msgspec.Raw


class _RawDocument(msgspec.Struct, kw_only=True, rename="camel"):
    timestamp: str = msgspec.field(name="@timestamp")
    stream: str
    sequence: int
    batch: int
    unindexed: bool
    unindexed_reason: str
    raw: bytes


_encode = msgspec.json.Encoder().encode
_decode_seen = msgspec.json.Decoder(_Seen).decode
_decode_text = msgspec.json.Decoder(str).decode

# ------------------------------------------------------------------------------------------------------------- events


def event_id(stream: str, sequence: int) -> str:
    """The id of an event's document."""
    return f"{stream}:{sequence}"


def event_document(data: bytes, sequence: int, header: BatchHeader) -> bytes:
    """The document of an event, one line; `raw_event_document` where the event is not such that it can be searched."""
    if b"\n" in data:
        return raw_event_document(data, sequence, header, "the event is not in canonical form")
    try:
        data.decode()  # what is passed over is not looked at, and answers are text
        seen = _decode_seen(data)
        body = _searchable(bytes(seen.body))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        return raw_event_document(data, sequence, header, f"not an event: {error}")
    service = seen.resource.service_name
    document = _Document(
        timestamp=seen.time or seen.observed or header.created,
        observed_timestamp=seen.observed,
        trace_id=seen.trace_id,
        span_id=seen.span_id,
        service_name=service if isinstance(service, str) else str(service),
        severity_number=seen.severity_number,
        severity_text=seen.severity_text,
        name=seen.event_name,
        body=body,
        transaction=seen.transaction,
        tenant=seen.tenant,
        keys=[f"{name}={value}" for name, value in seen.keys.items()],
        actor=seen.actor,
        outcome=seen.outcome,
        stream=header.stream,
        sequence=sequence,
        batch=header.number,
        event=msgspec.Raw(data),
    )
    if seen.span is not None:
        _fill_in_span(document, seen, seen.span)
    return _encode(document)


def _fill_in_span(document: _Document, seen: _Seen, span: _Span) -> None:
    document.name = document.name or span.name
    document.parent_span_id = span.parent_span_id
    document.trace_state = span.trace_state
    document.kind = f"SPAN_KIND_{span.kind}" if span.kind else ""
    document.start_time = seen.time
    document.end_time = span.end
    document.status_code = _STATUS_CODES.get(span.status, 0)
    document.status_message = span.status_message
    try:
        document.duration_in_nanos = max(parse_time(span.end) - parse_time(seen.time), 0)
    except Malformed:
        return  # without both times it lasted nobody knows how long
    if not span.parent_span_id:
        document.trace_group = span.name
        document.trace_group_fields = _TraceGroup(
            end_time=span.end, duration_in_nanos=document.duration_in_nanos, status_code=document.status_code
        )


def _searchable(body: bytes) -> str:
    """A body as text: a string's own characters, any other value's JSON."""
    if not body or body == b"null":
        return ""
    text: str = _decode_text(body) if body[:1] == b'"' else body.decode()
    return text[:_BODY_CHARACTERS]


def raw_event_document(data: bytes, sequence: int, header: BatchHeader, reason: str) -> bytes:
    """The document of an event that cannot be searched, and why; no mapping of ours can refuse it."""
    return _encode(
        _RawDocument(
            timestamp=header.created,
            stream=header.stream,
            sequence=sequence,
            batch=header.number,
            unindexed=True,
            unindexed_reason=reason[:1_000],
            raw=data,
        )
    )


def is_unindexed(document: bytes) -> bool:
    """Whether this document is one of `raw_event_document`: those end in a string, all others in the event, an object."""
    return document.endswith(b'"}')


class StoredEvent(msgspec.Struct):
    """What an event's document says: whose it is, and its canonical bytes (`data`)."""

    stream: str
    sequence: int
    batch: int
    event: msgspec.Raw = msgspec.Raw()
    raw: bytes | None = None

    @property
    def data(self) -> bytes:
        """The canonical bytes."""
        return self.raw if self.raw is not None else bytes(self.event)


_decode_event = msgspec.json.Decoder(StoredEvent).decode


def stored_event(source: bytes, name: str) -> StoredEvent:
    """The event of a document; `name` says which one was asked for.

    Raises:
        VerificationError: it is not a document of ours.
    """
    try:
        return _decode_event(source)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise VerificationError(f"{name} in the store: its document cannot be read: {error}") from error


# -------------------------------------------------------------------------------------------------------------- facts


def facts_id(stream: str, number: int, digest: str, part: int) -> str:
    """The id of a document of facts. It names the header, so that two that claim one number cannot meet here."""
    return f"{stream}:{number}:{digest[:32]}:{part}"


def facts_documents(facts: bytes) -> list[bytes]:
    """The facts lines as documents of bounded size, each one line; none where there are no facts."""
    if not facts:
        return []
    lines = facts.split(b"\n")[:-1]
    if not facts.endswith(b"\n") or not all(_is_json(line) for line in lines):
        pieces = [facts[at : at + MAX_FACTS_BYTES] for at in range(0, len(facts), MAX_FACTS_BYTES)]
        return [_encode({"raw": piece}) for piece in pieces]
    return [b'{"facts":[' + b",".join(part) + b"]}" for part in _parts(lines)]


def _is_json(line: bytes) -> bool:
    try:
        return bytes(msgspec.json.decode(line, type=msgspec.Raw)) == line  # no white space around it
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False


def _parts(lines: Sequence[bytes]) -> Iterator[list[bytes]]:
    part: list[bytes] = []
    size = 0
    for line in lines:
        if part and size + len(line) > MAX_FACTS_BYTES:
            yield part
            part, size = [], 0
        part.append(line)
        size += len(line) + 1
    yield part


class _FactsDocument(msgspec.Struct):
    facts: list[msgspec.Raw] = []
    raw: bytes = b""


_decode_facts = msgspec.json.Decoder(_FactsDocument).decode


def facts_of_documents(sources: Sequence[bytes]) -> bytes:
    """The facts lines of a batch's documents, in their order.

    Raises:
        VerificationError: one of them is not a document of ours.
    """
    found: list[bytes] = []
    for source in sources:
        try:
            document = _decode_facts(source)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise VerificationError(f"its facts cannot be read: {error}", label="facts") from error
        found += [bytes(line) + b"\n" for line in document.facts]
        found.append(document.raw)
    return b"".join(found)


# ------------------------------------------------------------------------------------------------------------ headers


def header_id(stream: str, number: int) -> str:
    """The id of a header's document."""
    return f"{stream}:{number}"


class StoredHeader(msgspec.Struct, rename="camel"):
    """A signed header's document; `facts_documents` is how many documents hold its facts."""

    stream: str
    number: int
    header: msgspec.Raw
    signature: bytes
    facts_documents: int

    @property
    def data(self) -> bytes:
        """The header's canonical bytes."""
        return bytes(self.header)


_decode_header = msgspec.json.Decoder(StoredHeader).decode


def header_document(signed: SignedHeader, facts_documents: int) -> bytes:
    """The document of a signed header, one line."""
    header = signed.header
    return _encode(
        StoredHeader(
            stream=header.stream,
            number=header.number,
            header=msgspec.Raw(signed.data),
            signature=signed.signature,
            facts_documents=facts_documents,
        )
    )


def stored_header(source: bytes) -> StoredHeader:
    """The signed header of a document, unchecked.

    Raises:
        VerificationError: it is not a document of ours.
    """
    try:
        return _decode_header(source)
    except (msgspec.DecodeError, UnicodeDecodeError, binascii.Error, RecursionError) as error:
        raise VerificationError(f"its document cannot be read: {error}") from error
