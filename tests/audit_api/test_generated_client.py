"""A client that a program made of the OpenAPI document alone can use the API: what it needs to know, the document says."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest

from tests.support.apis import Api

pytestmark = pytest.mark.anyio

CONFIG = "{content_type_overrides: {application/zip: application/octet-stream}, post_hooks: []}"
"""A bundle is bytes to it, and nobody reads its code."""


@pytest.fixture
async def generated(api: Api, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Imports a module of the generated package."""
    (tmp_path / "document.json").write_bytes((await api.get("/openapi.json", None)).content)
    (tmp_path / "config.yaml").write_text(CONFIG)
    command = "-m openapi_python_client generate --meta none --fail-on-warning"
    files = "--path document.json --config config.yaml --output-path audit_client"
    made = await anyio.run_process([sys.executable, *command.split(), *files.split()], cwd=tmp_path, check=False)
    assert made.returncode == 0, made.stdout + made.stderr
    monkeypatch.syspath_prepend(tmp_path)
    yield lambda name: importlib.import_module(f"audit_client.{name}")
    for name in [name for name in sys.modules if name.partition(".")[0] == "audit_client"]:
        del sys.modules[name]


def connected(generated: Any, api: Api, role: str) -> Any:
    """The generated client, connected to the application without a network."""
    client = generated("client").AuthenticatedClient(base_url="http://api", token=api.tokens[role])
    transport = httpx.ASGITransport(app=api.app, raise_app_exceptions=False)
    headers = {"Authorization": f"Bearer {api.tokens[role]}"}
    return client.set_async_httpx_client(httpx.AsyncClient(transport=transport, base_url="http://api", headers=headers))


async def test_a_generated_client_finds_reads_proves_and_exports(generated: Any, api: Api) -> None:
    async with connected(generated, api, "admin") as client:
        find = generated("api.trails.find_trails").asyncio
        kind = generated("models.find_trails_kind").FindTrailsKind.TRANSACTION
        page = await find(client=client, kind=kind, key="order_id:O-1")
        (summary,) = page.trails
        assert (summary.trail, page.next_) == ("transaction/PAY-1", None)

        told = await generated("api.trails.read_trail").asyncio("transaction/PAY-1", client=client, proofs=True)
        raw = (await api.get("/v1/trails/transaction/PAY-1?proofs=true", "admin")).json()
        assert told.to_dict() == raw, "nothing is lost between the answer and what the document says of it"
        event = next(one for one in raw["entries"] if one["entry"]["kind"] == "event")["entry"]

        collector, incarnation = event["stream"].split("/")
        prove = generated("api.proofs.prove_event").asyncio
        proof = await prove(collector, incarnation, event["sequence"], client=client)
        assert proof.trail == "transaction/PAY-1"

        bundle = await generated("api.trails.export_trail").asyncio("transaction/PAY-1", client=client)
        assert bundle[:4] == b"PK\3\4"


async def test_a_generated_client_understands_a_refusal(generated: Any, api: Api) -> None:
    async with connected(generated, api, "sre") as client:
        refused = await generated("api.trails.export_trail").asyncio_detailed("transaction/PAY-1", client=client)
        assert (refused.status_code, refused.parsed.roles) == (403, ["auditor", "admin"])
        asked = await generated("api.trails.find_trails").asyncio(client=client, cursor="none of ours")
        assert (asked.status, asked.parameter) == (400, "cursor")
