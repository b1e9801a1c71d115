"""What a sender sends again, because the collector died before or after its answer, is stored once: across a SIGKILL."""

from __future__ import annotations

import json
import socket
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import msgpack
import pytest

from tests.support.collector_process import CollectorProcess

TRACE = "5b8efff798038103d269b633813fc60c"
SPAN = "eee19b7ec3c1b174"


@pytest.fixture
def collector(tmp_path: Path) -> Iterator[CollectorProcess]:
    process = CollectorProcess(tmp_path)
    process.start()
    yield process
    process.close()


def forward(collector: CollectorProcess, message: list[Any]) -> Any:
    """Say one message, and hear its ack."""
    host, _, port = collector.addresses["forward"].partition(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(msgpack.packb(message))
        unpacker = msgpack.Unpacker()
        while True:
            unpacker.feed(connection.recv(4096))
            for answer in unpacker:
                return answer


def post(collector: CollectorProcess, path: str, body: bytes, **headers: str) -> httpx.Response:
    url = f"http://{collector.addresses['http']}{path}"
    return httpx.post(url, content=body, headers=headers, timeout=10, trust_env=False)


def test_each_kind_of_id_is_recognised_after_a_kill(collector: CollectorProcess) -> None:
    chunk = ["shop", [[1, {"message": "chunk", "n": n}] for n in range(3)], {"chunk": "c1", "size": 3}]
    record = {"body": {"stringValue": "otlp body"}, "timeUnixNano": "1"}
    records = json.dumps({"resourceLogs": [{"scopeLogs": [{"logRecords": [record]}]}]}).encode()
    span = {"traceId": TRACE, "spanId": SPAN, "name": "span", "startTimeUnixNano": "1"}

    def say_all(round_number: int) -> None:
        assert forward(collector, chunk) == {"ack": "c1"}
        # the same uid and the same span in other company: no group can recognise them
        again = {"message": "uid", "log.record.uid": "u1"}
        message = ["shop", [[1, again], [1, {"message": f"company {round_number}"}]], {"chunk": f"r{round_number}"}]
        assert forward(collector, message) == {"ack": f"r{round_number}"}
        assert post(collector, "/v1/logs", records, **{"content-type": "application/json"}).status_code == 200
        other = {**span, "spanId": f"{round_number + 1:016x}", "name": f"company span {round_number}"}
        spans = json.dumps({"resourceSpans": [{"scopeSpans": [{"spans": [span, other]}]}]}).encode()
        assert post(collector, "/v1/traces", spans, **{"content-type": "application/json"}).status_code == 200
        headers = {"content-type": "application/x-ndjson", "idempotency-key": "k"}
        assert post(collector, "/v1/events", b'{"message": "keyed"}\n', **headers).json()["lines"] == 1

    for round_number in range(3):
        say_all(round_number)
        collector.kill()
        collector.start()
    collector.stop()
    counts = Counter(event.name or event.body for event in collector.stored())
    assert counts == {
        "chunk": 3,
        "uid": 1,
        "otlp body": 1,
        "span": 1,
        "keyed": 1,
        **{f"company {n}": 1 for n in range(3)},
        **{f"company span {n}": 1 for n in range(3)},
    }
