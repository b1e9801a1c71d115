"""The Event: OpenTelemetry's log data model, plus transaction, business keys, actor, outcome and origin.

A log record, a span and an access of the API are all events; a span is an event with `span` set, as a span event of
OpenTelemetry is one with a name and a time. Field names are OpenTelemetry's, in snake case
(https://opentelemetry.io/docs/specs/otel/logs/data-model/, …/trace/api/#span).

An event's *bytes* are its RFC 8785 canonical JSON without the fields that are unset, and ``digest = SHA-256(bytes)``. Its id
is not inside: it is the pair (stream, sequence) that the signed batch header gives it (`collector.batch`).
"""

import hashlib
import re
from datetime import UTC, datetime
from typing import Any

import msgspec

from collector.canonical import MAX_SAFE_INTEGER, Normaliser, encode, encode_exact
from collector.errors import Malformed
from collector.memo import Memo

__all__ = [
    "MAX_EVENT_BYTES",
    "MAX_TRACE_FLAGS",
    "WRAPPING_LEVELS",
    "Access",
    "Event",
    "Facts",
    "Incident",
    "Origin",
    "Retirement",
    "Scope",
    "Span",
    "are_plain",
    "are_safe",
    "decode_event",
    "decode_facts",
    "encode_event",
    "encode_facts",
    "facts_of",
    "format_time",
    "may_hold_large_doubles",
    "parse_time",
]

MAX_EVENT_BYTES = 8 << 20
"""Longest event that any collector can be set to take (`spool.max_event_bytes`)."""

MAX_TRACE_FLAGS = 0xFFFFFFFF
"""OTLP's `flags` have 32 bits: the low eight are W3C's, and SDKs set bits 8 and 9 (whether a parent is known to be remote)."""


class Scope(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """OpenTelemetry's instrumentation scope: what in the service wrote it."""

    name: str = ""
    version: str = ""
    attributes: dict[str, Any] = {}


class Span(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """The part of an event that only a span has (OpenTelemetry's trace data model).

    `kind` is one of INTERNAL, SERVER, CLIENT, PRODUCER, CONSUMER, or empty when unspecified; `status` is OK or ERROR, or
    empty when unset; `end` is an RFC 3339 time; `events` and `links` are lists of objects as OTLP/JSON writes them, in snake case.
    """

    name: str = ""
    parent_span_id: str = ""
    kind: str = ""
    end: str = ""
    status: str = ""
    status_message: str = ""
    trace_state: str = ""
    events: list[Any] = []
    links: list[Any] = []


class Origin(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How the event came in: enough to find it again at its source.

    `receiver` is forward, otlp, ndjson, cloudevents, bizevents, elasticsearch, beats, syslog, tail, kafka, rabbitmq, pulsar, import or record; `tag` is
    Fluent's tag, a document's index, a Beat's name, a topic and partition, or a queue; `file` an imported file's name or a followed file's path; `row` its
    row counted from 1 (headers not counted); `offset` where in a followed file the event begins, in bytes, or a Kafka message's. `peer` is who sent
    it, where the sender has shown that: ``certificate:NAME``, ``user:NAME``
    or ``client:HOSTNAME``, in ASCII.
    """

    receiver: str = ""
    tag: str = ""
    file: str = ""
    row: int = 0
    peer: str = ""
    offset: int = 0


class Access(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A reading, or a refusal to let read: only our own processes record these (design promise 7).

    `trail` is the trail read (empty for a search), `head` the leaf index of the last entry that was shown (−1: none).
    """

    principal: str
    action: str
    trail: str = ""
    head: int = -1
    refused: str = ""


class Incident(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A control failed, works again, or was answered for: only our own processes record this (docs/incidents.md).

    What people wrote stands in the event's body and attributes, where it is masked like all text; here is what a reader of the log
    needs to know which incidents there are.

    Attributes:
        id: 32 hex digits, the same in all entries of one incident.
        state: ``opened``, ``closed`` or ``signed_off``.
        cause: what failed, one of `correlator.incidents.CAUSES`.
        subject: whom or what it concerns, e.g. a stream, a collector or a log; empty: the installation.
        time: when it began, ended or was signed off, RFC 3339.
        first, last: the sequences of the stream that are affected; −1 where that is not known.
    """

    id: str
    state: str
    cause: str
    subject: str = ""
    time: str = ""
    first: int = -1
    last: int = -1


class Retirement(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The events of a month are let go of, as the policy says: only our own processes record this, and before it is done.

    Attributes:
        month: ``2026.01``, see `collector.batch.month_of`.
        size: leaves of the log when it was decided: the month's batches below this leaf are meant.
        batches, events: how many those are, ones retired before included.
        digest: SHA-256 over the hex digests of their headers, a line each, in the order of the log; 64 hex digits. Each
            header commits to its events.
        findings: how many things a last check found wrong with the month, 0 where all held.
        shard: number of the shard whose log is meant, for each has a size and an order of its own; 0: the ledger is not cut.
    """

    month: str
    size: int
    batches: int
    events: int
    digest: str
    findings: int = 0
    shard: int = 0


class Event(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One thing that happened, as one service told it. Times are RFC 3339 UTC with nine digits, ids lower-case hex.

    Attributes:
        time: when it happened, as the source stated it; empty when the source stated none.
        observed: when the collector saw it; empty for rows of imported files (their batch header tells).
        severity_number: 1–24 as OpenTelemetry has it, 0 when unset.
        body: any JSON value.
        resource: attributes of the source (``service.name`` …).
        trace_id: 32 hex digits, span_id: 16 hex digits (W3C trace context), empty when unset.
        transaction: the explicit transaction ID, empty when there is none.
        tenant: scope of transaction and keys; empty in a ledger with one tenant.
        keys: declared business keys, name to value.
        outcome: success, failure or empty (not said).
        marks: what was done to the event on its way in, sorted (``card_masked``, ``time_unusable``, ``truncated`` …).
    """

    time: str = ""
    observed: str = ""
    severity_number: int = 0
    severity_text: str = ""
    event_name: str = ""
    body: Any = None
    attributes: dict[str, Any] = {}
    resource: dict[str, Any] = {}
    scope: Scope | None = None
    trace_id: str = ""
    span_id: str = ""
    trace_flags: int = 0
    span: Span | None = None
    transaction: str = ""
    tenant: str = ""
    keys: dict[str, str] = {}
    actor: str = ""
    outcome: str = ""
    access: Access | None = None
    retirement: Retirement | None = None
    incident: Incident | None = None
    origin: Origin | None = None
    marks: list[str] = []

    @property
    def service(self) -> str:
        """The resource's ``service.name``, or empty."""
        name = self.resource.get("service.name", "")
        return name if isinstance(name, str) else str(name)

    @property
    def name(self) -> str:
        """What happened, in one name: the event name, else the span's name."""
        return self.event_name or (self.span.name if self.span else "")


class Facts(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What the correlator needs to know of an event, so that it never decodes a body (docs/format.md, "Facts").

    The canonical JSON of this struct is one leaf of the batch's facts tree, and stands whole inside the event's entry.

    Attributes:
        digest: SHA-256 of the event bytes, 64 hex digits.
        found: for the transaction and each key, which rule found it: `transaction` or a key's name to the rule's text.
        error: true when the severity is ERROR or worse, the span's status is ERROR or the outcome is failure.
    """

    digest: str
    time: str = ""
    service: str = ""
    name: str = ""
    trace_id: str = ""
    span_id: str = ""
    transaction: str = ""
    tenant: str = ""
    keys: dict[str, str] = {}
    found: dict[str, str] = {}
    actor: str = ""
    outcome: str = ""
    error: bool = False
    access: Access | None = None
    retirement: Retirement | None = None
    incident: Incident | None = None
    marks: list[str] = []


_encode_sorted = msgspec.json.Encoder(order="sorted").encode
_decode_event = msgspec.json.Decoder(Event).decode
_decode_facts = msgspec.json.Decoder(Facts).decode

_ERROR_SEVERITY = 17  # SEVERITY_NUMBER_ERROR
WRAPPING_LEVELS = 2
"""Values are normalised one by one, and stand in the event at most so deep: ``{"span": {"events": …}}``."""
_DIGITS_AS_ZEROS = bytes.maketrans(b"123456789", b"000000000")
_MANY_DIGITS = b"0" * len(str(MAX_SAFE_INTEGER))


def encode_event(event: Event, *, exact: bool) -> tuple[bytes, str]:
    """The event's canonical bytes, and their SHA-256 as 64 hex digits. Its values must have been normalised."""
    data = encode(event, exact=exact)
    return data, hashlib.sha256(data).hexdigest()


def decode_event(data: bytes) -> Event:
    """The event of its canonical bytes.

    Raises:
        Malformed: not an event, or not in canonical form (then its digest would not be reproducible).
    """
    try:
        event = _decode_event(data)
    except (ValueError, RecursionError) as error:  # msgspec's errors and UnicodeDecodeError are ValueErrors
        raise Malformed(f"not an event: {error}") from error
    walk = Normaliser(canonical=True)
    plain = walk.value(msgspec.to_builtins(event), -WRAPPING_LEVELS)
    if encode(plain, exact=walk.exact) != data:
        raise Malformed("an event that is not in canonical form (RFC 8785)")
    try:
        # large doubles were read as integers: only then do the event's own values differ from those that were encoded
        return msgspec.convert(plain, Event) if walk.exact else event
    except ValueError as error:
        raise Malformed(f"not an event: {error}") from error


def may_hold_large_doubles(data: bytes) -> bool:
    """Whether an event's canonical bytes may hold a double that reads as an integer (RFC 8785 writes 1e20 as such): then only `decode_event` knows its values."""
    return _MANY_DIGITS in data.translate(_DIGITS_AS_ZEROS)


def facts_of(event: Event, digest: str, found: dict[str, str]) -> Facts:
    """The facts of an event whose bytes have this digest."""
    return Facts(
        digest=digest,
        time=event.time,
        service=event.service,
        name=event.name,
        trace_id=event.trace_id,
        span_id=event.span_id,
        transaction=event.transaction,
        tenant=event.tenant,
        keys=event.keys,
        found=found,
        actor=event.actor,
        outcome=event.outcome,
        error=event.severity_number >= _ERROR_SEVERITY
        or event.outcome == "failure"
        or (event.span is not None and event.span.status == "ERROR"),
        access=event.access,
        retirement=event.retirement,
        incident=event.incident,
        marks=event.marks,
    )


def encode_facts(facts: Facts) -> bytes:
    """The canonical JSON of the facts: one line without a line end."""
    data = _encode_sorted(facts)
    return data if data.isascii() or are_plain(facts) else encode_exact(facts)  # most are: no look at each name


def are_plain(facts: Facts) -> bool:
    """Whether msgspec writes them as RFC 8785 does: names beyond ASCII may be in another order. Our collectors have none (`collector.extract`)."""
    return all(map(str.isascii, facts.keys)) and all(map(str.isascii, facts.found))


def are_safe(facts: Facts) -> bool:
    """Whether no integer is beyond `MAX_SAFE_INTEGER`: who reads JSON's numbers for doubles would read another one."""
    own = (facts.access, facts.retirement, facts.incident)
    numbers = (value for one in own if one is not None for value in msgspec.structs.astuple(one))
    return own == (None, None, None) or all(abs(one) <= MAX_SAFE_INTEGER for one in numbers if type(one) is int)


def decode_facts(data: bytes) -> Facts:
    """The facts of their canonical bytes; raises `Malformed`."""
    try:
        return _decode_facts(data)
    except (ValueError, RecursionError) as error:  # as in `decode_event`
        raise Malformed(f"not the facts of an event: {error}") from error


_EPOCH_ORDINAL = datetime(1970, 1, 1, tzinfo=UTC).toordinal()
_SECONDS_A_DAY = 86_400
_MIN_SECONDS = -62_135_596_800  # 0001-01-01T00:00:00Z
_MAX_SECONDS = 253_402_300_799  # 9999-12-31T23:59:59Z


def format_time(unix_ns: int) -> str:
    """RFC 3339 UTC with nine digits of a Unix time in nanoseconds (leap seconds as POSIX has them).

    Raises:
        Malformed: outside the years 0001–9999, which RFC 3339 cannot write.
    """
    seconds, fraction_ns = divmod(unix_ns, 1_000_000_000)
    return f"{_seconds_texts[seconds]}.{fraction_ns:09d}Z"


def _seconds_text(seconds: int) -> str:
    if not _MIN_SECONDS <= seconds <= _MAX_SECONDS:
        raise Malformed("a time outside the years 0001–9999", label="bad_time")
    days, of_day = divmod(seconds, _SECONDS_A_DAY)
    date = datetime.fromordinal(_EPOCH_ORDINAL + days)
    minutes, second = divmod(of_day, 60)
    return f"{date.year:04d}-{date.month:02d}-{date.day:02d}T{minutes // 60:02d}:{minutes % 60:02d}:{second:02d}"


_seconds_texts = Memo(_seconds_text)  # events come by the thousand within a second


_RFC3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(?:[.,](\d{1,9})\d*)?([Zz]|[+-]\d\d:?\d\d)", re.ASCII)
_SECOND_LETTERS = len("2026-01-01T00:00:00")


def _seconds_of(text: str) -> int:
    """Unix seconds of a date and a time of day as RFC 3339 writes them, taken as UTC."""
    year, month, day, hour, minute, second = (
        int(text[at:end]) for at, end in ((0, 4), (5, 7), (8, 10), (11, 13), (14, 16), (17, 19))
    )
    if hour > 23 or minute > 59 or second > 60:
        raise Malformed("a time of day that does not exist", label="bad_time")
    try:
        days = datetime(year, month, day, tzinfo=UTC).toordinal() - _EPOCH_ORDINAL
    except ValueError as error:
        raise Malformed("a date that does not exist", label="bad_time") from error
    return days * _SECONDS_A_DAY + hour * 3600 + minute * 60 + second


_text_seconds = Memo(_seconds_of)


def parse_time(text: str) -> int:
    """Unix nanoseconds of an RFC 3339 time; digits beyond the ninth are cut. A leap second counts as the next second.

    Raises:
        Malformed: not an RFC 3339 time with a zone.
    """
    match = _RFC3339.fullmatch(text)
    if match is None:
        raise Malformed("not an RFC 3339 time with a zone", label="bad_time")
    fraction, zone = match.groups()
    seconds = _text_seconds[text[:_SECOND_LETTERS]]
    if zone not in "Zz":
        zone_hour, zone_minute = int(zone[1:3]), int(zone[-2:])
        if zone_hour > 23 or zone_minute > 59:
            raise Malformed("a zone that does not exist", label="bad_time")
        offset = zone_hour * 3600 + zone_minute * 60
        seconds -= offset if zone[0] == "+" else -offset
    return seconds * 1_000_000_000 + int((fraction or "").ljust(9, "0"))
