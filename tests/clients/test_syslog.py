"""Other people's syslog senders, unmodified: util-linux's `logger`, and Debian's rsyslog as a relay. Every message arrives once.

What is lost when the collector is killed, for syslog acknowledges nothing, the matrix counts (`test_matrix`).
"""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from collector.event import Event
from tests.support.collector_process import CollectorProcess
from tests.support.need import need

pytestmark = [pytest.mark.clients, pytest.mark.timeout(120)]

MESSAGES = 3_000


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


def stored(collector: CollectorProcess, count: int, patience_seconds: float = 20.0) -> list[Event]:
    """What is stored once it is so many, or patience has ended."""
    deadline = time.monotonic() + patience_seconds
    while len(events := collector.stored()) < count and time.monotonic() < deadline:
        time.sleep(0.1)
    return events


def test_logger_in_every_form(tmp_path: Path) -> None:
    need(shutil.which("logger"), "logger: apt-get install bsdutils")
    collector = CollectorProcess(tmp_path, further="[collector.syslog]\nport = 0\nudp_port = 0\n")
    try:
        collector.start()
        forms = [
            ("syslog", ["--tcp", "--octet-count", "--rfc5424", "--msgid", "PAID", "--sd-id", "shop@32473"]),
            ("syslog", ["--tcp", "--rfc5424"]),
            ("syslog", ["--tcp", "--rfc3164"]),
            ("syslog_udp", ["--udp", "--rfc5424"]),
        ]
        for at, (way, options) in enumerate(forms):
            host, _, port = collector.addresses[way].partition(":")
            more = ["--sd-param", 'order="7"'] if "--sd-id" in options else []
            subprocess.run(
                ["logger", "--server", host, "--port", port, *options, *more, "--id=4711", "-t", "till", "-p", "local0.warn", f"form {at}"],
                check=True,
            )  # fmt: skip
            stored(collector, at + 1)
        collector.stop()
    finally:
        collector.close()
    events = sorted(collector.stored(), key=lambda event: str(event.body))
    assert [event.body for event in events] == [f"form {at}" for at in range(4)]
    for event in events:
        assert (event.service, event.severity_number, event.attributes["syslog.procid"]) == ("till", 13, "4711")
        assert event.attributes["syslog.facility"] == "local0"
        assert event.resource["host.name"]
        assert event.time
    assert events[0].event_name == "PAID"
    assert events[0].attributes["syslog.shop@32473.order"] == "7"
    assert [bool(event.marks) for event in events] == [False, False, True, False]


@contextmanager
def rsyslog(folder: Path, port: int) -> Iterator[int]:
    """An rsyslogd that takes syslog on a port and passes it on to another; gives its own."""
    program = shutil.which("rsyslogd", path="/usr/sbin:/usr/bin")
    need(program, "rsyslogd: apt-get install rsyslog")
    assert program is not None
    own = free_port()
    config = folder / "rsyslog.conf"
    config.write_text(
        f"""
global(workDirectory="{folder}")
module(load="imtcp")
input(type="imtcp" address="127.0.0.1" port="{own}")
action(type="omfwd" target="127.0.0.1" port="{port}" protocol="tcp" TCP_Framing="octet-counted"
       template="RSYSLOG_SyslogProtocol23Format" queue.type="LinkedList" queue.size="100000"
       action.resumeRetryCount="-1" action.resumeInterval="1")
"""
    )
    process = subprocess.Popen([program, "-n", "-f", str(config), "-i", str(folder / "rsyslog.pid")])
    try:
        deadline = time.monotonic() + 20
        while True:
            try:
                socket.create_connection(("127.0.0.1", own), timeout=1).close()
                break
            except OSError:
                assert time.monotonic() < deadline, "rsyslogd does not listen"
                time.sleep(0.05)
        yield own
    finally:
        process.terminate()
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def test_rsyslog_as_a_relay(tmp_path: Path) -> None:
    port = free_port()
    collector = CollectorProcess(tmp_path, further=f"[collector.syslog]\nport = {port}\n")
    try:
        collector.start()
        with rsyslog(tmp_path, port) as own, socket.create_connection(("127.0.0.1", own)) as service:
            for at in range(MESSAGES):
                message = b"<165>1 2026-01-01T00:00:00Z shop till 7 PAID - payment %d" % at
                service.sendall(b"%d %b" % (len(message), message))
            stored(collector, MESSAGES, patience_seconds=30.0)
        collector.stop()
    finally:
        collector.close()
    counts = Counter(str(event.body).strip() for event in collector.stored())
    assert counts == {f"payment {at}": 1 for at in range(MESSAGES)}
