"""The OpenAPI document, as far as the operations do not say it themselves (`audit_api.gate.Operation`): answers and errors."""

from typing import Any

from audit_api.gate import Operation
from audit_api.identity.crosssite import CSRF_FIELD, CSRF_HEADER
from audit_api.problems import MEDIA_TYPE, PROBLEMS
from audit_api.purpose import HEADER, PURPOSE
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
    {"name": "searches", "description": "Searches that are kept under a name."},
    {"name": "reviews", "description": "What calls for a look, and who has looked."},
    {"name": "incidents", "description": "Controls that failed, and who answers for it."},
    {"name": "proofs", "description": "What shows that an entry is in the log, and that the log has only grown."},
    {"name": "log", "description": "The log under its C2SP tlog-tiles paths."},
    {"name": "sessions", "description": "Browsers log in and out."},
    {"name": "operation", "description": "How the ledger and this process stand."},
]


def security_schemes(cookie_name: str) -> dict[str, Any]:
    """How requests prove who they are from."""
    return {
        "token": {
            "type": "http",
            "scheme": "bearer",
            "description": "A token with roles. `x-roles` of each operation lists the roles of which one is needed.",
        },
        "session": {
            "type": "apiKey",
            "in": "cookie",
            "name": cookie_name,
            "description": (
                "A browser's session, opened by `logIn`. Methods other than GET need the session's CSRF token besides, as the "
                f"header `{CSRF_HEADER}` or the form field `{CSRF_FIELD}`, and are answered to the API's own pages alone."
            ),
        },
    }


def responses_of(operation: Operation, schemas: Schemas) -> dict[int | str, dict[str, Any]]:
    """Every answer that an operation can give, by status; `schemas` have the examples."""
    content: dict[str, Any] = {}
    for media_type, (schema, example) in operation.answers.items():
        content[media_type] = {"schema": ref(schema)}
        shown = example if example is not None else schemas[schema].get("example")
        if shown is not None:
            content[media_type]["example"] = shown
    answers: dict[int | str, dict[str, Any]] = {operation.success: {"description": operation.summary}}
    if content:
        answers[operation.success]["content"] = content
    if operation.method == "GET":
        answers[operation.success]["headers"] = {"ETag": {"schema": {"type": "string"}}}
        answers[304] = {"description": "The answer is the one whose tag `If-None-Match` names."}
    if operation.success == 303:
        answers[303]["headers"] = {
            "Location": {"schema": {"type": "string"}},
            "Set-Cookie": {"schema": {"type": "string"}},
        }
    names = ["bad-parameter", "no-body", "evidence-damaged", "internal", "unavailable", *operation.problems]
    if operation.body_limit_bytes:
        names += ["bad-body", "body-too-large", "unsupported-media-type"]
    if operation.method != "GET":
        names += ["cross-site"]
    if operation.on_record:
        names += ["not-on-record"]
    if not operation.public:
        names += ["purpose-needed", "unauthenticated", "forbidden", "too-many-requests"]
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
    if operation.on_record:
        parameters.append(
            {
                "name": HEADER,
                "in": "header",
                "required": False,
                "description": PURPOSE.about,
                "schema": {"type": "string"},
            }
        )
    if operation.conditional:
        parameters.append(
            {
                "name": "If-Match",
                "in": "header",
                "required": False,
                "description": "The `ETag` that was read: if it is another one now, nothing is done (412).",
                "schema": {"type": "string"},
            }
        )
    for parameter in (*operation.parameters, *((PURPOSE,) if operation.on_record else ())):
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
    if operation.body_types:
        content = {
            media_type: {"schema": ref(schema)} | ({} if example is None else {"example": example})
            for media_type, (schema, example) in operation.body_types.items()
        }
        extras["requestBody"] = {"required": True, "content": content}
    extras["security"] = [] if operation.public else [{"token": []}, {"session": []}]
    if operation.roles:
        extras["x-roles"] = sorted(operation.roles)
    return extras
