"""The Beats receiver over real sockets: acks, keepalives, pressure, ids, TLS. The sender is byte vectors: test_go_lumber.py has a real one."""

from __future__ import annotations

import asyncio
import json
import ssl
import struct
import zlib
from collections.abc import Callable, Coroutine, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Self

import pytest

from collector.errors import Overloaded
from collector.receive import Arrival, Receipt
from collector.receive.beats import BeatsReceiver
from collector.receive.lumberjack import Limits
from tests.servers.certificates import Authority
from tests.support.memory_intake import MemoryIntake

NOW_NS = 1_700_000_000_000_000_000


class Sender:
    """Says windows, hears acks."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    def say(self, *documents: Any, window: int | None = None, zipped: bool = False) -> None:
        content = b""
        for sequence, document in enumerate(documents, 1):
            payload = document if isinstance(document, bytes) else json.dumps(document).encode()
            content += b"2J" + struct.pack(">II", sequence, len(payload)) + payload
        if zipped:
            content = zlib.compress(content)
            content = b"2C" + struct.pack(">I", len(content)) + content
        self.writer.write(b"2W" + struct.pack(">I", len(documents) if window is None else window) + content)

    async def hear(self) -> int:
        """The next ack's sequence."""
        answer = await self.reader.readexactly(6)
        assert answer[:2] == b"2A"
        return int(struct.unpack(">I", answer[2:])[0])

    async def hear_the_end(self) -> None:
        with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
            await self.hear()


class Setting:
    """A receiver on a port of its own, its intake, the reasons it counted, and senders; closed at the end."""

    def __init__(self, intake: MemoryIntake | None = None, **options: Any) -> None:
        self.intake = intake or MemoryIntake()
        self.reasons: list[str] = []
        self.receiver = BeatsReceiver(self.intake, clock=lambda: NOW_NS, refused=self.reasons.append, **options)
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        self.port = await self.receiver.listen(port=0)
        self._stack.push_async_callback(self.receiver.close, 2.0)
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._stack.aclose()

    async def sender(self) -> Sender:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        self._stack.callback(writer.close)
        return Sender(reader, writer)

    async def counted(self, reason: str) -> None:
        """Wait until the receiver has counted `reason`."""
        await until(lambda: reason in self.reasons)

    def bodies(self) -> list[Any]:
        return [event.body for event in self.intake.events]


async def until(holds: Callable[[], bool]) -> None:
    while not holds():  # noqa: ASYNC110 - the receiver has no event for it
        await asyncio.sleep(0.01)


def run(story: Coroutine[Any, Any, None]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(20):
            await story

    asyncio.run(bounded())


@pytest.mark.parametrize("zipped", [False, True])
def test_the_ack_goes_out_after_the_intake_has_returned_and_until_then_only_signs_of_life(zipped: bool) -> None:
    async def story() -> None:
        async with Setting(keepalive_seconds=0.02) as at:
            at.intake.hold = asyncio.Event()
            sender = await at.sender()
            sender.say({"message": "a"}, {"message": "b"}, zipped=zipped)
            assert [await sender.hear() for _ in range(3)] == [0, 0, 0]
            assert at.bodies() == []
            at.intake.hold.set()
            while (heard := await sender.hear()) == 0:
                pass
            assert heard == 2
            assert at.bodies() == ["a", "b"]
            sender.say({"message": "c"})
            assert await sender.hear() == 1

    run(story())


def test_a_long_window_is_acknowledged_in_parts() -> None:
    async def story() -> None:
        async with Setting(part_documents=2) as at:
            sender = await at.sender()
            sender.say(*[{"n": n} for n in range(5)])
            assert [await sender.hear() for _ in range(3)] == [2, 4, 5]
        async with Setting(part_bytes=10) as at:
            sender = await at.sender()
            sender.say(*[{"number": n} for n in range(2)], window=3)
            assert [await sender.hear() for _ in range(2)] == [1, 2]
            sender.say({"n": 3}, window=1)  # a new window, though the one before it was not full
            assert await sender.hear() == 1

    run(story())


class KeptButLate(MemoryIntake):
    """What `ack = "store"` gives while the store is slow: taken, and yet Overloaded."""

    late = 2

    async def accept(self, arrivals: Sequence[Arrival], **options: Any) -> Receipt:
        receipt = await super().accept(arrivals, **options)
        if self.late:
            self.late -= 1
            raise Overloaded("kept, but the store has not taken it", retry_after_seconds=0.01)
        return receipt


def test_pressure_holds_the_sender_and_doubles_nothing() -> None:
    async def story() -> None:
        async with Setting() as at:
            at.intake.overloaded = 3
            sender = await at.sender()
            sender.say(b"broken", {"message": "a"})
            assert await sender.hear() == 2
            assert (at.bodies(), len(at.intake.dead)) == (["a"], 1)
        async with Setting(KeptButLate()) as at:
            sender = await at.sender()
            sender.say({"message": "a"})
            assert await sender.hear() == 1
            sender.say({"message": "a"})  # said again by the sender, without an id: another event
            assert await sender.hear() == 1
            assert at.bodies() == ["a", "a"]

    run(story())


def test_documents_that_are_none_become_dead_letters_and_the_window_goes_on() -> None:
    async def story() -> None:
        async with Setting(max_document_bytes=100) as at:
            sender = await at.sender()
            sender.say(b"", b"[1]", {"m": "x" * 200}, b'{"message":"good"}', b"{" * 50)
            assert await sender.hear() == 5
            assert at.bodies() == ["good"]
            labels = [error.label for _, error, _ in at.intake.dead]
            assert labels == ["bad_json", "bad_json", "too_large", "bad_json"]
            assert {origin.receiver for _, _, origin in at.intake.dead} == {"beats"}

    run(story())


def test_what_identifies_a_document_identifies_it_on_any_connection() -> None:
    line = {
        "@timestamp": "2026-01-02T03:04:05.678Z",
        "@metadata": {"beat": "filebeat", "version": "9.1.0"},
        "log": {"file": {"path": "/var/log/a.log"}, "offset": 10},
        "message": "a line",
    }
    backwards = {name: line[name] for name in reversed(line)}
    named = {"@metadata": {"beat": "filebeat", "_id": "x1"}, "message": "named", "n": 1}

    async def story() -> None:
        async with Setting() as at:
            for documents in (
                [line, named],
                [backwards, {**named, "n": 2}],
                [{"message": "no id"}],
                [{"message": "no id"}],
            ):
                sender = await at.sender()
                sender.say(*documents)
                assert await sender.hear() == len(documents)
            assert at.bodies() == ["a line", "named", "no id", "no id"]
            first = at.intake.events[0]
            assert (first.origin and first.origin.tag, first.time) == ("filebeat", "2026-01-02T03:04:05.678000000Z")
            assert first.attributes["log.file.path"] == "/var/log/a.log"
            assert first.attributes["@metadata"] == line["@metadata"]

    run(story())


def test_version_1() -> None:
    async def story() -> None:
        async with Setting(service="shop") as at:
            sender = await at.sender()
            fields = b"".join(struct.pack(">I", len(text)) + text for text in (b"line", b"hi", b"file", b"/a"))
            sender.writer.write(b"1W" + struct.pack(">I", 1) + b"1D" + struct.pack(">II", 42, 2) + fields)
            assert await sender.reader.readexactly(6) == b"1A" + struct.pack(">I", 42)
            (event,) = at.intake.events
            assert (event.body, event.attributes, event.service) == ("hi", {"file": "/a"}, "shop")

    run(story())


def test_what_is_no_lumberjack_ends_the_connection_without_an_ack_and_leaves_one_letter() -> None:
    async def story() -> None:
        async with Setting() as at:
            for _ in range(2):
                sender = await at.sender()
                sender.writer.write(b"GET / HTTP/1.1\r\n\r\n")
                await sender.hear_the_end()
            assert at.reasons == ["framing", "framing"]
            assert [raw for raw, _, _ in at.intake.dead] == [b"GET / HTTP/1.1\r\n\r\n"]

    run(story())


def test_a_sender_that_leaves_in_the_middle_knows_what_was_not_acknowledged() -> None:
    async def story() -> None:
        async with Setting() as at:
            sender = await at.sender()
            sender.say({"message": "a"}, window=2)
            sender.writer.close()
            await at.counted("cut_message")
            assert at.bodies() == []

    run(story())


def test_a_sender_that_stalls_in_the_middle_of_a_window_is_closed_and_an_idle_one_is_not() -> None:
    async def story() -> None:
        async with Setting(stalled_seconds=0.1) as at:
            idle, stalled = await at.sender(), await at.sender()
            stalled.say({"message": "a"}, window=2)
            await stalled.hear_the_end()
            assert at.reasons == ["stalled"]
            idle.say({"message": "b"})
            assert await idle.hear() == 1

    run(story())


@pytest.mark.parametrize("zipped", [False, True])
def test_a_long_window_that_comes_a_byte_now_and_then_gives_its_room_back(zipped: bool) -> None:
    async def story() -> None:
        async with Setting(stalled_seconds=0.3) as at:
            trickling = await at.sender()
            trickling.say({"message": "a" * 2_000_000}, window=2, zipped=zipped)
            trickling.writer.write(b"2J" + struct.pack(">II", 2, 1_000))
            await until(lambda: at.receiver.room.used_bytes > 2_000_000)
            while not at.reasons:
                trickling.writer.write(b" ")
                await asyncio.sleep(0.05)  # sooner than it stalls: that is what is tested
            assert at.reasons == ["overloaded"]
            await until(lambda: at.receiver.room.used_bytes == 0)

    run(story())


def test_a_sender_that_vanishes_while_the_intake_is_overloaded_frees_its_place() -> None:
    async def story() -> None:
        async with Setting(keepalive_seconds=0.02) as at:
            at.intake.overloaded = 10**6
            sender = await at.sender()
            sender.say({"message": "a"})
            assert await sender.hear() == 0
            sender.writer.transport.abort()
            await at.counted("connection_lost")
            await until(lambda: not at.receiver._connections)

    run(story())


def test_connections_and_memory_have_bounds() -> None:
    async def story() -> None:
        async with Setting(max_connections=1) as at:
            first, second = await at.sender(), await at.sender()
            await second.hear_the_end()
            first.say({"message": "a"})
            assert await first.hear() == 1
            assert at.reasons == ["too_many_connections"]
        async with Setting(room_bytes=3 * 2**20, limits=Limits(max_frame_bytes=8 * 2**20)) as at:
            first, second = await at.sender(), await at.sender()
            half = b"2W" + struct.pack(">I", 1) + b"2J" + struct.pack(">II", 1, 4 * 2**20) + b" " * 2**21
            first.writer.write(half)
            await until(lambda: at.receiver.room.used_bytes >= 2**21)
            second.writer.write(half)
            await second.hear_the_end()
            assert at.reasons == ["overloaded"]

    run(story())


class Broken(MemoryIntake):
    async def accept(self, arrivals: Sequence[Arrival], **options: Any) -> Receipt:
        raise ValueError(f"a defect met by {len(arrivals)} arrivals and {options}")


def test_a_defect_gives_no_ack_and_harms_nobody_else() -> None:
    async def story() -> None:
        async with Setting(Broken()) as at:
            for _ in range(2):
                sender = await at.sender()
                sender.say({"message": "a"})
                await sender.hear_the_end()
            assert at.reasons == ["intake_error"] * 2

    run(story())


def test_close_finishes_what_is_in_flight() -> None:
    async def story() -> None:
        async with Setting() as at:
            at.intake.hold = asyncio.Event()
            sender, idle = await at.sender(), await at.sender()
            sender.say({"message": "a"})
            await at.intake.called.wait()
            closing = asyncio.create_task(at.receiver.close(5.0))
            await idle.hear_the_end()
            at.intake.hold.set()
            assert await sender.hear() == 1
            await sender.hear_the_end()
            await closing
            assert at.bodies() == ["a"]

    run(story())


def test_a_close_that_waits_in_vain_gives_no_ack() -> None:
    async def story() -> None:
        async with Setting() as at:
            at.intake.hold = asyncio.Event()
            sender = await at.sender()
            sender.say({"message": "a"})
            await at.intake.called.wait()
            await at.receiver.close(0.05)
            await sender.hear_the_end()
            assert at.bodies() == []

    run(story())


def test_close_ends_though_a_tls_sender_has_left_while_its_documents_wait(certificate: tuple[Path, Path]) -> None:
    terms = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    terms.load_cert_chain(*certificate)
    context = ssl.create_default_context(cafile=str(certificate[0]))

    async def story() -> None:
        async with Setting() as at:
            at.intake.hold = asyncio.Event()
            port = await at.receiver.listen(port=0, tls=terms)
            reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname="localhost")
            Sender(reader, writer).say({"message": "a"})
            await at.intake.called.wait()
            writer.transport.abort()
            (ours,) = at.receiver._connections.values()
            await until(lambda: ours._writer.get_extra_info("socket") is None)
            at.intake.hold.set()
            await at.receiver.close(5.0)
            assert at.bodies() == ["a"]

    run(story())


def test_tls_with_client_certificates(tmp_path: Path) -> None:
    authority = Authority(tmp_path / "ours")
    (certificate, key), (client, client_key) = authority.issue("collector"), authority.issue("filebeat")
    stranger, stranger_key = Authority(tmp_path / "theirs").issue("filebeat")
    terms = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    terms.load_cert_chain(certificate, key)
    terms.load_verify_locations(authority.ca)
    terms.verify_mode = ssl.CERT_REQUIRED

    async def story() -> None:
        async with Setting() as at:
            port = await at.receiver.listen(port=0, tls=terms)
            context = ssl.create_default_context(cafile=authority.ca)
            context.load_cert_chain(client, client_key)
            reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
            sender = Sender(reader, writer)
            sender.say({"message": "over TLS"}, zipped=True)
            assert await sender.hear() == 1
            writer.close()
            context = ssl.create_default_context(cafile=authority.ca)
            context.load_cert_chain(stranger, stranger_key)
            reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
            refused = Sender(reader, writer)
            refused.say({"message": "by a stranger"})
            with pytest.raises((ssl.SSLError, ConnectionError, asyncio.IncompleteReadError)):
                await refused.hear()
            writer.transport.abort()
            assert at.bodies() == ["over TLS"]

    run(story())
