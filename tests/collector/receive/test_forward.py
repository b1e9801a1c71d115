"""The Forward receiver over real sockets, and with a real sender: the fluent-logger package, unmodified."""

from __future__ import annotations

import asyncio
import ssl
import stat
from collections.abc import Sequence
from pathlib import Path

import msgpack
import pytest
from fluent import sender as fluent_sender

from collector import sender as senders
from collector.receive import Arrival, Receipt
from collector.receive.forward import ForwardReceiver
from collector.receive.forward_group import Limits
from tests.support.forwarding import NOW_NS, Sender, Setting, run
from tests.support.memory_intake import MemoryIntake


def test_the_ack_goes_out_after_the_intake_has_returned_and_not_before() -> None:
    async def story() -> None:
        async with Setting() as at:
            at.intake.hold = asyncio.Event()
            sender = await at.sender()
            sender.say(["t", [[1, {"message": "a"}]], {"chunk": "c1"}])
            await at.intake.called.wait()
            waiting = asyncio.create_task(sender.hear())
            await asyncio.sleep(0.05)  # nothing can be awaited for what must not come
            assert not waiting.done()
            assert at.intake.events == []
            at.intake.hold.set()
            assert await waiting == {"ack": "c1"}
            assert [event.body for event in at.intake.events] == ["a"]

    run(story())


def test_acks_come_in_the_order_of_the_chunks_with_several_in_flight() -> None:
    async def story() -> None:
        async with Setting(in_flight=4) as at:
            sender = await at.sender()
            sender.say(*[["t", n, {"n": n}, {"chunk": f"c{n}"}] for n in range(100)])
            assert [await sender.hear() for _ in range(100)] == [{"ack": f"c{n}"} for n in range(100)]
            assert [event.attributes["n"] for event in at.intake.events] == list(range(100))

    run(story())


class CountingIntake(MemoryIntake):
    """Counts how many calls wait at a time, and lets them go once three do."""

    waiting = 0
    most = 0

    async def accept(
        self,
        arrivals: Sequence[Arrival],
        *,
        group_id: bytes | None = None,
        heard: bool = True,
        sender: senders.Sender = senders.OURSELVES,
    ) -> Receipt:
        assert self.hold is not None
        self.waiting += 1
        self.most = max(self.most, self.waiting)
        if self.waiting == 3:
            asyncio.get_running_loop().call_later(0.05, self.hold.set)
        try:
            return await super().accept(arrivals, group_id=group_id, heard=heard, sender=sender)
        finally:
            self.waiting -= 1


def test_no_more_groups_are_in_flight_than_allowed() -> None:
    async def story() -> None:
        intake = CountingIntake(hold=asyncio.Event())
        async with Setting(intake, in_flight=3) as at:
            sender = await at.sender()
            sender.say(*[["t", n, {}, {"chunk": f"c{n}"}] for n in range(20)])
            for _ in range(20):
                await sender.hear()
            assert intake.most == 3

    run(story())


def test_a_chunk_sent_again_is_acknowledged_again_and_stored_once() -> None:
    async def story() -> None:
        async with Setting() as at:
            for _ in range(2):
                sender = await at.sender()
                sender.say(["t", [[1, {"message": "a"}]], {"chunk": "same"}])
                assert await sender.hear() == {"ack": "same"}
            assert len(at.intake.events) == 1

    run(story())


def test_messages_of_fluent_bit_with_the_hash_of_nothing_for_a_chunk_are_told_by_their_content() -> None:
    """Its Message mode, as of 2026: all messages have the same id."""
    chunk = "cf83e1357eefb8bdf1542850d66d8007"

    async def story() -> None:
        async with Setting() as at:
            sender = await at.sender()
            for body in ("a", "b", "a", "c"):
                sender.say(["t", 1, {"message": body}, {"chunk": chunk}])
                assert await sender.hear() == {"ack": chunk}
            assert [event.body for event in at.intake.events] == ["a", "b", "c"]

    run(story())


def test_a_refused_message_is_in_the_dead_letters_before_its_ack() -> None:
    async def story() -> None:
        async with Setting() as at:
            sender = await at.sender()
            sender.say(["t", b"\x92\x01", {"chunk": "bad"}])
            assert await sender.hear() == {"ack": "bad"}
            assert [error.label for _, error, _ in at.intake.dead] == ["bad_msgpack"]
            assert at.intake.dead[0][2].tag == "t"

    run(story())


def test_a_chunk_that_comes_again_leaves_one_dead_letter_of_each_bad_record() -> None:
    async def story() -> None:
        async with Setting() as at:
            sender = await at.sender()
            for chunk in ("a", "a", "b"):
                sender.say(["t", [[1, {"message": "good"}], [1], [2]], {"chunk": chunk}])
                assert await sender.hear() == {"ack": chunk}
            assert [raw for raw, _, _ in at.intake.dead] == [b"\x91\1", b"\x91\2"] * 2

    run(story())


def test_a_message_whose_option_cannot_be_read_is_one_dead_letter_however_often_it_comes() -> None:
    """Nobody knows its chunk: its sender hears no ack, and comes again for ever."""
    option = b"\x82\xa5chunk\xa1c\xa1x\xd4\xff\0"  # a time of one byte

    async def story() -> None:
        async with Setting() as at:
            sender = await at.sender()
            one, other = (b"\x93\xa1t" + msgpack.packb(b"\x92\x01\x81\xa1a" + n) + option for n in (b"\1", b"\2"))
            for message in (one, one, other, one):
                sender.say(message)
            sender.say(["t", [], {"chunk": "end"}])
            assert await sender.hear() == {"ack": "end"}
            assert [raw for raw, _, _ in at.intake.dead] == [one, other]
            assert {error.label for _, error, _ in at.intake.dead} == {"bad_msgpack"}

    run(story())


def test_an_overloaded_intake_is_asked_again() -> None:
    async def story() -> None:
        async with Setting() as at:
            at.intake.overloaded = 2
            sender = await at.sender()
            sender.say(["t", 1, {"message": "a"}, {"chunk": "c"}])
            assert await sender.hear() == {"ack": "c"}
            assert at.reasons == []

    run(story())


def test_an_intake_that_stays_overloaded_closes_the_connection_without_an_ack() -> None:
    async def story() -> None:
        async with Setting() as at:
            at.intake.overloaded = 10**9
            sender = await at.sender()
            sender.say(["t", 1, {"message": "a"}, {"chunk": "c"}])
            await sender.hear_the_end()
            assert at.reasons == ["overloaded"]
            at.intake.overloaded = 0
            again = await at.sender()
            again.say(["t", 1, {"message": "a"}, {"chunk": "c"}])
            assert await again.hear() == {"ack": "c"}
            assert len(at.intake.events) == 1

    run(story())


def test_events_without_an_ack_are_held_until_they_are_taken() -> None:
    async def story() -> None:
        async with Setting() as at:
            at.intake.overloaded = 6  # far beyond the patience for groups with an ack
            sender = await at.sender()
            sender.say(["t", 1, {"message": "held"}])
            sender.writer.write_eof()
            await sender.hear_the_end()
            assert [event.body for event in at.intake.events] == ["held"]

    run(story())


def test_lost_framing_is_a_dead_letter_and_the_end_of_the_connection() -> None:
    async def story() -> None:
        async with Setting() as at:
            sender = await at.sender()
            sender.say(["t", 1, {"message": "good"}], b"\xc1\xc1\xc1")
            await sender.hear_the_end()
            assert [event.body for event in at.intake.events] == ["good"]
            ((raw, error, origin),) = at.intake.dead
            assert (raw, error.label, origin.receiver) == (b"\xc1\xc1\xc1", "bad_msgpack", "forward")
            assert at.reasons == ["framing"]

    run(story())


def test_a_message_beyond_the_limit_is_told_and_ends_the_connection() -> None:
    async def story() -> None:
        async with Setting(limits=Limits(max_message_bytes=10_000)) as at:
            sender = await at.sender()
            sender.say(["t", 1, {"message": "x" * 20_000}, {"chunk": "big"}])
            await sender.hear_the_end()
            assert [error.label for _, error, _ in at.intake.dead] == ["too_large"]
            assert len(at.intake.dead[0][0]) <= 65_536

    run(story())


def test_a_sender_that_leaves_in_the_middle_of_a_message_is_counted() -> None:
    async def story() -> None:
        async with Setting() as at:
            sender = await at.sender()
            sender.say(msgpack.packb(["t", 1, {"message": "cut"}])[:-2])
            sender.writer.write_eof()
            await sender.hear_the_end()
            assert at.reasons == ["cut_message"]
            assert at.intake.events == []

    run(story())


def test_a_connection_beyond_the_limit_takes_the_place_of_a_silent_one() -> None:
    async def story() -> None:
        async with Setting(max_connections=3) as at:
            first = await at.sender()
            first.say(["t", 1, {}, {"chunk": "a"}])
            await first.hear()
            silent = [await at.sender() for _ in range(4)]
            await silent[0].hear_the_end()
            await silent[1].hear_the_end()
            last = await at.sender()
            last.say(["t", 1, {}, {"chunk": "b"}])
            assert await last.hear() == {"ack": "b"}
            assert at.reasons == ["silent"] * 3
            first.say(["t", 1, {}, {"chunk": "c"}])
            assert await first.hear() == {"ack": "c"}

    run(story())


def test_a_connection_beyond_the_limit_is_closed_at_once() -> None:
    async def story() -> None:
        async with Setting(max_connections=1) as at:
            first = await at.sender()
            first.say(["t", 1, {}, {"chunk": "a"}])
            await first.hear()
            second = await at.sender()
            await second.hear_the_end()
            assert at.reasons == ["too_many_connections"]

    run(story())


def test_all_connections_together_hold_no_more_than_there_is_room_for() -> None:
    async def story() -> None:
        intake = CountingIntake(hold=asyncio.Event())
        async with Setting(intake, room_bytes=10_000) as at:
            senders = [await at.sender() for _ in range(10)]
            for number, sender in enumerate(senders):
                sender.say(["t", 1, {"message": "x" * 3_000}, {"chunk": f"c{number}"}])
            for number, sender in enumerate(senders):
                assert await sender.hear() == {"ack": f"c{number}"}
            assert intake.most == 3
            assert at.receiver.room.used_bytes == 0

    run(story())


def test_long_messages_that_become_whole_together_do_not_wait_for_one_another() -> None:
    async def story() -> None:
        intake = CountingIntake(hold=asyncio.Event())
        async with Setting(intake, room_bytes=10_000_000) as at:
            senders = [await at.sender() for _ in range(3)]
            messages = [msgpack.packb(["t", 1, {"m": "x" * 3_000_000}, {"chunk": f"c{n}"}]) for n in range(3)]
            for sender, message in zip(senders, messages, strict=True):
                sender.say(message[:-100])
            while at.receiver.room.used_bytes < 9_000_000 - 1_000:  # noqa: ASYNC110 - what happens elsewhere tells nobody
                await asyncio.sleep(0.01)
            for sender, message in zip(senders, messages, strict=True):
                sender.say(message[-100:])
            for number, sender in enumerate(senders):
                assert await sender.hear() == {"ack": f"c{number}"}
            assert at.receiver.room.used_bytes == 0
            assert at.reasons == []

    run(story())


def test_a_long_message_without_room_closes_its_connection() -> None:
    async def story() -> None:
        async with Setting(room_bytes=5_000_000) as at:
            sender = await at.sender()
            with at.receiver.room.claim() as others:
                others.add(4_000_000)
                sender.say(b"\x94\xa1t\x01\xdb\x00\x50\x00\x00" + b"x" * 3_000_000)
                await sender.hear_the_end()
            assert at.reasons[0] == "overloaded"
            assert at.receiver.room.used_bytes == 0

    run(story())


def test_a_long_message_that_does_not_go_on_gives_its_room_back_and_a_slow_one_keeps_it() -> None:
    async def story() -> None:
        async with Setting(room_bytes=10_000_000, stalled_seconds=1.0) as at:
            stalled, trickling, slow = await at.sender(), await at.sender(), await at.sender()
            stalled.say(msgpack.packb(["t", 1, {"m": "x" * 2_000_000}, {"chunk": "stalled"}])[:-100])
            trickling.say(msgpack.packb(["t", 1, {"m": "z" * 2_000_000}, {"chunk": "trickling"}])[:-100])
            message = msgpack.packb(["t", 1, {"m": "y" * 3_000_000}, {"chunk": "slow"}])
            step = len(message) // 20 + 1
            for at_byte in range(0, len(message), step):
                slow.say(message[at_byte : at_byte + step])
                await asyncio.sleep(0.1)
            assert await slow.hear() == {"ack": "slow"}
            while len(at.reasons) < 2:
                trickling.say(b"z")  # a byte now and then is no progress
                await asyncio.sleep(0.1)
            for gone in (stalled, trickling):
                await gone.hear_the_end()
            assert at.reasons == ["stalled", "stalled"]
            assert at.receiver.room.used_bytes == 0

    run(story())


def test_tls(certificate: tuple[Path, Path]) -> None:
    async def story() -> None:
        async with Setting() as at:
            server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            server.load_cert_chain(*certificate)
            port = await at.receiver.listen_tcp(port=0, tls=server)
            client = ssl.create_default_context(cafile=certificate[0])
            reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=client, server_hostname="localhost")
            sender = Sender(reader, writer)
            sender.say(["t", 1, {"message": "secret"}, {"chunk": "c"}])
            assert await sender.hear() == {"ack": "c"}
            writer.close()
            plain = Sender(*await asyncio.open_connection("127.0.0.1", port))
            plain.say(["t", 1, {"message": "in clear"}, {"chunk": "c"}])
            with pytest.raises((EOFError, OSError, msgpack.UnpackException, ValueError, AssertionError)):
                assert await plain.hear() == {"ack": "c"}
            plain.writer.close()
            assert [event.body for event in at.intake.events] == ["secret"]

    run(story())


def test_close_finishes_and_acknowledges_what_is_in_flight() -> None:
    async def story() -> None:
        async with Setting() as at:
            at.intake.hold = asyncio.Event()
            sender = await at.sender()
            sender.say(["t", 1, {"message": "a"}, {"chunk": "c"}])
            await at.intake.called.wait()
            closing = asyncio.create_task(at.receiver.close(5.0))
            await asyncio.sleep(0)
            at.intake.hold.set()
            assert await sender.hear() == {"ack": "c"}
            await sender.hear_the_end()
            await closing

    run(story())


def test_close_does_not_wait_forever_and_says_what_was_let_go() -> None:
    async def story() -> None:
        async with Setting() as at:
            at.intake.overloaded = 10**9
            sender = await at.sender()
            sender.say(["t", 1, {"message": "a"}], ["t", 1, {"message": "b"}])
            await at.intake.called.wait()
            await at.receiver.close(0.05)
            assert at.reasons.count("unacknowledged_lost") == 2

    run(story())


class BrokenIntake(MemoryIntake):
    async def accept(
        self,
        arrivals: Sequence[Arrival],
        *,
        group_id: bytes | None = None,
        heard: bool = True,
        sender: senders.Sender = senders.OURSELVES,
    ) -> Receipt:
        raise (RuntimeError if arrivals[0].event.attributes else OSError)(
            f"disk gone before {group_id!r}, heard: {heard}, {sender}"
        )


@pytest.mark.parametrize("record", [{}, {"a": 1}])
def test_a_broken_intake_gives_no_ack(record: dict[str, int]) -> None:
    async def story() -> None:
        async with Setting(BrokenIntake()) as at:
            sender = await at.sender()
            sender.say(["t", 1, record, {"chunk": "c"}])
            await sender.hear_the_end()
            assert at.reasons == ["intake_error"]

    run(story())


def test_unix_sockets_and_their_mode(tmp_path: Path) -> None:
    path = tmp_path / "forward.sock"

    async def story() -> None:
        for _ in range(2):  # the second finds the socket of the first
            intake = MemoryIntake()
            receiver = ForwardReceiver(intake, clock=lambda: NOW_NS)
            await receiver.listen_unix(path)
            assert stat.S_IMODE(path.stat().st_mode) == 0o660
            reader, writer = await asyncio.open_unix_connection(path)
            sender = Sender(reader, writer)
            sender.say(["t", 1, {"message": "a"}, {"chunk": "c"}])
            assert await sender.hear() == {"ack": "c"}
            writer.close()
            await receiver.close()
        assert not path.exists()

    run(story())


# ------------------------------------------------------------------------------------------------------ a real sender
@pytest.mark.parametrize("nanoseconds", [True, False])
def test_the_fluent_logger_package_is_understood(nanoseconds: bool) -> None:
    async def story() -> None:
        async with Setting() as at:

            def send() -> None:
                logger = fluent_sender.FluentSender(
                    "payments", host="127.0.0.1", port=at.port, nanosecond_precision=nanoseconds
                )
                for n in range(50):
                    assert logger.emit("authorise", {"message": f"event {n}", "level": "warning", "n": n})
                logger.close()

            await asyncio.to_thread(send)
            while len(at.intake.events) < 50:
                at.intake.called.clear()
                await at.intake.called.wait()
                await asyncio.sleep(0)  # what was called for is stored in the same turn
            event = at.intake.events[0]
            assert [event.attributes["n"] for event in at.intake.events] == list(range(50))
            assert (event.origin.tag if event.origin else "") == "payments.authorise"
            assert (event.service, event.severity_number, event.body) == ("payments", 13, "event 0")

    run(story())
