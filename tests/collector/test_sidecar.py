"""The sidecar as a whole: events in over its real ports, batches out; and a disk that fails under it."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Mapping
from pathlib import Path

import httpx
import msgpack
import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from collector.batch import StreamId
from collector.disk import AppendFile, OsDisk
from collector.errors import StateUnknown
from collector.event import decode_event
from collector.settings import CollectorSettings, ForwardSettings, HttpSettings
from collector.sidecar import run_sidecar
from tests.support.memory_store import MemoryStore

SETTINGS = CollectorSettings(name="payments", forward=ForwardSettings(port=0), http=HttpSettings(port=0))
KEY = Ed25519PrivateKey.from_private_bytes(b"k" * 32)


class Running:
    """A sidecar in this event loop."""

    def __init__(self, root: Path, disk: OsDisk | None = None, *, settings: CollectorSettings = SETTINGS) -> None:
        self.store = MemoryStore()
        self.stopped = asyncio.Event()
        self.ready: asyncio.Future[Mapping[str, str]] = asyncio.get_running_loop().create_future()
        self.task = asyncio.create_task(
            run_sidecar(
                settings,
                root=root,
                ledger="test/ledger",
                store=self.store,
                signing_key=KEY,
                token_key=b"t" * 32,
                stopped=self.stopped,
                ready=self.ready.set_result,
                disk=disk,
            )
        )

    async def post(self, line: str, **headers: str) -> httpx.Response:
        addresses = await self.ready
        async with httpx.AsyncClient() as client:
            return await client.post(
                f"http://{addresses['http']}/v1/events",
                content=line,
                headers={"content-type": "application/x-ndjson", **headers},
            )

    async def export(self, record: str) -> httpx.Response:
        addresses = await self.ready
        async with httpx.AsyncClient() as client:
            return await client.post(
                f"http://{addresses['http']}/v1/logs",
                json={"resourceLogs": [{"scopeLogs": [{"logRecords": [{"body": {"stringValue": record}}]}]}]},
            )

    async def forward(self, *message: object) -> bytes:
        """Say one message; what is answered until the ack is whole or the connection ends."""
        host, _, port = (await self.ready)["forward"].rpartition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(msgpack.packb(message))
        answer = await reader.read(100)
        writer.close()
        return answer

    def bodies(self) -> list[object]:
        found = []
        for batches in self.store.batches.values():
            for batch in batches.values():
                at = 0
                for length in batch.lengths:
                    found.append(decode_event(batch.events[at : at + length]).body)
                    at += length
        return found


def test_events_of_both_ports_are_shipped_and_a_stop_closes_the_stream(tmp_path: Path) -> None:
    async def life() -> Running:
        sidecar = Running(tmp_path / "spool")
        answer = await sidecar.post('{"message":"over http"}\n')
        assert answer.json()["stored"] == 1
        host, _, port = (await sidecar.ready)["forward"].rpartition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(msgpack.packb(["payments", 1_700_000_000, {"message": "over forward"}, {"chunk": "c1"}]))
        assert msgpack.unpackb(await reader.read(100)) == {"ack": "c1"}
        writer.close()
        sidecar.stopped.set()
        assert await sidecar.task
        return sidecar

    sidecar = asyncio.run(life())
    assert sorted(map(str, sidecar.bodies())) == ["over forward", "over http"]
    (stream,) = sidecar.store.batches
    assert stream.startswith("payments/")
    assert sidecar.store.batches[StreamId(stream)][max(sidecar.store.batches[stream])].signed.header.closed


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
            with pytest.raises(OSError, match="address already in use"):
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


def test_with_store_acks_no_way_in_says_yes_before_the_store_has_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("collector.sidecar._STORE_PATIENCE_SECONDS", 0.2)
    monkeypatch.setattr("collector.sidecar._FORWARD_PATIENCE_SECONDS", 0.5)

    async def life() -> Running:
        settings = msgspec.structs.replace(SETTINGS, ack="store")
        sidecar = Running(tmp_path / "spool", settings=settings)
        await sidecar.ready
        sidecar.store.down = "no route"
        chunk = ["payments", 1_700_000_000, {"message": "over forward"}, {"chunk": "c1"}]
        refused, exported, end = await asyncio.gather(
            sidecar.post('{"message":"over http"}\n', **{"idempotency-key": "k"}),
            sidecar.export("over otlp"),
            sidecar.forward(*chunk),
        )
        for answer in (refused, exported):
            assert answer.status_code == 503
            assert int(answer.headers["retry-after"]) >= 1
        assert "the store has not taken it" in refused.json()["detail"]
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
        assert msgpack.unpackb(await sidecar.forward(*chunk)) == {"ack": "c1"}
        assert sorted(map(str, sidecar.bodies())) == ["no ack", "over forward", "over http", "over otlp"]
        sidecar.stopped.set()
        assert await sidecar.task
        return sidecar

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
