"""The whole ledger on OpenSearch: Forward to proved trail with store and index there, what that costs as it grows, and one trail's fetch.

Each row stands beside references of the same run on the same documents: `helpers.bulk` and raw bodies for writing, a bare term query for reading.
Our processes are stopped (SIGSTOP) while a reference is measured.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import random
import signal
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from bench.end_to_end import fill, log_size, wait_until_logged
from bench.forward import send, write_config
from bench.opensearch import Row, write_raw, write_with_helpers
from bench.process import ENVIRONMENT, TALLY, Tally, cpu_seconds
from bench.records import EVENTS_A_TRANSACTION, chunk_message
from collector.batch import Batch, EventRef, StreamId
from collector.store.opensearch.store import OpenSearchStore
from collector.store.settings import StoreSettings
from tests.servers.opensearch import Cluster

__all__ = ["Block", "Fetch", "bench_blocks", "bench_fetch"]

_CHUNK = 1_000
_PREFIX = "whole"
_CONFIG = """
[store]
urls = {urls}
prefix = "{prefix}"
[index]
urls = {urls}
prefix = "{prefix}"
[audit_api]
port = 0
requests_a_second = 100000
burst_requests = 1000000
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """A block of events, from the first byte sent to the checkpoint that covers the last, when so many were stored before.

    Events a second; CPU microseconds an event of each process.
    """

    stored: int
    events: int
    events_a_second: float
    collector_us: float
    correlator_us: float
    server_us: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetch:
    """Seconds a request, one after the other over a kept connection: median, 99th percentile; bytes of an answer."""

    name: str
    p50: float
    p99: float
    answer_bytes: float


class _Ledger:
    """Sidecar and correlator on a cluster, and how many events they were sent."""

    def __init__(self, folder: Path, cluster: Cluster) -> None:
        self.folder = folder
        self.cluster = cluster
        write_config(folder, _CONFIG.format(urls=json.dumps(list(cluster.urls)), prefix=_PREFIX))
        self.collector = Tally(folder, "collector")
        try:
            self.correlator = Tally(folder, "correlator")
        except BaseException:
            self.collector.stop()
            raise
        self.sent = 0
        self._read = 0

    def stop(self) -> None:
        self.collector.stop()
        self.correlator.stop()

    def fill(self, events: int) -> None:
        """So many events more, and not measured."""
        leaves = log_size(self.folder)
        fill(self.collector, events, first=self.sent)
        self.sent += events
        wait_until_logged(self.folder, leaves + events, self.collector, self.correlator)

    def block(self, events: int) -> Block:
        """So many events more, measured."""
        messages = [
            chunk_message(self.sent + at, min(_CHUNK, events - at), chunk=f"block-{self.sent + at}")
            for at in range(0, events, _CHUNK)
        ]
        before, leaves, stored = self._cpu(), log_size(self.folder), self.sent
        began = time.perf_counter()
        asyncio.run(send(self.collector.addresses["forward"], messages, 8, in_flight=4))
        self.sent += events
        wall = wait_until_logged(self.folder, leaves + events, self.collector, self.correlator) - began
        used = [(after - first) / events * 1e6 for first, after in zip(before, self._cpu(), strict=True)]
        return Block(
            stored=stored,
            events=events,
            events_a_second=events / wall,
            collector_us=used[0],
            correlator_us=used[1],
            server_us=used[2],
        )

    def _cpu(self) -> list[float]:
        pids = (self.collector.process.pid, self.correlator.process.pid, self.cluster.nodes[0].pid)
        return [cpu_seconds(pid) for pid in pids]

    def batches(self, events: int) -> list[Batch]:
        """The last so many events, to a batch, as the store has them."""
        settings = StoreSettings(urls=list(self.cluster.urls), prefix=_PREFIX)
        with closing(OpenSearchStore(settings, read_only=True)) as store:
            (stream,) = store.streams()
            found: list[Batch] = []
            while batches := [
                self._batch(store, stream, signed.header.number)
                for signed in store.batches_after({stream: self._read}, 20)
            ]:
                self._read = batches[-1].signed.header.number
                found += batches
        while found and sum(len(batch.lengths) for batch in found[1:]) >= events:
            del found[0]
        return found

    @staticmethod
    def _batch(store: OpenSearchStore, stream: StreamId, number: int) -> Batch:
        signed = store.batch(stream, number)
        assert signed is not None
        header = signed.header
        events = store.events(
            [EventRef(stream=stream, sequence=at) for at in range(header.first, header.first + header.count)]
        )
        return Batch(signed=signed, events=b"".join(events), lengths=[len(event) for event in events])

    @contextmanager
    def still(self) -> Iterator[None]:
        """Our processes use nothing for the length of the block."""
        for process in (self.collector, self.correlator):
            process.process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            for process in (self.collector, self.correlator):
                process.process.send_signal(signal.SIGCONT)


@contextmanager
def _ledger(folder: Path) -> Iterator[_Ledger]:
    with Cluster(heap="2g", fast_start=False) as cluster:
        ledger = _Ledger(folder, cluster)
        try:
            yield ledger
        finally:
            ledger.stop()


def bench_blocks(folder: Path, *, events: int, sizes: Sequence[int]) -> Iterator[tuple[Block, list[Row]]]:
    """A block of `events` when at least each of `sizes` events are stored, ascending, and its documents written both other ways.

    A block and its references come first, unmeasured: a server that has just started compiles its code while it works.
    """
    with _ledger(folder) as ledger:
        ledger.block(min(events, *sizes))
        _references(ledger, events, -1)
        for turn, size in enumerate(sizes):
            if size > ledger.sent:
                ledger.fill(size - ledger.sent)
            ledger.batches(0)
            yield ledger.block(events), _references(ledger, events, turn)


def _references(ledger: _Ledger, events: int, turn: int) -> list[Row]:
    batches = ledger.batches(events)
    count = sum(len(batch.lengths) for batch in batches)
    ways: dict[str, Callable[[Cluster, str, Sequence[Batch]], None]] = {
        "helpers.bulk, the documents alone": write_with_helpers,
        "raw NDJSON, the documents alone": write_raw,
    }
    rows = []
    with ledger.still():
        for name, way in ways.items():
            server, own, start = cpu_seconds(ledger.cluster.nodes[0].pid), time.process_time(), time.perf_counter()
            way(ledger.cluster, f"reference{turn}", batches)
            wall, own = time.perf_counter() - start, time.process_time() - own
            server = cpu_seconds(ledger.cluster.nodes[0].pid) - server
            rows.append(Row(name, count / wall, own / count * 1e6, server / count * 1e6))
            ledger.cluster.ask("DELETE", f"/reference{turn}-*")
    return rows


def bench_fetch(folder: Path, *, events: int, requests: int) -> list[Fetch]:
    """With so many events stored: random trails with all proofs through the API, and the events of one by a bare term query, in turns."""
    with _ledger(folder) as ledger:
        ledger.fill(events)
        token = subprocess.run(
            [*TALLY, "--config", str(folder / "tally.toml"), "token", "add", "bench", "--role", "auditor"],
            check=True,
            capture_output=True,
            text=True,
            env=ENVIRONMENT,
        ).stdout.strip()
        ledger.cluster.ask("POST", f"/{_PREFIX}-*/_refresh")
        api = Tally(folder, "api")
        try:
            return _fetches(ledger, api, token, requests, transactions=events // EVENTS_A_TRANSACTION)
        finally:
            api.stop()


def _fetches(ledger: _Ledger, api: Tally, token: str, requests: int, *, transactions: int) -> list[Fetch]:
    ours, theirs = (
        http.client.HTTPConnection(address.removeprefix("http://"))
        for address in (api.addresses["http"], ledger.cluster.url)
    )
    dice = random.Random(7)
    names = ("one trail with events and proofs, through the API", "its events by a bare term query")
    taken: dict[str, list[float]] = {name: [] for name in names}
    sizes: dict[str, list[int]] = {name: [] for name in names}
    warming = min(50, requests)
    for at in range(requests + warming):
        name = f"tx-{dice.randrange(transactions)}"
        query = json.dumps({"size": EVENTS_A_TRANSACTION, "query": {"term": {"transaction": name}}})
        trail = f"/v1/trails/transaction/{name}?proofs=true"
        asked = (
            partial(_answer, ours, "GET", trail, None, f"Bearer {token}"),
            partial(_answer, theirs, "POST", f"/{_PREFIX}-events-*/_search", query, ""),
        )
        for which, ask in zip(names, asked, strict=True):
            began = time.perf_counter()
            body = ask()
            seconds = time.perf_counter() - began
            if at == 0:
                found = json.loads(body)
                count = len(found["entries"] if "entries" in found else found["hits"]["hits"])
                if count < EVENTS_A_TRANSACTION:
                    raise RuntimeError(f"{which}: {count} of {EVENTS_A_TRANSACTION} events of {name}")
            if at >= warming:  # the first requests open files and fill caches
                taken[which].append(seconds)
                sizes[which].append(len(body))
        if at % 100 == 0:
            for process in (api, ledger.collector, ledger.correlator):
                process.drain_log()
    return [
        Fetch(
            name=name,
            p50=statistics.median(taken[name]),
            p99=statistics.quantiles(taken[name], n=100)[98],
            answer_bytes=statistics.mean(sizes[name]),
        )
        for name in names
    ]


def _answer(
    connection: http.client.HTTPConnection, method: str, path: str, body: str | None, authorization: str
) -> bytes:
    headers = {"content-type": "application/json"} | ({"authorization": authorization} if authorization else {})
    connection.request(method, path, body, headers)
    answer = connection.getresponse()
    data = answer.read()
    if answer.status != http.client.OK:
        raise RuntimeError(f"{path}: {answer.status} {data[:300]!r}")
    return data
