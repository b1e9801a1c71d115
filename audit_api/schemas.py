"""What answers look like: JSON Schemas with an example each, for the OpenAPI document. The tests hold every answer against them."""

from collections.abc import Iterable, Mapping
from typing import Any

from audit_api.problems import PROBLEMS

__all__ = ["SCHEMAS", "Schemas", "ref"]

Schemas = Mapping[str, dict[str, Any]]
"""JSON Schemas by name."""

_HASH = "zo8IgfuybOCZWoMfuddclN+x358f8p7fdRY370Tj3XU="
_TIME = "2026-01-01T00:01:00.000000000Z"
_NOTE = f"ledger.example/payments\n35\n{_HASH}\n\n— ledger.example/payments 4hFjgmmoLddJ9p38x2vbvNataI2Gg3axHwTr7o7b…\n"


def _string(about: str = "", **more: Any) -> dict[str, Any]:
    return {"type": "string", **({"description": about} if about else {}), **more}


def _integer(about: str = "", **more: Any) -> dict[str, Any]:
    return {"type": "integer", **({"description": about} if about else {}), **more}


def _list(items: Mapping[str, Any], about: str = "") -> dict[str, Any]:
    return {"type": "array", "items": dict(items), **({"description": about} if about else {})}


def ref(name: str) -> dict[str, Any]:
    """A reference to a schema by its name in `SCHEMAS`."""
    return {"$ref": f"#/components/schemas/{name}"}


def _nullable(schema: Mapping[str, Any]) -> dict[str, Any]:
    return {**schema, "type": [schema["type"], "null"]}


def _object(
    properties: Mapping[str, Any], *, optional: Iterable[str] = (), example: Any = None, about: str = ""
) -> dict[str, Any]:
    left_out = set(optional)
    schema: dict[str, Any] = {
        "type": "object",
        "properties": dict(properties),
        "required": [name for name in properties if name not in left_out],
        "additionalProperties": False,
    }
    if about:
        schema["description"] = about
    if example is not None:
        schema["example"] = example
    return schema


_BASE64 = _string("base64 (RFC 4648 section 4)", contentEncoding="base64")
_PROOF = _list(_BASE64, "RFC 9162 inclusion proof: the sibling of the leaf first.")
_ANY_OBJECT = {"type": "object", "additionalProperties": True}
_ENTRY = {**_ANY_OBJECT, "description": "The entry (docs/format.md section 6), canonical JSON: its bytes are the leaf."}
_EVENT = {
    "type": ["object", "null"],
    "additionalProperties": True,
    "description": "The event (docs/format.md section 2), canonical JSON; null when the entry has none or it is not shown.",
}

_RETIRED = _object(
    {
        "month": _string("The month that it was retired with.", pattern=r"^\d{4}\.\d\d$"),
        "leaf": _integer("Leaf index of the entry that records the retirement."),
        "recorded": _string("When that was recorded.", format="date-time"),
        "by": _string("By whom."),
    },
    about="The event was let go of by policy: its entry and its proof remain.",
)

_SUMMARY_EXAMPLE = {
    "trail": "transaction/PAY-1",
    "status": "incomplete",
    "entries": 5,
    "first_leaf": 14,
    "last_leaf": 23,
    "first_time": _TIME,
    "last_time": "2026-01-01T00:01:02.000000000Z",
    "services": ["gateway", "ledger"],
    "events": ["payment.requested", "payment.settled"],
    "keys": [{"name": "order_id", "value": "O-1"}],
    "amounts": [{"currency": "EUR", "least": "12.5", "most": "12.5"}],
    "links": ["key/order_id/O-1", "trace/00000000000000000000000000000002"],
    "links_left_out": 0,
    "hub": False,
}
_CHECKPOINT_EXAMPLE = {"origin": "ledger.example/payments", "size": 35, "root": _HASH, "note": _NOTE}
_ENTRY_EXAMPLE = {
    "facts": {"digest": "abee7aa0e8b135e1c4a99dfda7cbf33d6b87e29d9515031104dc15303d81676f", "transaction": "PAY-1"},
    "kind": "event",
    "position": 0,
    "recorded": "2026-01-01T00:00:00.019000000Z",
    "sequence": 2,
    "stream": "gateway/00000000000000aa",
    "trail": "transaction/PAY-1",
    "v": 1,
    "why": "transaction: attributes.payment_id",
}
_EVENT_EXAMPLE = {"event_name": "payment.requested", "time": _TIME, "transaction": "PAY-1"}
_KEY_EXAMPLE = "ledger.example/payments+e2116382+AQOhB7/zzhC+HXDdGOdLwJln5NYwm6UNXx3chmQSVTG4"
_FINGERPRINT = "SHA256:b61524f4636e63a2000ddd94b2f1367d4e7d4289479645d3cead088daa2cb60c"

SCHEMAS: dict[str, dict[str, Any]] = {
    "Problem": _object(
        {
            "type": _string(
                "A stable URI: which kind of problem.", format="uri", enum=[kind.type for kind in PROBLEMS.values()]
            ),
            "title": _string(),
            "status": _integer(),
            "detail": _string("What is wrong this time."),
            "instance": _string("The path asked for."),
            "parameter": _string("Which parameter."),
            "position": _integer("Where in a filter, in characters from 1."),
            "roles": _list(_string(), "The roles of which one is needed."),
            "limit": _integer("The limit that was passed."),
        },
        optional=("instance", "parameter", "position", "roles", "limit"),
        about="RFC 9457 problem details.",
    ),
    "TrailSummary": _object(
        {
            "trail": _string("The trail's id."),
            "status": _string("The newest verdict (complete, incomplete, compensated, failed), else error, gap or ok."),
            "entries": _integer(),
            "first_leaf": _integer(),
            "last_leaf": _integer(),
            "first_time": _nullable(_string("Least time that an event states.")),
            "last_time": _nullable(_string("Greatest time that an event states.")),
            "services": _list(_string(), "Names of its services, of the first 256 different ones."),
            "events": _list(_string(), "Names of its events, of the first 256 different ones."),
            "keys": _list(_object({"name": _string(), "value": _string()}), "Of very many keys some, 256 or more."),
            "amounts": _list(
                _object({"currency": _string(), "least": _string(), "most": _string()}),
                "The span of the amounts that its events tell, in each currency (ISO 4217; XXX: none is said).",
            ),
            "links": _list(_string(), "Trails linked to it; at most 200 are listed."),
            "links_left_out": _integer("How many more there are."),
            "hub": {
                "type": "boolean",
                "description": "It links more than a key of one transaction does: not followed.",
            },
        },
        example=_SUMMARY_EXAMPLE,
    ),
    "TrailPage": _object(
        {
            "size": _integer("Leaves of the log that this search looks at, on all its pages."),
            "trails": _list(ref("TrailSummary")),
            "next": _nullable(_string("The next page's cursor, after a short page, too; null when there is none.")),
        },
        example={"size": 35, "trails": [_SUMMARY_EXAMPLE], "next": "MS4zNS4xNA"},
    ),
    "Checkpoint": _object(
        {
            "origin": _string("The ledger's name."),
            "size": _integer("Leaves."),
            "root": _BASE64,
            "note": _string("The signed note, verbatim."),
        },
        example=_CHECKPOINT_EXAMPLE,
    ),
    "TrailEntry": {
        "description": "For auditor and admin the entry and its event; for sre what happened where.",
        "anyOf": [ref("FullEntry"), ref("EntrySkeleton")],
    },
    "FullEntry": _object(
        {
            "leaf": _integer("Leaf index in the log."),
            "entry": _ENTRY,
            "event": _EVENT,
            "problem": _string("What is wrong with the event in the store; it is then not shown."),
            "retired": _RETIRED,
            "proof": _PROOF,
        },
        optional=("problem", "retired", "proof"),
        example={"leaf": 14, "entry": _ENTRY_EXAMPLE, "event": _EVENT_EXAMPLE, "proof": [_HASH]},
    ),
    "EntrySkeleton": _object(
        {
            "leaf": _integer(),
            "position": _integer(),
            "kind": _string(),
            "recorded": _string(),
            "stream": _string(),
            "sequence": _integer(),
            "time": _nullable(_string()),
            "service": _string(),
            "name": _string(),
            "outcome": _string(),
            "error": {"type": "boolean"},
            "detail": _ANY_OBJECT,
        },
        optional=("stream", "sequence", "time", "service", "name", "outcome", "error", "detail"),
        example={"leaf": 15, "position": 1, "kind": "link", "recorded": "2026-01-01T00:00:00.020000000Z"},
    ),
    "PastAccess": _object(
        {
            "leaf": _integer("Leaf index of the access's entry, or of its refusal's."),
            "time": _string(),
            "principal": _string(),
            "action": _string(),
            "head": _integer("Leaf index of the last entry that was shown; −1: none."),
            "refused": _string("Why it was refused; empty: it was not."),
        },
        example={"leaf": 34, "time": _TIME, "principal": "ann", "action": "trail.read", "head": 23, "refused": ""},
    ),
    "Trail": _object(
        {
            "trail": _string("The trail's id."),
            "summary": ref("TrailSummary"),
            "checkpoint": ref("Checkpoint"),
            "entries": _list(ref("TrailEntry")),
            "next": _nullable(_integer("`start` of the next page; null when there is none.")),
            "story": _object(
                {
                    "traces": _list(_string(), "Trace trails whose entries belong to this trail's story."),
                    "traces_left_out": _integer("How many more there are: too many, or the trail is a hub's."),
                    "related": _list(
                        _object({"trail": _string(), "through": _nullable(_string("The trace between; null: none."))}),
                        "Other transactions and keys that have to do with it, and are not followed.",
                    ),
                    "related_left_out": _integer("How many more there may be: not all were looked at."),
                    "hubs": _list(_string(), "Keys that link too many trails to say anything about this one."),
                }
            ),
            "accesses": _object(
                {
                    "complete": {"type": "boolean", "description": "Whether all accesses are listed."},
                    "entries": _list(ref("PastAccess")),
                },
                about="Who has read this trail before. Their entries are in the access/… trails.",
            ),
        },
        example={
            "trail": "transaction/PAY-1",
            "summary": _SUMMARY_EXAMPLE,
            "checkpoint": _CHECKPOINT_EXAMPLE,
            "entries": [{"leaf": 14, "entry": _ENTRY_EXAMPLE, "event": _EVENT_EXAMPLE, "proof": [_HASH]}],
            "next": None,
            "story": {
                "traces": ["trace/00000000000000000000000000000002"],
                "traces_left_out": 0,
                "related": [{"trail": "key/order_id/O-1", "through": None}],
                "related_left_out": 0,
                "hubs": [],
            },
            "accesses": {"complete": True, "entries": []},
        },
        optional=("checkpoint", "accesses"),
    ),
    "EventProof": _object(
        {
            "trail": _string(),
            "leaf": _integer(),
            "entry": _ENTRY,
            "event": _EVENT,
            "problem": _string(),
            "retired": _RETIRED,
            "proof": _PROOF,
            "checkpoint": ref("Checkpoint"),
            "batch": _object(
                {
                    "leaf": _integer("Leaf index of the entry that holds the signed batch header."),
                    "entry": _ENTRY,
                    "proof": _PROOF,
                    "facts_path": _list(
                        _BASE64, "Inclusion path of the event's facts under the header's `facts_root`."
                    ),
                }
            ),
        },
        optional=("problem", "retired"),
        example={
            "trail": "transaction/PAY-1",
            "leaf": 14,
            "entry": _ENTRY_EXAMPLE,
            "event": _EVENT_EXAMPLE,
            "proof": [_HASH],
            "checkpoint": _CHECKPOINT_EXAMPLE,
            "batch": {"leaf": 13, "entry": {"kind": "batch"}, "proof": [_HASH], "facts_path": [_HASH]},
        },
    ),
    "CheckpointAndKey": _object(
        {
            "checkpoint": ref("Checkpoint"),
            "key": _string("The log's verifier key (C2SP signed-note vkey), as this API states it."),
            "fingerprint": _string("SHA-256 of the public key."),
        },
        example={"checkpoint": _CHECKPOINT_EXAMPLE, "key": _KEY_EXAMPLE, "fingerprint": _FINGERPRINT},
    ),
    "Consistency": _object(
        {
            "first": _object({"size": _integer(), "root": _BASE64}),
            "second": _object({"size": _integer(), "root": _BASE64}),
            "proof": _list(_BASE64, "RFC 9162 section 2.1.4."),
        },
        example={"first": {"size": 1, "root": _HASH}, "second": {"size": 35, "root": _HASH}, "proof": [_HASH]},
    ),
    "Status": _object(
        {
            "ledger": _string(),
            "fingerprint": _string("SHA-256 of the log's public key."),
            "checkpoint": ref("Checkpoint"),
            "indexed": _integer("Leaves in the index."),
            "index_lag": _integer("Leaves that the index does not have yet."),
        },
        example={
            "ledger": "ledger.example/payments",
            "fingerprint": _FINGERPRINT,
            "checkpoint": _CHECKPOINT_EXAMPLE,
            "indexed": 35,
            "index_lag": 0,
        },
    ),
    "StreamPage": _object(
        {
            "streams": _list(
                _object(
                    {
                        "stream": _string(),
                        "logged_batch": _integer("The log has the stream's batches up to this number."),
                        "trail": _nullable(_string()),
                        "status": _string("gap: something of it is missing; unknown: the log has nothing of it yet."),
                        "entries": _integer(),
                    }
                )
            ),
            "next": _nullable(_integer()),
        },
        example={
            "streams": [
                {
                    "stream": "gateway/00000000000000aa",
                    "logged_batch": 3,
                    "trail": "stream/gateway/00000000000000aa",
                    "status": "ok",
                    "entries": 3,
                }
            ],
            "next": None,
        },
    ),
    "Principals": _object(
        {
            "principals": _list(
                _object({"principal": _string(), "roles": _list(_string(enum=["auditor", "sre", "admin"]))})
            )
        },
        example={"principals": [{"principal": "ann", "roles": ["auditor"]}]},
    ),
    "Bundle": _string("A zip: docs/format-bundle.md.", contentMediaType="application/zip"),
    "ExportArchive": _string("A zip of a file and its manifest: docs/export.md.", contentMediaType="application/zip"),
    "PdfReport": _string("A report of a trail: docs/export.md.", contentMediaType="application/pdf"),
    "TlogProof": _string("C2SP tlog-proof."),
    "Note": _string("C2SP signed-note."),
    # Of a stream of server-sent events OpenAPI before 3.2 describes one event, as tools read it.
    "EventStream": _object(
        {
            "event": _string(enum=["trail", "verdict"]),
            "id": _string("How far the reader has come; it can come alone."),
            "data": _string(
                "An object with `trail`, `leaf`, `recorded`, of a verdict `verdict`, and where there are shards `log`.",
                contentMediaType="application/json",
            ),
            "retry": _integer("Milliseconds after which to connect again."),
        },
        optional=("event", "id", "data", "retry"),
        about="Server-sent events (WHATWG HTML section 9.2), each of them an object here.",
        example={
            "id": "41",
            "event": "trail",
            "data": '{"trail":"transaction/pay-1","leaf":41,"recorded":"2026-01-01T00:01:00.000000000Z"}',
        },
    ),
    "TrailLines": _string(
        "A line each: every TrailSummary, then an object with `end`, `size` (as in TrailPage) and `trails`, how many they were.",
        contentMediaType="application/x-ndjson",
    ),
    "EntryLines": _string(
        "A line each: a Trail without `entries` and `next`, every TrailEntry, then an object with `end` and `entries`, how many they were.",
        contentMediaType="application/x-ndjson",
    ),
    "Octets": _string("Bytes.", contentMediaType="application/octet-stream"),
    "Health": _object(
        {"status": _string(enum=["ready", "not ready", "alive"]), "reasons": _list(_string())},
        optional=("reasons",),
        example={"status": "ready"},
    ),
    "Metrics": _string("Prometheus text format."),
}
