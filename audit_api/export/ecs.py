"""Elastic Common Schema (https://www.elastic.co/docs/reference/ecs), one document a line, for Elasticsearch and what reads it.

docs/export.md has the table of fields; a test holds it against this module. What ECS has no field for stands under ``tallystick.``,
a namespace of our own as ECS asks for. A business transaction is there too: ECS's ``transaction.id`` is one of APM within a trace,
and would be taken for that.

Events and verdicts become documents. Other entries (links, batches, gaps, enrolments, forks) are counted in the manifest.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from ipaddress import ip_address
from typing import Any

import msgspec

from audit_api.export.table import amounts_of, plain_keys, span_ns
from audit_api.export.walk import Row
from collector.event import Event, Facts

__all__ = ["ATTRIBUTES", "ECS_VERSION", "RESOURCE", "EcsLines", "document"]

ECS_VERSION = "8.17.0"

_encode = msgspec.json.Encoder(order="sorted").encode


def _text(value: Any) -> Any:
    """A keyword; None for what is no scalar."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, str | int | float) else None


def _whole(value: Any) -> Any:
    """A long: within 64 bits; None for anything else. Senders write numbers as text, too."""
    if isinstance(value, str) and value.isascii() and value.removeprefix("-").isdigit() and len(value) < 20:
        value = int(value)
    return value if type(value) is int and -(1 << 63) <= value < 1 << 63 else None


def _port(value: Any) -> Any:
    number = _whole(value)
    return number if number is not None and 0 <= number < 65_536 else None


def _ip(value: Any) -> Any:
    """An IP address without a zone; None for what is none, such as a masked one."""
    try:
        return str(ip_address(value)) if isinstance(value, str) and "%" not in value else None
    except ValueError:
        return None


_Read = Callable[[Any], Any]

RESOURCE: Mapping[str, tuple[str, _Read]] = {
    "service.version": ("service.version", _text),
    "service.instance.id": ("service.node.name", _text),
    "deployment.environment.name": ("service.environment", _text),
    "deployment.environment": ("service.environment", _text),
    "host.name": ("host.name", _text),
    "host.id": ("host.id", _text),
    "host.arch": ("host.architecture", _text),
    "container.id": ("container.id", _text),
    "container.name": ("container.name", _text),
    "container.image.name": ("container.image.name", _text),
    "k8s.namespace.name": ("orchestrator.namespace", _text),
    "k8s.cluster.name": ("orchestrator.cluster.name", _text),
    "k8s.pod.name": ("orchestrator.resource.name", _text),
    "cloud.provider": ("cloud.provider", _text),
    "cloud.region": ("cloud.region", _text),
    "cloud.availability_zone": ("cloud.availability_zone", _text),
    "cloud.account.id": ("cloud.account.id", _text),
    "process.pid": ("process.pid", _whole),
    "process.executable.name": ("process.name", _text),
}
"""OpenTelemetry's resource attributes that ECS has fields for: the field, and how a value is read; what cannot be read so stays an attribute."""

ATTRIBUTES: Mapping[str, tuple[str, _Read]] = {
    "http.request.method": ("http.request.method", _text),
    "http.response.status_code": ("http.response.status_code", _whole),
    "http.request.body.size": ("http.request.body.bytes", _whole),
    "http.response.body.size": ("http.response.body.bytes", _whole),
    "url.full": ("url.full", _text),
    "url.path": ("url.path", _text),
    "url.query": ("url.query", _text),
    "url.scheme": ("url.scheme", _text),
    "user_agent.original": ("user_agent.original", _text),
    "client.address": ("client.address", _text),
    "client.port": ("client.port", _port),
    "server.address": ("server.address", _text),
    "server.port": ("server.port", _port),
    "error.type": ("error.type", _text),
    "exception.type": ("error.type", _text),
    "exception.message": ("error.message", _text),
    "exception.stacktrace": ("error.stack_trace", _text),
    "code.file.path": ("log.origin.file.name", _text),
    "code.line.number": ("log.origin.file.line", _whole),
    "code.function.name": ("log.origin.function", _text),
    "thread.id": ("process.thread.id", _whole),
    "thread.name": ("process.thread.name", _text),
}
"""As `RESOURCE`, of OpenTelemetry's attributes of events and spans."""

_VERDICTS = {"complete": "success", "incomplete": "failure", "failed": "failure"}


class EcsLines:
    """`audit_api.export.formats.Writer` of ECS documents."""

    def __init__(self) -> None:
        self.notes: Counter[str] = Counter()
        self.about: Mapping[str, Any] = {"ecs": ECS_VERSION}

    def write(self, rows: Sequence[Row]) -> bytes:
        """See `Writer.write`."""
        lines = []
        for row in rows:
            if row.entry.kind in ("event", "verdict"):
                lines.append(_encode(document(row)) + b"\n")
            else:
                self.notes[f"not_mapped_{row.entry.kind}"] += 1
        return b"".join(lines)

    def finish(self) -> bytes:
        """See `Writer.finish`."""
        return b""


def document(row: Row) -> dict[str, Any]:
    """The ECS document of an entry of kind event or verdict: nested objects, nothing that is empty."""
    fields: dict[str, Any] = {
        "@timestamp": row.entry.recorded,
        "ecs.version": ECS_VERSION,
        "event.module": "tallystick",
        "event.sequence": row.leaf,
        "event.ingested": row.entry.recorded,
        "tallystick.log": row.log,
        "tallystick.leaf": row.leaf,
        "tallystick.trail": row.entry.trail,
        "tallystick.position": row.entry.position,
        "tallystick.why": row.entry.why,
        "tallystick.problem": row.problem,
        "tallystick.retired": row.retired,
    }
    if row.entry.kind == "verdict":
        fields |= _verdict(row)
    else:
        fields |= _event(row)
    return _nested(fields)


def _verdict(row: Row) -> dict[str, Any]:
    detail = row.entry.detail
    verdict = str(detail.get("verdict", ""))
    return {
        "event.kind": "state",
        "event.dataset": "tallystick.verdict",
        "event.action": f"verdict.{verdict}",
        "event.outcome": _VERDICTS.get(verdict, "unknown"),
        "event.reason": str(detail.get("reason", "")),
        "event.id": f"{row.log}#{row.leaf}",
        "tallystick.verdict": _encode(detail).decode("utf-8"),
    }


def _event(row: Row) -> dict[str, Any]:
    facts = row.facts()
    event = row.event() or Event()
    amounts = amounts_of(facts.keys)
    fields: dict[str, Any] = {
        "event.kind": "event",
        "event.dataset": "tallystick.event",
        "event.id": f"{row.entry.stream}#{row.entry.sequence}",
        "event.action": facts.name,
        "event.outcome": facts.outcome or ("failure" if facts.error else "unknown"),
        "event.created": event.observed,
        "event.provider": facts.service,
        "event.hash": facts.digest,
        "event.severity": event.severity_number or None,
        "event.duration": span_ns(event),
        "log.level": event.severity_text,
        "log.logger": event.scope.name if event.scope is not None else "",
        "message": _message(event),
        "service.name": facts.service,
        "trace.id": facts.trace_id,
        "span.id": facts.span_id,
        "user.name": facts.actor,
        "organization.id": facts.tenant,
        "labels": _labels(facts),
        "tags": list(facts.marks),
        "error.message": event.span.status_message if event.span is not None else "",
        "tallystick.stream": row.entry.stream,
        "tallystick.sequence": row.entry.sequence,
        "tallystick.transaction": facts.transaction,
        "tallystick.error": facts.error,
        "tallystick.amounts": [{"currency": currency, "amount": amount} for currency, amount in amounts],
        "tallystick.parent_span_id": event.span.parent_span_id if event.span is not None else "",
        "tallystick.span_kind": event.span.kind if event.span is not None else "",
    }
    if facts.time:
        fields["@timestamp"] = facts.time
    _move(event.attributes, ATTRIBUTES, fields, "tallystick.attributes")
    fields["client.ip"] = _ip(fields.get("client.address"))
    _move(event.resource, RESOURCE, fields, "tallystick.resource")
    return fields


def _labels(facts: Facts) -> dict[str, str]:
    """Business keys: ECS's labels are keywords, and a dot in a name would be taken for an object."""
    return {name.replace(".", "_"): value for name, value in sorted(plain_keys(facts.keys).items())}


def _message(event: Event) -> str:
    body = event.body
    return "" if body is None else body if isinstance(body, str) else _encode(body).decode("utf-8")


def _move(
    attributes: Mapping[str, Any], known: Mapping[str, tuple[str, _Read]], fields: dict[str, Any], rest: str
) -> None:
    """Attributes that ECS knows go to its fields; all others stay together as one object, under `rest`."""
    left = {}
    for name, value in attributes.items():
        field, read = known.get(name, ("", _text))
        found = read(value) if field else None
        if found is None or fields.get(field):
            left[name] = value
        else:
            fields[field] = found
    left.pop("service.name", None)  # facts have it
    if left:
        fields[rest] = left


def _nested(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Dotted names as nested objects, without what is empty."""
    document: dict[str, Any] = {}
    for name, value in fields.items():
        if value is None or value in ("", [], {}):
            continue
        *path, last = name.split(".")
        at = document
        for part in path:
            at = at.setdefault(part, {})
        at[last] = value
    return document
