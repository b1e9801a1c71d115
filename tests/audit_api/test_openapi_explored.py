"""Schemathesis makes of the OpenAPI document what it allows, and much that it does not: every answer is as declared."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import schemathesis
from anyio.from_thread import start_blocking_portal
from hypothesis import HealthCheck, Phase, given
from hypothesis import settings as hypothesis_settings
from schemathesis import APIOperation, Case, GenerationMode
from schemathesis.core.result import Ok
from schemathesis.specs.openapi import checks

from audit_api.settings import ApiSettings
from tests.support.apis import open_api
from tests.support.ledgers import SmallLedger

EXAMPLES = 10
"""Of each operation, of what is allowed and of what is not."""

CHECKS = [
    schemathesis.checks.not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_headers_conformance,
    checks.response_schema_conformance,
]

BEYOND_A_PATTERN = {
    "findTrails",
    "readTrail",
    "exportTrail",
    "exportTrails",
    "readLive",
    "listExceptions",
    "signOff",
    "signDay",
    "saveSearch",
    "readSearch",
    "changeSearch",
    "deleteSearch",
    "proveConsistency",
}
"""Their parameters have rules that JSON Schema cannot say whole, so what the document allows may be refused still."""

FORMS = {"logIn", "logOut"}
"""What browsers send; fields that nobody asked for are no mistake of a person's."""

Send = Callable[[dict[str, Any]], httpx.Response]


@pytest.fixture
def send(tmp_path: Path, ledger: SmallLedger) -> Iterator[Send]:
    """Sends a request as the admin: in an event loop of its own, for Schemathesis knows none."""
    settings = ApiSettings(burst_requests=1_000_000)
    opened = open_api(tmp_path, ledger, settings)
    with start_blocking_portal() as portal, portal.wrap_async_context_manager(opened) as api:

        async def sent(request: dict[str, Any]) -> httpx.Response:
            headers = {**request.pop("headers", {}), "Authorization": f"Bearer {api.tokens['admin']}"}
            return await api.client.request(headers=headers, **request)

        yield lambda request: portal.call(sent, request)


def operations(send: Send) -> Iterator[APIOperation[Any, Any, Any, Any]]:
    """Those of the document, without its security: who asks is another test's."""
    document = send({"method": "GET", "url": "/openapi.json"}).json()
    for path in document["paths"].values():
        for operation in path.values():
            operation["security"] = []
    for found in schemathesis.openapi.from_dict(document).get_all_operations():
        assert isinstance(found, Ok), found.err()
        yield found.ok()


def explore(operation: APIOperation[Any, Any, Any, Any], mode: GenerationMode, send: Send) -> None:
    """Send what Schemathesis makes, and hold each answer against the document; raises what it finds."""
    name = operation.definition.raw["operationId"]
    wanted = [*CHECKS]
    if mode is GenerationMode.NEGATIVE and name not in FORMS | {"readLive"}:
        wanted.append(checks.negative_data_rejection)
    elif mode is GenerationMode.POSITIVE and name not in BEYOND_A_PATTERN | FORMS:
        wanted.append(checks.positive_data_acceptance)

    @hypothesis_settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.explicit, Phase.generate],
    )
    @given(case=operation.as_strategy(generation_mode=mode))
    def tried(case: Case[Any]) -> None:
        made = case.as_transport_kwargs(base_url="http://api")
        request = {
            part: made[part] for part in ("method", "url", "params", "headers", "json") if made.get(part) is not None
        }
        if name == "readLive":  # else it stays as long as it was asked to
            request["params"] = {**request.get("params", {}), "seconds": 0}
        if isinstance(made.get("data"), bytes | str):
            request["content"] = made["data"]
        elif made.get("data"):
            request["data"] = made["data"]
        response = send(request)
        too_large = response.status_code == 413  # refused as well, and Schemathesis does not think of it
        case.validate_response(response, checks=CHECKS if too_large else wanted)

    tried()


def test_what_the_document_allows_is_answered_as_declared(send: Send) -> None:
    for operation in operations(send):
        explore(operation, GenerationMode.POSITIVE, send)


def test_what_the_document_does_not_allow_is_refused_as_declared(send: Send) -> None:
    for operation in operations(send):
        if operation.query or operation.path_parameters:
            explore(operation, GenerationMode.NEGATIVE, send)
