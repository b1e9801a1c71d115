"""`tally run siem`: from a ledger to its destinations, with the process killed in between; what is on record of it; and its words when it cannot run."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from correlator.reader import LogReader
from deploy.commands.up import children_of
from deploy.keys import log_verifier
from deploy.logstorage import log_storage
from deploy.places import Places
from deploy.processes import running
from deploy.session import Session
from tests.deploy.conftest import Cli, Workshop, event
from tests.support.siems import Sink, http_sink, syslog_sink

TABLE = """
[[siem.destinations]]
kind = "http"
name = "{name}"
url = "http://127.0.0.1:{port}/in"
format = "json"
linger_seconds = 0.05
batch_records = 3
{more}
"""


@contextmanager
def siem(folder: Path) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """The process, once it is ready, and the address of its probes."""
    places = Places(folder / "tally-data")
    process = subprocess.Popen(
        [sys.executable, "-m", "deploy.cli", "--config", str(folder / "tally.toml"), "run", "siem"],
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + 90
        while not (mine := [one for one in running(places.run) if one.pid == process.pid]):
            assert process.poll() is None, process.stderr and process.stderr.read().decode()
            assert time.monotonic() < deadline
            time.sleep(0.05)  # a file of another process: there is nothing to await
        yield process, mine[0].addresses["http"]
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        process.wait(timeout=60)
        assert process.stderr is not None
        process.stderr.close()


def told(sink: Sink) -> list[dict[str, Any]]:
    return [json.loads(one) for one in list(sink.got)]


def whole(sink: Sink, size: int) -> bool:
    return {one["leaf"] for one in told(sink)} == set(range(size))


def test_killed_in_the_middle_nothing_is_missing_and_doubles_are_known(ledger: Workshop, cli: Cli) -> None:
    ledger.collect([event("paid", f"many-{number}", message="card 4111 1111 1111 1111") for number in range(40)])
    ledger.correlate()
    size = len(log_entries(ledger))
    with http_sink() as sink:
        ledger.file.write_text(ledger.file.read_text() + TABLE.format(name="desk", port=sink.address[1], more=""))
        for least in (10, 40):
            sink.full_at = (
                least  # so that the next process has something to send, which it does after its start is on record
            )
            with siem(ledger.folder) as (process, _):
                sink.until(lambda least=least: len(sink.got) >= least)  # type: ignore[misc]  # mypy does not see the default
                os.kill(process.pid, signal.SIGKILL)
                process.wait(timeout=30)
        sink.full_at = None
        with siem(ledger.folder) as (process, address):
            sink.until(lambda: whole(sink, size))
            metrics = httpx.get(f"{address}/metrics", timeout=10).text
            assert 'tally_siem_failures_total{destination="desk"} 0.0' in metrics
            assert httpx.get(f"{address}/readyz", timeout=10).text == "ok\n"
            process.send_signal(signal.SIGTERM)
            assert process.wait(timeout=60) == 0
        got = told(sink)
    first: dict[str, dict[str, Any]] = {}
    order = []
    for one in got:
        if one["id"] not in first:
            order.append(one["leaf"])
        known = first.setdefault(one["id"], one)
        assert (known["entry"], known["event"]) == (one["entry"], one["event"]), "a double says the same"
    assert order == list(range(size)), "in the order of the log"
    assert [one["entry"] for one in first.values()] == log_entries(ledger)[:size]
    assert "4111 1111" not in json.dumps(got)

    ledger.correlate()  # what the process put on record of itself
    recorded = [one["facts"] for one in log_entries(ledger) if one["trail"] == "access/siem:desk"]
    assert [one["name"] for one in recorded] == ["access.siem.start"] * 3 + ["access.siem.stop"]
    assert {one["access"]["action"] for one in recorded} == {"siem.start", "siem.stop"}
    code, out, _ = cli("trail", "access/siem:desk")
    assert code == 0
    assert "access/siem:desk  OK" in out


def log_entries(workshop: Workshop) -> list[Any]:
    """All entries of the log, read by its own reader."""
    reader = LogReader(log_storage(workshop.config), log_verifier(workshop.places))
    return [json.loads(one) for one in reader.entries(0, reader.tree().size)]


def test_one_that_is_away_holds_up_no_other(ledger: Workshop) -> None:
    size = len(log_entries(ledger))
    with http_sink() as well, http_sink() as away, syslog_sink() as desk:
        away.answers += [(503, {"retry-after": "1"}, b"")] * 2
        table = TABLE.format(name="well", port=well.address[1], more='entries = ["verdict"]')
        table += TABLE.format(name="away", port=away.address[1], more="")
        table += f'[[siem.destinations]]\nkind = "syslog"\nname = "desk"\nhost = "127.0.0.1"\nport = {desk.address[1]}\ntls = false\n'
        ledger.file.write_text(ledger.file.read_text() + table)
        with siem(ledger.folder) as (_, address):
            well.until(lambda: len(well.got) == 2)
            desk.until(lambda: len(desk.got) == size)
            away.until(lambda: bool(away.requests))
            away.until(lambda: whole(away, size))
            metrics = httpx.get(f"{address}/metrics", timeout=10).text
        assert {one["entry"]["kind"] for one in told(well)} == {"verdict"}
        assert 'tally_siem_failures_total{destination="away"} 2.0' in metrics
        assert all(b"CEF:0|Tallystick|" in one for one in desk.got)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "there are none"),
        (TABLE.format(name="d", port=1, more='filter = "text ~ x"'), "no entry can be asked"),
        (TABLE.format(name="d", port=1, more="tls = true"), "unknown field `tls`"),
        ('[[siem.destinations]]\nkind="syslog"\nname="s"\nhost="h"\nca_file="gone.pem"\n', "gone.pem"),
    ],
)
def test_what_cannot_run_says_why(ledger: Workshop, cli: Cli, text: str, said: str) -> None:
    ledger.file.write_text(ledger.file.read_text() + text)
    code, _, err = cli("run", "siem")
    assert code == 2
    assert said in err


def test_a_token_that_is_not_there_yet_is_no_reason_to_stop_the_collectors(ledger: Workshop, cli: Cli) -> None:
    table = TABLE.format(name="d", port=1, more='token_file = "nowhere"')
    ledger.file.write_text(ledger.file.read_text() + table)
    code, _, err = cli("run", "siem")
    assert code == 1, "`tally up` starts it again; 2 would end everything"
    assert "siem.destinations: d: " in err
    assert "nowhere" in err


def test_up_runs_it_where_there_are_destinations(ledger: Workshop) -> None:
    def names() -> list[str]:
        return [one.name for one in children_of(Session(config_file=str(ledger.file)))]

    assert "siem" not in names()
    ledger.file.write_text(ledger.file.read_text() + TABLE.format(name="d", port=1, more=""))
    assert "siem" in names()


def test_with_a_broker_that_is_away_it_ends_as_it_should(ledger: Workshop) -> None:
    """A Kafka client has an event loop of its own, which cannot be ended within the process's."""
    table = (
        '[[siem.destinations]]\nkind = "kafka"\nname = "bus"\nbrokers = ["127.0.0.1:1"]\ntopic = "audit"\ntls = false\n'
    )
    ledger.file.write_text(ledger.file.read_text() + table)
    with siem(ledger.folder) as (process, _):
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 0, said.decode()
    assert b"Traceback" not in said
