"""A process's log lines, and its health server."""

from __future__ import annotations

import gc
import json
import logging
import sys
import weakref

import httpx
import pytest
from prometheus_client import CollectorRegistry, Counter

from deploy.health import health_server
from deploy.process import JsonLines, keep_what_is_there


def line(record: logging.LogRecord) -> dict[str, str]:
    text = JsonLines("correlator").format(record)
    assert "\n" not in text
    return dict(json.loads(text))


def test_a_log_record_is_one_json_line() -> None:
    record = logging.makeLogRecord(
        {"name": "tally", "levelname": "WARNING", "msg": "step %d\ngiven up", "args": (3,), "created": 1_700_000_000.25, "reason": "busy"}
    )  # fmt: skip
    assert line(record) == {
        "time": "2023-11-14T22:13:20.250000000Z",
        "level": "warning",
        "process": "correlator",
        "logger": "tally",
        "message": "step 3\ngiven up",
        "reason": "busy",
    }


def test_an_exception_is_told_without_its_traceback() -> None:
    secret = "what a frame would show"
    try:
        raise ValueError("not a number")
    except ValueError:
        record = logging.makeLogRecord({"msg": "failed", "exc_info": sys.exc_info()})
    told = line(record)
    assert told["error"] == "ValueError: not a number"
    assert secret not in json.dumps(told)


def test_health_and_metrics() -> None:
    registry = CollectorRegistry()
    Counter("tally_test_total", "Counts.", registry=registry).inc(3)
    state = {"alive": True, "ready": False}
    with health_server(registry, port=0, alive=lambda: state["alive"], ready=lambda: state["ready"]) as address:
        assert httpx.get(f"http://{address}/livez").status_code == 200
        assert httpx.get(f"http://{address}/readyz").status_code == 503
        state |= {"ready": True, "alive": False}
        assert httpx.get(f"http://{address}/readyz").status_code == 200
        assert httpx.get(f"http://{address}/livez").status_code == 503
        assert "tally_test_total 3.0" in httpx.get(f"http://{address}/metrics").text
        asked = httpx.get(f"http://{address}/metrics", headers={"accept": "application/openmetrics-text;version=1.0.0"})
        assert asked.headers["content-type"].startswith("application/openmetrics-text; version=1.0.0")
        assert asked.text.endswith("# EOF\n")
        assert httpx.get(f"http://{address}/else").status_code == 404
        assert httpx.post(f"http://{address}/metrics").status_code == 501
    role = {"word": "standing by"}
    with health_server(
        registry, port=0, alive=lambda: True, ready=lambda: state["ready"], word=lambda: role["word"]
    ) as other:
        assert httpx.get(f"http://{other}/readyz").text == "standing by\n"
        state["ready"] = False
        assert httpx.get(f"http://{other}/readyz").text == "not standing by\n"
        assert httpx.get(f"http://{other}/livez").text == "ok\n"
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"http://{address}/livez")


class Cyclic:
    def __init__(self) -> None:
        self.itself = self


def test_what_was_there_is_looked_through_no_more_and_cycles_are_still_found() -> None:
    kept = Cyclic()
    try:
        keep_what_is_there()
        assert not any(found is kept for found in gc.get_objects())
        lost = weakref.ref(Cyclic())
        made = 0
        while lost() is not None:
            made += 1
            assert made <= gc.get_threshold()[0], "it is never found"
            Cyclic()
    finally:
        gc.unfreeze()
