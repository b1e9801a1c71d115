"""Destinations for records: one in memory, one that speaks HTTP, one that speaks syslog; each refuses, fails and loses as it is told to."""

from __future__ import annotations

import gzip
import json
import socket
import ssl
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from audit_api.evidence import SignedTree
from audit_api.export.walk import Row
from audit_api.siem.destination import Refused, deliver
from audit_api.siem.forms import FORMS
from audit_api.siem.record import Record, Shaper
from collector.errors import Overloaded
from tests.support.exports import logs_of, rows_of
from tests.support.ledgers import SmallLedger


class MemoryDestination:
    """Keeps what it is sent.

    Attributes:
        away: raise so often first.
        breaks_after: take so many records of each batch, then break, so often as `away` says.
        refuses: whether this record's bytes are refused.
    """

    def __init__(self, *, refuses: Callable[[bytes], bool] = lambda _: False) -> None:
        self.got: list[bytes] = []
        self.away = 0
        self.breaks_after = 0
        self.refuses = refuses
        self.closed = False

    def send(self, records: Sequence[Record]) -> None:
        if self.away > 0:
            self.away -= 1
            self.got += [one.data for one in records[: self.breaks_after]]
            raise Overloaded("away, as told", retry_after_seconds=0.5)
        deliver(records, self._post)

    def _post(self, records: Sequence[Record]) -> Sequence[Record]:
        if any(self.refuses(one.data) for one in records):
            raise Refused("refused, as told")
        self.got += [one.data for one in records]
        return []

    def close(self) -> None:
        self.closed = True


@dataclass
class Sink:
    """What a server was sent."""

    address: tuple[str, int] = ("", 0)
    got: list[bytes] = field(default_factory=list)
    """Records, or syslog messages, as they came."""
    requests: list[tuple[dict[str, str], bytes]] = field(default_factory=list)
    answers: list[tuple[int, dict[str, str], bytes]] = field(default_factory=list)
    """Answers that come before all others."""
    refuses: Callable[[bytes], bool] = lambda _: False
    full_at: int | None = None
    """So many records make it answer 503: who sends cannot have sent all before a test acts."""
    came: threading.Condition = field(default_factory=threading.Condition)

    def until(self, enough: Callable[[], bool], seconds: float = 90.0) -> None:
        with self.came:
            assert self.came.wait_for(enough, seconds), f"{len(self.got)} records in {seconds} s"


def records_in(body: bytes) -> list[bytes]:
    """Of a body in any envelope, the records' JSON."""
    lines = [json.loads(line) for line in body.replace(b'}{"time"', b'}\n{"time"').splitlines()]
    found = [line.get("event", line) if "sourcetype" in line else line for line in lines if "create" not in line]
    return [json.dumps(one).encode() for one in found]


@contextmanager
def http_sink(*, envelope: str = "ndjson", tls: ssl.SSLContext | None = None) -> Iterator[Sink]:
    """Takes posts; a record that `refuses` holds of makes it refuse the whole request, or in a bulk request that item."""
    sink = Sink()

    class Answer(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        timeout = 30

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            if self.headers.get("content-encoding") == "gzip":
                body = gzip.decompress(body)
            with sink.came:
                headers = {name.lower(): value for name, value in self.headers.items()}
                sink.requests.append((headers | {":path": self.path}, body))
                status, more, answer = sink.answers.pop(0) if sink.answers else self.take(body)
                sink.came.notify_all()
            self.send_response(status)
            for name, value in more.items():
                self.send_header(name, value)
            self.send_header("content-length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def take(self, body: bytes) -> tuple[int, dict[str, str], bytes]:
            if sink.full_at is not None and len(sink.got) >= sink.full_at:
                return 503, {}, b""
            records = records_in(body)
            refused = [sink.refuses(one) for one in records]
            if envelope == "bulk":
                sink.got += [one for one, no in zip(records, refused, strict=True) if not no]
                items: list[Any] = [{"create": {"status": 400 if no else 201}} for no in refused]
                return 200, {}, json.dumps({"errors": any(refused), "items": items}).encode()
            if any(refused):
                return 400, {}, b""
            sink.got += records
            return 200, {}, b""

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    server.daemon_threads = True
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    sink.address = ("127.0.0.1", server.server_port)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield sink
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def syslog_sink(*, tls: ssl.SSLContext | None = None, takes: Callable[[int], bool] = lambda _: True) -> Iterator[Sink]:
    """Takes octet-counted messages. Connections (from 0) that it does not take are dropped in the middle, half read and without an answer."""
    sink = Sink()
    listening = socket.create_server(("127.0.0.1", 0))
    sink.address = listening.getsockname()
    ending = threading.Event()

    def serve() -> None:
        number = 0
        while True:
            try:
                plain, _ = listening.accept()
            except OSError:
                return
            if ending.is_set():
                plain.close()
                return
            try:
                one_connection(plain, number)
            except OSError:
                pass  # who hung up is seen by what did not come
            number += 1

    def one_connection(plain: socket.socket, number: int) -> None:
        plain.settimeout(30)
        with plain, plain if tls is None else tls.wrap_socket(plain, server_side=True) as connection:
            if not takes(number):
                connection.recv(10)
                return
            data = b""
            while part := connection.recv(65_536):
                data += part
            with sink.came:
                sink.got += unframed(data)
                sink.came.notify_all()
            if isinstance(connection, ssl.SSLSocket):
                connection.unwrap()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield sink
    finally:
        ending.set()
        try:
            socket.create_connection(sink.address, timeout=5).close()  # wakes accept
        except OSError:
            pass
        thread.join()
        listening.close()


def unframed(data: bytes) -> list[bytes]:
    """Octet-counted messages, one after the other."""
    found = []
    while data:
        length, _, rest = data.partition(b" ")
        found.append(rest[: int(length)])
        assert len(found[-1]) == int(length)
        data = rest[int(length) :]
    return found


def records_of(
    ledger: SmallLedger,
    form: str = "json",
    *,
    max_bytes: int = 1 << 20,
    reduced: Callable[[str], None] = lambda _: None,
) -> list[Record]:
    """The records of all entries, in the order of the log."""
    rows, tree = log_rows(ledger)
    shaper = Shaper(FORMS[form](), max_bytes=max_bytes, reduced=reduced)
    return [shaper.record(row, tree) for row in rows]


def log_rows(ledger: SmallLedger) -> tuple[list[Row], SignedTree]:
    """All entries with their events, in the order of the log; and the log."""
    rows, _ = rows_of(ledger)
    return sorted(rows, key=lambda row: row.leaf), logs_of(ledger).all[0].evidence.tree()
