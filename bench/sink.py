"""Where a collector under test ships to: a process of its own that takes everything at once, counts it, and answers.

An OTLP/HTTP server for the OpenTelemetry Collector, a Forward server for ours. Neither decodes a record while it is measured: the one counts a
name that each record holds once, the other believes what a chunk says of its size.
"""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import struct
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, Literal, Self

import msgpack
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest

__all__ = ["Sink"]

_ONCE_A_RECORD = b"span_id"
"""The name of an attribute that each record of `bench.records` has, and that stands nowhere else in it."""

_PATIENCE_SECONDS = 60.0
_LENGTH = struct.Struct(">I")


class Sink:
    """A running sink; a context, at whose end the process is stopped.

    Args:
        way: what it speaks.
        keep: a file that gets the body of each request of OTLP/HTTP, for `span_ids`; None: they are forgotten.
    """

    def __init__(self, way: Literal["otlp", "forward"], keep: Path | None = None) -> None:
        spawning = multiprocessing.get_context("spawn")
        self._keep = keep
        self._counted = spawning.Value("q", 0)
        ours, theirs = spawning.Pipe()
        self._process = spawning.Process(target=_serve, args=(way, keep, self._counted, theirs), daemon=True)
        self._process.start()
        if not ours.poll(_PATIENCE_SECONDS):
            self.close()
            raise RuntimeError("the sink did not start")
        self.port = int(ours.recv())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop it."""
        self._process.terminate()
        self._process.join(_PATIENCE_SECONDS)

    @property
    def count(self) -> int:
        """Records that came, those that came twice counted twice."""
        return int(self._counted.value)

    def span_ids(self) -> Iterator[str]:
        """Of each record that came, by its kept bytes, the attribute that names it. Call it when nothing comes any more."""
        assert self._keep is not None
        with self._keep.open("rb") as file:
            while length := file.read(_LENGTH.size):
                request = ExportLogsServiceRequest.FromString(file.read(*_LENGTH.unpack(length)))
                for resource in request.resource_logs:
                    for scope in resource.scope_logs:
                        for one in scope.log_records:
                            named = {attribute.key: attribute.value.string_value for attribute in one.attributes}
                            yield named["span_id"]


def _serve(way: str, keep: Path | None, counted: Any, told: Any) -> None:
    serve: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]

    async def otlp(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            length = int(head.partition(b"content-length:")[2].partition(b"\r\n")[0])
            body = await reader.readexactly(length)
            if kept is not None:
                kept.write(_LENGTH.pack(length) + body)
                kept.flush()
            counted.value += body.count(_ONCE_A_RECORD)
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: application/x-protobuf\r\ncontent-length: 0\r\n\r\n")
            await writer.drain()

    async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        unpacker = msgpack.Unpacker(max_buffer_size=64 * 1024**2)
        while data := await reader.read(262_144):
            unpacker.feed(data)
            for message in unpacker:
                counted.value += message[-1]["size"]
                writer.write(msgpack.packb({"ack": message[-1]["chunk"]}))
            await writer.drain()

    async def listen() -> None:
        async def until_closed(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError):  # the collector closed it, or was killed
                await serve(reader, writer)
            writer.close()

        server = await asyncio.start_server(until_closed, "127.0.0.1", 0, limit=1024**2)
        told.send(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    serve = otlp if way == "otlp" else forward
    with keep.open("ab") if keep is not None else contextlib.nullcontext() as kept:
        asyncio.run(listen())
