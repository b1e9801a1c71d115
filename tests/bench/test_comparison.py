"""What is compared with the OpenTelemetry Collector is counted right: what came, what is missing, what came twice."""

from __future__ import annotations

import asyncio
import http.client
from pathlib import Path

import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest

from bench.crash import account_of, bench_crash
from bench.forward import send
from bench.records import chunk_message, record
from bench.sidecar import Sidecar
from bench.sink import Sink
from drills.matrix.programs import Programs

CHUNK = 100


def ids(*numbers: int) -> list[str]:
    return [record(number)["span_id"] for number in numbers]


def test_an_account_names_what_is_lost_and_what_came_twice() -> None:
    whole = account_of({0, 100}, ids(*range(250)))
    assert (whole.acknowledged, whole.lost, whole.doubled) == (200, 0, 0)
    broken = account_of({0, 100}, ids(*range(1, 199), 5, 5, 7))
    assert (broken.acknowledged, broken.lost, broken.doubled) == (200, 2, 3)


def test_a_record_that_was_changed_on_its_way_is_no_loss_but_an_error() -> None:
    with pytest.raises(RuntimeError, match=r"1 records came that nobody sent, such as '\*\*\*\*'"):
        account_of({0}, [*ids(*range(1, 100)), "****"])


def test_the_sink_counts_and_keeps_what_an_exporter_sends(tmp_path: Path) -> None:
    export = ExportLogsServiceRequest()
    records = export.resource_logs.add().scope_logs.add().log_records
    for name in ids(0, 1, 2):
        attribute = records.add().attributes.add()
        attribute.key, attribute.value.string_value = "span_id", name
    with Sink("otlp", keep=tmp_path / "kept") as sink:
        connection = http.client.HTTPConnection("127.0.0.1", sink.port, timeout=30)
        for _ in range(2):
            connection.request("POST", "/v1/logs", export.SerializeToString())
            assert connection.getresponse().read() == b""
        connection.close()
        assert sink.count == 6
        assert list(sink.span_ids()) == ids(0, 1, 2) * 2


@pytest.mark.parametrize("way", ["store", "collector"])
def test_what_the_sidecar_acknowledged_is_delivered(tmp_path: Path, way: str) -> None:
    with Sink("forward") as sink:
        side = Sidecar(tmp_path / "own", sink if way == "collector" else None)
        try:
            side.start()
            messages = [chunk_message(at, CHUNK, chunk=f"{at}") for at in range(0, 5 * CHUNK, CHUNK)]
            acks = asyncio.run(send(side.address, messages, 2, in_flight=1))
        finally:
            side.stop()  # it ships all of it first
        assert len(acks) == 5
        assert side.delivered() == 5 * CHUNK
    if way == "store":
        assert sorted(side.span_ids()) == sorted(ids(*range(5 * CHUNK)))


@pytest.mark.matrix
@pytest.mark.timeout(900)
def test_nothing_acknowledged_is_lost_when_collectors_are_killed(tmp_path: Path) -> None:
    (tmp_path / "programs").mkdir()
    with Programs(tmp_path / "programs") as programs:
        accounts = bench_crash(tmp_path / "crash", programs.otelcol)
    ours = accounts["Tallystick"]
    assert (ours.lost, ours.doubled) == (0, 0)
    assert all(account.acknowledged > 10_000 for account in accounts.values())
