"""A ledger with what exports stumble over, and how the files of an export are read."""

from __future__ import annotations

import io
import json
import zipfile
from typing import Any

from audit_api.evidence import Evidence
from audit_api.export.making import Making
from audit_api.export.walk import Row, Selection, Walk
from audit_api.logs import Logs
from collector.event import Scope, Span, format_time
from tests.support.ledgers import SIGNER, START_NS, SmallLedger, payment

NO_AMOUNTS = {"amount.note": '=A1",1\r\n=cmd,2', "amount.eur": "=1+1", "amount.USD": "1", "amount.xxx": ""}
"""Keys that are called like amounts, and are none."""

HOSTILE = ("=1+1", "+49 30", "-cmd", "@SUM(A1)", "\t=1", "'quoted", "  =2", "＝1+1", "a,b\r\nc", 'say "hi"', "\ufeff=1")


def difficult_story(ledger: SmallLedger) -> None:
    """One payment whose events are everything that formats differ about, and one that is plain."""
    end = format_time(START_NS + 1_500_000_000)
    ledger.ship(
        "gateway/00000000000000aa",
        [
            payment(0, 0, "gateway", "payment.requested", keys={"order_id": "O-1", "amount.eur": "-12.5"}, actor="ann"),
            payment(
                0,
                1,
                "gateway",
                "",
                span=Span(name="POST /pay", kind="SERVER", end=end, status="ERROR", status_message="no", parent_span_id="ab" * 8),
                scope=Scope(name="http", version="1"),
                body=None,
                severity_number=17,
                severity_text="ERROR",
                attributes={
                    "http.request.method": "POST",
                    "http.response.status_code": 502,
                    "client.address": "192.0.2.7",
                    "client.port": 51_000,
                    "url.path": "/pay",
                    "deep": {"list": [1, 2.5, None, "ü"]},
                },
                resource={
                    "service.name": "gateway",
                    "service.version": "1.2",
                    "host.name": "h1",
                    "process.pid": "77",
                    "deployment.environment.name": "test",
                },
            ),
            payment(0, 2, "gateway", "fx", keys={"amount.eur": "0.00000001", "amount.usd": "999999999999999.99999999"}),
            payment(0, 3, "gateway", "long", body="ü" * 40_000, marks=["card:body", "truncated"]),
            payment(0, 4, "gateway", "masked", attributes={"client.address": "192.0.*.*"}, body="card [4111 11** **** 1111]"),
            payment(0, 5, "", "no service", resource={}, time="", body={"支付": "完了", "عربي": ["نص"]}),
            payment(0, 6, "gateway", "early", time="1066-10-14T09:00:00.000000001Z", severity_number=9),
            *(payment(0, 7, "gateway", "hostile", body=text, actor=text) for text in HOSTILE),
            payment(0, 8, "gateway", "no amounts", keys=NO_AMOUNTS),
            payment(
                0,
                9,
                "gateway",
                "five centuries",
                time="1700-01-01T00:00:00.000000000Z",
                span=Span(kind="SERVER", end="2200-01-01T00:00:00.000000000Z"),
            ),
        ],
    )  # fmt: skip
    ledger.add_verdict("transaction/PAY-0", "incomplete", ("notified",))
    ledger.ship("ledger/00000000000000bb", [payment(1, 0, "ledger", "payment.booked", outcome="success")])
    ledger.publish()


def logs_of(ledger: SmallLedger) -> Logs:
    """The ledger as the API serves it."""
    return Logs.whole(
        index=ledger.index,
        reader=ledger.reader,
        storage=ledger.storage,
        key=SIGNER.verifier,
        store=ledger.store,
        monotonic=lambda: 0.0,
    )


def rows_of(ledger: SmallLedger, selection: Selection | None = None, **bounds: int) -> tuple[list[Row], Walk]:
    """All rows, and the walk that gave them."""
    walk = Walk(logs_of(ledger).all, selection or Selection(), **bounds)
    rows = []
    while (some := walk.step()) is not None:
        rows += some
    return rows, walk


def made(
    ledger: SmallLedger, form: str, selection: Selection | None = None, **bounds: int
) -> tuple[bytes, dict[str, Any]]:
    """The file and the manifest of an export."""
    making = Making(Walk(logs_of(ledger).all, selection or Selection(), **bounds), form)
    data = b""
    while (rows := making.read()) is not None:
        data += making.shape(rows)
    data += making.finish()
    return data, json.loads(making.manifest())


def unpacked(archive: bytes) -> tuple[str, bytes, dict[str, Any]]:
    """Name and bytes of an archive's file, and its manifest."""
    with zipfile.ZipFile(io.BytesIO(archive)) as opened:
        assert opened.testzip() is None
        name, manifest = opened.namelist()
        assert manifest == "manifest.json"
        return name, opened.read(name), json.loads(opened.read(manifest))


def evidence_of(ledger: SmallLedger) -> Evidence:
    """What reads the ledger."""
    return logs_of(ledger).all[0].evidence
