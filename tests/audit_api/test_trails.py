"""Trails are found, paged and read; every name of a trail finds its way through a URL; proofs in answers hold."""

from __future__ import annotations

import base64
import random
from dataclasses import replace
from hashlib import sha256
from typing import Any
from urllib.parse import quote, unquote

import msgspec
import pytest

from audit_api.answers import summary_json
from audit_api.identity.scope import RowScope
from audit_api.logs import Logs
from audit_api.trails import PAGE_BYTES
from collector.event import Access, Event
from correlator.checkpoint import open_checkpoint
from correlator.entry import decode_entry
from correlator.index import TrailSummary
from correlator.index.memory import MemoryIndex
from correlator.merkle import leaf_hash, verify_inclusion
from correlator.trail import key_trail, transaction_trail
from tests.support.apis import Api
from tests.support.leaves import Leaves
from tests.support.ledgers import SIGNER, SmallLedger, payment

pytestmark = pytest.mark.anyio

PAYMENT = "transaction/PAY-1"


class Row(msgspec.Struct):
    """A row of an answer with its JSON left as bytes."""

    leaf: int
    entry: msgspec.Raw
    event: msgspec.Raw
    proof: list[str] = []
    problem: str = ""


class Answer(msgspec.Struct):
    entries: list[Row]
    checkpoint: dict[str, Any]


async def found(api: Api, query: str, role: str = "auditor") -> list[str]:
    answer = await api.get(f"/v1/trails?{query}", role)
    assert answer.status_code == 200, answer.text
    return [trail["trail"] for trail in answer.json()["trails"]]


async def test_each_condition_finds_what_meets_it(api: Api) -> None:
    payments = [f"transaction/PAY-{number}" for number in (2, 1, 0)]
    assert await found(api, "transaction=PAY-1") == [PAYMENT]
    assert await found(api, "transaction=PAY-9") == []
    assert await found(api, "key=order_id:O-1") == ["key/order_id/O-1", PAYMENT]
    assert await found(api, "key=order_id:O-1&kind=transaction") == [PAYMENT]
    assert await found(api, "kind=transaction") == payments
    assert await found(api, "kind=transaction&service=ledger") == payments
    assert await found(api, "kind=transaction&service=nobody") == []
    assert await found(api, "status=incomplete") == [PAYMENT]
    assert await found(api, "kind=transaction&since=2026-01-01T00:02:00Z") == payments[:1]
    assert await found(api, "kind=transaction&until=2026-01-01T00:01:00Z") == payments[2:]
    assert await found(api, "kind=transaction&until=2026-01-01T02:01:00%2B02:00") == payments[2:]
    assert await found(api, "kind=transaction&until=2026-01-01T02:01:00+02:00") == payments[2:]
    assert await found(api, "kind=transaction&text=Requested%20pay-1") == [PAYMENT]
    assert await found(api, "text=LEDG*&kind=transaction") == payments
    assert await found(api, "text=nothing") == []
    assert len(await found(api, "")) == 12


async def test_a_filter_combines_conditions(api: Api) -> None:
    async def of(text: str, more: str = "") -> list[str]:
        return await found(api, f"filter={quote(text)}{more}")

    assert await of("status = incomplete or key.order_id = O-2 and kind = transaction") == [
        "transaction/PAY-2",
        PAYMENT,
    ]
    assert await of("kind = transaction and not status = incomplete") == ["transaction/PAY-2", "transaction/PAY-0"]
    assert await of("event = payment.requested and time < 2026-01-01T02:01:00+02:00") == ["transaction/PAY-0"]
    assert await of("service = ledger or service = gateway", "&status=incomplete") == [PAYMENT]


@pytest.mark.parametrize(
    ("text", "position", "detail"),
    [
        ("service = ledger and", 21, "a condition, not, or ( is wanted, not the end"),
        ("time > 2026-01-01T00:00:00", 8, "does not say its time zone"),
        ("servise = ledger", 1, "is no field"),
        ("", 1, "is wanted"),
    ],
)
async def test_a_filter_that_cannot_be_read_says_where(api: Api, text: str, position: int, detail: str) -> None:
    answer = await api.get(f"/v1/trails?filter={quote(text)}")
    assert (answer.status_code, answer.json()["parameter"], answer.json()["position"]) == (400, "filter", position)
    assert detail in answer.json()["detail"]


@pytest.mark.parametrize("time", ["2026-01-01T00:00:00", "2026-01-01%2000:00:00", "2026-01-01T00:00", "2026-01-01"])
async def test_a_time_without_its_zone_is_refused(api: Api, time: str) -> None:
    answer = await api.get(f"/v1/trails?until={time}")
    assert answer.status_code == 400
    assert "time zone: write Z for UTC, or an offset, as in" in answer.json()["detail"]


async def test_pages_are_stable_while_the_log_grows(api: Api) -> None:
    answer = (await api.get("/v1/trails?kind=transaction&limit=1")).json()
    seen = [answer["trails"][0]["trail"]]
    api.ledger.ship("gateway/00000000000000aa", [payment(7, 0, "gateway", "payment.requested")])
    api.ledger.publish()
    while answer["next"] is not None:
        answer = (await api.get(f"/v1/trails?kind=transaction&limit=1&cursor={answer['next']}")).json()
        seen += [trail["trail"] for trail in answer["trails"]]
    assert seen == ["transaction/PAY-2", "transaction/PAY-1", "transaction/PAY-0"]
    assert (await found(api, "kind=transaction"))[0] == "transaction/PAY-7"


@pytest.mark.parametrize(
    ("query", "parameter"),
    [
        ("cursor=x", "cursor"),
        ("cursor=MS4wMS4y", "cursor"),
        ("cursor=", "cursor"),
        ("limit=0", "limit"),
        ("limit=201", "limit"),
        ("limit=1e2", "limit"),
        ("limit=%D9%A1", "limit"),
        ("since=yesterday", "since"),
        ("since=2026-01-01", "since"),
        ("until=2026-13-01T00:00:00Z", "until"),
        ("key=order_id", "key"),
        ("key=:x", "key"),
        ("status=done", "status"),
        ("kind=x", "kind"),
        ("transaction=", "transaction"),
        ("transaction=a&transaction=b", "transaction"),
        ("transaction=a%00b", "transaction"),
        ("transaction=" + "a" * 1001, "transaction"),
        ("transactoin=a", "transactoin"),
        ("transaction=%ff", None),
        ("a=1&" * 60, None),
        ("x" * 5000, None),
    ],
)
async def test_a_parameter_that_cannot_be_used_is_named(api: Api, query: str, parameter: str | None) -> None:
    answer = await api.get(f"/v1/trails?{query}")
    assert answer.status_code == 400
    problem = answer.json()
    assert problem["type"] == "urn:tallystick:problem:bad-parameter"
    assert problem.get("parameter") == parameter
    assert problem["detail"]
    assert api.record.events[-1].access is not None
    assert api.record.events[-1].access.refused == "bad-parameter"


async def test_a_trail_is_read_with_proofs_that_hold(api: Api) -> None:
    answer = await api.get(f"/v1/trails/{PAYMENT}?proofs=true")
    assert answer.status_code == 200
    read = msgspec.json.decode(answer.content, type=Answer)
    checkpoint = open_checkpoint(read.checkpoint["note"].encode(), SIGNER.verifier)
    assert (checkpoint.size, checkpoint.origin) == (read.checkpoint["size"], read.checkpoint["origin"])
    assert base64.b64decode(read.checkpoint["root"]) == checkpoint.root
    assert len(read.entries) == 5
    for position, row in enumerate(read.entries):
        data = bytes(row.entry)
        proof = [base64.b64decode(part) for part in row.proof]
        verify_inclusion(leaf_hash(data), row.leaf, checkpoint.size, proof, checkpoint.root)
        entry = decode_entry(data)
        assert (entry.trail, entry.position) == (PAYMENT, position)
        if entry.kind == "event":
            digest = msgspec.json.decode(bytes(entry.facts))["digest"]
            assert sha256(bytes(row.event)).hexdigest() == digest
        else:
            assert bytes(row.event) == b"null"


async def test_what_stands_beside_a_trail(api: Api) -> None:
    answer = (await api.get(f"/v1/trails/{PAYMENT}")).json()
    assert answer["summary"]["status"] == "incomplete"
    assert answer["summary"]["keys"] == [{"name": "order_id", "value": "O-1"}]
    assert answer["story"] == {
        "traces": [f"trace/{2:032x}"],
        "traces_left_out": 0,
        "related": [{"trail": "key/order_id/O-1", "through": None}],
        "related_left_out": 0,
        "hubs": [],
    }
    assert answer["accesses"] == {"complete": True, "entries": []}
    assert answer["next"] is None
    assert "proof" not in answer["entries"][0]


def test_a_summary_lists_some_links_and_counts_the_rest() -> None:
    links = tuple(f"transaction/p{number:03d}" for number in range(250))
    summary = TrailSummary(trail="key/a/b", entries=1, first_leaf=0, last_leaf=0, links=links, links_left_out=7)
    told = summary_json(summary)
    assert (len(told["links"]), told["links_left_out"]) == (200, 57)
    whole = summary_json(replace(summary, links=links[:200], links_left_out=0))
    assert (len(whole["links"]), whole["links_left_out"]) == (200, 0)


async def test_a_trail_is_read_page_by_page(api: Api) -> None:
    positions: list[int] = []
    start: int | None = 0
    while start is not None:
        answer = (await api.get(f"/v1/trails/{PAYMENT}?start={start}&limit=2")).json()
        positions += [row["entry"]["position"] for row in answer["entries"]]
        start = answer["next"]
    assert positions == [0, 1, 2, 3, 4]
    past = (await api.get(f"/v1/trails/{PAYMENT}?start=99")).json()
    assert (past["entries"], past["next"]) == ([], None)
    assert api.record.events[-1].access is not None
    assert api.record.events[-1].access.head == -1


async def test_a_page_of_long_events_ends_early_and_the_next_goes_on(api: Api) -> None:
    long = [payment(9, step, "shop", "paid", body="x" * 900_000) for step in range(8)]
    api.ledger.ship("shop/00000000000000dd", long)
    api.ledger.publish()
    alone = (await api.get("/v1/trails/transaction/PAY-9?events=false")).json()
    positions: list[int] = []
    pages = 0
    start: int | None = 0
    while start is not None:
        answer = await api.get(f"/v1/trails/transaction/PAY-9?start={start}&limit=1000")
        assert len(answer.content) < PAGE_BYTES + 1_000_000
        told = answer.json()
        access = api.record.events[-1].access
        assert access is not None
        assert access.head == told["entries"][-1]["leaf"]
        positions += [row["entry"]["position"] for row in told["entries"]]
        start, pages = told["next"], pages + 1
    assert pages == 2
    assert positions == list(range(alone["summary"]["entries"]))
    assert (len(alone["entries"]), alone["next"]) == (len(positions), None)


async def test_events_can_be_left_out(api: Api) -> None:
    answer = (await api.get(f"/v1/trails/{PAYMENT}?events=false")).json()
    assert {row["event"] for row in answer["entries"]} == {None}
    assert answer["entries"][0]["entry"]["facts"]["transaction"] == "PAY-1"


async def test_sre_sees_what_happened_where_and_not_what_it_said(api: Api) -> None:
    answer = await api.get(f"/v1/trails/{PAYMENT}?proofs=true", "sre")
    first = answer.json()["entries"][0]
    assert (first["service"], first["name"], first["kind"]) == ("gateway", "payment.requested", "event")
    for secret in ("facts", "digest", "ann", "amount", "1250", "attributes.payment_id"):
        assert secret not in str(answer.json()["entries"])


@pytest.mark.parametrize(
    "value",
    [
        "a/b",
        "a%2Fb",
        "a b",
        "ü/ö",
        "..",
        ".",
        "%",
        "a?b#c",
        "a;b=c&d",
        "//",
        "\\",
        "a:b@c",
        "x" * 300,
        "export",
        "+",
        "\n",
    ],
)
@pytest.mark.parametrize("kind", ["key", "transaction"])
async def test_every_name_finds_its_way_through_a_url(api: Api, value: str, kind: str) -> None:
    """As it stands, and percent-encoded once more as one segment, as generated clients do."""
    if kind == "key":
        event, trail = Event(keys={"order_id": value}), key_trail("order_id", value)
    else:
        event, trail = Event(transaction=value), transaction_trail(value)
    api.ledger.ship("gateway/00000000000000aa", [event])
    api.ledger.publish()
    for path in (trail, quote(trail, safe="")):
        answer = await api.get(f"/v1/trails/{path}")
        assert answer.status_code == 200, (path, answer.text)
        assert answer.json()["trail"] == trail
        assert api.record.events[-1].access is not None
        assert api.record.events[-1].access.trail == trail
        assert (await api.get(f"/v1/exports/{path}")).status_code == 200
    query = f"key=order_id:{quote(value)}" if kind == "key" else f"transaction={quote(value)}"
    assert trail in await found(api, query)


@pytest.mark.parametrize(
    "path",
    [
        "transaction/a%2fb",
        "transaction/%61",
        "transaction/",
        "transaction",
        "key/a",
        "key/a/b/c",
        "trace/xyz",
        "x/y",
        "%",
        "%ff%2F",
    ],
)
async def test_what_names_no_trail_is_refused(api: Api, path: str) -> None:
    answer = await api.get(f"/v1/trails/{path}")
    assert answer.status_code == 400
    assert answer.json()["parameter"] == "trail"


async def test_a_trail_that_does_not_exist(api: Api) -> None:
    for path in ("/v1/trails/transaction/PAY-9", "/v1/exports/transaction/PAY-9"):
        answer = await api.get(path)
        assert answer.status_code == 404
        assert answer.json()["type"] == "urn:tallystick:problem:not-found"
        access = api.record.events[-1].access
        assert access is not None
        assert (access.trail, access.refused) == ("transaction/PAY-9", "not-found")


async def test_who_has_read_a_trail_stands_beside_it(api: Api) -> None:
    ann = Access(principal="ann", action="trail.read", trail=PAYMENT, head=23)
    bob = Access(principal="bob", action="trail.export", trail=PAYMENT, refused="forbidden")
    events = [Event(time=f"2026-01-02T00:00:0{at}.000000000Z", access=one) for at, one in enumerate((ann, bob))]
    assert (await api.get(f"/v1/trails/{PAYMENT}")).json()["accesses"]["entries"] == []
    api.ledger.ship("api/00000000000000cc", events, role="recorder")
    api.ledger.publish()
    api.clocks.seconds += 1
    answer = (await api.get(f"/v1/trails/{PAYMENT}")).json()
    assert answer["summary"]["entries"] == 5
    assert [(one["principal"], one["action"], one["refused"]) for one in answer["accesses"]["entries"]] == [
        ("ann", "trail.read", ""),
        ("bob", "trail.export", "forbidden"),
    ]
    read = (await api.get("/v1/trails/access/ann")).json()
    assert read["entries"][0]["event"]["access"]["trail"] == PAYMENT


async def test_a_changed_event_is_not_served_and_the_rest_is(api: Api) -> None:
    store: Any = api.ledger.store
    blob = store._db.execute("SELECT events FROM bodies ORDER BY batch LIMIT 1 OFFSET 2").fetchone()[0]
    changed = blob.replace(b'"actor":"ann"', b'"actor":"bob"')
    assert changed != blob
    store._db.execute("UPDATE bodies SET events = ? WHERE events = ?", (changed, blob))
    answer = msgspec.json.decode((await api.get(f"/v1/trails/{PAYMENT}")).content, type=Answer)
    assert "digest differs" in answer.entries[0].problem
    assert bytes(answer.entries[0].event) == b"null"
    assert answer.entries[3].problem == ""
    assert b"payment.booked" in bytes(answer.entries[3].event)
    export = await api.get(f"/v1/exports/{PAYMENT}")
    assert (export.status_code, export.json()["type"]) == (500, "urn:tallystick:problem:evidence-damaged")
    assert "gateway/00000000000000aa" in export.json()["detail"]


async def test_a_changed_log_is_not_served(api: Api) -> None:
    path = "tile/entries/000.p/35"
    api.ledger.storage.objects[path] = api.ledger.storage.objects[path].replace(b"PAY-1", b"PAY-X")
    answer = await api.get(f"/v1/trails/{PAYMENT}")
    assert answer.status_code == 500
    assert path in answer.json()["detail"]


async def test_no_path_or_query_makes_it_stumble(api: Api) -> None:
    """Whatever is sent is answered, refused or not found; nothing is a fault of ours, and everything is on record."""
    dice = random.Random(20260101)
    pieces = [
        "/v1/trails",
        "/v1/exports",
        "/v1/events",
        "/log/tile",
        "/",
        "transaction",
        "key",
        "PAY-1",
        "order_id",
        "%2F",
        "%",
        "%00",
    ]
    pieces += [
        "%ff",
        "..",
        ".",
        "tenant",
        "stream",
        "gateway",
        "00000000000000aa",
        "0",
        "proof",
        "000.p",
        "entries",
        "?",
        "&",
        "=",
        "cursor",
    ]
    pieces += ["limit", "since", "2026-01-01T00:00:00Z", "ü", "+", ";", ":", "@", "999999999999999999999", "-1"]
    seen = set()
    for _ in range(400):
        target = "/" + dice.choice(pieces[:4]).lstrip("/") + "".join(dice.choices(pieces, k=dice.randrange(8)))
        raw, _, query = target.encode().partition(b"?")
        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": "GET",
            "scheme": "http",
            "path": unquote(raw.decode()),
            "raw_path": raw,
            "root_path": "",
            "query_string": query,
            "headers": [(b"host", b"api"), (b"authorization", f"Bearer {api.tokens['auditor']}".encode())],
            "client": ("127.0.0.1", 1),
            "server": ("api", 80),
        }
        status = 0

        async def receive() -> dict[str, object]:
            return {"type": "http.request", "body": b""}

        async def send(message: Any) -> None:
            nonlocal status
            status = message.get("status", status)

        api.clocks.seconds += 1
        await api.app(scope, receive, send)
        assert status in (200, 400, 404), target
        seen.add(status)
    assert seen == {200, 400, 404}


def test_of_many_related_trails_a_bounded_number_is_looked_at(ledger: SmallLedger) -> None:
    """For who sees a part of the ledger: the whole is not looked through for what no answer lists."""

    class Counted(MemoryIndex):
        looks = 0

        def trail(self, trail: str) -> TrailSummary:
            self.looks += 1
            return super().trail(trail)

    index, leaves = Counted(), Leaves()
    for number in range(1_500):
        trail = f"transaction/p{number:04d}"
        leaves.event(trail, service="bank" if number < 1_200 else "shop")
        leaves.add(trail, "link", to="key/merchant/acme")
        leaves.add("key/merchant/acme", "link", to=trail)
        leaves.add("transaction/payout", "link", to=trail)
    index.apply(leaves.made)
    logs = Logs.whole(
        index=index,
        reader=ledger.reader,
        storage=ledger.storage,
        key=SIGNER.verifier,
        store=ledger.store,
        monotonic=lambda: 0.0,
    )
    hub, payout = "key/merchant/acme", "transaction/payout"
    for trail, service, listed, left_out, looks in (
        (payout, "bank", 200, 1_300, 210),
        (payout, "shop", 0, 500, 1_010),
        (hub, "bank", 200, 1_300, 210),
        (hub, "shop", 200, 600, 910),  # of a hub the index tells the thousand that came last
    ):
        index.looks = 0
        told = logs.story(trail, RowScope(services=frozenset({service})))
        assert (len(told.related), told.related_left_out) == (listed, left_out)
        assert index.looks < looks
    for trail in (hub, payout):
        whole = logs.story(trail)
        assert (len(whole.related), whole.related_left_out) == (200, 1_300)
