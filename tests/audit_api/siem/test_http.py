"""HTTP: what is answered decides. And what stands in a request."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest

from audit_api.siem.http import HttpSender
from audit_api.siem.settings import HttpSettings
from collector.errors import Overloaded, StateUnknown
from deploy.streaming import open_destination
from tests.support.ledgers import START_NS, SmallLedger
from tests.support.siems import Sink, http_sink, records_in, records_of


@contextmanager
def sending(envelope: str = "ndjson", token: str = "", **settings: Any) -> Iterator[tuple[HttpSender, Sink]]:
    with http_sink(envelope=envelope) as sink:
        given = HttpSettings(
            name="h",
            url=f"http://127.0.0.1:{sink.address[1]}/in",
            **({"envelope": envelope, "format": "json"} | settings),
        )
        sender = HttpSender(given, tls=None, token=lambda: token, clock=lambda: START_NS)
        try:
            yield sender, sink
        finally:
            sender.close()


def test_the_envelopes(ledger: SmallLedger) -> None:
    records = records_of(ledger)[:3]
    with sending("splunk", "s3cret", token_scheme="Splunk") as (sender, sink):
        sender.send(records)
        headers, body = sink.requests[0]
        assert headers["authorization"] == "Splunk s3cret"
        assert headers["content-encoding"] == "gzip"
        first = json.loads(body.splitlines()[0])
        assert (first["sourcetype"], first["source"]) == ("tallystick:json", records[0].row.log)
        assert 0 <= first["time"] - START_NS / 1e9 < 60
        assert first["event"]["leaf"] == 0
    with sending("bulk", gzip=False) as (sender, sink):
        sender.send(records)
        headers, body = sink.requests[0]
        assert headers[":path"] == "/in?filter_path=errors,items.*.status"
        assert "authorization" not in headers
        assert [json.loads(line) for line in body.splitlines()[::2]] == [
            {"create": {"_id": one.mark.id}} for one in records
        ]


@pytest.mark.parametrize(
    ("status", "headers", "seconds"),
    [
        (429, {"Retry-After": "7"}, 7.0),
        (503, {"Retry-After": formatdate(START_NS / 1e9 + 90, usegmt=True)}, 90.0),
        (503, {"Retry-After": "soon"}, 0.0),
        (500, {}, 0.0),
        (401, {}, 0.0),
        (302, {"Location": "http://127.0.0.1:9/"}, 0.0),
        (429, {"Retry-After": "999999999"}, 3_600.0),
    ],
)
def test_answers_that_ask_for_patience(
    ledger: SmallLedger, status: int, headers: dict[str, str], seconds: float
) -> None:
    records = records_of(ledger)[:3]
    with sending() as (sender, sink):
        sink.answers.append((status, headers, b""))
        with pytest.raises(Overloaded, match=f"answered {status}") as raised:
            sender.send(records)
        assert raised.value.retry_after_seconds == seconds
        assert sink.got == []
        sender.send(records)
        assert len(sink.got) == 3


@pytest.mark.parametrize("envelope", ["ndjson", "splunk", "bulk"])
def test_one_that_is_refused_holds_up_no_other(ledger: SmallLedger, envelope: str) -> None:
    records = records_of(ledger)
    with sending(envelope) as (sender, sink):
        sink.refuses = lambda data: b'"http.request"' in data and json.loads(data).get("event") is not None
        sender.send(records)
        got = [json.loads(one) for one in sink.got]
    assert sorted(one["leaf"] for one in got) == list(range(len(records)))
    if envelope != "bulk":
        assert [one["leaf"] for one in got] == list(range(len(records)))
    cut = [one for one in got if "cut" in one]
    assert {one["cut"]["why"] for one in cut} == {"refused"}
    assert {one["entry"]["facts"]["name"] for one in cut} == {"http.request"}


def test_bulk_items_that_are_there_or_are_busy(ledger: SmallLedger) -> None:
    records = records_of(ledger)[:2]
    with sending("bulk") as (sender, sink):
        for statuses, fine in (([409, 201], True), ([429, 201], False), ([201], False)):
            items = [{"create": {"status": status}} for status in statuses]
            sink.answers.append((200, {}, json.dumps({"errors": True, "items": items}).encode()))
            if fine:
                sender.send(records)
            else:
                with pytest.raises(Overloaded, match=r"taken now|is about 1"):
                    sender.send(records)
        for answer in (b"<html>", b"[" * 400_000, b'{"items":' + b"[" * 400_000, b"\xff"):
            sink.answers.append((200, {}, answer))
            with pytest.raises(Overloaded, match="no answer to a bulk request"):
                sender.send(records)


def test_a_batch_is_cut_by_bytes(ledger: SmallLedger) -> None:
    records = records_of(ledger) * 12
    with sending(batch_bytes=65_536) as (sender, sink):
        sender.send(records)
        assert len(sink.requests) > 1
        assert all(len(body) <= 65_536 + len(records) for _, body in sink.requests)
        assert [one for _, body in sink.requests for one in records_in(body)] == sink.got
        assert len(sink.got) == len(records)


def test_nobody_there_and_a_connection_that_was_let_go_of(ledger: SmallLedger) -> None:
    records = records_of(ledger)[:1]
    with sending() as (sender, sink):
        sender.send(records)
        assert sender._connection is not None
        assert sender._connection.sock is not None
        sender._connection.sock.shutdown(2)  # as a proxy does with one that is idle
        sender.send(records)
        assert len(sink.got) == 2
    with pytest.raises(Overloaded, match="refused"):
        sender.send(records)


def test_a_token_that_is_replaced_is_taken_up(ledger: SmallLedger, tmp_path: Path) -> None:
    records = records_of(ledger)[:1]
    file = tmp_path / "token"
    file.write_text("first\n")
    with http_sink() as sink:
        settings = HttpSettings(
            name="h", url=f"http://127.0.0.1:{sink.address[1]}/", format="json", token_file=str(file)
        )
        sender = open_destination(settings)
        sender.send(records)
        for spoilt in (b"two\nlines", b"", "ü".encode()):
            file.write_bytes(spoilt)
            sender.close()
            with pytest.raises(Overloaded, match="token") as raised:
                sender.send(records)
            assert "lines" not in str(raised.value).replace("more than one line", "")
        file.write_text("second\n")
        sender.send(records)
        file.write_text("third\n")
        sink.answers.append((401, {}, b""))  # the second is withdrawn; the connection stays
        with pytest.raises(Overloaded, match="answered 401"):
            sender.send(records)
        sender.send(records)
        sender.close()
        assert [headers["authorization"] for headers, _ in sink.requests] == [
            *("Bearer first", "Bearer second", "Bearer second", "Bearer third")
        ]
        file.unlink()
        with pytest.raises(StateUnknown, match="No such file"):
            open_destination(settings)
