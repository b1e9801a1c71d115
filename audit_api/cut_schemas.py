"""What answers look like where a ledger is cut into shards: as `audit_api.schemas`, and which log a leaf index is of."""

from typing import Any

from audit_api.schemas import SCHEMAS, Schemas, ref

__all__ = ["CUT_SCHEMAS"]

_LOG = {"type": "string", "description": "The origin of the log that leaf indexes here are of: that of a shard."}
_LOG_EXAMPLE = "ledger.example/payments/shard-3-of-3"
_HASH = "zo8IgfuybOCZWoMfuddclN+x358f8p7fdRY370Tj3XU="
_EMPTY_HASH = "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="
_STATEMENT = {
    "type": "string",
    "description": "The joint statement over all shards' logs (docs/format.md, Shards), verbatim. Each log is shown to continue it.",
}
_STATEMENT_EXAMPLE = (
    f"tallystick/shards/v1\nledger.example/payments\n{'0' * 64}\n3\n"
    f"ledger.example/payments/shard-1-of-3 0 {_EMPTY_HASH}\nledger.example/payments/shard-2-of-3 0 {_EMPTY_HASH}\n"
    f"{_LOG_EXAMPLE} 35 {_HASH}\n\n— ledger.example/payments 4hFjgmmoLddJ9p38x2vbvNataI2Gg3axHwTr7o7b…\n"
)
_CHECKPOINT_EXAMPLE = {**SCHEMAS["Checkpoint"]["example"], "origin": _LOG_EXAMPLE}


def _with(schema: dict[str, Any], properties: dict[str, Any], example: dict[str, Any]) -> dict[str, Any]:
    """An object's schema with some more properties, all of them required."""
    return {
        **schema,
        "properties": {**schema["properties"], **properties},
        "required": [*schema["required"], *properties],
        **({"example": {**schema["example"], **example}} if "example" in schema else {}),
    }


def _object(properties: dict[str, Any], example: dict[str, Any] | None = None) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": [*properties],
        "additionalProperties": False,
        **({"example": example} if example is not None else {}),
    }


def _cut() -> Schemas:
    summary = _with(SCHEMAS["TrailSummary"], {"log": _LOG}, {"log": _LOG_EXAMPLE})
    trail = SCHEMAS["Trail"]
    elsewhere = {
        "type": "array",
        "items": {"type": "string"},
        "description": "Of `traces`, those that stand in other shards' logs: a bundle of this trail does not hold them.",
    }
    story = _with(trail["properties"]["story"], {"elsewhere": elsewhere}, {})
    integer = {"type": "integer"}
    checkpoints = {"type": "array", "items": ref("Checkpoint"), "description": "Of each log that has one, by shard."}
    page = {
        "size": {"type": "integer", "description": "Leaves of all logs together when the search began."},
        **{name: part for name, part in SCHEMAS["TrailPage"]["properties"].items() if name != "size"},
    }
    key = SCHEMAS["CheckpointAndKey"]
    status = SCHEMAS["Status"]
    lagging = {
        "type": "object",
        "properties": {
            "log": {"type": "string", "description": "The log's origin."},
            "checkpoint": {
                "anyOf": [ref("Checkpoint"), {"type": "null"}],
                "description": "null: nothing is published yet.",
            },
            "indexed": {"type": "integer", "description": "Leaves in its index."},
            "index_lag": {"type": "integer", "description": "Leaves that its index does not have yet."},
        },
        "required": ["log", "checkpoint", "indexed", "index_lag"],
        "additionalProperties": False,
    }
    tree = {"size": integer, "root": {"type": "string", "contentEncoding": "base64"}}
    return {
        **SCHEMAS,
        "TrailSummary": summary,
        "TrailPage": _object(page, {"size": 35, "trails": [summary["example"]], "next": "2.23.0.e.7"}),
        "Checkpoint": {
            **SCHEMAS["Checkpoint"],
            "properties": {
                **SCHEMAS["Checkpoint"]["properties"],
                "origin": {"type": "string", "description": "The log's name."},
            },
            "example": _CHECKPOINT_EXAMPLE,
        },
        "PastAccess": _with(SCHEMAS["PastAccess"], {"log": _LOG}, {"log": _LOG_EXAMPLE}),
        "Trail": {
            **trail,
            "properties": {**trail["properties"], "story": story},
            "example": {
                **trail["example"],
                "summary": summary["example"],
                "checkpoint": _CHECKPOINT_EXAMPLE,
                "story": {**trail["example"]["story"], "elsewhere": []},
            },
        },
        "EventProof": {
            **SCHEMAS["EventProof"],
            "example": {**SCHEMAS["EventProof"]["example"], "checkpoint": _CHECKPOINT_EXAMPLE},
        },
        "CheckpointAndKey": _object(
            {
                "statement": _STATEMENT,
                "checkpoints": checkpoints,
                "key": {
                    **key["properties"]["key"],
                    "description": "The ledger's verifier key: it signs each log under that log's origin.",
                },
                "fingerprint": key["properties"]["fingerprint"],
            },
            {
                "statement": _STATEMENT_EXAMPLE,
                "checkpoints": [_CHECKPOINT_EXAMPLE],
                "key": key["example"]["key"],
                "fingerprint": key["example"]["fingerprint"],
            },
        ),
        "Consistency": _object(
            {
                "log": _LOG,
                "first": _object(tree),
                "second": _object(tree),
                "proof": SCHEMAS["Consistency"]["properties"]["proof"],
            },
            {"log": _LOG_EXAMPLE, **SCHEMAS["Consistency"]["example"]},
        ),
        "Status": _object(
            {
                "ledger": status["properties"]["ledger"],
                "fingerprint": status["properties"]["fingerprint"],
                "statement": _STATEMENT,
                "logs": {"type": "array", "items": lagging, "description": "By shard."},
            },
            {
                "ledger": status["example"]["ledger"],
                "fingerprint": status["example"]["fingerprint"],
                "statement": _STATEMENT_EXAMPLE,
                "logs": [{"log": _LOG_EXAMPLE, "checkpoint": _CHECKPOINT_EXAMPLE, "indexed": 35, "index_lag": 0}],
            },
        ),
        "Statement": {"type": "string", "description": "C2SP signed-note.", "example": _STATEMENT_EXAMPLE},
    }


CUT_SCHEMAS: Schemas = _cut()
