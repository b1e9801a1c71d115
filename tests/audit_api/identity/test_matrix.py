"""The authorisation matrix: every operation × every role × what is seen of a ledger, made from the operations as they are.

A new operation that has no row in `MATRIX` fails here. So does one that shows a foreign tenant's row.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import httpx
import pytest

from audit_api.auth import ROLES, Role, TokenRecord, hash_token, new_token, render_tokens
from audit_api.gate import Operation
from audit_api.reviewdays import span_of
from audit_api.settings import ApiSettings
from collector.errors import NotFound
from collector.event import Incident
from collector.store.sqlite import SqliteStore
from correlator.incidents import opened_event
from correlator.index.sqlite import SqliteIndex
from tests.support.apis import Api
from tests.support.ledgers import SmallLedger, payment, small_story

pytestmark = pytest.mark.anyio

MATRIX: dict[str, tuple[str, str]] = {
    # operation: roles ("-": anyone), what of it is seen by who sees but a part of the ledger:
    #   row: the one asked for, if it is theirs, else 404   list: rows of theirs alone   none: refused
    #   same: nothing in it is a row: hashes, counts, a session
    "findTrails": ("auditor sre admin", "list"),
    "readTrail": ("auditor sre admin", "row"),
    "exportTrail": ("auditor admin", "row"),
    "exportTrails": ("auditor admin", "list"),
    "readLive": ("auditor sre admin", "list"),
    "listExceptions": ("auditor admin", "list"),
    "signOff": ("auditor admin", "row"),
    "listReviewDays": ("auditor admin", "none"),
    "signDay": ("auditor admin", "none"),
    "listSearches": ("auditor sre admin", "same"),
    "saveSearch": ("auditor sre admin", "same"),
    "readSearch": ("auditor sre admin", "same"),
    "changeSearch": ("auditor sre admin", "same"),
    "deleteSearch": ("auditor sre admin", "same"),
    "listIncidents": ("auditor sre admin", "none"),
    "readIncident": ("auditor sre admin", "none"),
    "signOffIncident": ("auditor admin", "none"),
    "proveEvent": ("auditor admin", "row"),
    "readCheckpoint": ("-", "same"),
    "proveConsistency": ("-", "same"),
    "readLogCheckpoint": ("-", "same"),
    "readHashTile": ("-", "same"),
    "readEntryBundle": ("auditor admin", "none"),
    "readStatus": ("auditor sre admin", "same"),
    "listStreams": ("auditor sre admin", "none"),
    "listPrincipals": ("admin", "none"),
    "searchPage": ("auditor sre admin", "list"),
    "storyPage": ("auditor sre admin", "row"),
    "systemPage": ("auditor sre admin", "same"),
    "livePage": ("auditor sre admin", "list"),
    "reviewPage": ("auditor admin", "list"),
    "signOffPage": ("auditor admin", "row"),
    "signDayPage": ("auditor admin", "none"),
    "incidentsPage": ("auditor sre admin", "none"),
    "incidentPage": ("auditor sre admin", "none"),
    "signIncidentPage": ("auditor admin", "none"),
    "purposePage": ("auditor sre admin", "same"),
    "statePurposePage": ("auditor sre admin", "same"),
    "saveSearchPage": ("auditor sre admin", "same"),
    "deleteSearchPage": ("auditor sre admin", "same"),
    "logIn": ("-", "same"),
    "logOut": ("auditor sre admin", "same"),
}

OWN, FOREIGN, NOBODYS = "tenant/acme/transaction/PAY-7", "tenant/globex/transaction/PAY-7", "transaction/PAY-1"
SECRETS = ("globex", "PAY-1", "rival")
"""What no answer to acme's people holds."""


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[SmallLedger]:
    """The small story, of no tenant; and of each of two tenants a payment with the same number."""
    store, index = SqliteStore(tmp_path / "store.sqlite"), SqliteIndex(tmp_path / "index.sqlite")
    made = SmallLedger(store=store, index=index)
    small_story(made)
    for tenant, service in (("acme", "gateway"), ("globex", "rival")):
        made.ship(
            f"{service}/00000000000000cc",
            [payment(7, 0, service, "payment.requested", tenant=tenant, keys={"order_id": f"O-{tenant}"})],
        )
    made.publish()
    yield made
    made.log.close()
    store.close()
    index.close()


@pytest.fixture
def settings() -> ApiSettings:
    return ApiSettings(burst_requests=10_000)


@pytest.fixture
async def scoped(api: Api) -> Api:
    """With a token of each role for acme, under `<role> of acme`."""
    records = []
    for role in ROLES:
        for name, tenants in ((role, []), (f"{role} of acme", ["acme"])):
            api.tokens[name] = new_token()
            principal = name.replace(" ", ".")
            records.append(
                TokenRecord(principal=principal, roles=[role], sha256=hash_token(api.tokens[name]), tenants=tenants)
            )
    api.token_file.write_text(render_tokens(records))
    return api


def operations_of(api: Api) -> dict[str, Operation]:
    return {operation.operation_id: operation for operation in api.app.state.operations}


def kept_search(api: Api, who: str | None) -> str:
    """The id of a new search of this principal, put on the shelf beside the API, so that it is not on record."""
    shelf = operations_of(api)["saveSearch"].read.__self__.shelf  # type: ignore[attr-defined]  # a bound method
    name = new_token()
    kept = shelf.add(principal=(who or "nobody").replace(" ", "."), name=name[:20], conditions={}, shared=False)
    return str(kept.id)


def opened_incident(api: Api) -> str:
    """The id of a new incident in the log: each can be signed off once."""
    said = Incident(
        id=secrets.token_hex(16), state="opened", cause="store_outage", time="2026-01-01T10:00:00.000000000Z"
    )
    api.ledger.ship("keeper/00000000000000cc", [opened_event(said, detail="away")], role="recorder")
    api.ledger.publish()
    return said.id


def body_of(api: Api, name: str, trail: str) -> dict[str, Any]:
    """What an operation needs to be told; empty: nothing, or whatever it is."""
    if name == "signOff":
        try:
            head = api.ledger.index.trail(trail).last_leaf
        except NotFound:
            head = 0
        return {"head": head, "decision": "explained"}
    if name == "signDay":
        api.clocks.seconds = 2 * 86_400.0  # the day of the example is over
        days = operations_of(api)["signDay"].read.__self__  # type: ignore[attr-defined]  # as above
        return {"open": days.reviews.counted(*span_of("2026-01-01"))[1]}
    if name in ("signOffIncident", "signIncident"):
        return {
            "root_cause": "a full disk",
            "remediation": "a larger one",
            "over": "true" if name == "signIncident" else True,
        }
    if name == "statePurpose":
        return {"purpose": "case 7"}
    if name in ("saveSearch", "changeSearch"):
        return {"name": new_token()[:20], "conditions": {"status": "incomplete"}}
    return {}


async def ask(api: Api, operation: Operation, who: str | None, trail: str = OWN) -> httpx.Response:
    """The operation with its examples; `trail` where one is named, and its event where an event is."""
    service = {OWN: "gateway", FOREIGN: "rival"}.get(trail, "nobody")
    event = {"collector": service, "incarnation": "00000000000000cc", "sequence": 0}
    if trail == NOBODYS:
        event = {"collector": "gateway", "incarnation": "00000000000000aa", "sequence": 2}
    if "{search}" in operation.path:
        event["search"] = kept_search(api, who)
    path = operation.path.replace(":path}", "}")
    if "{incident}" in path:
        path = path.replace("{incident}", opened_incident(api))
    for name, (_, _, example) in operation.path_parameters.items():
        value = trail if name == "trail" else event.get(name, example)
        path = path.replace(f"{{{name}}}", str(value))
    assert "{" not in path, operation.operation_id
    needed = {"proveConsistency": {"first": "1"}, "readLive": {"after": "0", "seconds": "0"}}.get(
        operation.operation_id, {}
    )
    headers = {"Authorization": f"Bearer {api.tokens[who]}"} if who else {"Origin": "http://api"}
    sent: dict[str, Any] = {}
    body = body_of(api, operation.operation_id.removesuffix("Page"), trail)
    if operation.operation_id == "saveSearchPage":
        sent["data"] = {"name": body["name"], **body["conditions"]}
    elif body:
        sent["data" if operation.operation_id.endswith("Page") else "json"] = body
    return await api.client.request(
        operation.method, f"{path}?{urlencode(needed)}" if needed else path, headers=headers, **sent
    )


def told(answer: httpx.Response) -> str:
    return answer.content.decode("latin-1")


async def test_every_operation_has_its_row(scoped: Api) -> None:
    assert operations_of(scoped).keys() - MATRIX.keys() == set(), "a new operation: who may, and what of it is scoped?"
    for name, operation in operations_of(scoped).items():
        roles, seen = MATRIX[name]
        assert operation.roles == frozenset(roles.split()) - {"-"}, name
        if operation.roles:
            assert operation.scoped is (seen != "none"), name


@pytest.mark.parametrize("name", MATRIX)
async def test_each_role_whole_and_scoped(scoped: Api, name: str) -> None:
    operation = operations_of(scoped)[name]
    roles, seen = MATRIX[name]
    good = operation.success if name != "logIn" else 400  # no body was sent
    anonymous = await ask(scoped, operation, None)
    assert anonymous.status_code == (good if roles == "-" else 401)
    for role in ROLES:
        allowed = roles == "-" or role in roles.split()
        for trail in (OWN, FOREIGN, NOBODYS):
            whole = await ask(scoped, operation, role, trail)
            assert whole.status_code == (good if allowed else 403), (role, trail, whole.text)
        before = len(scoped.record.events)
        own = await ask(scoped, operation, f"{role} of acme")
        assert own.status_code == (good if allowed and (seen != "none" or roles == "-") else 403), (role, own.text)
        for secret in SECRETS:
            assert secret not in told(own), f"{role} of acme sees {secret}"
        if roles == "-":
            continue
        assert len(scoped.record.events) == before + 1
        access = scoped.record.events[-1].access
        assert access is not None
        assert access.principal == f"{role}.of.acme"
        assert (access.refused == "") is (own.status_code == good)
        if seen == "row" and allowed:
            await foreign_is_as_unknown(scoped, operation, role)


async def foreign_is_as_unknown(api: Api, operation: Operation, role: Role) -> None:
    """A row of another tenant, one of no tenant, and one that is not there: the same answer, and each is on record."""
    answers = []
    for trail in (FOREIGN, NOBODYS, "tenant/acme/transaction/NONE", "transaction/NONE"):
        answer = await ask(api, operation, f"{role} of acme", trail)
        assert answer.status_code == 404, (trail, answer.text)
        access = api.record.events[-1].access
        assert access is not None
        assert (access.principal, access.refused) == (f"{role}.of.acme", "not-found")
        shape = {key: value for key, value in answer.json().items() if key not in ("instance", "detail")}
        detail = re.sub(r"event \d+ of stream \S+", "event …", answer.json()["detail"].replace(trail, "…"))
        answers.append((shape, detail))
    assert all(answer == answers[0] for answer in answers)


async def test_searches_never_show_what_is_not_seen(scoped: Api) -> None:
    for query in (
        "",
        "?limit=1",
        "?transaction=PAY-7",
        "?text=rival",
        "?key=order_id:O-globex",
        "?tenant=globex",
        "?kind=stream",
    ):
        answer = await scoped.get(f"/v1/trails{query}", "auditor of acme")
        assert answer.status_code == 200
        found = [one["trail"] for one in answer.json()["trails"]]
        assert all(trail.startswith("tenant/acme/") for trail in found), query
        assert (found != []) is (query in ("", "?limit=1", "?transaction=PAY-7")), query
    everything = (await scoped.get("/v1/trails?limit=200", "auditor")).json()["trails"]
    assert {FOREIGN, OWN, NOBODYS} <= {one["trail"] for one in everything}


async def test_pages_go_on_over_what_is_not_seen(scoped: Api) -> None:
    found, cursor = [], ""
    for _ in range(20):
        page = (await scoped.get(f"/v1/trails?limit=1{cursor}", "auditor of acme")).json()
        found += [one["trail"] for one in page["trails"]]
        if page["next"] is None:
            break
        cursor = f"&cursor={page['next']}"
    whole = (await scoped.get("/v1/trails?limit=200", "auditor of acme")).json()["trails"]
    assert found == [one["trail"] for one in whole]
    assert OWN in found


class TestOtherScopes:
    """Services and times: a trail is seen whole, or not at all."""

    @pytest.fixture
    async def reader(self, api: Api) -> Api:
        scopes: dict[str, dict[str, Any]] = {
            "rival": {"services": ["rival"]},
            "either": {"services": ["rival", "gateway"]},
            "early": {"until": "2026-01-01T00:01:00Z"},
            "late": {"since": "2026-01-01T01:07:00+01:00"},
            "nothing": {"tenants": ["initech"]},
            "two": {"tenants": ["acme", "globex"]},
        }
        records = []
        for name, scope in scopes.items():
            api.tokens[name] = new_token()
            fields: dict[str, Any] = {
                "principal": name,
                "roles": ["auditor"],
                "sha256": hash_token(api.tokens[name]),
                **scope,
            }
            records.append(TokenRecord(**fields))
        api.token_file.write_text(render_tokens(records))
        return api

    @pytest.mark.parametrize(
        ("who", "seen"),
        [
            ("rival", {FOREIGN}),
            ("either", {OWN, FOREIGN, NOBODYS, "transaction/PAY-0"}),
            ("early", {"transaction/PAY-0"}),
            ("late", {OWN, FOREIGN}),
            ("nothing", set()),
            ("two", {OWN, FOREIGN}),
        ],
    )
    async def test_what_is_seen(self, reader: Api, who: str, seen: set[str]) -> None:
        listed = {
            one["trail"] for one in (await reader.get("/v1/trails?kind=transaction&limit=200", who)).json()["trails"]
        }
        asked = {OWN, FOREIGN, NOBODYS, "transaction/PAY-0"}
        assert listed & asked == seen
        for trail in asked:
            for path in ("/v1/trails/", "/v1/exports/"):
                assert (await reader.get(f"{path}{trail}", who)).status_code == (200 if trail in seen else 404)
        assert (await reader.get("/v1/streams", who)).status_code == 403
