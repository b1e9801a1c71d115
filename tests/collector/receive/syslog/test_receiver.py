"""Syslog over real sockets: TCP in both framings, TLS, UDP; pressure, bounds, and what is lost is counted."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from collector.receive.syslog.receiver import SyslogReceiver
from tests.support.memory_intake import MemoryIntake

HELLO = b"<14>1 2026-01-01T00:00:00Z host app - - - hello"


class Listening:
    """A receiver that listens over an intake in memory; `refused` counts what it turned away or lost."""

    def __init__(self, **limits: Any) -> None:
        self.intake = MemoryIntake()
        self.refused: Counter[str] = Counter()
        self.heard = asyncio.Event()
        self.receiver = SyslogReceiver(
            self.intake,
            clock=lambda: 1_767_225_600_000_000_000,
            refused=self._refuse,
            **limits,
        )

    def _refuse(self, reason: str) -> None:
        self.refused[reason] += 1
        self.heard.set()

    async def taken(self, count: int) -> None:
        """Until so many messages were taken or refused."""
        while len(self.intake.events) + len(self.intake.dead) < count:
            self.intake.called.clear()
            await asyncio.sleep(0.001)

    @property
    def bodies(self) -> list[Any]:
        return [event.body for event in self.intake.events]


def run(story: Callable[[Listening], Awaitable[None]], **limits: Any) -> Listening:
    async def told() -> Listening:
        listening = Listening(**limits)
        async with asyncio.timeout(20):
            await story(listening)
            await listening.receiver.close(0.2)
        return listening

    return asyncio.run(told())


async def send(port: int, *pieces: bytes, tls: ssl.SSLContext | None = None) -> None:
    _, writer = await asyncio.open_connection(
        "127.0.0.1", port, ssl=tls, server_hostname="localhost" if tls else None
    )  # fmt: skip
    for piece in pieces:
        writer.write(piece)
        await writer.drain()
    writer.close()
    await writer.wait_closed()


def test_both_framings_and_a_bad_message_between_good_ones() -> None:
    async def story(listening: Listening) -> None:
        port = await listening.receiver.listen_tcp("127.0.0.1", 0)
        await send(port, b"%d %b" % (len(HELLO), HELLO), HELLO + b" again\n", b"GET / HTTP/1.1\n", HELLO + b" last")
        await listening.taken(4)

    listening = run(story)
    assert listening.bodies == ["hello", "hello again", "hello last"]
    assert listening.intake.events[0].attributes["network.peer.address"] == "127.0.0.1"
    assert listening.intake.events[2].marks == ["unterminated"]
    ((raw, error, origin),) = listening.intake.dead
    assert (raw, error.label, origin.receiver) == (b"GET / HTTP/1.1", "bad_syslog", "syslog")


def test_a_long_message_is_a_dead_letter_and_costs_no_memory() -> None:
    async def story(listening: Listening) -> None:
        port = await listening.receiver.listen_tcp("127.0.0.1", 0)
        long = HELLO + b"x" * 300_000
        await send(port, b"%d " % len(long), long, long, b"\n", HELLO + b"\n")
        await listening.taken(3)

    listening = run(story, max_message_bytes=2_048)
    assert listening.bodies == ["hello"]
    assert [(len(raw), error.label) for raw, error, _ in listening.intake.dead] == [(2_048, "too_large")] * 2


def test_pressure_makes_the_sender_wait_and_loses_nothing() -> None:
    async def story(listening: Listening) -> None:
        listening.intake.overloaded = 3
        port = await listening.receiver.listen_tcp("127.0.0.1", 0)
        await send(port, *[HELLO + b" %d\n" % at for at in range(500)])
        await listening.taken(500)

    listening = run(story)
    assert listening.bodies == [f"hello {at}" for at in range(500)]
    assert not listening.refused


def test_what_a_stop_lets_go_is_counted() -> None:
    async def story(listening: Listening) -> None:
        listening.intake.overloaded = 1_000_000
        listening.intake.retry_after_seconds = 1.0
        port = await listening.receiver.listen_tcp("127.0.0.1", 0)
        await send(port, HELLO + b"\n" + HELLO + b"\n")
        await listening.intake.called.wait()

    assert run(story).refused == {"unacknowledged_lost": 2}


def test_a_stop_counts_what_a_tls_sender_that_has_left_had_said(certificate: tuple[Path, Path]) -> None:
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(*certificate)
    client = ssl.create_default_context(cafile=str(certificate[0]))

    async def story(listening: Listening) -> None:
        listening.intake.overloaded = 1_000_000
        listening.intake.retry_after_seconds = 1.0
        port = await listening.receiver.listen_tcp("127.0.0.1", 0, tls=server)
        _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=client, server_hostname="localhost")
        writer.write(HELLO + b"\n")
        await listening.intake.called.wait()
        writer.transport.abort()
        (ours,) = listening.receiver._connections.values()
        while ours.get_extra_info("socket") is not None:  # noqa: ASYNC110 - the receiver has no event for it
            await asyncio.sleep(0.001)

    assert run(story).refused == {"unacknowledged_lost": 1}


def test_connections_are_bounded() -> None:
    async def story(listening: Listening) -> None:
        port = await listening.receiver.listen_tcp("127.0.0.1", 0)
        held = [await asyncio.open_connection("127.0.0.1", port) for _ in range(3)]
        assert await held[2][0].read() == b""
        held[0][1].write(HELLO + b"\n")
        await listening.taken(1)
        for _, writer in held:
            writer.close()
            await writer.wait_closed()

    listening = run(story, max_connections=2)
    assert listening.refused["too_many_connections"] == 1


def test_udp_one_message_a_datagram() -> None:
    async def story(listening: Listening) -> None:
        port = await listening.receiver.listen_udp("127.0.0.1", 0)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            for data in (HELLO, HELLO + b" again\n", b"no syslog", b""):
                sender.sendto(data, ("127.0.0.1", port))
        await listening.taken(3)

    listening = run(story)
    assert listening.bodies == ["hello", "hello again"]
    assert [error.label for _, error, _ in listening.intake.dead] == ["bad_syslog"]


def test_datagrams_that_do_not_fit_are_dropped_and_counted() -> None:
    async def story(listening: Listening) -> None:
        listening.intake.hold = asyncio.Event()
        port = await listening.receiver.listen_udp("127.0.0.1", 0)
        large = HELLO + b"x" * 60_000
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            for _ in range(400):
                sender.sendto(large, ("127.0.0.1", port))
                await asyncio.sleep(0)
        await listening.heard.wait()
        listening.intake.hold.set()

    listening = run(story)
    assert 100 < len(listening.bodies) < 400


def test_tls_with_and_without_client_certificates(certificate: tuple[Path, Path]) -> None:
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(*certificate)
    client = ssl.create_default_context(cafile=str(certificate[0]))
    demanding = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    demanding.load_cert_chain(*certificate)
    demanding.load_verify_locations(certificate[0])
    demanding.verify_mode = ssl.CERT_REQUIRED
    known = ssl.create_default_context(cafile=str(certificate[0]))
    known.load_cert_chain(*certificate)

    async def story(listening: Listening) -> None:
        port = await listening.receiver.listen_tcp("127.0.0.1", 0, tls=server)
        await send(port, b"%d %b" % (len(HELLO), HELLO), tls=client)
        await listening.taken(1)
        port = await listening.receiver.listen_tcp("127.0.0.1", 0, tls=demanding)
        await send(port, b"%d %b" % (len(HELLO), HELLO), tls=known)
        await listening.taken(2)
        with contextlib.suppress(OSError):  # the alert may come first, or the end
            await send(port, HELLO + b"\n", tls=client)

    assert run(story).bodies == ["hello", "hello"]
