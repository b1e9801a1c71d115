"""What every destination promises, asked of all of them: in memory, HTTP in each envelope, syslog over TCP and TLS, and a real Kafka."""

from __future__ import annotations

import asyncio
import json
import ssl
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import msgspec
import pytest

from audit_api.siem.destination import Destination
from audit_api.siem.http import HttpSender
from audit_api.siem.record import Record
from audit_api.siem.settings import HttpSettings, KafkaSettings, SyslogSettings
from audit_api.siem.syslog import SyslogSender
from collector.errors import Overloaded
from deploy.streaming import open_destination
from tests.servers.certificates import Authority
from tests.servers.kafka import PASSWORD, USER, Kafka
from tests.support.ledgers import SmallLedger
from tests.support.siems import MemoryDestination, http_sink, records_of, syslog_sink

WAYS = ("memory", "ndjson", "splunk", "bulk", "https", "tcp", "tls", pytest.param("kafka", marks=pytest.mark.kafka))


class Way:
    """A destination, and what has come out at its other end."""

    def __init__(self, destination: Destination, got: Callable[[], list[bytes]]) -> None:
        self.destination = destination
        self.got = got

    def leaves(self) -> list[int]:
        return [json.loads(one[one.index(b"{") :])["leaf"] for one in self.got()]


def server_tls(authority: Authority) -> ssl.SSLContext:
    certificate, key = authority.issue("siem")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    return context


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Way]:
    name = request.param
    with ExitStack() as stack:
        if name == "memory":
            memory = MemoryDestination()
            yield Way(memory, lambda: memory.got)
            return
        if name == "kafka":
            yield from _kafka(request.getfixturevalue("kafka"))
            return
        authority = Authority(tmp_path / "tls") if name in ("https", "tls") else None
        served = server_tls(authority) if authority else None
        trusted = ssl.create_default_context(cafile=str(authority.ca)) if authority else None
        if name in ("tcp", "tls"):
            sink = stack.enter_context(syslog_sink(tls=served))
            host, port = sink.address
            syslog = SyslogSettings(name="s", host=host, port=port, format="json", tls=trusted is not None)
            yield Way(SyslogSender(syslog, tls=trusted, hostname="here"), lambda: sink.got)
            return
        envelope = "ndjson" if name == "https" else name
        sink = stack.enter_context(http_sink(envelope=envelope, tls=served))
        scheme = "https" if served else "http"
        table = {
            "name": "h",
            "url": f"{scheme}://127.0.0.1:{sink.address[1]}/in",
            "envelope": envelope,
            "format": "json",
        }
        settings = msgspec.convert({"kind": "http"} | table, HttpSettings)
        sender = HttpSender(settings, tls=trusted, token=lambda: "", clock=lambda: 0)
        yield Way(sender, lambda: sink.got)
        sender.close()


def _kafka(server: Kafka) -> Iterator[Way]:
    from audit_api.siem.kafka import KafkaSender

    topic = f"siem-{uuid.uuid4().hex[:8]}"
    asyncio.run(made_topic(server.address, topic))
    settings = KafkaSettings(name="k", brokers=(server.address,), topic=topic, tls=False)
    sender = KafkaSender(settings, tls=None, password=lambda: "")
    yield Way(sender, lambda: [value for _, value in asyncio.run(consumed(server.address, topic))])
    sender.close()


async def made_topic(address: str, topic: str, **configuration: str) -> None:
    from aiokafka.admin import AIOKafkaAdminClient, NewTopic

    admin = AIOKafkaAdminClient(bootstrap_servers=address)
    await admin.start()
    try:
        await admin.create_topics([NewTopic(topic, 2, 1, topic_configs=configuration)])
    finally:
        await admin.close()


async def consumed(address: str, topic: str) -> list[tuple[str, bytes]]:
    """Key and value of all there is, by leaf: Kafka keeps the order within a partition."""
    from aiokafka import AIOKafkaConsumer, TopicPartition

    consumer = AIOKafkaConsumer(bootstrap_servers=address)
    await consumer.start()
    try:
        partitions = [TopicPartition(topic, number) for number in range(2)]
        consumer.assign(partitions)
        await consumer.seek_to_beginning()
        ends = await consumer.end_offsets(partitions)
        found = []
        for partition in partitions:
            leaf = -1
            while await consumer.position(partition) < ends[partition]:
                one = await consumer.getone(partition)
                assert json.loads(one.value)["leaf"] >= leaf, "in order within a partition"
                leaf = json.loads(one.value)["leaf"]
                assert dict(one.headers)["tally-id"].decode() == json.loads(one.value)["id"]
                found.append((one.key.decode(), one.value))
    finally:
        await consumer.stop()
    return sorted(found, key=lambda one: int(json.loads(one[1])["leaf"]))


def test_all_is_there_in_order_on_return(way: Way, ledger: SmallLedger) -> None:
    records = records_of(ledger)
    way.destination.send([])
    way.destination.send(records[:10])
    assert way.leaves() == list(range(10)), "on return, not some time later"
    way.destination.send(records[10:])
    assert way.leaves() == list(range(len(records)))
    for one, sent in zip(way.got(), records, strict=True):
        assert json.loads(one[one.index(b"{") :]) == json.loads(sent.data)


def sent_at_last(sender: Destination, records: Sequence[Record]) -> None:
    """As a stream does it: a broker that takes connections may not take records yet."""
    for trial in range(20):
        try:
            sender.send(records)
        except Overloaded:
            assert trial < 19
        else:
            return


@pytest.mark.kafka
@pytest.mark.timeout(400)
def test_kafka_that_refuses_what_is_long_and_that_is_killed(ledger: SmallLedger) -> None:
    from audit_api.siem.kafka import KafkaSender

    with Kafka() as server:
        asyncio.run(
            made_topic(server.address, "short", **{"max.message.bytes": "1100", "compression.type": "uncompressed"})
        )
        settings = KafkaSettings(name="k", brokers=(server.address,), topic="short", tls=False, timeout_seconds=5)
        sender = KafkaSender(settings, tls=None, password=lambda: "")
        records = [one for one in records_of(ledger) if one.row.entry.kind in ("event", "verdict")]
        sender.send(records[:4])
        server.kill()
        with pytest.raises(Overloaded, match=r"kafka://127\.0\.0\.1"):
            sender.send(records[4:])
        server.start()
        sent_at_last(sender, records[4:])
        sender.close()
        found = [json.loads(value) for _, value in asyncio.run(consumed(server.address, "short"))]
    assert {one["leaf"] for one in found} == {one.row.leaf for one in records}
    cut = [one for one in found if "cut" in one]
    assert cut
    assert all(one["cut"]["why"] == "refused" for one in cut)


@pytest.mark.kafka
def test_kafka_over_tls_with_a_password_that_was_wrong_at_first(
    kafka: Kafka, tmp_path: Path, ledger: SmallLedger, caplog: pytest.LogCaptureFixture
) -> None:
    topic = f"siem-{uuid.uuid4().hex}"
    asyncio.run(made_topic(kafka.address, topic))
    certificate, key = kafka.authority.issue("siem")
    password = tmp_path / "password"
    password.write_text("open, please\n")
    settings = KafkaSettings(
        name="k", brokers=(kafka.secure_address,), topic=topic, timeout_seconds=5, ca_file=str(kafka.authority.ca),
        client_certificate=str(certificate), client_key=str(key), sasl="SCRAM-SHA-512", user=USER, password_file=str(password),
    )  # fmt: skip
    records = records_of(ledger)
    sender = open_destination(settings)
    try:
        with pytest.raises(Overloaded, match=r"kafka://127\.0\.0\.1"):
            sender.send(records)
        assert "Authentication failed" in caplog.text, "why, the library says in the log"
        password.write_text(f"{PASSWORD}\n")
        sender.send(records)  # the same one: the file is read at each connection
    finally:
        sender.close()
    got = asyncio.run(consumed(kafka.address, topic))
    assert len(got) == len(records)
