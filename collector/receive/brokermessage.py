"""A message of a broker becomes an arrival, whatever the broker. Pure.

What the message says of itself stands in attributes as OpenTelemetry's semantic conventions name it
(https://opentelemetry.io/docs/specs/semconv/messaging/). The headers of W3C Trace Context and Baggage go where the extractor looks for them, and
all headers are kept as ``messaging.message.header.<name>``. Time, trace and tenant that the message itself states go before what its headers and
its broker say.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import msgspec

from collector.errors import Malformed
from collector.event import Event, Origin
from collector.receive import Arrival
from collector.receive.json_lines import arrival_of_line
from collector.receive.record import ORIGINAL, arrival_of_record, put_over

__all__ = ["HEADER", "MAX_HEADERS", "BrokerMessage", "Format", "Reading", "arrival_of_broker_message"]

Format = Literal["auto", "json", "text", "raw"]
"""How a message's bytes are read: `json` as an object, `text` as text, `raw` as bytes, `auto` as JSON if it is an object, else as text."""

HEADER = "messaging.message.header."
"""What the names of attributes begin with that hold headers."""

MAX_HEADERS = 128
"""So many headers of a message become attributes; one that has more, or some that cannot be read, is marked ``headers_cut``."""

_TRACEPARENT = re.compile(
    r"(?!ff)[0-9a-f]{2}-((?!0{32})[0-9a-f]{32})-((?!0{16})[0-9a-f]{16})-([0-9a-f]{2})(?:-.*)?", re.ASCII
)
"""W3C Trace Context, section 3.2: later versions may have more behind the flags, version 00 may not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerMessage:
    """A message as a broker hands it out.

    Attributes:
        value: its bytes; None: it has none (a tombstone).
        headers: names to values, in the order of the message; a name may come more than once, and the last one counts.
        headers_cut: whether it has others that its library cannot read.
        time: RFC 3339, empty when the broker states none.
        attributes: what the broker says of it.
        origin: where it stood.
        source_id: by which it is recognised, None when it cannot be.
    """

    value: bytes | None
    headers: tuple[tuple[str, bytes], ...] = ()
    headers_cut: bool = False
    time: str = ""
    attributes: Mapping[str, Any]
    origin: Origin
    source_id: bytes | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """How messages are read. `service` and `tenant` are those of a message that names none; the header's name is in lower case."""

    format: Format = "auto"
    service: str = ""
    tenant: str = ""
    transaction_header: str = ""


def arrival_of_broker_message(message: BrokerMessage, reading: Reading, *, observed: str = "") -> Arrival:
    """The event of a message.

    Raises:
        Malformed: it is to be JSON, and is no JSON object.
    """
    arrival = _arrival(message, reading, observed)
    event = arrival.event
    put_over(event.attributes, message.attributes)
    headers = _headers(message, event)
    changes: dict[str, Any] = {}
    if not event.time and message.time:
        changes["time"] = message.time
    if not event.trace_id and (found := _TRACEPARENT.fullmatch(headers.get("traceparent", "").strip())):
        changes |= {"trace_id": found[1], "trace_flags": int(found[3], 16)}
        if not event.span_id:
            changes["span_id"] = found[2]
    if "baggage" in headers:
        event.attributes.setdefault("baggage", headers["baggage"])
    if reading.transaction_header and not event.transaction:
        changes["transaction"] = headers.get(reading.transaction_header, "")
    if not event.tenant and reading.tenant:
        changes["tenant"] = reading.tenant
    if changes:
        event = msgspec.structs.replace(event, **changes)
    return Arrival(event=event, source_id=arrival.source_id or message.source_id)


def _headers(message: BrokerMessage, event: Event) -> dict[str, str]:
    """Keep the headers in the event's attributes; returns them by their names in lower case."""
    if message.headers_cut or len(message.headers) > MAX_HEADERS:
        event.marks.append("headers_cut")
    headers: dict[str, str] = {}
    kept: dict[str, str | bytes] = {}
    for name, value in message.headers[:MAX_HEADERS]:
        try:
            text = value.decode()
        except UnicodeDecodeError:
            kept[HEADER + name] = value  # becomes base64
            continue
        kept[HEADER + name] = text
        headers[name.lower()] = text
    put_over(event.attributes, kept)
    return headers


def _arrival(message: BrokerMessage, reading: Reading, observed: str) -> Arrival:
    value, origin, service = message.value, message.origin, reading.service
    if value is not None and (reading.format == "json" or (reading.format == "auto" and value.lstrip()[:1] == b"{")):
        try:
            return arrival_of_line(value, origin=origin, service=service, observed=observed)
        except Malformed:
            if reading.format == "json":
                raise
    record: dict[str, Any] = {}
    if value is not None and reading.format == "raw":
        record[ORIGINAL] = value
    elif value is not None:
        try:
            record["body"] = value.decode()
        except UnicodeDecodeError:
            record |= {"body": value.decode("utf-8", "surrogateescape"), ORIGINAL: value}
    return arrival_of_record(record, origin=origin, service=service, observed=observed, time="")
