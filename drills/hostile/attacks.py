"""The attacks. Each takes where the listeners are and how hard to press, and returns when it has been done."""

from __future__ import annotations

import gzip
import json
import random
import socket
import struct
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass

import msgpack
import zstandard
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue

from drills.hostile.wire import connected, http_request, knock, linger, say

__all__ = ["ATTACKS", "CREDENTIAL", "TCP", "Attack", "Pressure"]

TCP = ("forward", "http", "grpc", "elasticsearch", "beats", "syslog")
CREDENTIAL = "Bearer open-sesame"

_NDJSON, _PROTOBUF = "application/x-ndjson", "application/x-protobuf"
_MIB = 1024**2
_PIECE_BYTES = 16 * _MIB
_SEED = 7


@dataclass(frozen=True, slots=True, kw_only=True)
class Pressure:
    """How hard.

    Attributes:
        rounds: how often small things are done to each listener.
        bomb_bytes: what a bomb becomes.
        line_bytes: the length of what should have an end.
        slow_connections: of each listener that are sent a byte now and then, for `slow_seconds`.
        idle_connections: open at once, over all listeners.
    """

    rounds: int
    bomb_bytes: int
    line_bytes: int
    slow_connections: int
    slow_seconds: float
    idle_connections: int


Addresses = Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Attack:
    """A row.

    Attributes:
        name: for the table.
        press: does it.
        reasons: under these it must be refused, each at least once.
    """

    name: str
    press: Callable[[Addresses, Pressure], None]
    reasons: frozenset[str] = frozenset()


def _samples() -> Mapping[str, bytes]:
    """Something that each listener takes."""
    forward = msgpack.packb(["shop", [[1, {"message": "sample"}]], {"chunk": "c"}])
    document = b'{"message": "sample"}'
    window = b"2W" + struct.pack(">I", 1) + b"2J" + struct.pack(">II", 1, len(document)) + document
    line = b"<165>1 2026-01-01T00:00:00Z shop till 7 PAID - sample"
    bulk = b'{"index": {"_index": "shop"}}\n' + document + b"\n"
    return {
        "forward": forward,
        "http": http_request("/v1/events", document, kind=_NDJSON),
        "grpc": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(9),
        "elasticsearch": http_request("/_bulk", bulk, kind=_NDJSON, Authorization=CREDENTIAL),
        "beats": window,
        "syslog": b"%d %b" % (len(line), line),
    }


def _fuzz(addresses: Addresses, pressure: Pressure) -> None:
    dice = random.Random(_SEED)
    samples = _samples()

    def one(at: int) -> None:
        use = TCP[at % len(TCP)]
        own = random.Random(f"{_SEED}/{at}")
        data = bytearray(samples[use] * own.randint(1, 3))
        if own.random() < 0.3:
            data = bytearray(own.randbytes(own.randint(1, 4_096)))
        for _ in range(own.randint(1, 8)):
            data[own.randrange(len(data))] = own.randrange(256)
        say(addresses[use], [bytes(data)], answer_seconds=0.3)

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(one, range(pressure.rounds * len(TCP))))
    host, _, port = addresses["syslog_udp"].rpartition(":")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams:
        for _ in range(pressure.rounds * 4):
            datagrams.sendto(dice.randbytes(dice.randint(0, 1_200)), (host, int(port)))


def _bombs(addresses: Addresses, pressure: Pressure) -> None:
    zeros, times = bytes(_PIECE_BYTES), pressure.bomb_bytes // _PIECE_BYTES
    packed = gzip.compress(zeros, 9) * times  # members and frames may follow one another
    spread = zstandard.ZstdCompressor(level=19).compress(zeros) * times
    squeeze = zlib.compressobj(6)
    deflated = b"".join(squeeze.compress(zeros) for _ in range(times)) + squeeze.flush()
    say(addresses["http"], [http_request("/v1/logs", packed, kind=_PROTOBUF, Content_Encoding="gzip")])
    say(addresses["http"], [http_request("/v1/events", packed, kind=_NDJSON, Content_Encoding="gzip")])
    say(
        addresses["elasticsearch"],
        [http_request("/_bulk", packed, kind=_NDJSON, Authorization=CREDENTIAL, Content_Encoding="gzip")],
    )
    for data, coding in ((packed, "gzip"), (spread, "zstd")):
        message = ["shop", data, {"compressed": coding, "chunk": coding}]
        say(addresses["forward"], [msgpack.packb(message)])
    say(addresses["beats"], [b"2W" + struct.pack(">I", 1) + b"2C" + struct.pack(">I", len(deflated)) + deflated])


def _long_lines(addresses: Addresses, pressure: Pressure) -> None:
    def pieces(head: bytes) -> Iterator[bytes]:
        yield head
        for _ in range(pressure.line_bytes // _MIB):
            yield b"x" * _MIB

    length = pressure.line_bytes + 64
    say(addresses["http"], pieces(http_request("/v1/events", b"", kind=_NDJSON, length=length) + b'{"message": "'))
    say(
        addresses["elasticsearch"],
        pieces(
            http_request("/_bulk", b"", kind=_NDJSON, length=length, Authorization=CREDENTIAL)
            + b'{"index": {}}\n{"message": "'
        ),
    )
    say(addresses["syslog"], pieces(b"<165>1 2026-01-01T00:00:00Z shop till 7 PAID - "))
    say(addresses["syslog"], pieces(b"%d <165>1 " % length))
    say(addresses["forward"], pieces(b"\x93\xa4shop\x01\x81\xa1m\xdb" + struct.pack(">I", pressure.line_bytes)))
    say(addresses["beats"], pieces(b"2W" + struct.pack(">I", 1) + b"2J" + struct.pack(">II", 1, pressure.line_bytes)))


def _halves(addresses: Addresses, pressure: Pressure) -> None:
    """Long messages without their ends, more than there is room for; then the ends of most of them, together."""
    message = msgpack.packb(["shop", 1, {"message": "x" * (15 * _MIB)}, {"chunk": "halved"}])
    open_ones = [one for _ in range(12) if (one := connected(addresses["forward"])) is not None]
    for said, connections in ((message[:-_MIB], open_ones), (message[-_MIB:], open_ones[:-3])):
        for connection in connections:
            with suppress(OSError):
                connection.sendall(said)
        time.sleep(min(2.0, pressure.slow_seconds))  # honest senders go on beside them
    linger(open_ones, reset=False)


def _slow(addresses: Addresses, pressure: Pressure) -> None:
    samples = _samples()
    open_ones = [
        (samples[use], connection)
        for use in TCP
        for _ in range(pressure.slow_connections)
        if (connection := connected(addresses[use])) is not None
    ]
    end = time.monotonic() + pressure.slow_seconds
    at = 0
    while time.monotonic() < end:
        for sample, connection in open_ones:
            with suppress(OSError):
                connection.send(sample[at : at + 1] if at < len(sample) - 1 else b"")
        at += 1
        time.sleep(0.25)  # slowness is the point
    linger([connection for _, connection in open_ones], reset=False)


def _idle(addresses: Addresses, pressure: Pressure) -> None:
    open_ones: list[socket.socket] = []
    for at in range(pressure.idle_connections):
        connection = connected(addresses[TCP[at % len(TCP)]], seconds=5.0)
        if connection is not None:
            open_ones.append(connection)
    time.sleep(min(5.0, pressure.slow_seconds))  # honest senders go on beside them
    linger(open_ones, reset=True)


def _wrong_keys(addresses: Addresses, pressure: Pressure) -> None:
    document = b'{"index": {}}\n{"message": "stranger"}\n'
    wrong = (CREDENTIAL + "x", "Bearer ", "Basic " + "A" * 8_000, "ApiKey !!!")

    def one(at: int) -> None:
        shown = wrong[at % len(wrong)]
        say(addresses["elasticsearch"], [http_request("/_bulk", document, kind=_NDJSON, Authorization=shown)])
        knock(addresses["syslog_tls"])

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(one, range(pressure.rounds)))


def _half_closed(addresses: Addresses, pressure: Pressure) -> None:
    samples = _samples()

    def one(at: int) -> None:
        use = TCP[at % len(TCP)]
        reset = at // len(TCP) % 2 == 0
        connection = connected(addresses[use])
        if connection is None:
            return
        with suppress(OSError):
            connection.sendall(samples[use][: len(samples[use]) * 2 // 3])
            if not reset:
                connection.shutdown(socket.SHUT_WR)
                connection.settimeout(0.2)
                connection.recv(1)
        linger([connection], reset=reset)

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(one, range(pressure.rounds * len(TCP))))


def _values(addresses: Addresses, pressure: Pressure) -> None:
    del pressure
    times = (-1, -(2**63), 2**63 - 1, 253_402_300_800_000_000_000)
    lines = [json.dumps({"message": "hostile", "time": one}).encode() for one in times]
    lines += [
        b'{"message": "\xff\xfe\xc0\x80"}',
        b'{"message": "\\ud800"}',
        b'{"a": ' * 100_000 + b"1" + b"}" * 100_000,
    ]
    say(addresses["http"], [http_request("/v1/events", b"\n".join(lines) + b"\n", kind=_NDJSON)])
    body = b"".join(b'{"index": {}}\n' + line + b"\n" for line in lines)
    say(addresses["elasticsearch"], [http_request("/_bulk", body, kind=_NDJSON, Authorization=CREDENTIAL)])
    for one in (2**64 - 1, 2**63, 0):
        export = ExportLogsServiceRequest()
        record = export.resource_logs.add().scope_logs.add().log_records.add()
        record.time_unix_nano = one
        record.body.string_value = "hostile"
        say(addresses["http"], [http_request("/v1/logs", export.SerializeToString(), kind=_PROTOBUF)])
    say(addresses["http"], [http_request("/v1/logs", _deep_export(), kind=_PROTOBUF)])
    records = [[-1, {"message": "hostile"}], [2**64 - 1, {"message": "hostile"}], [1, {b"\xff": b"\xff"}]]
    say(addresses["forward"], [msgpack.packb(["shop", records, {"chunk": "values"}])])
    say(addresses["forward"], [b"\x93\xa4shop\x01" + b"\x91" * 200_000 + b"\x90"])
    documents = [*lines[:-1], b"[" * 100_000]
    frames = b"".join(b"2J" + struct.pack(">II", at + 1, len(one)) + one for at, one in enumerate(documents))
    say(addresses["beats"], [b"2W" + struct.pack(">I", len(documents)) + frames])
    for line in (
        b"<165>1 9999-99-99T99:99:99Z \xff \xfe - - [" + b"[" * 10_000,
        b"<999999>1 x",
        b"<165>Jan 99 99:99:99 h x",
    ):
        say(addresses["syslog"], [b"%d %b" % (len(line), line)], answer_seconds=0.3)


def _deep_export() -> bytes:
    """A log record whose body is a list in a list, 90 deep: as deep as the protobuf library writes."""
    value = AnyValue(string_value="deep")
    for _ in range(90 // 2):
        value = AnyValue(array_value=ArrayValue(values=[value]))
    export = ExportLogsServiceRequest()
    export.resource_logs.add().scope_logs.add().log_records.add().body.CopyFrom(value)
    return export.SerializeToString()


ATTACKS = (
    Attack(name="bytes, random and mutated", press=_fuzz, reasons=frozenset({"bad_message", "bad_syslog", "framing"})),
    Attack(name="gzip, zstd and deflate bombs", press=_bombs, reasons=frozenset({"framing", "too_large"})),
    Attack(name="lines without an end", press=_long_lines, reasons=frozenset({"framing", "too_large"})),
    Attack(name="long messages, halved", press=_halves, reasons=frozenset({"overloaded", "too_large"})),
    Attack(name="a byte now and then", press=_slow, reasons=frozenset({"cut_message"})),
    Attack(name="idle connections", press=_idle, reasons=frozenset({"connection_lost"})),
    Attack(name="wrong keys, no certificate", press=_wrong_keys, reasons=frozenset({"credentials"})),
    Attack(
        name="half messages, half-closed and reset",
        press=_half_closed,
        reasons=frozenset({"connection_lost", "cut_message"}),
    ),
    Attack(
        name="times, UTF-8 and nesting", press=_values, reasons=frozenset({"bad_msgpack", "bad_syslog", "too_deep"})
    ),
)
