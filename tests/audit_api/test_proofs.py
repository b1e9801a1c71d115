"""Proofs over HTTP hold, in JSON and as C2SP tlog-proof; exports are the bundles that `tally verify` checks."""

from __future__ import annotations

import base64
import io
import sqlite3
import zipfile
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import pytest

from audit_api.settings import ApiSettings
from collector.batch import open_header
from collector.event import Access, Event, Incident
from collector.store.sqlite_months import SqliteMonths
from correlator.checkpoint import Checkpoint, open_checkpoint
from correlator.entry import decode_entry
from correlator.merkle import leaf_hash, verify_consistency, verify_inclusion
from correlator.retired import MonthAccount
from correlator.trail import stream_trail
from correlator.unbundle import unpack_bundle
from correlator.verify import verify_bundle, verify_proof
from tests.support.apis import Api
from tests.support.ledgers import SIGNER, payment

pytestmark = pytest.mark.anyio

KEY = SIGNER.verifier


class LoggedBatch(msgspec.Struct):
    leaf: int
    entry: msgspec.Raw
    proof: list[str]
    facts_path: list[str]


class EventProof(msgspec.Struct):
    trail: str
    leaf: int
    entry: msgspec.Raw
    event: msgspec.Raw
    proof: list[str]
    checkpoint: dict[str, Any]
    batch: LoggedBatch


def hashes(texts: list[str]) -> list[bytes]:
    return [base64.b64decode(text) for text in texts]


@pytest.mark.parametrize(
    ("stream", "sequence", "trail"),
    [
        ("gateway/00000000000000aa", 0, "transaction/PAY-0"),
        ("gateway/00000000000000aa", 3, f"trace/{2:032x}"),
        ("ledger/00000000000000bb", 4, "transaction/PAY-2"),
        ("ledger/00000000000000bb", 5, "stream/ledger/00000000000000bb"),
    ],
)
async def test_one_event_from_signature_to_checkpoint(api: Api, stream: str, sequence: int, trail: str) -> None:
    answer = await api.get(f"/v1/events/{stream}/{sequence}/proof")
    proof = msgspec.json.decode(answer.content, type=EventProof)
    checkpoint = open_checkpoint(proof.checkpoint["note"].encode(), KEY)
    for leaf, data, path in (
        (proof.leaf, bytes(proof.entry), proof.proof),
        (proof.batch.leaf, bytes(proof.batch.entry), proof.batch.proof),
    ):
        verify_inclusion(leaf_hash(data), leaf, checkpoint.size, hashes(path), checkpoint.root)
    entry = decode_entry(bytes(proof.entry))
    assert (entry.trail, entry.stream, entry.sequence) == (trail, stream, sequence)
    assert proof.trail == trail
    detail = decode_entry(bytes(proof.batch.entry)).detail
    header = open_header(detail["header"].encode(), base64.b64decode(detail["signature"])).header
    verify_inclusion(
        leaf_hash(bytes(entry.facts)),
        sequence - header.first,
        header.count,
        hashes(proof.batch.facts_path),
        bytes.fromhex(header.facts_root),
    )


async def test_one_event_as_a_tlog_proof(api: Api) -> None:
    path = "/v1/events/gateway/00000000000000aa/2/proof"
    answer = await api.get(path, Accept="text/plain")
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert answer.headers["vary"] == "Accept"
    report = verify_proof(answer.content, KEY)
    assert (report.entry.trail, report.entry.sequence) == ("transaction/PAY-1", 2)
    for accept in ("*/*", "application/json, text/plain"):
        assert (await api.get(path, Accept=accept)).headers["content-type"] == "application/json"


async def test_an_access_is_proved_like_any_event(api: Api) -> None:
    api.ledger.ship(
        "api/00000000000000cc", [Event(access=Access(principal="ann", action="trail.read"))], role="recorder"
    )
    api.ledger.publish()
    answer = await api.get("/v1/events/api/00000000000000cc/0/proof")
    assert answer.json()["trail"] == "access/ann"


async def test_an_incident_is_proved_like_any_event(api: Api) -> None:
    opened = Incident(id="ab" * 16, state="opened", cause="gap", time="2026-01-01T00:00:00.000000000Z")
    api.ledger.ship("api/00000000000000cc", [Event(incident=opened)], role="recorder")
    api.ledger.publish()
    answer = await api.get("/v1/events/api/00000000000000cc/0/proof")
    assert answer.json()["trail"] == f"incident/{opened.id}"


async def test_what_is_not_there_or_not_logged_yet(api: Api) -> None:
    missing = await api.get("/v1/events/gateway/00000000000000aa/6/proof")
    assert (missing.status_code, missing.json()["type"]) == (404, "urn:tallystick:problem:not-found")
    api.ledger.ship("gateway/00000000000000aa", [payment(5, 0, "gateway", "payment.requested")])
    early = await api.get("/v1/events/gateway/00000000000000aa/6/proof")
    assert (early.status_code, early.json()["type"]) == (404, "urn:tallystick:problem:not-logged-yet")
    assert early.headers["Retry-After"] == "1"
    api.ledger.publish()
    assert (await api.get("/v1/events/gateway/00000000000000aa/6/proof")).status_code == 200
    for path in ("/v1/events/X/00000000000000aa/6/proof", "/v1/events/gateway/00000000000000aa/-1/proof"):
        assert (await api.get(path)).status_code == 400


def ticks(first: int, count: int) -> list[Event]:
    """Events that nothing but their stream is known of, but for each fifth, which is of one transaction."""
    return [
        Event(time="2026-01-01T00:00:00.000000000Z", body=f"{at}", transaction="PAY-9" if at % 5 == 0 else "")
        for at in range(first, first + count)
    ]


async def test_an_event_is_found_without_reading_all_before_it(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger, stream = api.ledger, "sys/00000000000000ee"
    for first in range(0, 1_200, 300):
        ledger.ship(stream, ticks(first, 300))
        ledger.ship(stream, [])
    ledger.publish()
    read: list[int] = []
    entry = ledger.reader.entry

    def counted(leaf: int) -> bytes:
        read.append(leaf)
        return entry(leaf)

    monkeypatch.setattr(ledger.reader, "entry", counted)
    for sequence in (0, 1, 299, 300, 303, 600, 898, 1_199):
        read.clear()
        answer = (await api.get(f"/v1/events/{stream}/{sequence}/proof")).json()
        assert (answer["entry"]["sequence"], answer["event"]["body"]) == (sequence, str(sequence))
        assert answer["trail"] == (f"stream/{stream}" if sequence % 5 else "transaction/PAY-9")
        # beside the search: back to its batch, for the header that was signed
        assert len(read) < 350, (sequence, len(read))
    ledger.ship(stream, ticks(1_200, 2))
    read.clear()
    for sequence in (1_200, 1_201):
        assert (await api.get(f"/v1/events/{stream}/{sequence}/proof")).json()["type"].endswith(":not-logged-yet")
    assert len(read) < 50


async def test_an_event_that_came_late_is_found_behind_later_ones(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger, stream = api.ledger, "sys/00000000000000ee"
    ledger.ship(stream, ticks(0, 6))
    late: list[dict[str, Any]] = []
    with monkeypatch.context() as patch:
        patch.setattr(ledger, "_add", lambda **fields: late.append(fields))
        ledger.ship(stream, ticks(6, 6))  # the store has it, and the log passes it over
    ledger._add(trail=stream_trail(stream), kind="gap", detail={"reason": "missing"})
    ledger.ship(stream, ticks(12, 6))
    for fields in late:
        ledger._add(**fields)
    ledger.publish()
    leaves = []
    for sequence in range(18):
        answer = (await api.get(f"/v1/events/{stream}/{sequence}/proof")).json()
        assert answer["entry"]["sequence"] == sequence
        leaves.append(answer["leaf"])
    assert max(leaves[12:]) < min(leaves[6:12])


async def test_the_log_is_shown_to_have_only_grown(api: Api) -> None:
    before = (await api.get("/v1/checkpoint", None)).json()
    assert before["key"] == KEY.vkey
    api.ledger.ship("gateway/00000000000000aa", [payment(5, 0, "gateway", "payment.requested")])
    api.ledger.publish()
    old = open_checkpoint(before["checkpoint"]["note"].encode(), KEY)
    answer = (await api.get(f"/v1/consistency?first={old.size}", None)).json()
    assert base64.b64decode(answer["first"]["root"]) == old.root
    second = answer["second"]
    assert second["size"] == api.ledger.log.size
    verify_consistency(old.size, old.root, second["size"], base64.b64decode(second["root"]), hashes(answer["proof"]))
    part = (await api.get("/v1/consistency?first=3&second=20", None)).json()
    verify_consistency(
        3, base64.b64decode(part["first"]["root"]), 20, base64.b64decode(part["second"]["root"]), hashes(part["proof"])
    )
    for query, status in (("", 400), ("?first=99", 400), ("?first=20&second=3", 400), ("?first=1&second=999", 404)):
        assert (await api.get(f"/v1/consistency{query}", None)).status_code == status, query


async def test_an_export_verifies_offline(api: Api) -> None:
    answer = await api.get("/v1/exports/transaction/PAY-1")
    assert answer.headers["content-type"] == "application/zip"
    assert answer.headers["content-disposition"] == 'attachment; filename="transaction_PAY-1-35.zip"'
    report = verify_bundle(answer.content, KEY)
    assert [part.trail for part in report.trails] == ["transaction/PAY-1", f"trace/{2:032x}"]
    assert (report.trusted, report.events, report.page) == (True, 3, True)
    assert report.checkpoint == Checkpoint(origin=KEY.name, size=35, root=api.ledger.log.root)
    with zipfile.ZipFile(io.BytesIO(answer.content)) as found:
        assert found.testzip() is None
    assert (await api.get("/v1/exports/transaction/PAY-1")).content == answer.content


async def test_an_export_may_leave_things_out(api: Api) -> None:
    answer = await api.get("/v1/exports/transaction/PAY-1?linked=false&events=false&page=false")
    report = verify_bundle(answer.content, KEY)
    assert [part.trail for part in report.trails] == ["transaction/PAY-1"]
    assert (report.events, report.withheld, report.page) == (0, 2, False)
    assert "index.html" not in unpack_bundle(answer.content)


async def test_a_stream_and_an_access_trail_export(api: Api) -> None:
    api.ledger.ship("api/00000000000000cc", [Event(access=Access(principal="ann", action="x"))], role="recorder")
    api.ledger.publish()
    for trail in ("stream/ledger/00000000000000bb", "access/ann", "ledger/enrolments", "key/order_id/O-1"):
        answer = await api.get(f"/v1/exports/{trail}")
        assert verify_bundle(answer.content, KEY).trails[0].trail == trail


class TestLimit:
    """An export that would be too large."""

    @pytest.fixture
    def settings(self) -> ApiSettings:
        return ApiSettings(export_entries=6)

    async def test_it_says_so(self, api: Api) -> None:
        answer = await api.get("/v1/exports/transaction/PAY-1")
        assert answer.status_code == 422
        assert answer.json()["type"] == "urn:tallystick:problem:export-too-large"
        assert answer.json()["limit"] == 6
        assert (await api.get("/v1/exports/transaction/PAY-1?linked=false")).status_code == 200


async def test_the_log_is_read_under_its_c2sp_paths(api: Api) -> None:
    for path, data in api.ledger.storage.objects.items():
        answer = await api.get(f"/log/{path}")
        assert answer.content == data
        if path == "checkpoint":
            assert answer.headers["content-type"] == "text/plain; charset=utf-8"
        else:
            assert answer.headers["content-type"] == "application/octet-stream"
            entries = path.startswith("tile/entries")
            expected = "private, no-store" if entries else "public, max-age=31536000, immutable"
            assert answer.headers["cache-control"] == expected


@pytest.mark.parametrize(
    "path",
    [
        "tile/0/001",
        "tile/0/000.p/256",
        "tile/0/0",
        "tile/0/000.p/35/",
        "tile/99/000",
        "tile/00/000",
        "tile/0/../checkpoint",
        "head",
    ],
)
async def test_what_is_no_object_of_the_log(api: Api, path: str) -> None:
    answer = await api.get(f"/log/{path}", None)
    assert answer.status_code in (401, 404)
    assert (await api.get(f"/log/{path}")).status_code == 404


async def test_overview(api: Api) -> None:
    status = (await api.get("/v1/status", "sre")).json()
    assert (status["ledger"], status["indexed"], status["index_lag"]) == (KEY.name, 35, 0)
    assert status["fingerprint"] == KEY.fingerprint
    streams = (await api.get("/v1/streams?limit=1", "sre")).json()
    assert [one["stream"] for one in streams["streams"]] == ["gateway/00000000000000aa"]
    rest = (await api.get(f"/v1/streams?start={streams['next']}", "sre")).json()
    assert [(one["stream"], one["status"]) for one in rest["streams"]] == [("ledger/00000000000000bb", "ok")]
    assert rest["next"] is None
    principals = (await api.get("/v1/principals", "admin")).json()["principals"]
    assert {"principal": "sre@example", "roles": ["sre"]} in principals


async def test_readiness_is_told(api: Api) -> None:
    assert (await api.get("/readyz", None)).json() == {"status": "ready"}
    del api.ledger.storage.objects["checkpoint"]
    answer = await api.get("/readyz", None)
    assert answer.status_code == 503
    assert answer.json()["reasons"] == ["the log does not answer: NotFound"]
    assert (await api.get("/livez", None)).status_code == 200


async def test_metrics_tell_of_requests_and_of_nobody(api: Api) -> None:
    await api.get("/v1/trails")
    await api.get("/v1/trails", None)
    text = (await api.get("/metrics", None)).text
    asked = await api.get("/metrics", None, Accept="application/openmetrics-text;version=1.0.0")
    assert asked.headers["content-type"].startswith("application/openmetrics-text")
    assert asked.text.endswith("# EOF\n")
    assert 'tally_api_request_seconds_count{code="200",route="findTrails"} 1.0' in text
    assert 'tally_api_refused_total{reason="unauthenticated"} 1.0' in text
    assert "tally_api_accesses_total 2.0" in text
    assert "tally_api_log_leaves 35.0" in text
    assert "tally_api_indexed_leaves 35.0" in text
    assert "example" not in text


async def test_events_that_were_retired_are_told_so_and_proved_all_the_same(api: Api, tmp_path: Path) -> None:
    ledger = api.ledger
    account = MonthAccount()
    for leaf in range(ledger.log.size):
        entry = decode_entry(ledger.reader.entry(leaf))
        if entry.kind == "batch":
            header = open_header(entry.detail["header"].encode(), base64.b64decode(entry.detail["signature"]))
            account.add(leaf, header.header, header.digest)
    retirement = account.retirement("2026.01", ledger.log.size)
    assert (retirement.batches, retirement.events) == (6, 12)
    ledger.ship("api/00000000000000cc", [Event(actor="ann", retirement=retirement)], role="recorder")
    ledger.ship("gateway/00000000000000aa", [payment(1, 9, "gateway", "payment.settled")])
    ledger.publish()
    before = (await api.get("/v1/trails/transaction/PAY-1")).json()
    assert all("retired" not in one for one in before["entries"]), "on record, and there still: it is shown"
    with closing(SqliteMonths(tmp_path / "store.sqlite")) as months:
        months.drop("2026.01", account.digests(retirement.size), retirement.events)
    told = (await api.get("/v1/trails/transaction/PAY-1")).json()
    events = [one for one in told["entries"] if one["entry"]["kind"] == "event"]
    assert [one["event"] is None for one in events] == [True, True, False]
    assert {one["retired"]["month"] for one in events[:2]} == {"2026.01"}
    assert {(one["retired"]["leaf"], one["retired"]["by"]) for one in events[:2]} == {(37, "ann")}
    assert all("problem" not in one for one in events)
    assert told["entries"] == [
        one if one not in events[:2] else one | {"event": None, "retired": events[0]["retired"]}
        for one in told["entries"]
    ]
    proof = (await api.get("/v1/events/gateway/00000000000000aa/2/proof")).json()
    assert (proof["trail"], proof["event"], proof["retired"]["leaf"]) == ("transaction/PAY-1", None, 37)
    assert (await api.get("/v1/events/api/00000000000000cc/0/proof")).json()["trail"] == "ledger/retirements"
    report = verify_bundle((await api.get("/v1/exports/transaction/PAY-1")).content, KEY)
    assert (report.retired, report.withheld) == (3, 3)
    # what goes without being covered is lost, and not retired
    with closing(sqlite3.connect(tmp_path / "store.sqlite")) as db:
        db.execute("DELETE FROM bodies")
        db.commit()
    told = (await api.get("/v1/trails/transaction/PAY-1")).json()
    last = [one for one in told["entries"] if one["entry"]["kind"] == "event"][-1]
    assert "is not in the store" in last["problem"]
    assert "retired" not in last
