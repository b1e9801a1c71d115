"""The OpenAPI document is the API: same paths, same parameters, same answers; its examples are true and are tried."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from audit_api.problems import PROBLEMS
from audit_api.schemas import SCHEMAS, Schemas
from audit_api.settings import ApiSettings
from collector.event import Incident
from correlator.incidents import opened_event
from tests.support.apis import Api, keep_example, open_api
from tests.support.ledgers import SmallLedger

pytestmark = pytest.mark.anyio

EXAMPLE_INCIDENT = "953b2aaad2b9cf82700388cbc3c92846"

_TYPES: dict[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "null": (type(None),),
}


def mismatches(value: Any, schema: dict[str, Any], where: str = "$", *, schemas: Schemas = SCHEMAS) -> Iterator[str]:
    """Where a value is not what a schema (of the few keywords that ours use) says."""
    if "$ref" in schema:
        yield from mismatches(value, schemas[schema["$ref"].rpartition("/")[2]], where, schemas=schemas)
        return
    if "anyOf" in schema:
        tried = [list(mismatches(value, option, where, schemas=schemas)) for option in schema["anyOf"]]
        if all(tried):
            yield f"{where}: none of them: {tried}"
        return
    kinds = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
    allowed = tuple(python for kind in kinds for python in _TYPES[kind])
    if not isinstance(value, allowed) or (isinstance(value, bool) and "boolean" not in kinds):
        yield f"{where}: {value!r} is no {schema['type']}"
    elif "enum" in schema and value not in schema["enum"]:
        yield f"{where}: {value!r} is none of {schema['enum']}"
    elif isinstance(value, dict) and "properties" in schema:
        for name in schema["required"]:
            if name not in value:
                yield f"{where}: {name} is missing"
        for name, part in value.items():
            if name in schema["properties"]:
                yield from mismatches(part, schema["properties"][name], f"{where}.{name}", schemas=schemas)
            elif not schema["additionalProperties"]:
                yield f"{where}: {name} is not declared"
    elif isinstance(value, list):
        for at, part in enumerate(value):
            yield from mismatches(part, schema["items"], f"{where}[{at}]", schemas=schemas)


def test_a_mismatch_is_found() -> None:
    schema = SCHEMAS["Principals"]
    assert list(mismatches({"principals": [{"principal": "ann", "roles": ["sre"]}]}, schema)) == []
    for wrong in (
        {},
        {"principals": None},
        {"principals": [{"principal": "ann"}]},
        {"principals": [{"principal": "ann", "roles": ["root"]}]},
        {"principals": [], "more": 1},
    ):
        assert list(mismatches(wrong, schema)), wrong


@pytest.mark.parametrize("name", [name for name, schema in SCHEMAS.items() if "example" in schema])
def test_each_schemas_example_is_one(name: str) -> None:
    assert list(mismatches(SCHEMAS[name]["example"], SCHEMAS[name])) == []


@pytest.fixture
async def api(tmp_path: Path, ledger: SmallLedger, settings: ApiSettings) -> AsyncIterator[Api]:
    """With a saved search to ask for."""
    keep_example(tmp_path)
    async with open_api(tmp_path, ledger, settings) as opened:
        yield opened


@pytest.fixture
async def document(api: Api) -> dict[str, Any]:
    answer = await api.get("/openapi.json", None)
    assert answer.status_code == 200
    found: dict[str, Any] = answer.json()
    return found


async def test_the_document_has_every_route(api: Api, document: dict[str, Any]) -> None:
    contract = [route for route in api.app.routes if getattr(route, "include_in_schema", True)]  # pages are for people
    routes = {getattr(route, "path", "").replace(":path}", "}") for route in contract}
    assert set(document["paths"]) == routes
    operations = [operation for path in document["paths"].values() for operation in path.values()]
    assert {method for path in document["paths"].values() for method in path} <= {
        "get",
        "post",
        "put",
        "patch",
        "delete",
    }
    names = [operation["operationId"] for operation in operations]
    assert len(set(names)) == len(names)
    tags = {tag["name"] for tag in document["tags"]}
    for operation in operations:
        assert set(operation["tags"]) <= tags
        assert operation["summary"]


async def test_every_reference_leads_somewhere(document: dict[str, Any]) -> None:
    def walk(value: Any) -> Iterator[str]:
        if isinstance(value, dict):
            if isinstance(value.get("$ref"), str):
                yield value["$ref"]
            for part in value.values():
                yield from walk(part)
        elif isinstance(value, list):
            for part in value:
                yield from walk(part)

    references = set(walk(document))
    assert len(references) > 10
    for reference in references:
        assert reference.startswith("#/components/schemas/")
        assert reference.rpartition("/")[2] in document["components"]["schemas"]
    assert document["components"]["securitySchemes"]["token"]["scheme"] == "bearer"


def requests_of(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Of every GET: its path template, a URL made of its examples (plain, and with all of its parameters), itself."""
    for template, methods in document["paths"].items():
        if "get" not in methods:
            continue
        operation = methods["get"]
        parameters = operation.get("parameters", [])
        url = template
        for parameter in parameters:
            if parameter["in"] == "path":
                url = url.replace(f"{{{parameter['name']}}}", str(parameter["example"]))
        assert "{" not in url, f"{template}: a path parameter has no example"
        query = [
            f"{one['name']}={str(one['example']).lower() if isinstance(one['example'], bool) else one['example']}"
            for one in parameters
            if one["in"] == "query" and "example" in one
        ]
        yield template, f"{url}?{'&'.join(query).replace('+', '%2B')}" if query else url, operation
        if query and template not in ("/v1/consistency", "/v1/live"):  # which needs one, or has no end
            yield template, url, operation


async def test_every_example_is_tried_and_answered_as_declared(api: Api, document: dict[str, Any]) -> None:
    said = Incident(id=EXAMPLE_INCIDENT, state="opened", cause="store_outage", time="2026-01-01T10:00:00.000000000Z")
    api.ledger.ship("api/00000000000000cc", [opened_event(said, detail="away")], role="recorder")
    api.ledger.publish()
    tried = set()
    for template, url, operation in requests_of(document):
        for role in ("admin", "sre"):
            answer = await api.get(url, role)
            if role == "sre" and "x-roles" in operation and "sre" not in operation["x-roles"]:
                assert answer.status_code == 403
            else:
                assert answer.status_code == 200, (url, answer.text)
                tried.add(template)
            declared = operation["responses"][str(answer.status_code)]["content"]
            media_type = answer.headers["content-type"].partition(";")[0]
            assert media_type in declared, url
            if media_type.endswith("json") and template != "/openapi.json":
                schemas = document["components"]["schemas"]
                assert list(mismatches(answer.json(), declared[media_type]["schema"], schemas=schemas)) == [], url
    assert tried == {path for path, methods in document["paths"].items() if "get" in methods}


async def test_what_takes_a_body_says_which(document: dict[str, Any]) -> None:
    for path in document["paths"].values():
        for method, operation in path.items():
            problems = {
                name
                for response in operation["responses"].values()
                for content in response.get("content", {}).values()
                for name in content.get("examples", {})
            }
            assert (method != "get") is ("cross-site" in problems)
            assert ("requestBody" in operation) is ("body-too-large" in problems)
            for content in operation.get("requestBody", {}).get("content", {}).values():
                schema = document["components"]["schemas"][content["schema"]["$ref"].rpartition("/")[2]]
                assert list(mismatches(schema["example"], schema)) == []


async def test_every_refusal_is_declared(api: Api, document: dict[str, Any]) -> None:
    for template, url, operation in requests_of(document):
        public = operation["security"] == []
        anonymous = await api.get(url, None)
        assert (anonymous.status_code == 200) is public, url
        answers = [anonymous] if public else [anonymous, await api.get(url.partition("?")[0] + "?nonsense=1", "admin")]
        for answer in answers:
            assert str(answer.status_code) in operation["responses"], template
            if answer.status_code != 200:
                assert list(mismatches(answer.json(), SCHEMAS["Problem"])) == []


async def test_every_problem_is_declared_somewhere_and_has_an_example(document: dict[str, Any]) -> None:
    declared = {
        example["value"]["type"]
        for path in document["paths"].values()
        for operation in path.values()
        for response in operation["responses"].values()
        for media_type, content in response.get("content", {}).items()
        if media_type == "application/problem+json"
        for example in content["examples"].values()
    }
    everywhere = {"no-route", "method-not-allowed"}  # of paths and methods that no operation has
    of_jobs = {"not-done", "range-not-satisfiable"}  # this application has none: test_export_jobs.py looks at them
    assert declared == {kind.type for name, kind in PROBLEMS.items() if name not in everywhere | of_jobs}


async def test_the_documentation_knows_every_path_and_problem(document: dict[str, Any], repo_root: Any) -> None:
    page = (repo_root / "docs" / "api.md").read_text(encoding="utf-8")
    for path in document["paths"]:
        assert f"`{path}`" in page, path
    for name in PROBLEMS:
        assert f"`{name}`" in page, name
