"""A real Kafka: what a message becomes, what is committed and when, a rebalance, a broker that goes away."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from aiokafka.producer import message_accumulator, producer
from aiokafka.record.default_records import _DefaultRecordBatchBuilderPy

from collector.receive.kafka.consumer import KafkaConsumer
from collector.receive.kafka.settings import KafkaSettings
from tests.servers.certificates import Authority
from tests.servers.kafka import PASSWORD, USER, Kafka
from tests.support.consumption import Consumption
from tests.support.kafka_topics import Message, committed, make_topic, produce
from tests.support.memory_intake import MemoryIntake

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(240)]

TRACEPARENT = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def consuming(intake: MemoryIntake, *, address: str, topic: str, **further: Any) -> Consumption:
    own: dict[str, Any] = {"group": topic, "commit_seconds": 0.05, "session_timeout_seconds": 2.0} | further
    settings = KafkaSettings(brokers=(address,), topics=(topic,), **own)
    return Consumption(lambda report: KafkaConsumer(settings, intake, clock=time.time_ns, report=report))


def numbered(count: int, start: int = 0) -> list[Message]:
    return [(None, b"%d" % number, []) for number in range(start, start + count)]


def test_the_events_of_a_saga(kafka: Kafka) -> None:
    async def story() -> None:
        intake = MemoryIntake()
        topic = await make_topic(kafka.address)
        headers = [("traceparent", TRACEPARENT), ("Saga-Id", b"saga-7"), ("baggage", b"tenant=a"), ("x", b"\xff")]
        saga = {"event_name": "PaymentReserved", "amount": 5, "service": "payments"}
        await produce(kafka.address, topic, [(b"order-1", json.dumps(saga).encode(), headers)], compression="zstd")
        await produce(kafka.address, topic, [(b"order-1", None, [])], compression="lz4")
        await produce(kafka.address, topic, [(None, b"plain \xff", [])], compression="snappy")
        settings = {"transaction_header": "saga-id", "service": "orders", "tenant": "shop"}
        async with consuming(intake, address=kafka.address, topic=topic, **settings) as consumption:
            await consumption.until(lambda: len(intake.events) == 3)
        reserved, tombstone, text = intake.events
        assert (reserved.event_name, reserved.transaction, reserved.tenant) == ("PaymentReserved", "saga-7", "shop")
        assert (reserved.trace_id, reserved.span_id) == ("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331")
        assert reserved.trace_flags == 1
        assert reserved.resource == {"service.name": "payments"}
        assert abs(time.time() - _seconds(reserved.time)) < 120
        assert reserved.attributes == {
            "amount": 5,
            "baggage": "tenant=a",
            "messaging.system": "kafka",
            "messaging.destination.name": topic,
            "messaging.destination.partition.id": "0",
            "messaging.kafka.offset": 0,
            "messaging.kafka.message.key": "order-1",
            "messaging.message.header.traceparent": TRACEPARENT.decode(),
            "messaging.message.header.Saga-Id": "saga-7",
            "messaging.message.header.baggage": "tenant=a",
            "messaging.message.header.x": "/w==",
        }
        assert reserved.origin is not None
        assert (reserved.origin.receiver, reserved.origin.tag, reserved.origin.offset) == ("kafka", f"{topic}/0", 0)
        assert tombstone.attributes["messaging.kafka.message.tombstone"] is True
        assert (text.attributes["log.record.original"], text.resource) == ("cGxhaW4g/w==", {"service.name": "orders"})
        assert await committed(kafka.address, topic) == {0: 3}
        assert consumption.reports[-1][2] == 1
        assert sum(told[3] for told in consumption.reports) == 3

    asyncio.run(story())


def test_nothing_is_committed_before_it_is_durable_and_pressure_pauses(kafka: Kafka) -> None:
    async def story() -> None:
        intake = MemoryIntake(overloaded=3)
        topic = await make_topic(kafka.address)
        good: list[Message] = [(None, b'{"message": "%d"}' % number, []) for number in range(20)]
        await produce(kafka.address, topic, [*good[:10], (None, b"{not json", []), *good[10:]])
        intake.hold = asyncio.Event()
        async with consuming(intake, address=kafka.address, topic=topic, format="json") as consumption:
            await consumption.until(lambda: intake.overloaded == 0)
            await asyncio.sleep(0.4)  # several times as long as a commit needs
            assert await committed(kafka.address, topic) == {}
            intake.hold.set()
            await consumption.until(lambda: len(intake.events) == 20)
        assert await committed(kafka.address, topic) == {0: 21}
        assert [(raw, origin.tag, origin.offset) for raw, _, origin in intake.dead] == [
            (b"{not json", f"{topic}/0", 10)
        ]

    asyncio.run(story())


def test_a_header_whose_name_is_not_utf_8_holds_nothing_up(kafka: Kafka, monkeypatch: pytest.MonkeyPatch) -> None:
    class Name(str):
        __slots__ = ()

        def encode(self, *_: Any) -> bytes:
            return b"caf\xe9"  # as clients write it whose strings are bytes

    for module in (message_accumulator, producer):
        monkeypatch.setattr(module, "DefaultRecordBatchBuilder", _DefaultRecordBatchBuilderPy)

    async def story() -> None:
        intake = MemoryIntake()
        topic = await make_topic(kafka.address)
        bad: Message = (None, b"bad", [(Name("name"), b"1"), ("saga-id", b"saga-7")])
        await produce(kafka.address, topic, [*numbered(2), bad, *numbered(2, 2)], compression="gzip")
        place: dict[str, Any] = {"address": kafka.address, "topic": topic, "transaction_header": "saga-id"}
        async with consuming(intake, **place) as consumption:
            await consumption.until(lambda: len(intake.events) == 5)
        assert [event.body for event in intake.events] == ["0", "1", "bad", "2", "3"]
        assert intake.events[2].attributes[r"messaging.message.header.caf\xe9"] == "1"
        assert intake.events[2].transaction == "saga-7"
        assert await committed(kafka.address, topic) == {0: 5}

    asyncio.run(story())


def test_latest_begins_at_the_end_once_and_goes_on_from_there(kafka: Kafka) -> None:
    async def story() -> None:
        intake = MemoryIntake()
        topic = await make_topic(kafka.address)
        await produce(kafka.address, topic, numbered(5))
        async with consuming(intake, address=kafka.address, topic=topic, start="latest"):
            while await committed(kafka.address, topic) != {0: 5}:  # noqa: ASYNC110 - the broker tells nobody
                await asyncio.sleep(0.05)
        await produce(kafka.address, topic, numbered(5, 5))  # while nobody reads
        async with consuming(intake, address=kafka.address, topic=topic, start="latest") as consumption:
            await consumption.until(lambda: len(intake.events) == 5)
        assert [event.body for event in intake.events] == ["5", "6", "7", "8", "9"]

    asyncio.run(story())


def test_a_second_member_takes_over_exactly_where_the_first_was(kafka: Kafka) -> None:
    async def story() -> None:
        one, other = MemoryIntake(), MemoryIntake()
        topic = await make_topic(kafka.address, partitions=4)
        place: dict[str, Any] = {"address": kafka.address, "topic": topic, "batch_messages": 50, "commit_seconds": 60.0}

        written = 0

        async def write(count: int) -> None:
            nonlocal written
            for partition in range(4):
                await produce(kafka.address, topic, numbered(count, written), partition=partition)
                written += count

        await write(500)
        async with consuming(one, **place) as first:
            await first.until(lambda: len(one.events) >= 400)
            async with consuming(other, **place) as second:
                while len(other.events) < 50:  # the group takes its time
                    await write(50)
                await second.until(lambda: len(one.events) + len(other.events) >= written)
            await write(10)  # the second has left: the first has it all again
            await first.until(lambda: len(one.events) + len(other.events) >= written)
        counts = Counter(str(event.body) for event in (*one.events, *other.events))
        # commits are a minute apart: what was not committed when partitions were given back would stand in both
        assert counts == Counter(str(number) for number in range(written))

    asyncio.run(story())


def test_tls_with_a_certificate_and_a_password(kafka: Kafka, tmp_path: Path) -> None:
    async def story() -> None:
        topic = await make_topic(kafka.address)
        await produce(kafka.address, topic, numbered(3))
        certificate, key = kafka.authority.issue("collector")
        (tmp_path / "right").write_text(f"{PASSWORD}\n")
        (tmp_path / "wrong").write_text("open, please")
        secure: dict[str, Any] = {
            "address": kafka.secure_address,
            "topic": topic,
            "tls": True,
            "tls_ca": str(kafka.authority.ca),
            "tls_certificate": str(certificate),
            "tls_key": str(key),
            "sasl": "SCRAM-SHA-512",
            "user": USER,
        }
        async with consuming(MemoryIntake(), **secure, password_file=str(tmp_path / "wrong")) as refused:
            await asyncio.sleep(1.0)
            assert {told[2] for told in refused.reports} == {0}
        strange = secure | {"tls_ca": str(Authority(tmp_path).ca), "password_file": str(tmp_path / "right")}
        async with consuming(MemoryIntake(), **strange) as refusing:
            await asyncio.sleep(1.0)
            assert {told[2] for told in refusing.reports} == {0}
        intake = MemoryIntake()
        async with consuming(intake, **secure, password_file=str(tmp_path / "right")) as consumption:
            await consumption.until(lambda: len(intake.events) == 3)

    asyncio.run(story())


def test_a_broker_that_is_away_is_told_and_tried_again(kafka: Kafka, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")

    async def story() -> None:
        intake = MemoryIntake()
        topic = await make_topic(kafka.address)
        kafka.kill()
        async with consuming(intake, address=kafka.address, topic=topic) as consumption:
            await asyncio.sleep(1.0)
            assert {told[2] for told in consumption.reports} == {0}
            await asyncio.to_thread(kafka.start)
            await produce(kafka.address, topic, numbered(3))
            await consumption.until(lambda: len(intake.events) == 3)
            assert consumption.reports[-1][2] == 1
        said = [record.message for record in caplog.records if record.name == "collector.receive.standing"]
        assert "nothing is read" in said[0]
        assert said[-1].endswith("the broker answers again")

    asyncio.run(story())


def _seconds(time_text: str) -> float:
    from collector.event import parse_time

    return parse_time(time_text) / 1e9
