"""The OpenAPI document, as far as the operations do not say it themselves (`audit_api.gate.Operation`): answers and errors."""

from typing import Any

from audit_api.gate import Operation
from audit_api.problems import MEDIA_TYPE, PROBLEMS
from audit_api.schemas import Schemas, ref

__all__ = ["DESCRIPTION", "TAGS", "extras_of", "responses_of", "security_schemes"]

DESCRIPTION = """\
Serves the audit trail of a ledger: trails, proofs, exports, and the log itself under its C2SP paths.

* Every request to a path that needs a role is put on record before it is answered: reading is evidence. What cannot be
  recorded is not served (503 `not-on-record`).
* `entry` and `event` in answers are canonical JSON (RFC 8785) as it is hashed.
* Errors are problem details (RFC 9457).
"""

TAGS: list[dict[str, str]] = [
    {"name": "trails", "description": "Find, read and export trails."},
    {"name": "proofs", "description": "What shows that an entry is in the log, and that the log has only grown."},
    {"name": "log", "description": "The log under its C2SP tlog-tiles paths."},
    {"name": "operation", "description": "How the ledger and this process stand."},
]


def security_schemes() -> dict[str, Any]:
    """How requests prove who they are from."""
    return {
        "token": {
            "type": "http",
            "scheme": "bearer",
            "description": "A token with roles. `x-roles` of each operation lists the roles of which one is needed.",
        }
    }


def responses_of(operation: Operation, schemas: Schemas) -> dict[int | str, dict[str, Any]]:
    """Every answer that an operation can give, by status; `schemas` have the examples."""
    content: dict[str, Any] = {}
    for media_type, (schema, example) in operation.answers.items():
        content[media_type] = {"schema": ref(schema)}
        shown = example if example is not None else schemas[schema].get("example")
        if shown is not None:
            content[media_type]["example"] = shown
    answers: dict[int | str, dict[str, Any]] = {200: {"description": operation.summary, "content": content}}
    names = ["bad-parameter", "no-body", "evidence-damaged", "internal", "unavailable", *operation.problems]
    if not operation.public:
        names += ["unauthenticated", "forbidden", "too-many-requests", "not-on-record"]
    for name in sorted(set(names), key=list(PROBLEMS).index):
        kind = PROBLEMS[name]
        told = answers.setdefault(
            kind.status, {"description": "", "content": {MEDIA_TYPE: {"schema": ref("Problem"), "examples": {}}}}
        )
        told["description"] = f"{told['description']} {kind.title}: {kind.meaning}".strip()
        told["content"][MEDIA_TYPE]["examples"][name] = {
            "value": {"type": kind.type, "title": kind.title, "status": kind.status, "detail": kind.meaning}
        }
        headers = {401: "WWW-Authenticate", 429: "Retry-After", 503: "Retry-After"}
        if kind.status in headers:
            told["headers"] = {headers[kind.status]: {"schema": {"type": "string"}}}
    return answers


def extras_of(operation: Operation) -> dict[str, Any]:
    """Parameters, security and roles of an operation."""
    parameters: list[dict[str, Any]] = [
        {"name": name, "in": "path", "required": True, "description": about, "schema": dict(schema), "example": example}
        for name, (about, schema, example) in operation.path_parameters.items()
    ]
    for parameter in operation.parameters:
        told: dict[str, Any] = {
            "name": parameter.name,
            "in": "query",
            "required": parameter.required,
            "description": parameter.about,
            "schema": dict(parameter.schema),
        }
        if parameter.example is not None:
            told["example"] = parameter.example
        parameters.append(told)
    extras: dict[str, Any] = {"parameters": parameters} if parameters else {}
    extras["security"] = [] if operation.public else [{"token": []}]
    if operation.roles:
        extras["x-roles"] = sorted(operation.roles)
    return extras
