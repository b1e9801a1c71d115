"""The sidecar as a whole: events in over its real ports, batches out; and a disk that fails under it."""

from __future__ import annotations

import asyncio
import base64
import socket
import ssl
import struct
import sys
from pathlib import Path

import grpc
import grpc.aio
import httpx
import msgpack
import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from collector.batch import StreamId
from collector.disk import AppendFile, OsDisk
from collector.errors import Malformed, StateUnknown
from collector.event import Origin, decode_event
from collector.receive.syslog.settings import SyslogSettings
from collector.receive.tail.settings import TailSettings
from collector.settings import (
    BeatsSettings,
    CollectorSettings,
    ElasticsearchSettings,
    ForwardSettings,
    GrpcSettings,
    HttpSettings,
    SpoolSettings,
)
from collector.sidecar import run_sidecar
from collector.waysin import POSITIONS
from tests.servers.certificates import Authority
from tests.support.memory_store import MemoryStore
from tests.support.running_sidecar import SETTINGS, Running

JSON = {"content-type": "application/json"}
KEY = Ed25519PrivateKey.from_private_bytes(b"k" * 32)


def test_events_of_all_ports_are_shipped_and_a_stop_closes_the_stream(tmp_path: Path) -> None:
    async def life() -> Running:
        sidecar = Running(tmp_path / "spool")
        answer = await sidecar.post('{"message":"over http"}\n')
        assert answer.json()["stored"] == 1
        assert await sidecar.export_over_grpc("over grpc") == grpc.StatusCode.OK
        host, _, port = (await sidecar.ready)["forward"].rpartition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(msgpack.packb(["payments", 1_700_000_000, {"message": "over forward"}, {"chunk": "c1"}]))
        assert msgpack.unpackb(await reader.read(100)) == {"ack": "c1"}
        writer.close()
        sidecar.stopped.set()
        assert await sidecar.task
        return sidecar

    sidecar = asyncio.run(life())
    assert sorted(map(str, sidecar.bodies())) == ["over forward", "over grpc", "over http"]
    (stream,) = sidecar.store.batches
    assert stream.startswith("payments/")
    assert sidecar.store.batches[StreamId(stream)][max(sidecar.store.batches[stream])].signed.header.closed


def test_a_cloudevent_is_taken_on_the_same_port(tmp_path: Path) -> None:
    headers = {
        "ce-specversion": "1.0",
        "ce-id": "1",
        "ce-source": "/shop",
        "ce-type": "paid",
        "content-type": "text/plain",
    }

    async def life() -> Running:
        sidecar = Running(tmp_path / "spool")
        async with httpx.AsyncClient(trust_env=False) as client:
            url = f"http://{(await sidecar.ready)['http']}/v1/cloudevents"
            answer = await client.post(url, content=b"card 4111 1111 1111 1111", headers=headers)
        assert answer.json()["stored"] == 1
        sidecar.stopped.set()
        assert await sidecar.task
        return sidecar

    (body,) = asyncio.run(life()).bodies()
    assert str(body).startswith("card [4111 11** **** 1111")


def test_records_are_mapped_before_anything_is_written(tmp_path: Path) -> None:
    line = '203.0.113.7 - - [10/Oct/2026:13:55:36 +0200] "GET /pay HTTP/1.1" 502 2326 "-" "card 4111 1111 1111 1111" "req-1"'

    async def life() -> Running:
        sidecar = Running(tmp_path / "spool", settings=msgspec.structs.replace(SETTINGS, mappings=("preset:nginx",)))
        await sidecar.forward("nginx.access", 1_700_000_000, {"message": line}, {"chunk": "c1"})
        sidecar.stopped.set()
        assert await sidecar.task
        return sidecar

    batches = next(iter(asyncio.run(life()).store.batches.values())).values()
    batch = next(batch for batch in batches if batch.lengths)
    event = decode_event(batch.events[: batch.lengths[0]])
    assert (event.time, event.keys, event.outcome) == (
        "2026-10-10T11:55:36.000000000Z",
        {"request_id": "req-1"},
        "failure",
    )
    assert event.attributes["user_agent.original"].startswith("card [4111 11** **** 1111")
    assert "mapped:nginx-combined" in event.marks


def test_ways_in_that_are_off_unless_asked_for(tmp_path: Path) -> None:
    (tmp_path / "credentials").write_text("Basic shipper:s3cret\n", encoding="utf-8")
    settings = msgspec.structs.replace(
        SETTINGS,
        service="shop",
        elasticsearch=ElasticsearchSettings(port=0, credentials_file=str(tmp_path / "credentials")),
        beats=BeatsSettings(port=0),
    )

    async def life() -> Running:
        sidecar = Running(tmp_path / "spool", settings=settings)
        addresses = await sidecar.ready
        assert sorted(addresses) == ["beats", "elasticsearch", "forward", "grpc", "http"]
        url = f"http://{addresses['elasticsearch']}"
        async with httpx.AsyncClient(base_url=url, auth=("shipper", "s3cret"), trust_env=False) as client:
            assert (await client.get("/")).json()["name"] == "payments"
            lines = b'{"create":{"_index":"i"}}\n{"message":"over _bulk"}\n{"create":{"_index":"i"}}\n{broken\n'
            answer = await client.post("/_bulk", content=lines, headers={"content-type": "application/x-ndjson"})
            assert [item["create"]["status"] for item in answer.json()["items"]] == [201, 400]
            assert (await client.get("/", auth=("shipper", "guess"))).status_code == 401
        async with httpx.AsyncClient(base_url=f"http://{addresses['http']}", trust_env=False) as client:
            metrics = (await client.get("/metrics")).text
            assert 'tally_collector_refused_total{reason="credentials"} 1.0' in metrics
            assert 'tally_collector_refused_total{reason="bad_json"} 1.0' in metrics
        host, _, port = addresses["beats"].rpartition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        document = b'{"message":"over Lumberjack"}'
        writer.write(b"2W" + struct.pack(">I", 1) + b"2J" + struct.pack(">II", 1, len(document)) + document)
        assert await reader.readexactly(6) == b"2A" + struct.pack(">I", 1)
        writer.close()
        sidecar.stopped.set()
        assert await sidecar.task
        return sidecar

    sidecar = asyncio.run(life())
    assert sidecar.bodies() == ["over _bulk", "over Lumberjack"]


class FailingDisk(OsDisk):
    """A disk whose syncs fail from a moment on, as a dying drive's do."""

    failing = False

    def append_to(self, path: Path, *, reserve_bytes: int = 0) -> AppendFile:
        disk, file = self, super().append_to(path, reserve_bytes=reserve_bytes)

        class File:
            write, size, close = file.write, file.size, file.close

            def sync(self) -> None:
                if disk.failing:
                    raise OSError(5, "Input/output error")
                file.sync()

        return File()


def test_a_disk_that_fails_is_told_to_senders_and_ends_the_process(tmp_path: Path) -> None:
    async def life() -> None:
        disk = FailingDisk()
        sidecar = Running(tmp_path / "spool", disk)
        assert (await sidecar.post('{"message":"kept"}\n')).status_code == 200
        disk.failing = True
        answer = await sidecar.post('{"message":"not taken"}\n')
        assert answer.status_code == 503
        assert int(answer.headers["retry-after"]) >= 1
        with pytest.raises(StateUnknown, match="fsync failed"):
            await asyncio.wait_for(sidecar.task, 20)

    asyncio.run(life())


def test_a_port_that_is_taken_is_an_error_and_leaves_the_spool_free(tmp_path: Path) -> None:
    async def life() -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            settings = CollectorSettings(
                name="payments", forward=ForwardSettings(port=taken.getsockname()[1]), http=HttpSettings(port=-1)
            )
            with pytest.raises(OSError, match="Address already in use"):
                await run_sidecar(
                    settings,
                    root=tmp_path / "spool",
                    ledger="test/ledger",
                    store=MemoryStore(),
                    signing_key=KEY,
                    token_key=b"t" * 32,
                    stopped=asyncio.Event(),
                    ready=lambda _: None,
                )
        again = Running(tmp_path / "spool")
        await again.ready
        again.stopped.set()
        assert await again.task

    asyncio.run(life())


def test_grpc_that_is_not_installed_says_so_and_without_it_nothing_needs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "grpc", None)  # as where the extra is not installed
    monkeypatch.delitem(sys.modules, "collector.receive.otlp_grpc", raising=False)
    monkeypatch.delattr("collector.receive.otlp_grpc", raising=False)

    async def with_it() -> None:
        await Running(tmp_path / "missing").task

    with pytest.raises(Malformed, match=r"pip install 'tallystick\[grpc\]'"):
        asyncio.run(with_it())

    async def without() -> None:
        sidecar = Running(tmp_path / "without", settings=msgspec.structs.replace(SETTINGS, grpc=GrpcSettings()))
        assert "grpc" not in await sidecar.ready
        sidecar.stopped.set()
        assert await sidecar.task

    asyncio.run(without())


def test_metrics_are_counted_and_their_evidence_is_kept(tmp_path: Path) -> None:
    point = {"asInt": "1", "exemplars": [{"asInt": "1", "traceId": "1" * 32}, {"asInt": "1"}]}
    metrics = {"resourceMetrics": [{"scopeMetrics": [{"metrics": [{"name": "m", "sum": {"dataPoints": [point]}}]}]}]}

    async def life() -> str:
        sidecar = Running(tmp_path / "spool")
        async with httpx.AsyncClient(base_url=f"http://{(await sidecar.ready)['http']}", trust_env=False) as client:
            partial = (await client.post("/v1/metrics", json=metrics)).json()["partialSuccess"]
            assert partial["rejectedDataPoints"] == "1"
            assert "1 here" in partial["errorMessage"]
            assert (await client.post("/v1/metrics", content=b"{", headers=JSON)).status_code == 400
            shown = (await client.get("/metrics")).text
        assert (
            'tally_collector_refused_total{reason="bad_otlp"} 1.0' in shown
        )  # once, though it is a dead letter as well
        sidecar.stopped.set()
        assert await sidecar.task
        assert len(sidecar.bodies()) == 1
        return shown

    shown = asyncio.run(life())
    for sample in ('points_total{kind="sum"}', 'exemplars_total{fate="kept"}', 'exemplars_total{fate="untraced"}'):
        assert f"tally_collector_metric_{sample} 1.0" in shown


def test_with_store_acks_no_way_in_says_yes_before_the_store_has_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("collector.sidecar._STORE_PATIENCE_SECONDS", 0.2)
    monkeypatch.setattr("collector.waysin._FORWARD_PATIENCE_SECONDS", 0.5)

    async def life() -> Running:
        settings = msgspec.structs.replace(SETTINGS, ack="store")
        sidecar = Running(tmp_path / "spool", settings=settings)
        await sidecar.ready
        sidecar.store.down = "no route"
        chunk = ["payments", 1_700_000_000, {"message": "over forward"}, {"chunk": "c1"}]
        refused, exported, told, end = await asyncio.gather(
            sidecar.post('{"message":"over http"}\n', **{"idempotency-key": "k"}),
            sidecar.export("over otlp"),
            sidecar.export_over_grpc("over grpc"),
            sidecar.forward(*chunk),
        )
        for answer in (refused, exported):
            assert answer.status_code == 503
            assert int(answer.headers["retry-after"]) >= 1
        assert "the store has not taken it" in refused.json()["detail"]
        assert told == grpc.StatusCode.RESOURCE_EXHAUSTED
        assert end == b""  # closed without an ack
        # who asks for no ack is taken once, however long the store is down
        host, _, port = (await sidecar.ready)["forward"].rpartition(":")
        _, writer = await asyncio.open_connection(host, int(port))
        writer.write(msgpack.packb(["payments", 1_700_000_000, {"message": "no ack"}]))
        await writer.drain()
        await asyncio.sleep(0.5)  # longer than the patience: were it tried again, it would be there twice
        writer.close()
        sidecar.store.down = ""
        while (await sidecar.post('{"message":"over http"}\n', **{"idempotency-key": "k"})).status_code != 200:
            pass
        assert (await sidecar.export("over otlp")).status_code == 200
        assert await sidecar.export_over_grpc("over grpc") == grpc.StatusCode.OK
        assert msgpack.unpackb(await sidecar.forward(*chunk)) == {"ack": "c1"}
        assert sorted(map(str, sidecar.bodies())) == ["no ack", "over forward", "over grpc", "over http", "over otlp"]
        sidecar.stopped.set()
        assert await sidecar.task
        return sidecar

    asyncio.run(life())


def test_files_are_followed_with_all_that_an_event_goes_through(tmp_path: Path) -> None:
    log = tmp_path / "shop.log"
    log.write_bytes(b'{"message":"card 4111 1111 1111 1111","level":"warn"}\ncaf\xe9 4111111111111111\n')
    settings = msgspec.structs.replace(
        SETTINGS, tail=(TailSettings(paths=(str(log),), name="shop", service="shop", poll_seconds=0.01),)
    )

    async def life(until: str, last: bytes) -> tuple[Running, str]:
        sidecar = Running(tmp_path / "spool", settings=settings)
        addresses = await sidecar.ready
        async with asyncio.timeout(20), httpx.AsyncClient() as client:
            while until not in (metrics := (await client.get(f"http://{addresses['http']}/metrics")).text):
                pass
        with log.open("ab") as file:
            file.write(last)
        sidecar.stopped.set()
        assert await sidecar.task
        return sidecar, metrics

    sidecar, metrics = asyncio.run(life('behind_bytes{tail="shop"} 0.0', b"no line end"))
    assert 'tally_collector_tail_open_files{tail="shop"} 1.0' in metrics
    first, second = sidecar.events()
    assert str(first.body).startswith("card [4111 11** **** 1111~card:")
    assert (first.severity_number, first.service, first.marks) == (13, "shop", ["card:body"])
    assert second.marks == ["bytes_masked", "card:body", "surrogate_replaced"]
    assert base64.b64decode(second.attributes["log.record.original"])[:6] == b"caf\xe9 ["
    assert second.origin == Origin(receiver="tail", file=str(log), offset=54)
    log.write_bytes(log.read_bytes() + b", now there is one\n")
    again, _ = asyncio.run(life("tally_collector_events_total 1.0", b""))
    # what the first life had shipped is sent to this new store, too; the file is read on
    assert again.bodies() == [first.body, second.body, "no line end, now there is one"]


def test_an_access_log_is_followed_and_mapped(tmp_path: Path) -> None:
    log = tmp_path / "access.log"
    log.write_text('203.0.113.7 - - [10/Oct/2026:13:55:36 +0200] "GET /pay HTTP/1.1" 502 2326 "-" "curl" "req-1"\n')
    settings = msgspec.structs.replace(
        SETTINGS,
        mappings=("preset:nginx",),
        tail=(TailSettings(paths=(str(log),), service="gateway", format="lines", poll_seconds=0.01),),
    )

    async def life() -> Running:
        sidecar = Running(tmp_path / "spool", settings=settings)
        addresses = await sidecar.ready
        async with asyncio.timeout(20), httpx.AsyncClient() as client:
            while "events_total 1.0" not in (await client.get(f"http://{addresses['http']}/metrics")).text:
                pass
        sidecar.stopped.set()
        assert await sidecar.task
        return sidecar

    (event,) = asyncio.run(life()).events()
    assert (event.service, event.keys, event.outcome) == ("gateway", {"request_id": "req-1"}, "failure")
    assert event.origin is not None
    assert event.origin.file == str(log)


def test_syslog_arrives_over_tcp_tls_and_udp(tmp_path: Path) -> None:
    authority = Authority(tmp_path / "ca")
    certificate, key = authority.issue("collector")
    syslog = SyslogSettings(
        port=0,
        tls_port=0,
        udp_port=0,
        tls_certificate=str(certificate),
        tls_key=str(key),
        tls_client_ca=str(authority.ca),
    )

    async def life() -> Running:
        sidecar = Running(tmp_path / "spool", settings=msgspec.structs.replace(SETTINGS, syslog=syslog))
        addresses = await sidecar.ready
        tls = ssl.create_default_context(cafile=authority.ca)
        tls.load_cert_chain(*authority.issue("sender"))
        for way, context in (("syslog", None), ("syslog_tls", tls)):
            host, _, port = addresses[way].rpartition(":")
            name = "localhost" if context else None
            _, writer = await asyncio.open_connection(host, int(port), ssl=context, server_hostname=name)
            writer.write(f"<14>1 2026-01-01T00:00:00Z h shop - PAID - over {way}\n".encode())
            await writer.drain()
            writer.close()
            await writer.wait_closed()
        host, _, port = addresses["syslog_udp"].rpartition(":")
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.sendto(b"<14>shop: over syslog_udp", (host, int(port)))
        async with asyncio.timeout(20), httpx.AsyncClient() as client:
            while "events_total 3.0" not in (await client.get(f"http://{addresses['http']}/metrics")).text:
                pass
        sidecar.stopped.set()
        assert await sidecar.task
        return sidecar

    sidecar = asyncio.run(life())
    assert sorted(map(str, sidecar.bodies())) == ["over syslog", "over syslog_tls", "over syslog_udp"]
    assert {event.service for event in sidecar.events()} == {"shop"}


def test_positions_that_do_not_read_back_end_the_sidecar(tmp_path: Path) -> None:
    (tmp_path / "spool" / POSITIONS).mkdir(parents=True)
    (tmp_path / "spool" / POSITIONS / "positions").write_text("?")
    settings = msgspec.structs.replace(SETTINGS, tail=(TailSettings(paths=("/nowhere/*",)),))

    async def life() -> None:
        with pytest.raises(StateUnknown, match="not a checkpoint"):
            await Running(tmp_path / "spool", settings=settings).task

    asyncio.run(life())


def test_who_may_not_speak_for_a_service_fills_the_dead_letters(tmp_path: Path) -> None:
    settings = msgspec.structs.replace(SETTINGS, speakers={"ledger": ("certificate:ledger",)})

    async def life() -> Running:
        sidecar = Running(tmp_path / "spool", settings=settings)
        answer = await sidecar.post('{"message":"mine","service":"shop"}\n{"message":"forged","service":"ledger"}\n')
        assert (answer.json()["stored"], answer.json()["dead_lettered"]) == (1, 1)
        told = await sidecar.forward("shop", 1, {"message": "forged, too", "service": "ledger"}, {"chunk": "c"})
        assert msgpack.unpackb(told) == {"ack": "c"}  # it is kept, in the dead letters
        sidecar.stopped.set()
        assert await sidecar.task
        return sidecar

    assert asyncio.run(life()).bodies() == ["mine"]
    letters = b"".join(path.read_bytes() for path in (tmp_path / "spool" / "dead").glob("*.jsonl"))
    assert letters.count(b'"not_its_speaker"') == 2


def test_a_way_in_that_has_filled_the_spool_leaves_the_others_their_part(tmp_path: Path) -> None:
    async def life() -> Running:
        small = msgspec.structs.replace(SETTINGS, spool=SpoolSettings(max_bytes=60_000))
        sidecar = Running(tmp_path / "spool", settings=small)
        sidecar.store.down = "no route"
        address = (await sidecar.ready)["http"]
        line = f'{{"message":"{"x" * 1_000}"}}\n'
        async with httpx.AsyncClient(base_url=f"http://{address}", trust_env=False) as client:

            async def post() -> int:
                headers = {"content-type": "application/x-ndjson"}
                return (await client.post("/v1/events", content=line, headers=headers)).status_code

            while (told := await post()) == 200:
                pass
            assert told == 503
            for at in range(3):
                answer = await sidecar.forward("quiet", 1, {"message": f"quiet {at}"}, {"chunk": f"c{at}"})
                assert msgpack.unpackb(answer) == {"ack": f"c{at}"}
                assert await post() == 503, "the flood has its share"
            metrics = (await client.get("/metrics")).text
        assert 'tally_collector_input_refused_total{input="http"} 4.0' in metrics
        assert 'tally_collector_input_refused_total{input="forward"} 0.0' in metrics
        assert "tally_collector_refusing 1.0" in metrics
        sidecar.store.down = ""
        sidecar.stopped.set()
        assert await sidecar.task
        return sidecar

    bodies = asyncio.run(life()).bodies()
    assert [body for body in bodies if str(body).startswith("quiet")] == ["quiet 0", "quiet 1", "quiet 2"]
