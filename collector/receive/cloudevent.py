"""CloudEvents 1.0 (https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/spec.md): one event, in JSON or in HTTP headers, becomes an arrival.

The context attributes stand in the event's attributes under OpenTelemetry's names for them, extensions under their own; `type` is the event's
name, `data` its body. ``source`` and ``id`` together identify an event (section "id"): so they are the source id, and a re-send is recognised.
"""

import base64
import binascii
import hashlib
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote

from collector.errors import Malformed
from collector.event import Event, Origin, format_time, parse_time
from collector.receive import Arrival
from collector.receive.json_lines import value_of_json
from collector.receive.record import span_id_of, trace_id_of

__all__ = ["HEADER", "arrival_of_cloudevent", "context_of_headers", "data_of_body", "is_json"]

HEADER = "ce-"
"""What HTTP headers with a context attribute begin with (HTTP protocol binding, section 3.1.3)."""

_REQUIRED = ("id", "source", "type")
_NAMES = {
    "id": "cloudevents.event_id",
    "source": "cloudevents.event_source",
    "specversion": "cloudevents.event_spec_version",
    "type": "cloudevents.event_type",
    "subject": "cloudevents.event_subject",
    "datacontenttype": "cloudevents.event_data_content_type",
    "dataschema": "cloudevents.event_data_schema",
}
_ATTRIBUTE = re.compile(r"[a-z0-9]+", re.ASCII)
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}(?:-.*)?", re.ASCII)
_MAX_SERVICE = 256


def arrival_of_cloudevent(
    event: Mapping[str, Any], *, origin: Origin, service: str = "", observed: str = ""
) -> Arrival:
    """The event of a CloudEvent in the JSON event format: its context attributes, and ``data`` or ``data_base64``.

    Args:
        event: as decoded; `context_of_headers` gives the same of a request in binary mode.
        origin: how it came in.
        service: ``service.name``; empty: what ``source`` says.
        observed: when the collector saw it, RFC 3339; empty to leave it unset.

    Raises:
        Malformed: no CloudEvent of version 1.0; says which attribute is wrong (``bad_cloudevent``).
    """
    if event.get("specversion") != "1.0":
        raise _bad("specversion", "is not 1.0")
    for name in _REQUIRED:
        if type(event.get(name)) is not str or not event[name]:
            raise _bad(name, "is missing, or no text")
    attributes: dict[str, Any] = {}
    time = ""
    for name, value in event.items():
        if name in {"data", "data_base64"} or value is None:
            continue
        if type(name) is not str or not _ATTRIBUTE.fullmatch(name):
            raise _bad(str(name)[:100], "is no attribute's name: lower-case letters and digits")
        if type(value) not in (str, int, bool):
            raise _bad(name, "is neither text, integer nor boolean")
        if name == "time":
            time = _time(value)
        else:
            attributes[_NAMES.get(name, name)] = value
    source, identity = event["source"], event["id"]
    trace = _TRACEPARENT.fullmatch(str(event.get("traceparent", "")))
    digest = hashlib.sha256(b"%d\0%b\0%b" % (len(_bytes(source)), _bytes(source), _bytes(identity))).digest()
    return Arrival(
        event=Event(
            time=time,
            observed=observed,
            event_name=event["type"],
            body=_data(event),
            attributes=attributes,
            resource={"service.name": service or source[:_MAX_SERVICE]},
            trace_id=trace_id_of(trace[1]) if trace else "",
            span_id=span_id_of(trace[2]) if trace else "",
            origin=origin,
        ),
        source_id=b"ce\0" + digest,
    )


def context_of_headers(headers: Mapping[str, str]) -> dict[str, Any]:
    """The context attributes of a request in binary mode: its headers ``ce-…``, percent-decoded, and its media type.

    The keys of `headers` are in lower case, as an HTTP server gives them.
    """
    context: dict[str, Any] = {
        name.removeprefix(HEADER): unquote(value, errors="surrogateescape")
        for name, value in headers.items()
        if name.startswith(HEADER)
    }
    if "content-type" in headers:
        context["datacontenttype"] = headers["content-type"]
    return context


def is_json(content_type: str) -> bool:
    """Whether data of this media type is JSON; data of none is (JSON event format, section 3.1)."""
    media = content_type.partition(";")[0].strip().lower()
    return media in {"", "application/json", "text/json"} or media.endswith("+json")


def data_of_body(body: bytes, content_type: str) -> Any:
    """The data of a request in binary mode: a JSON value, text, or bytes as they are.

    Raises:
        Malformed: it is said to be JSON and is not (``bad_json``).
    """
    if not body:
        return None
    if is_json(content_type):
        return value_of_json(body)
    try:
        return body.decode()
    except UnicodeDecodeError:
        return body


def _data(event: Mapping[str, Any]) -> Any:
    encoded = event.get("data_base64")
    if encoded is None:
        return event.get("data")
    if event.get("data") is not None:
        raise _bad("data_base64", "stands beside data")
    if type(encoded) is not str:
        raise _bad("data_base64", "is no text")
    try:
        data = base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError) as error:
        raise _bad("data_base64", "is no base64") from error
    try:
        return data_of_body(data, str(event.get("datacontenttype") or "application/octet-stream"))
    except Malformed:
        return data  # it is said to be JSON and is not: kept as it is


def _time(value: Any) -> str:
    if type(value) is not str:
        raise _bad("time", "is no text")
    try:
        return format_time(parse_time(value))
    except Malformed as error:
        raise _bad("time", "is no RFC 3339 time") from error


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _bad(where: str, reason: str) -> Malformed:
    return Malformed(reason, where=where, label="bad_cloudevent")
