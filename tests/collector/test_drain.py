"""How a sidecar stops: nothing more is taken, what is in flight is finished, whoever asks hears why, and a deadline holds."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import httpx
import msgpack
import msgspec
import pytest

from collector.batch import Batch
from collector.receive.syslog.receiver import SyslogReceiver
from collector.receive.syslog.settings import SyslogSettings
from collector.settings import CollectorSettings, ElasticsearchSettings, ForwardSettings, HttpSettings, ShipSettings
from tests.support.running_sidecar import Running

SETTINGS = CollectorSettings(
    name="payments",
    forward=ForwardSettings(port=0),
    http=HttpSettings(port=0),
    elasticsearch=ElasticsearchSettings(port=0),
    ship=ShipSettings(drain_seconds=20.0),
)
LINES = {"content-type": "application/x-ndjson"}


def test_while_it_drains_new_requests_are_told_to_wait_and_begun_ones_are_finished(tmp_path: Path) -> None:
    async def life() -> Running:
        sidecar = Running(tmp_path / "spool", settings=SETTINGS)
        addresses = await sidecar.ready
        go_on, begun = asyncio.Event(), asyncio.Event()

        async def drop_by_drop() -> Any:
            yield b'{"message":"be'
            begun.set()
            await go_on.wait()
            yield b'gun"}\n'

        base = f"http://{addresses['http']}"
        async with httpx.AsyncClient(base_url=base) as slow, httpx.AsyncClient(base_url=base) as kept:
            sidecar.store.down = "no route"  # so that the drain lasts
            assert (await kept.post("/v1/events", content='{"message":"first"}\n', headers=LINES)).status_code == 200
            assert (await kept.get("/readyz")).status_code == 200
            slowly = asyncio.create_task(slow.post("/v1/events", content=drop_by_drop(), headers=LINES))
            await begun.wait()
            sidecar.stopped.set()
            async with asyncio.timeout(20):
                while (ready := await kept.get("/readyz")).status_code == 200:
                    pass
            assert ready.json()["reasons"] == ["the collector is stopping"]
            refused = await kept.post("/v1/events", content='{"message":"late"}\n', headers=LINES)
            assert (refused.status_code, refused.headers["connection"]) == (503, "close")
            assert int(refused.headers["retry-after"]) >= 1
            assert "stopping" in refused.json()["detail"]
            async with httpx.AsyncClient() as client:
                bulk = await client.post(f"http://{addresses['elasticsearch']}/_bulk", content="{}\n", headers=LINES)
            assert (bulk.status_code, "retry-after" in bulk.headers) == (503, True)
            assert 'refused_total{reason="stopping"} 2.0' in (await kept.get("/metrics")).text
            assert (await kept.get("/livez")).status_code == 200
            host, _, port = addresses["forward"].rpartition(":")
            with pytest.raises(OSError, match="Connect call failed"):
                await asyncio.open_connection(host, int(port))
            go_on.set()
            assert (await slowly).json()["stored"] == 1
            # shipping goes on: a store that comes back in time gets everything
            sidecar.store.down = ""
            assert await sidecar.task
            with pytest.raises(httpx.TransportError):
                await kept.get("/readyz")
        return sidecar

    sidecar = asyncio.run(life())
    assert sorted(map(str, sidecar.bodies())) == ["begun", "first"]


def test_a_forward_sender_gets_the_acks_of_what_was_taken_and_then_the_end(tmp_path: Path) -> None:
    async def life() -> None:
        sidecar = Running(tmp_path / "spool", settings=msgspec.structs.replace(SETTINGS, ack="store"))
        host, _, port = (await sidecar.ready)["forward"].rpartition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        held = asyncio.Event()
        append = sidecar.store.append

        def slow(batch: Batch) -> None:
            asyncio.run_coroutine_threadsafe(held.wait(), loop).result()
            append(batch)

        loop = asyncio.get_running_loop()
        sidecar.store.append = slow  # type: ignore[method-assign]
        writer.write(msgpack.packb(["shop", 1_700_000_000, {"message": "in flight"}, {"chunk": "c1"}]))
        async with httpx.AsyncClient() as client:
            metrics = f"http://{(await sidecar.ready)['http']}/metrics"
            while "ack_waiting_groups 1.0" not in (await client.get(metrics)).text:
                pass
        sidecar.stopped.set()
        async with asyncio.timeout(20):
            while True:  # until nobody listens any more: the drain has begun
                try:
                    _, other = await asyncio.open_connection(host, int(port))
                except OSError:
                    break
                other.close()
        held.set()
        assert msgpack.unpackb(await reader.readexactly(len(msgpack.packb({"ack": "c1"})))) == {"ack": "c1"}
        assert await reader.read() == b""
        writer.close()
        assert await sidecar.task
        assert sidecar.bodies() == ["in flight"]

    asyncio.run(life())


def test_a_way_in_that_cannot_be_closed_keeps_nothing_from_being_drained(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    close = SyslogReceiver.close

    async def broken(receiver: SyslogReceiver, grace_seconds: float) -> None:
        await close(receiver, grace_seconds)
        raise AttributeError("a defect")

    monkeypatch.setattr(SyslogReceiver, "close", broken)

    async def life() -> Running:
        sidecar = Running(tmp_path / "spool", settings=msgspec.structs.replace(SETTINGS, syslog=SyslogSettings(port=0)))
        await sidecar.ready
        assert (await sidecar.post('{"message":"kept"}\n')).status_code == 200
        sidecar.stopped.set()
        assert await sidecar.task
        return sidecar

    sidecar = asyncio.run(life())
    assert sidecar.bodies() == ["kept"]
    (batches,) = sidecar.store.batches.values()
    assert batches[max(batches)].signed.header.closed  # the stream says its end: no gap is looked for
    assert "syslog did not end in order: AttributeError: a defect" in caplog.text


def test_a_store_that_hangs_does_not_keep_it_beyond_the_deadline(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def life() -> float:
        quick = msgspec.structs.replace(SETTINGS, ship=ShipSettings(drain_seconds=0.2))
        sidecar = Running(tmp_path / "spool", settings=quick)
        await sidecar.ready
        hanging, go_on = asyncio.Event(), asyncio.Event()
        loop = asyncio.get_running_loop()

        def hang(_: Batch) -> None:
            loop.call_soon_threadsafe(hanging.set)
            asyncio.run_coroutine_threadsafe(go_on.wait(), loop).result()

        sidecar.store.append = hang  # type: ignore[method-assign, assignment]
        assert (await sidecar.post('{"message":"kept"}\n')).status_code == 200
        await hanging.wait()
        began = time.monotonic()
        sidecar.stopped.set()
        assert not await sidecar.task
        taken_seconds = time.monotonic() - began
        go_on.set()
        return taken_seconds

    with caplog.at_level("WARNING", logger="collector.sidecar"):
        assert asyncio.run(life()) < 15.0  # a store may take 30 s to say that it does not answer
    assert "events that stay in the spool, to be shipped after the next start: 1" in caplog.text
