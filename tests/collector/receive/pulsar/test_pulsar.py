"""A real Pulsar: what a message becomes, when it is acknowledged, who else takes over, a broker that goes away."""

from __future__ import annotations

import asyncio
import json
import ssl
import time
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import _pulsar
import pytest

from collector.event import parse_time
from collector.receive import Arrival, Receipt
from collector.receive.pulsar.consumer import PulsarConsumer
from collector.receive.pulsar.settings import PulsarSettings
from collector.sender import OURSELVES, Sender
from tests.servers.certificates import Authority
from tests.servers.pulsar import Pulsar
from tests.support.consumption import Consumption
from tests.support.memory_intake import MemoryIntake
from tests.support.pulsar_frames import send_broken_compression
from tests.support.pulsar_topics import backlog, client, produce, subscription

pytestmark = [pytest.mark.pulsar, pytest.mark.timeout(240)]

TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def consuming(intake: MemoryIntake, *topics: str, address: str, **further: Any) -> Consumption:
    settings = PulsarSettings(brokers=(address,), topics=topics, **further)
    return Consumption(lambda report: PulsarConsumer(settings, intake, report=report))


def numbered(count: int, start: int = 0) -> list[bytes]:
    return [b"%d" % number for number in range(start, start + count)]


def bodies(*intakes: MemoryIntake) -> list[str]:
    return sorted((str(event.body) for intake in intakes for event in intake.events), key=int)


async def until(condition: Callable[[], object]) -> None:
    """Wait until the broker says so; it tells nobody by itself."""
    deadline = time.monotonic() + 60
    while not await asyncio.to_thread(condition):
        assert time.monotonic() < deadline, "what was waited for did not come"
        await asyncio.sleep(0.05)


def test_the_events_of_a_saga(pulsar: Pulsar) -> None:
    async def story() -> None:
        intake = MemoryIntake()
        topic = pulsar.make_topic()
        properties = {"traceparent": TRACEPARENT, "Saga-Id": "saga-7", "baggage": "tenant=a"}
        saga = {"event_name": "PaymentReserved", "amount": 5, "service": "payments"}
        with client(pulsar) as made:
            producer = made.create_producer(topic, producer_name="shop-7")
            producer.send(
                json.dumps(saga).encode(), properties, partition_key="order-1", event_timestamp=1_767_225_600_000
            )
            producer.send(b"plain \xff", deliver_after=timedelta(0))
        settings = {"transaction_property": "saga-id", "service": "orders", "tenant": "shop"}
        async with consuming(intake, topic, address=pulsar.address, **settings) as consumption:
            await consumption.until(lambda: len(intake.events) == 2)
        reserved, text = intake.events
        assert (reserved.event_name, reserved.transaction, reserved.tenant) == ("PaymentReserved", "saga-7", "shop")
        assert (reserved.trace_id, reserved.span_id) == ("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331")
        assert (reserved.time, reserved.resource) == ("2026-01-01T00:00:00.000000000Z", {"service.name": "payments"})
        place = reserved.attributes.pop("messaging.message.id").split(":")
        assert (len(place), place[1:3]) == (4, ["0", "-1"])
        published = parse_time(reserved.attributes.pop("messaging.pulsar.message.publish_time"))
        assert abs(time.time() - published / 1e9) < 120
        assert reserved.attributes == {
            "amount": 5,
            "baggage": "tenant=a",
            "messaging.system": "pulsar",
            "messaging.destination.name": f"persistent://public/default/{topic}",
            "messaging.destination.subscription.name": "tallystick",
            "messaging.pulsar.message.key": "order-1",
            "messaging.pulsar.producer.name": "shop-7",
            "messaging.message.header.traceparent": TRACEPARENT,
            "messaging.message.header.Saga-Id": "saga-7",
            "messaging.message.header.baggage": "tenant=a",
        }
        assert (text.attributes["log.record.original"], text.resource) == ("cGxhaW4g/w==", {"service.name": "orders"})
        assert abs(time.time() - parse_time(text.time) / 1e9) < 120
        assert backlog(pulsar, topic, "tallystick") == 0
        assert consumption.reports[-1][:3] == ("pulsar", "tallystick", 1)
        assert sum(told[3] for told in consumption.reports) == 2

    asyncio.run(story())


def test_nothing_is_acknowledged_before_it_is_durable_and_nothing_more_is_asked_for(pulsar: Pulsar) -> None:
    async def story() -> None:
        intake = MemoryIntake(overloaded=3)
        topic = pulsar.make_topic()
        good = [b'{"message": "%d"}' % number for number in range(200)]
        produce(pulsar, topic, [*good[:10], b"{not json", *good[10:]])
        intake.hold = asyncio.Event()
        further: dict[str, Any] = {"format": "json", "batch_messages": 20, "prefetch": 30}
        async with consuming(intake, topic, address=pulsar.address, **further) as consumption:
            await consumption.until(lambda: intake.overloaded == 0)
            # on a slow disk messages come one by one, and the group that is held is as short as that: what is prefetched is out in any case
            await until(lambda: subscription(pulsar, topic, "tallystick")["unackedMessages"] >= 30)
            await asyncio.sleep(0.4)  # several times as long as an acknowledgement needs
            told = await asyncio.to_thread(subscription, pulsar, topic, "tallystick")
            assert (told["msgBacklog"], told["unackedMessages"] <= 50) == (201, True), told
            intake.hold.set()
            await consumption.until(lambda: len(intake.events) == 200)
        assert backlog(pulsar, topic, "tallystick") == 0
        place = f"persistent://public/default/{topic}"
        assert [(raw, origin.tag) for raw, _, origin in intake.dead] == [(b"{not json", place)]
        assert [event.body for event in intake.events] == [str(number) for number in range(200)]

    asyncio.run(story())


class Cut(MemoryIntake):
    """Takes 30 events or a few more, and once never says so: the instant between the fsync and the acknowledgement."""

    cuts = 1

    async def accept(
        self,
        arrivals: Sequence[Arrival],
        *,
        group_id: bytes | None = None,
        heard: bool = True,
        sender: Sender = OURSELVES,
    ) -> Receipt:
        receipt = await MemoryIntake.accept(self, arrivals, group_id=group_id, heard=heard, sender=sender)
        if len(self.events) >= 30 and self.cuts:
            self.cuts -= 1
            await asyncio.Event().wait()
        return receipt


def test_what_was_not_acknowledged_comes_again_and_is_recognised(pulsar: Pulsar) -> None:
    """An entry is acknowledged when all of its messages are: those of one that was cut by a crash come again."""

    async def story() -> None:
        intake = Cut()
        topic = pulsar.make_topic(partitions=2)
        produce(pulsar, topic, numbered(100), together=10, keys=["a", "b", "c"])
        place: dict[str, Any] = {"address": pulsar.address, "batch_messages": 7}
        async with consuming(intake, topic, **place) as consumption:
            await consumption.until(lambda: len(intake.events) >= 30)
            await consumption.crash()
        taken = len(intake.events)
        assert taken < 40
        async with consuming(intake, topic, **place) as again:
            await again.until(lambda: len(intake.events) == 100)
        assert sum(told[3] for told in again.reports) > 100 - taken  # some came twice
        assert bodies(intake) == [str(number) for number in range(100)]
        for partition in range(2):
            assert backlog(pulsar, f"{topic}-partition-{partition}", "tallystick") == 0

    asyncio.run(story())


@pytest.mark.parametrize("kind", ["key_shared", "shared"])
def test_another_consumer_joins_and_takes_over_and_nothing_comes_twice(pulsar: Pulsar, kind: str) -> None:
    async def story() -> None:
        one, other = MemoryIntake(), MemoryIntake()
        topic = pulsar.make_topic()
        place: dict[str, Any] = {
            "address": pulsar.address,
            "batch_messages": 50,
            "prefetch": 100,
            "subscription_type": kind,
        }
        keys = [f"k{number}" for number in range(40)]
        written = 0

        async def write(count: int) -> None:
            nonlocal written
            await asyncio.to_thread(produce, pulsar, topic, numbered(count, written), keys=keys)
            written += count

        def have() -> int:
            return len(one.events) + len(other.events)

        await write(1_000)
        async with consuming(other, topic, **place) as second:
            async with consuming(one, topic, **place) as first:
                while not (one.events and other.events):
                    await write(100)
                await first.until(lambda: have() >= 600)
            # the first has left in the middle of it: the second has the rest
            await write(100)
            await second.until(lambda: have() >= written)
        assert Counter(bodies(one, other)) == Counter(str(number) for number in range(written))

    asyncio.run(story())


def test_a_failover_subscription_stands_by_and_takes_over(pulsar: Pulsar) -> None:
    async def story() -> None:
        one, other = MemoryIntake(), MemoryIntake()
        topic = pulsar.make_topic()
        place: dict[str, Any] = {"address": pulsar.address, "subscription_type": "failover"}
        async with consuming(one, topic, **place) as first:
            await asyncio.to_thread(produce, pulsar, topic, numbered(20))
            await first.until(lambda: len(one.events) == 20)
        async with consuming(other, topic, **place) as second:
            await asyncio.to_thread(produce, pulsar, topic, numbered(20, 20))
            await second.until(lambda: len(other.events) == 20)
        assert [event.body for event in (*one.events, *other.events)] == [str(number) for number in range(40)]

    asyncio.run(story())


def test_latest_begins_at_the_end_once_and_goes_on_from_there(pulsar: Pulsar) -> None:
    async def story() -> None:
        intake = MemoryIntake()
        topic = pulsar.make_topic()
        produce(pulsar, topic, numbered(5))
        async with consuming(intake, topic, address=pulsar.address, start="latest"):
            await until(lambda: backlog(pulsar, topic, "tallystick") == 0)
        produce(pulsar, topic, numbered(5, 5))  # while nobody reads
        async with consuming(intake, topic, address=pulsar.address, start="latest") as consumption:
            await consumption.until(lambda: len(intake.events) == 5)
        assert [event.body for event in intake.events] == ["5", "6", "7", "8", "9"]

    asyncio.run(story())


def test_properties_that_are_no_text_stop_nothing(pulsar: Pulsar) -> None:

    async def story() -> None:
        intake = MemoryIntake()
        topic = pulsar.make_topic()
        with client(pulsar) as made:
            producer = made.create_producer(topic)
            raw = _pulsar.MessageBuilder().content(b"odd").property(b"x", b"\xff")  # which other clients send
            producer._producer.send(raw.build())
            producer.send(b"next")
        async with consuming(intake, topic, address=pulsar.address) as consumption:
            await consumption.until(lambda: len(intake.events) == 2)
        assert [(event.body, event.marks) for event in intake.events] == [("odd", ["headers_cut"]), ("next", [])]

    asyncio.run(story())


def test_a_message_that_the_client_lets_go_of_is_told(pulsar: Pulsar, caplog: pytest.LogCaptureFixture) -> None:
    async def story() -> None:
        intake = MemoryIntake()
        topic = pulsar.make_topic()
        produce(pulsar, topic, [b"before"])
        send_broken_compression(pulsar, topic, b"\xff" * 10)
        produce(pulsar, topic, [b"behind"])
        async with consuming(intake, topic, address=pulsar.address) as consumption:
            await consumption.until(lambda: len(intake.events) == 2 and caplog.messages)
        assert [event.body for event in intake.events] == ["before", "behind"]
        assert backlog(pulsar, topic, "tallystick") == 0  # it is gone, and our log is all that is left of it
        (told,) = caplog.messages
        assert told.startswith("pulsar: the client lets go of a message that it cannot read: ")
        assert topic in told
        assert "Failed to decompress" in told

    asyncio.run(story())


def test_tls_with_a_certificate_and_a_token(pulsar: Pulsar, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def story() -> None:
        topic = pulsar.make_topic()
        certificate, key = pulsar.authority.issue("collector")
        token = tmp_path / "token"
        token.write_text(pulsar.token() + "\n")
        secure: dict[str, Any] = {
            "address": pulsar.secure_address,
            "tls": True,
            "tls_ca": str(pulsar.authority.ca),
            "tls_certificate": str(certificate),
            "tls_key": str(key),
        }
        intake = MemoryIntake()
        async with consuming(intake, topic, **secure, token_file=str(token)) as consumption:
            produce(pulsar, topic, numbered(3))
            await consumption.until(lambda: len(intake.events) == 3)
        async with consuming(intake, topic, **secure) as by_certificate:  # by which it says who it is
            produce(pulsar, topic, numbered(3, 3))
            await by_certificate.until(lambda: len(intake.events) == 6)
        strange = secure | {"tls_ca": str(Authority(tmp_path).ca)}
        async with consuming(MemoryIntake(), topic, **strange, token_file=str(token)) as refusing:
            await refusing.until(lambda: len(refusing.reports) > 2)
            assert {told[2] for told in refusing.reports} == {0}
            assert "certificate verify failed" in caplog.text
        token.write_text(pulsar.token()[:-4] + "AAAA")  # of another key
        async with consuming(intake, topic, **secure, token_file=str(token)) as refused:
            produce(pulsar, topic, numbered(3, 6))
            await asyncio.sleep(1.0)  # several times as long as it takes to be let in
            assert {told[2] for told in refused.reports} == {0}
            token.write_text(pulsar.token())  # it is read again when the next connection is made
            await refused.until(lambda: len(intake.events) == 9)

    asyncio.run(story())


@pytest.mark.parametrize(("hosts", "refused"), [(("elsewhere.example",), True), ((), False)])
def test_a_certificate_of_another_host_is_refused(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, hosts: tuple[str, ...], refused: bool
) -> None:
    authority = Authority(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*authority.issue("broker", hosts=hosts))

    async def story() -> None:
        said: asyncio.Queue[bytes] = asyncio.Queue()

        async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            said.put_nowait(await reader.read(4))  # the length of CONNECT; nothing, where the client hangs up
            writer.close()

        server = await asyncio.start_server(listen, "127.0.0.1", 0, ssl=context)
        async with server:
            address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
            async with consuming(MemoryIntake(), "t", address=address, tls=True, tls_ca=str(authority.ca)) as one:
                if refused:
                    await one.until(lambda: "certificate verify failed" in caplog.text)
                else:
                    assert await said.get() != b""
            assert {told[2] for told in one.reports} == {0}

    asyncio.run(story())


def test_a_broker_that_is_away_is_told_and_tried_again(pulsar: Pulsar, caplog: pytest.LogCaptureFixture) -> None:

    caplog.set_level("INFO")

    async def story() -> None:
        intake = MemoryIntake()
        topic = pulsar.make_topic()
        async with consuming(intake, topic, address=pulsar.address) as consumption:
            produce(pulsar, topic, numbered(3))
            await consumption.until(lambda: len(intake.events) == 3)
            pulsar.kill()
            await consumption.until(lambda: consumption.reports[-1][2] == 0)
            await asyncio.to_thread(pulsar.start)
            await asyncio.to_thread(produce, pulsar, topic, numbered(3, 3))
            await consumption.until(lambda: len(intake.events) == 6)
            assert consumption.reports[-1][2] == 1
        said = [record.message for record in caplog.records if record.name == "collector.receive.standing"]
        assert said[0] == "pulsar tallystick: nothing is read: the connection is lost"
        assert said[-1].endswith("the broker answers again")
        assert bodies(intake) == ["0", "1", "2", "3", "4", "5"]

    asyncio.run(story())


def test_it_ends_at_once_though_the_broker_says_nothing() -> None:
    async def story() -> None:
        came: asyncio.Queue[asyncio.StreamWriter] = asyncio.Queue()
        silent = await asyncio.start_server(lambda _, writer: came.put_nowait(writer), "127.0.0.1", 0)
        async with silent:
            port = silent.sockets[0].getsockname()[1]
            consumption = consuming(MemoryIntake(), "t", address=f"127.0.0.1:{port}")
            async with consumption:
                writer = await came.get()
                began = time.monotonic()
            assert time.monotonic() - began < 5  # the library would wait for ten
            assert {told[2] for told in consumption.reports} == {0}
            writer.close()
            await writer.wait_closed()

    asyncio.run(story())
