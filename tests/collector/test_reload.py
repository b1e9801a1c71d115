"""The configuration is read again while senders send: what changes, what stays, and an exact account of every event."""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import ssl
from collections import Counter
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import msgpack
import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from collector.errors import Malformed, StateUnknown
from collector.receive.amqp.settings import AmqpSettings
from collector.receive.tail.settings import TailSettings
from collector.reload import Asking, differences, refuse_fixed
from collector.settings import (
    BeatsSettings,
    CollectorSettings,
    ForwardSettings,
    GrpcSettings,
    HttpSettings,
    ProtectSettings,
    ShipSettings,
    SpoolSettings,
)
from collector.sidecar import run_sidecar
from tests.support.memory_store import MemoryStore
from tests.support.running_sidecar import Running

KEY = Ed25519PrivateKey.from_private_bytes(b"k" * 32)
LINES = {"content-type": "application/x-ndjson"}
SETTINGS = CollectorSettings(
    name="payments", forward=ForwardSettings(port=0), http=HttpSettings(port=0), ship=ShipSettings(drain_seconds=20.0)
)


def plain_client() -> httpx.AsyncClient:
    """A client that does not read the system's authorities first, which takes longer than a reload."""
    return httpx.AsyncClient(verify=ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), trust_env=False)


class Reloadable(Running):
    """A sidecar in this event loop whose settings are read again by `reload`."""

    def __init__(self, root: Path, settings: CollectorSettings) -> None:
        self.store = MemoryStore()
        self.stopped = asyncio.Event()
        self.ready = asyncio.get_running_loop().create_future()
        self.addresses: dict[str, str] = {}
        self.settings = settings
        self.wrong: Exception | None = None
        self.asking = Asking(read=self._read)
        self.task = asyncio.create_task(
            run_sidecar(
                settings,
                root=root,
                ledger="test/ledger",
                store=self.store,
                signing_key=KEY,
                token_key=b"t" * 32,
                stopped=self.stopped,
                ready=self._listens,
                asking=self.asking,
            )
        )

    def _listens(self, addresses: Any) -> None:
        self.addresses = dict(addresses)
        if not self.ready.done():
            self.ready.set_result(self.addresses)

    def _read(self) -> CollectorSettings:
        if self.wrong is not None:
            raise self.wrong
        return self.settings

    async def metrics(self) -> str:
        async with plain_client() as client:
            return (await client.get(f"http://{self.addresses['http']}/metrics")).text

    async def reload(self, **changes: Any) -> str:
        """Put other settings in force; returns why they were refused, empty when they were not."""
        before = await self._outcomes()
        kept, self.settings = self.settings, msgspec.structs.replace(self.settings, **changes)
        self.asking.asked.set()
        async with asyncio.timeout(30):
            while (after := await self._outcomes()) == before:
                if self.task.done():
                    await self.task
        refused = after["refused"] > before["refused"]
        if refused:
            self.settings = kept
        async with plain_client() as client:
            told = (await client.get(f"http://{self.addresses['http']}/readyz")).json()["config_refused"]
        assert bool(told) == refused
        assert f"config_last_reload_successful {0.0 if refused else 1.0}" in await self.metrics()
        return str(told)

    async def _outcomes(self) -> Counter[str]:
        try:
            shown = await self.metrics()
        except httpx.TransportError:  # its HTTP server is being replaced just now, and we had asked the old one
            if self.task.done():
                await self.task  # raises what ended it
            return await self._outcomes()
        name = 'tally_collector_config_reloads_total{outcome="%s"} '
        return Counter(
            {word: int(float(shown.partition(name % word)[2].split()[0])) for word in ("applied", "refused")}
        )


class Senders:
    """Send without a pause, each event until it is acknowledged."""

    def __init__(self, sidecar: Reloadable) -> None:
        self.sidecar = sidecar
        self.acknowledged: set[str] = set()
        self.turned_away = 0
        self.connections = 0
        self.enough = asyncio.Event()
        self.progress = asyncio.Event()

    @contextlib.asynccontextmanager
    async def sending(self) -> AsyncIterator[None]:
        tasks = [asyncio.create_task(one) for one in (self._forward("a"), self._forward("b"), self._http("c"))]
        try:
            yield
        except BaseException:
            for task in tasks:  # what failed is told, and nobody waits for acknowledgements that may never come
                task.cancel()
            raise
        self.enough.set()
        async with asyncio.timeout(30):
            await asyncio.gather(*tasks)

    async def more(self, events: int = 60) -> None:
        """Return when so many more are acknowledged."""
        goal = len(self.acknowledged) + events
        async with asyncio.timeout(30):
            while len(self.acknowledged) < goal:
                self.progress.clear()
                await self.progress.wait()

    async def _forward(self, sender: str) -> None:
        host, _, port = self.sidecar.addresses["forward"].rpartition(":")
        number, waiting = 0, ""
        while not self.enough.is_set() or waiting:
            try:
                reader, writer = await asyncio.open_connection(host, int(port))
            except OSError:
                self.turned_away += 1
                continue
            self.connections += 1
            answers = msgpack.Unpacker()
            try:
                while not self.enough.is_set() or waiting:
                    waiting = waiting or f"{sender}{number}"
                    option = {"chunk": waiting}
                    writer.write(msgpack.packb(["shop", 1_700_000_000, {"message": waiting}, option]))
                    answers.feed(await reader.read(100))
                    if not (answer := list(answers)):
                        break  # the connection ended: again, under the same id
                    assert answer == [{"ack": waiting}]
                    self.acknowledged.add(waiting)
                    self.progress.set()
                    number, waiting = number + 1, ""
            except OSError:
                pass
            finally:
                writer.close()

    async def _http(self, sender: str) -> None:
        number = 0
        async with plain_client() as client:
            while not self.enough.is_set():
                name = f"{sender}{number}"
                while name not in self.acknowledged:
                    try:
                        answer = await client.post(
                            f"http://{self.sidecar.addresses['http']}/v1/events",
                            json={"message": name},
                            headers={**LINES, "idempotency-key": name},
                        )
                    except httpx.ConnectError:
                        self.turned_away += 1
                    except httpx.TransportError:
                        pass  # no answer: again, under the same key
                    else:
                        assert answer.status_code == 200
                        self.acknowledged.add(name)
                number += 1


def run(tmp_path: Path, body: Callable[[Reloadable], Any], **settings: Any) -> Reloadable:
    async def life() -> Reloadable:
        sidecar = Reloadable(tmp_path / "spool", msgspec.structs.replace(SETTINGS, **settings))
        await sidecar.ready
        await body(sidecar)
        sidecar.stopped.set()
        assert await sidecar.task
        return sidecar

    return asyncio.run(life())


def stored(metrics: str) -> float:
    """How many events the spool took, as the metrics say."""
    (line,) = re.findall(r"^tally_collector_events_total (\S+)$", metrics, re.MULTILINE)
    return float(line)


def test_senders_lose_nothing_through_good_and_bad_reloads(tmp_path: Path) -> None:
    log = tmp_path / "shop.log"
    log.write_bytes(b"")
    garbage = tmp_path / "garbage.pem"
    garbage.write_text("no certificate")
    lines: list[str] = []
    tail = TailSettings(paths=(str(log),), name="shop", poll_seconds=0.01)
    refused: list[str] = []
    senders: list[Senders] = []

    def write(sidecar: Reloadable) -> None:
        with log.open("a") as file:
            for _ in range(5):
                lines.append(f"line {len(lines)}")
                file.write(lines[-1] + "\n")

    async def body(sidecar: Reloadable) -> None:
        mine = Senders(sidecar)
        senders.append(mine)
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            changes: list[tuple[str, dict[str, Any]]] = [
                ("", {"spool": SpoolSettings(max_event_bytes=4_096)}),
                ("collector.name", {"name": "others"}),
                ("Address already in use", {"forward": ForwardSettings(port=0, udp_heartbeat=True), "beats": BeatsSettings(port=port)}),
                ("", {"forward": ForwardSettings(port=0, udp_heartbeat=True)}),
                ("nowhere.toml", {"mappings": (str(tmp_path / "nowhere.toml"),), "forward": ForwardSettings(port=0)}),
                ("", {"http": HttpSettings(port=0, max_body_bytes=100_000)}),
                ("PEM", {"http": HttpSettings(port=0, tls_certificate=str(garbage), tls_key=str(garbage))}),
                ("PEM", {"tail": (), "grpc": GrpcSettings(port=0, tls_certificate=str(garbage), tls_key=str(garbage))}),
                ("", {"tail": (msgspec.structs.replace(tail, poll_seconds=0.02),)}),
                ("requests.max_services", {"requests": msgspec.structs.replace(SETTINGS.requests, max_services=3)}),
                ("", {"forward": ForwardSettings(port=0), "http": HttpSettings(port=0), "grpc": GrpcSettings(port=0)}),
                ("", {"beats": BeatsSettings(port=0), "grpc": GrpcSettings()}),
            ]  # fmt: skip
            async with mine.sending():
                for reason, change in changes:
                    write(sidecar)
                    await mine.more()
                    refused.append(await sidecar.reload(**change))
                    assert (reason in refused[-1]) if reason else not refused[-1], refused[-1]
                await mine.more()
                write(sidecar)
            # what was written last is read at the tail's next look: until then its metrics know as little of it
            while stored(await sidecar.metrics()) < len(mine.acknowledged) + len(lines):
                pass  # each request is a turn of the event loop
        assert sorted(sidecar.addresses) == ["beats", "forward", "http"]
        shown = await sidecar.metrics()
        assert f'config_reloads_total{{outcome="refused"}} {sum(map(bool, refused))}.0' in shown
        assert f'config_reloads_total{{outcome="applied"}} {len(refused) - sum(map(bool, refused))}.0' in shown

    sidecar = run(tmp_path, body, tail=(tail,))
    (mine,) = senders
    # each exactly once, and nothing else
    assert Counter(map(str, sidecar.bodies())) == Counter([*mine.acknowledged, *lines])
    assert mine.turned_away == 0, "somebody listened at every moment"
    assert mine.connections <= 2 * 3, "a listener that did not change cut nobody off: one to begin with, two changes"


def test_what_is_masked_and_kept_changes_for_open_connections(tmp_path: Path) -> None:
    async def body(sidecar: Reloadable) -> None:
        host, _, port = sidecar.addresses["forward"].rpartition(":")
        reader, writer = await asyncio.open_connection(host, int(port))

        async def say(chunk: str) -> None:
            record = {"message": chunk, "iban": "DE02", "long": "x" * 1_500}
            writer.write(msgpack.packb(["shop", 1_700_000_000, record, {"chunk": chunk}]))
            assert msgpack.unpackb(await reader.read(100)) == {"ack": chunk}

        await say("before")
        assert not await sidecar.reload(protect=ProtectSettings(masked_fields=("iban",)))
        await say("masked")
        assert not await sidecar.reload(spool=SpoolSettings(max_event_bytes=1_024))
        await say("too long")
        assert not await sidecar.reload(spool=SpoolSettings(max_bytes=1_000), ship=ShipSettings(batch_events=7))
        writer.write(msgpack.packb(["shop", 1_700_000_000, {"message": "full"}, {"chunk": "full"}]))
        while "tally_collector_refusing 1.0" not in await sidecar.metrics():
            pass
        assert not await sidecar.reload(spool=SpoolSettings())
        assert msgpack.unpackb(await reader.read(100)) == {"ack": "full"}
        writer.close()

    sidecar = run(tmp_path, body)
    seen = {str(event.body): event.attributes.get("iban") for event in sidecar.events()}
    assert seen == {"before": "DE02", "masked": "***", "full": None}


def test_what_cannot_be_read_is_refused_with_its_reason(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def body(sidecar: Reloadable) -> None:
        for wrong in (Malformed("no such key", where="collector.forwart"), OSError("gone"), KeyError("a defect")):
            sidecar.wrong = wrong
            assert str(wrong) in await sidecar.reload()
            assert (
                f"stays in force: {type(wrong).__name__ + ': ' if isinstance(wrong, KeyError) else ''}{wrong}"
                in caplog.text
            )
        assert (await sidecar.post('{"message":"on"}\n')).status_code == 200

    assert run(tmp_path, body).bodies() == ["on"]


def test_a_certificate_that_was_renewed_in_place_is_taken_up(tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("first")

    async def body(sidecar: Reloadable) -> None:
        host, _, port = sidecar.addresses["forward"].rpartition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        assert b"HELO" in await reader.read(200)
        assert not await sidecar.reload(), "nothing changed"
        assert not reader.at_eof()
        key.write_text("second")
        assert not await sidecar.reload(), "the same settings; another key"
        assert await reader.read() == b"", "who came in by the old key shows the new one"
        writer.close()

    run(tmp_path, body, forward=ForwardSettings(port=0, shared_key_file=str(key)))


def test_a_way_in_that_cannot_be_opened_again_ends_the_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def life() -> None:
        log = TailSettings(paths=(str(tmp_path / "*.log"),), name="one", poll_seconds=0.01)
        sidecar = Reloadable(tmp_path / "spool", msgspec.structs.replace(SETTINGS, tail=(log,)))
        await sidecar.ready

        def broken(*_: Any, **__: Any) -> None:
            raise OSError("no more files")

        monkeypatch.setattr("collector.waysin.Tailer", broken)
        with pytest.raises(StateUnknown, match="tail was closed for a change, and cannot be opened as it was: no more"):
            await sidecar.reload(tail=(msgspec.structs.replace(log, name="two"),))

    asyncio.run(life())


def test_differences_are_told_by_their_paths() -> None:
    other = msgspec.structs.replace(SETTINGS, name="x", http=HttpSettings(port=0, max_body_bytes=1), ack="store")
    assert list(differences(SETTINGS, other)) == ["name", "ack", "http.max_body_bytes"]
    refuse_fixed(["http.max_body_bytes", "names"], frozenset({"name"}))
    with pytest.raises(Malformed, match=r"^collector.relay.port: a change of this needs a restart"):
        refuse_fixed(["ack", "relay.port"], frozenset({"relay"}), where="collector.")


def test_queues_come_and_go_while_others_stay(tmp_path: Path) -> None:
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))  # nobody listens there, and nobody can take it
        one, two = (AmqpSettings(queue=name, port=deaf.getsockname()[1]) for name in ("one", "two"))

        async def body(sidecar: Reloadable) -> None:
            tasks = consumers()
            assert not await sidecar.reload(amqp=(one, two))
            assert len(consumers()) == len(tasks) + 1
            assert tasks < consumers(), "the one that there was goes on"
            while 'broker_connected{entry="two",system="rabbitmq"} 0.0' not in await sidecar.metrics():
                pass
            assert not await sidecar.reload(amqp=())
            assert not consumers()

        def consumers() -> set[Any]:
            return {task for task in asyncio.all_tasks() if "AmqpConsumer.run" in repr(task.get_coro())}

        run(tmp_path, body, amqp=(one,))
