"""OCSF (https://schema.ocsf.io), one event a line: each of our events is an API Activity (class 6003) of the Application category.

Why that class: it is the one whose parts are ours, who (actor) called what (api.operation, api.service) from where (src_endpoint)
with what outcome, and it has the trace. Application Lifecycle is of installing and starting, Datastore Activity of tables and
buckets, Web Resources Activity of resources by URL; OCSF has no class for a business transaction, so that one is
``metadata.correlation_uid``, which is what ties events together there. docs/export.md has the table of fields.

The class demands an actor and a source, and not every event tells them: then the service itself stands there, by its name, which
is true of what it reports, and nothing is made up. Only events are mapped; other entries are counted in the manifest.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from ipaddress import ip_address
from typing import Any

import msgspec

from audit_api.export.table import amounts_of, plain_keys
from audit_api.export.walk import Row
from collector.errors import Malformed
from collector.event import Event, Facts, parse_time

__all__ = ["OCSF_VERSION", "OcsfLines", "activity"]

OCSF_VERSION = "1.8.0"

_CATEGORY, _CLASS = 6, 6003
_VERBS = {
    "POST": 1, "PUT": 3, "PATCH": 3, "GET": 2, "HEAD": 2, "DELETE": 4,
}  # fmt: skip
_ACTIVITIES = {1: "Create", 2: "Read", 3: "Update", 4: "Delete", 99: "Other"}
_SEVERITIES = {0: "Unknown", 1: "Informational", 3: "Medium", 4: "High", 6: "Fatal"}
_STATUSES = {"success": (1, "Success"), "failure": (2, "Failure")}

_encode = msgspec.json.Encoder(order="sorted").encode


class OcsfLines:
    """`audit_api.export.formats.Writer` of OCSF events."""

    def __init__(self) -> None:
        self.notes: Counter[str] = Counter()
        self.about: Mapping[str, Any] = {"ocsf": OCSF_VERSION, "class_uid": _CLASS}

    def write(self, rows: Sequence[Row]) -> bytes:
        """See `Writer.write`."""
        lines = []
        for row in rows:
            if row.entry.kind == "event":
                lines.append(_encode(activity(row)) + b"\n")
            else:
                self.notes[f"not_mapped_{row.entry.kind}"] += 1
        return b"".join(lines)

    def finish(self) -> bytes:
        """See `Writer.finish`."""
        return b""


def activity(row: Row) -> dict[str, Any]:
    """The OCSF event of an entry of kind event."""
    facts = row.facts()
    event = row.event() or Event()
    attributes = event.attributes
    verb = _VERBS.get(str(attributes.get("http.request.method", "")).upper(), 99)
    severity = _severity(event.severity_number)
    outcome = facts.outcome or ("failure" if facts.error else "")
    status, status_name = _STATUSES.get(outcome, (0, "Unknown"))
    service = facts.service or row.entry.stream.partition("/")[0] or "unknown"
    recorded_ms = _ms(row.entry.recorded) or 0
    time_ms = _ms(facts.time)
    made: dict[str, Any] = {
        "category_uid": _CATEGORY,
        "category_name": "Application Activity",
        "class_uid": _CLASS,
        "class_name": "API Activity",
        "activity_id": verb,
        "activity_name": _ACTIVITIES[verb] if verb != 99 else facts.name or "Other",
        "type_uid": _CLASS * 100 + verb,
        "type_name": f"API Activity: {_ACTIVITIES[verb]}",
        "time": recorded_ms if time_ms is None else time_ms,
        "severity_id": severity,
        "severity": _SEVERITIES[severity],
        "status_id": status,
        "status": status_name,
        "metadata": _metadata(row, facts, event),
        "actor": {"user": {"name": facts.actor}} if facts.actor else {"app_name": service},
        "api": {"operation": facts.name or "unknown", "service": _service(service, event)},
        "src_endpoint": _source(attributes, service),
        "raw_data_hash": {"algorithm_id": 3, "algorithm": "SHA-256", "value": facts.digest},
        "unmapped": _unmapped(row, facts, event),
    }
    if event.body is not None:
        made["message"] = event.body if isinstance(event.body, str) else _encode(event.body).decode("utf-8")
    detail = event.span.status_message if event.span is not None else ""
    if detail or row.problem:
        made["status_detail"] = detail or row.problem
    code = attributes.get("http.response.status_code")
    if isinstance(code, int | str) and not isinstance(code, bool):
        made["status_code"] = str(code)
    return made | _span(facts, event, time_ms)


def _severity(number: int) -> int:
    """OpenTelemetry's 1 to 24 as OCSF's: TRACE to INFO informational, WARN medium, ERROR high, FATAL fatal."""
    return 0 if number <= 0 else 1 if number <= 12 else 3 if number <= 16 else 4 if number <= 20 else 6


def _ms(text: str) -> int | None:
    """Milliseconds since 1970, as OCSF's timestamp_t has it."""
    try:
        return parse_time(text) // 1_000_000
    except Malformed:
        return None


def _service(name: str, event: Event) -> dict[str, Any]:
    version = event.resource.get("service.version")
    return {"name": name} | ({"version": version} if isinstance(version, str) and version else {})


def _source(attributes: Mapping[str, Any], service: str) -> dict[str, Any]:
    address = attributes.get("client.address", attributes.get("network.peer.address"))
    if isinstance(address, str) and address:
        try:
            return {"ip": str(ip_address(address))}
        except ValueError:
            return {"name": address}  # a name, or an address that was masked
    return {"svc_name": service}


def _metadata(row: Row, facts: Facts, event: Event) -> dict[str, Any]:
    entry = row.entry
    return {
        key: value
        for key, value in {
            "version": OCSF_VERSION,
            "product": {"name": "Tallystick", "vendor_name": "Tallystick"},
            "uid": f"{entry.stream}#{entry.sequence}",
            "sequence": row.leaf,
            "log_name": row.log,
            "log_level": event.severity_text,
            "logged_time": _ms(entry.recorded),
            "original_time": facts.time,
            "event_code": facts.name,
            "correlation_uid": facts.transaction or entry.trail,
            "tenant_uid": facts.tenant,
            "labels": list(facts.marks),
            "profiles": ["trace"] if facts.trace_id else [],
        }.items()
        if value not in ("", None, [])
    }


def _span(facts: Facts, event: Event, start_ms: int | None) -> dict[str, Any]:
    made: dict[str, Any] = {}
    end_ms = _ms(event.span.end) if event.span is not None else None
    if start_ms is not None and end_ms is not None and end_ms >= start_ms:
        made |= {"start_time": start_ms, "end_time": end_ms, "duration": end_ms - start_ms}
    if facts.trace_id:
        made["trace"] = {"uid": facts.trace_id}
        if facts.span_id and "end_time" in made and event.span is not None:
            span = {"uid": facts.span_id, "start_time": start_ms, "end_time": end_ms, "operation": facts.name}
            if event.span.parent_span_id:
                span["parent_uid"] = event.span.parent_span_id
            made["trace"]["span"] = {name: value for name, value in span.items() if value != ""}
    return made


def _unmapped(row: Row, facts: Facts, event: Event) -> dict[str, Any]:
    """What OCSF has no attribute for, as it is."""
    told = {
        "trail": row.entry.trail,
        "position": row.entry.position,
        "why": row.entry.why,
        "problem": row.problem,
        "retired": row.retired,
        "span_id": facts.span_id,
        "keys": plain_keys(facts.keys),
        "amounts": [{"currency": currency, "amount": amount} for currency, amount in amounts_of(facts.keys)],
        "attributes": event.attributes,
        "resource": event.resource,
    }
    return {name: value for name, value in told.items() if value not in ("", {}, [])}
