"""The sidecar as a whole: events in over its real ports, batches out; and a disk that fails under it."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Mapping
from pathlib import Path

import httpx
import msgpack
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

    def __init__(self, root: Path, disk: OsDisk | None = None) -> None:
        self.store = MemoryStore()
        self.stopped = asyncio.Event()
        self.ready: asyncio.Future[Mapping[str, str]] = asyncio.get_running_loop().create_future()
        self.task = asyncio.create_task(
            run_sidecar(
                SETTINGS,
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

    async def post(self, line: str) -> httpx.Response:
        addresses = await self.ready
        async with httpx.AsyncClient() as client:
            return await client.post(
                f"http://{addresses['http']}/v1/events",
                content=line,
                headers={"content-type": "application/x-ndjson"},
            )

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


class FailingDisk(OsDisk):
    """A disk whose syncs fail from a moment on, as a dying drive's do."""

    failing = False

    def append_to(self, path: Path) -> AppendFile:
        disk, file = self, super().append_to(path)

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
