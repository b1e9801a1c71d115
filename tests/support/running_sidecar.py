"""A sidecar in this event loop, with the store in memory, and what is said to its ports."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path

import grpc
import grpc.aio
import httpx
import msgpack
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest

from collector.disk import OsDisk
from collector.event import Event, decode_event
from collector.settings import CollectorSettings, ForwardSettings, GrpcSettings, HttpSettings
from collector.sidecar import run_sidecar
from tests.support.memory_store import MemoryStore

__all__ = ["SETTINGS", "Running"]

SETTINGS = CollectorSettings(
    name="payments", forward=ForwardSettings(port=0), http=HttpSettings(port=0), grpc=GrpcSettings(port=0)
)
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

    async def export_over_grpc(self, record: str) -> grpc.StatusCode:
        """The status that a log record is answered with."""
        request = ExportLogsServiceRequest()
        request.resource_logs.add().scope_logs.add().log_records.add().body.string_value = record
        async with grpc.aio.insecure_channel((await self.ready)["grpc"]) as channel:
            call = channel.unary_unary("/opentelemetry.proto.collector.logs.v1.LogsService/Export")(
                request.SerializeToString()
            )
            code: grpc.StatusCode = await call.code()
            return code

    async def forward(self, *message: object) -> bytes:
        """Say one message; what is answered until the ack is whole or the connection ends."""
        host, _, port = (await self.ready)["forward"].rpartition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(msgpack.packb(message))
        answer = await reader.read(100)
        writer.close()
        return answer

    def bodies(self) -> list[object]:
        return [event.body for event in self.events()]

    def events(self) -> list[Event]:
        found = []
        for batches in self.store.batches.values():
            for batch in batches.values():
                at = 0
                for length in batch.lengths:
                    found.append(decode_event(batch.events[at : at + length]))
                    at += length
        return found
