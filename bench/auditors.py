"""Auditors at work on a large ledger: so many at once, each asking, thinking and asking again; alone, and beside an export that is being made."""

from __future__ import annotations

import asyncio
import http.client
import json
import multiprocessing
import random
import statistics
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from audit_api.auth import TokenRecord, hash_token, new_token
from bench.end_to_end import fill, wait_until_logged
from bench.forward import write_config
from bench.process import Tally, cpu_seconds
from bench.records import EVENTS_A_TRANSACTION
from deploy.tokens import change_tokens

__all__ = ["MIX", "Phase", "Route", "bench_auditors"]

_CONFIG = """
[audit_api]
port = 0
"""

CLIENTS = 2
"""Processes that the auditors are in, so that none of the API's time is theirs."""

_WARM_SHARE = 0.2
"""Of a phase's seconds, before those that count: files are opened, caches filled, connections made."""

_PATIENCE_SECONDS = 60.0
_EXPORT = "/v1/exports?format=ndjson&kind=transaction"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ledger:
    """What can be asked for: so many transactions, and the stream of their events."""

    transactions: int
    stream: str
    events: int


def _trail(dice: random.Random, ledger: Ledger) -> str:
    return f"transaction/tx-{dice.randrange(ledger.transactions)}"


_SERVICES = ("gateway", "payments", "ledger", "risk", "notifications")

MIX: dict[str, tuple[int, str, Callable[[random.Random, Ledger], str]]] = {
    "search by transaction": (20, "", lambda dice, ledger: f"/v1/trails?transaction={_trail(dice, ledger)[12:]}"),
    "search by service, newest 50": (
        10,
        "",
        lambda dice, _: f"/v1/trails?service={_SERVICES[dice.randrange(5)]}&limit=50",
    ),
    "trail": (20, "", lambda dice, ledger: f"/v1/trails/{_trail(dice, ledger)}"),
    "trail with proofs": (15, "", lambda dice, ledger: f"/v1/trails/{_trail(dice, ledger)}?proofs=true"),
    "proof of an event": (
        10,
        "",
        lambda dice, ledger: f"/v1/events/{ledger.stream}/{dice.randrange(ledger.events)}/proof",
    ),
    "page of a story": (10, "text/html", lambda dice, ledger: f"/desk/trails/{_trail(dice, ledger)}"),
    "page of a search, with facets": (
        5,
        "text/html",
        lambda dice, _: f"/desk/trails?service={_SERVICES[dice.randrange(5)]}",
    ),
    "checkpoint": (10, "", lambda *_: "/v1/checkpoint"),
}
"""What is asked for: how often of a hundred, as which media type, under which path."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """What one route's answers took, in seconds; `errors`: answers that were none, or no 200."""

    name: str
    requests: int
    errors: int
    p50: float
    p99: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Phase:
    """One run of all auditors. `exported`: events that exports beside them gave meanwhile. `cpu_share`: of one core, that the API used."""

    routes: Sequence[Route]
    seconds: float
    cpu_share: float
    peak_bytes: int
    exported: int

    @property
    def requests(self) -> int:
        """That counted."""
        return sum(route.requests for route in self.routes)

    @property
    def errors(self) -> int:
        """Of them."""
        return sum(route.errors for route in self.routes)


def bench_auditors(
    folder: Path, *, events: int, auditors: int, think_seconds: float, seconds: float
) -> tuple[Phase, Phase]:
    """Fill a ledger through Forward, then have the auditors ask: alone, and while an export job of the whole ledger is made again and again.

    Collector and correlator go on running: what auditors read is put on record and logged, as it is where they work.

    Args:
        folder: where the ledger is.
        events: so many.
        auditors: so many, each with a token and a connection of its own.
        think_seconds: between an answer and the next question, exponentially distributed around this mean.
        seconds: that a phase counts.
    """
    write_config(folder, _CONFIG)
    tokens = [new_token() for _ in range(auditors + 1)]
    (folder / "data").mkdir()
    records = [
        TokenRecord(principal=f"auditor-{at}", roles=["auditor"], sha256=hash_token(token))
        for at, token in enumerate(tokens)
    ]
    change_tokens(folder / "data" / "tokens.toml", lambda _: records)
    running = [Tally(folder, "collector"), Tally(folder, "correlator")]
    try:
        fill(running[0], events)
        wait_until_logged(folder, events, *running)
        api = Tally(folder, "api")
        running.append(api)
        ask = _Asker(api.addresses["http"], tokens[-1])
        ledger = _ledger(ask, events)

        def phase(*, exporting: bool) -> Phase:
            return _phase(
                running,
                ask,
                ledger,
                tokens[:-1],
                think_seconds=think_seconds,
                seconds=seconds,
                exporting=exporting,
            )

        return phase(exporting=False), phase(exporting=True)
    finally:
        for process in reversed(running):
            process.stop()


def _ledger(ask: _Asker, events: int) -> Ledger:
    """Where the events are."""
    entries = ask("GET", "/v1/trails/transaction/tx-0?limit=1")["entries"]
    return Ledger(transactions=events // EVENTS_A_TRANSACTION, stream=entries[0]["entry"]["stream"], events=events)


def _phase(
    running: Sequence[Tally],
    ask: _Asker,
    ledger: Ledger,
    tokens: Sequence[str],
    *,
    think_seconds: float,
    seconds: float,
    exporting: bool,
) -> Phase:
    api = running[-1]
    with ProcessPoolExecutor(CLIENTS, mp_context=multiprocessing.get_context("spawn")) as pool:
        clients = [
            pool.submit(
                _client,
                _Work(
                    url=api.addresses["http"],
                    tokens=tokens[at::CLIENTS],
                    ledger=ledger,
                    think_seconds=think_seconds,
                    seconds=seconds,
                    seed=at,
                ),
            )
            for at in range(CLIENTS)
        ]
        used, began, exported = cpu_seconds(api.process.pid), time.perf_counter(), 0
        job: dict[str, Any] | None = None
        while not all(client.done() for client in clients):
            if exporting and (job is None or job["state"] not in ("queued", "running")):
                exported += _taken(ask, job)
                job = ask("POST", _EXPORT)
            elif job is not None:
                job = ask("GET", f"/v1/export-jobs/{job['id']}")
            for process in running:
                process.drain_log()
            time.sleep(0.5)
        used, took = cpu_seconds(api.process.pid) - used, time.perf_counter() - began
        if job is not None:
            exported += int(job["rows"])
            ask("DELETE", f"/v1/export-jobs/{job['id']}")
        taken: dict[str, list[float]] = {name: [] for name in MIX}
        failed: dict[str, int] = dict.fromkeys(MIX, 0)
        for client in clients:
            for name, (times, errors) in client.result().items():
                taken[name] += times
                failed[name] += errors
    routes = [
        Route(
            name=name,
            requests=len(taken[name]),
            errors=failed[name],
            p50=_at(taken[name], 50),
            p99=_at(taken[name], 99),
        )
        for name in MIX
    ]
    return Phase(
        routes=routes, seconds=seconds, cpu_share=used / took, peak_bytes=api.usage().peak_bytes, exported=exported
    )


def _taken(ask: _Asker, job: dict[str, Any] | None) -> int:
    """Rows of an export that has ended, which is deleted."""
    if job is None:
        return 0
    if job["state"] != "done":
        raise RuntimeError(f"the export failed: {job['problem']}")
    ask("DELETE", f"/v1/export-jobs/{job['id']}")
    return int(job["rows"])


def _at(times: Sequence[float], percent: int) -> float:
    return statistics.quantiles(times, n=100, method="inclusive")[percent - 1] if len(times) > 1 else sum(times)


class _Asker:
    """Asks as one principal, each time over a connection of its own: one that waits is closed by the server."""

    def __init__(self, url: str, token: str) -> None:
        self._where = urlsplit(url)
        self._headers = {"authorization": f"Bearer {token}"}

    def __call__(self, method: str, path: str) -> dict[str, Any]:
        where = self._where
        with closing(
            http.client.HTTPConnection(where.hostname or "", where.port, timeout=_PATIENCE_SECONDS)
        ) as connection:
            connection.request(method, path, headers=self._headers)
            answer = connection.getresponse()
            body = answer.read()
        if answer.status >= http.client.BAD_REQUEST:
            raise RuntimeError(f"{method} {path}: {answer.status} {body[:300]!r}")
        told: dict[str, Any] = json.loads(body)
        return told


# ------------------------------------------------------------------------------------------------------------- clients


@dataclass(frozen=True, slots=True, kw_only=True)
class _Work:
    """What the auditors of one process have before them. `seed`: of their dice."""

    url: str
    tokens: Sequence[str]
    ledger: Ledger
    think_seconds: float
    seconds: float
    seed: int


def _client(work: _Work) -> dict[str, tuple[list[float], int]]:
    """By route the seconds of each answer, and how many were errors."""
    return asyncio.run(_audit(work))


async def _audit(work: _Work) -> dict[str, tuple[list[float], int]]:
    parts, ledger, dice = urlsplit(work.url), work.ledger, random.Random(work.seed)
    seconds, think_seconds = work.seconds, work.think_seconds
    taken: dict[str, list[float]] = {name: [] for name in MIX}
    failed: dict[str, int] = dict.fromkeys(MIX, 0)
    counts_from = time.perf_counter() + _WARM_SHARE * seconds
    until = counts_from + seconds
    names, weights = list(MIX), [weight for weight, _, _ in MIX.values()]

    async def auditor(token: str) -> None:
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
        # not all at once: somebody comes back from a thought at any time
        await asyncio.sleep(dice.random() * min(think_seconds, _WARM_SHARE * seconds))
        while (began := time.perf_counter()) < until:
            name = dice.choices(names, weights)[0]
            _, accept, path = MIX[name]
            writer.write(
                f"GET {path(dice, ledger)} HTTP/1.1\r\nhost: api\r\nauthorization: Bearer {token}\r\n"
                f"accept: {accept or 'application/json'}\r\n\r\n".encode()
            )
            status = await asyncio.wait_for(_answer(reader), _PATIENCE_SECONDS)
            if began >= counts_from:
                taken[name].append(time.perf_counter() - began)
                failed[name] += status != http.client.OK
            await asyncio.sleep(dice.expovariate(1 / think_seconds) if think_seconds else 0)
        writer.close()

    await asyncio.gather(*(auditor(token) for token in work.tokens))
    return {name: (taken[name], failed[name]) for name in MIX}


async def _answer(reader: asyncio.StreamReader) -> int:
    """Read an answer to its end; its status."""
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    status = int(head.split(b" ", 2)[1])
    length = head.partition(b"\r\ncontent-length:")[2].partition(b"\r\n")[0].strip()
    if length:
        await reader.readexactly(int(length))
    elif b"\r\ntransfer-encoding: chunked" in head:
        while size := int(await reader.readuntil(b"\r\n"), 16):
            await reader.readexactly(size + 2)
        await reader.readexactly(2)
    return status
