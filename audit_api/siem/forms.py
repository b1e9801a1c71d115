"""The formats of records: JSON of our own, ECS, OCSF and CEF. docs/siem.md has what stands where.

Events are mapped as exports map them (`audit_api.export`). What an export counts and leaves out, a SIEM wants most: verdicts, gaps, forks. They are
states in ECS; in OCSF they are its base event, the class of what has no class.
"""

from collections.abc import Callable, Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from ipaddress import IPv4Address, ip_address
from typing import Any

import msgspec

from audit_api.export.ecs import ECS_VERSION, document
from audit_api.export.ocsf import OCSF_VERSION, activity
from audit_api.export.walk import Row
from audit_api.siem.cef import cef_line
from audit_api.siem.record import Form, Mark, severity_of
from collector.errors import Malformed
from collector.event import parse_time

__all__ = ["FORMS", "own_version"]

_BARE_TRAIL = 400
_MAX_TEXT = 1_023
"""CEF's length of most fields."""

_encode = msgspec.json.Encoder(order="sorted").encode


@cache
def own_version() -> str:
    """This program's; ``0`` when it runs from a tree that is not installed."""
    try:
        return version("tallystick")
    except PackageNotFoundError:
        return "0"


def _proof(mark: Mark) -> dict[str, Any]:
    told: dict[str, Any] = {
        "id": mark.id,
        "leaf_hash": mark.leaf_hash,
        "checkpoint": {"size": mark.size, "root": mark.root},
    }
    if mark.cut:
        told["cut"] = {"why": mark.cut, "event_bytes": mark.of_bytes}
    return told


def _place(row: Row) -> dict[str, Any]:
    return {"log": row.log, "leaf": row.leaf, "trail": row.entry.trail[:_BARE_TRAIL]}


def _ms(text: str) -> int | None:
    try:
        return parse_time(text) // 1_000_000
    except Malformed:
        return None


class _Json(Form):
    """Entry and event as they are: canonical JSON, byte by byte, so that who hashes `entry` finds `leaf_hash`."""

    def whole(self, row: Row, mark: Mark) -> bytes:
        about: dict[str, Any] = {**_proof(mark), "log": row.log, "leaf": row.leaf}
        about |= {name: text for name, text in (("problem", row.problem), ("retired", row.retired)) if text}
        return b'{"entry":%b,"event":%b,%b' % (row.data, row.raw or b"null", _encode(about)[1:])

    def bare(self, row: Row, mark: Mark) -> bytes:
        return _encode({**_proof(mark), **_place(row)})


class _Ecs(Form):
    def whole(self, row: Row, mark: Mark) -> bytes:
        made = document(row) if row.entry.kind in ("event", "verdict") else self._state(row, mark)
        made["tallystick"] |= _proof(mark)
        return _encode(made)

    def bare(self, row: Row, mark: Mark) -> bytes:
        made = self._stated(row, mark)
        made["tallystick"] = {**_proof(mark), **_place(row)}
        return _encode(made)

    @staticmethod
    def _stated(row: Row, mark: Mark) -> dict[str, Any]:
        kind = row.entry.kind
        return {
            "@timestamp": row.entry.recorded,
            "ecs": {"version": ECS_VERSION},
            "event": {
                "kind": "event" if kind == "event" else "state",
                "module": "tallystick",
                "dataset": f"tallystick.{kind}",
                "action": kind,
                "id": mark.id,
                "sequence": row.leaf,
                "ingested": row.entry.recorded,
            },
        }

    def _state(self, row: Row, mark: Mark) -> dict[str, Any]:
        made = self._stated(row, mark)
        made["message"] = told_in_words(row)
        made["tallystick"] = {
            "log": row.log,
            "leaf": row.leaf,
            "trail": row.entry.trail,
            "position": row.entry.position,
            "detail": _encode(row.entry.detail).decode("utf-8"),
        }
        return made


class _Ocsf(Form):
    def whole(self, row: Row, mark: Mark) -> bytes:
        if row.entry.kind == "event":
            made = activity(row)
            made["unmapped"] |= {"log": row.log, "leaf": row.leaf, **_proof(mark)}
            return _encode(made)
        made = self._base(row, mark)
        made["message"] = told_in_words(row)
        made["unmapped"] |= {
            "trail": row.entry.trail, "position": row.entry.position, "detail": row.entry.detail,
        }  # fmt: skip
        return _encode(made)

    def bare(self, row: Row, mark: Mark) -> bytes:
        return _encode(self._base(row, mark))

    @staticmethod
    def _base(row: Row, mark: Mark) -> dict[str, Any]:
        severity, name = next(one for least, one in _OCSF_SEVERITIES if severity_of(row) >= least)
        recorded_ms = _ms(row.entry.recorded) or 0
        return {
            "category_uid": 0,
            "category_name": "Uncategorized",
            "class_uid": 0,
            "class_name": "Base Event",
            "activity_id": 99,
            "activity_name": row.entry.kind,
            "type_uid": 99,
            "type_name": "Base Event: Other",
            "severity_id": severity,
            "severity": name,
            "time": recorded_ms,
            "metadata": {
                "version": OCSF_VERSION,
                "product": {"name": "Tallystick", "vendor_name": "Tallystick"},
                "uid": mark.id,
                "sequence": row.leaf,
                "log_name": row.log,
                "logged_time": recorded_ms,
                "event_code": row.entry.kind,
                "correlation_uid": row.entry.trail[:_BARE_TRAIL],
            },
            "unmapped": {**_proof(mark), **_place(row)},
        }


_OCSF_SEVERITIES = (
    (9, (5, "Critical")),
    (8, (4, "High")),
    (6, (3, "Medium")),
    (4, (2, "Low")),
    (0, (1, "Informational")),
)


class _Cef(Form):
    def whole(self, row: Row, mark: Mark) -> bytes:
        fields = self._stated(row, mark)
        fields["cs1"] = row.entry.trail
        if row.entry.kind == "event":
            signature = name = row.facts().name or "event"
            fields |= _cef_event(row)
        else:
            signature, name = str(row.entry.kind), told_in_words(row)
            if row.entry.kind == "verdict":
                fields["outcome"] = str(row.entry.detail.get("verdict", ""))
                signature = f"verdict.{fields['outcome']}"
        told = row.problem or (f"retired by policy with {row.retired}" if row.retired else "")
        fields["reason"] = (fields["reason"] or told)[:_MAX_TEXT]
        return self._line(row, signature[:_MAX_TEXT], name[:512], fields)

    def bare(self, row: Row, mark: Mark) -> bytes:
        return self._line(row, row.entry.kind, row.entry.kind, self._stated(row, mark))

    @staticmethod
    def _stated(row: Row, mark: Mark) -> dict[str, Any]:
        return {
            "rt": _ms(row.entry.recorded),
            "cat": row.entry.kind,
            "externalId": mark.id,
            "cs1Label": "trail",
            "cs1": row.entry.trail[:_BARE_TRAIL],
            "cs2Label": "log",
            "cs2": row.log,
            "cs3Label": "leafHash",
            "cs3": mark.leaf_hash,
            "cs4Label": "checkpointRoot",
            "cs4": mark.root,
            "cn1Label": "leaf",
            "cn1": row.leaf,
            "cn2Label": "checkpointSize",
            "cn2": mark.size,
            "reason": f"cut: {mark.cut}, the event has {mark.of_bytes} bytes" if mark.cut else "",
        }

    @staticmethod
    def _line(row: Row, signature: str, name: str, fields: Mapping[str, Any]) -> bytes:
        line = cef_line(
            version=own_version(), signature=signature, name=name, severity=severity_of(row), extension=fields
        )
        return line.encode()


_CEF_ATTRIBUTES = {
    "http.request.method": "requestMethod",
    "url.full": "request",
    "user_agent.original": "requestClientApplication",
    "host.name": "shost",
}


def _cef_event(row: Row) -> dict[str, Any]:
    """What CEF's dictionary has names for, of an event; the digest, the transaction and the trace under labels of ours."""
    facts, event = row.facts(), row.event()
    fields: dict[str, Any] = {
        "start": _ms(facts.time),
        "sourceServiceName": facts.service,
        "suser": facts.actor,
        "outcome": facts.outcome or ("failure" if facts.error else ""),
        "cs5Label": "digest",
        "cs5": facts.digest,
    }
    if facts.transaction:
        fields |= {"cs6Label": "transaction", "cs6": facts.transaction}
    if facts.trace_id:
        fields |= {"flexString1Label": "trace", "flexString1": facts.trace_id}
    if facts.keys:
        fields |= {"flexString2Label": "keys", "flexString2": _encode(facts.keys).decode("utf-8")}
    if event is not None:
        body = event.body
        fields["msg"] = "" if body is None else body if isinstance(body, str) else _encode(body).decode("utf-8")
        attributes = {**event.resource, **event.attributes}
        fields |= {
            key: attributes[name] for name, key in _CEF_ATTRIBUTES.items() if isinstance(attributes.get(name), str)
        }
        fields |= _cef_address(attributes.get("client.address"))
    return {key: value[:_MAX_TEXT] if isinstance(value, str) else value for key, value in fields.items()}


def _cef_address(address: object) -> dict[str, str]:
    try:
        found = ip_address(address) if isinstance(address, str) and "%" not in address else None
    except ValueError:
        return {}  # a name, or an address that was masked
    if found is None:
        return {}
    if isinstance(found, IPv4Address):
        return {"src": str(found)}
    return {"c6a2Label": "Source IPv6 Address", "c6a2": str(found)}


def told_in_words(row: Row) -> str:
    """An entry that is no event, in a sentence for a person."""
    detail, kind = row.entry.detail, row.entry.kind
    if kind == "verdict":
        reason = str(detail.get("reason", ""))
        return f"{detail.get('flow', '')} is {detail.get('verdict', '')}{f': {reason}' if reason else ''}"
    return _WORDS[kind]


_WORDS: Mapping[str, str] = {
    "event": "An event",
    "link": "Two trails belong together",
    "verdict": "A transaction is decided",
    "batch": "A collector's signed batch is in the log",
    "gap": "Events of a collector are missing",
    "enrolment": "A collector's key is trusted from now on",
    "fork": "A collector told two different stories",
}

FORMS: Mapping[str, Callable[[], Form]] = {"json": _Json, "ecs": _Ecs, "ocsf": _Ocsf, "cef": _Cef}
"""Formats by name."""
