"""Real ledgers for the command's tests: events through preparation, spool, store and correlator, without a network."""

from __future__ import annotations

import asyncio
import queue
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import msgspec
import pytest

from collector.event import Event, format_time
from collector.extract import Extractor
from collector.pipeline import Pipeline
from collector.prepare import Preparer
from collector.protect import Protector
from collector.receive import Arrival
from collector.spool import Group, Spooled
from deploy.api import serve_api
from deploy.cli import main
from deploy.config import Config, load
from deploy.keys import collector_key, token_key
from deploy.places import Places
from deploy.storing import open_store
from deploy.writing import finish, open_correlator
from tests.support.apis import write_tokens

CONFIG = """
ledger = "test.example/audit"
[collector.stitch]
transaction = ["attributes.payment_id"]
[[collector.stitch.keys]]
name = "order_id"
fields = ["attributes.order_id"]
[[correlator.flows]]
name = "payment"
deadline_seconds = 0.001
steps = [
  { name = "received", match = { name = "received" } },
  { name = "paid", match = { name = "paid" }, after = ["received"] },
]
"""

TRACE = "ab" * 16

Cli = Callable[..., tuple[int, str, str]]


def event(name: str, payment: str, *, message: str = "", trace_id: str = "", order: str = "", second: int = 0) -> Event:
    attributes = {"payment_id": payment} if payment else {}
    return Event(
        time=format_time(1_700_000_000_000_000_000 + second * 1_000_000_000),
        event_name=name,
        body=message or f"{name} {payment}",
        attributes=attributes | ({"order_id": order} if order else {}),
        resource={"service.name": "payments"},
        trace_id=trace_id,
    )


EVENTS = (
    event("received", "p1", message="card 4111 1111 1111 1111 \x1b[2Jpays", trace_id=TRACE, order="o1"),
    event("looked up", "", message="cache warm", trace_id=TRACE, second=1),
    event("paid", "p1", second=2),
    event("received", "p2", order="o1", second=3),
)


class Workshop:
    """A data folder with its configuration, and ways to fill it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.file = folder / "tally.toml"
        self.file.write_text(CONFIG)

    @property
    def config(self) -> Config:
        return load(self.file, environ={}, folder=self.folder)[0]

    @property
    def places(self) -> Places:
        return Places(Path(self.config.data))

    def collect(
        self, events: Sequence[Event], *, close_stream: bool = True, clock: Callable[[], int] = time.time_ns
    ) -> None:
        """What a sidecar whose clock says this does with these events, without the network."""
        config, places = self.config, self.places
        places.make()
        store = open_store(config, places)
        preparer = Preparer(
            extractor=Extractor(config.collector.stitch),
            protector=Protector(token_key=token_key(places)),
            clock=time.time_ns,
        )
        pipeline = Pipeline(
            places.spool("collector"),
            collector="collector",
            ledger=config.ledger,
            store=store,
            key=collector_key(places, "collector"),
            clock=clock,
        )
        pipeline.start()
        prepared = preparer.prepare([Arrival(event=one) for one in events])
        assert prepared.refused == []
        outcomes: list[Spooled | Exception] = []
        group = Group(source_ids=prepared.source_ids, events=prepared.events, facts=prepared.facts)
        pipeline.append(group, outcomes.append)
        assert pipeline.stop(drain_seconds=30.0, close_stream=close_stream)
        assert [type(outcome) for outcome in outcomes] == [Spooled]
        store.close()

    def correlate(self, *, clock: Callable[[], int] = time.time_ns) -> None:
        """Let the correlator take in all there is, and pass all deadlines, at the time that `clock` says."""
        with open_correlator(self.config, self.places, clock=clock) as correlator:
            assert finish(correlator, within_seconds=60.0)
            time.sleep(0.002)  # the flow's deadline: the correlator's clock is the system's
            assert finish(correlator, within_seconds=60.0)


@pytest.fixture
def workshop(tmp_path: Path) -> Workshop:
    return Workshop(tmp_path)


@pytest.fixture(scope="session")
def _two_payments(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = Workshop(tmp_path_factory.mktemp("two-payments"))
    made.collect(EVENTS)
    made.correlate()
    return made.folder


@pytest.fixture
def ledger(_two_payments: Path, workshop: Workshop) -> Workshop:
    """A ledger of two payments: one done, with a line in its trace; one that a step is missing from. A copy of its own."""
    shutil.copytree(_two_payments, workshop.folder, dirs_exist_ok=True)
    return workshop


@pytest.fixture
def cli(workshop: Workshop, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cli:
    """Runs `tally` with these arguments and the workshop's configuration; gives exit code, stdout and stderr."""
    monkeypatch.setenv("TALLY_CONFIG", str(workshop.file))
    monkeypatch.delenv("TALLY_TOKEN", raising=False)

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["tally", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        told = capsys.readouterr()
        return int(ended.value.code or 0), told.out, told.err

    return run


@pytest.fixture
def tokens(ledger: Workshop) -> dict[str, str]:
    """One of each role, in its file."""
    return write_tokens(ledger.places.tokens)


@pytest.fixture
def url(ledger: Workshop, tokens: dict[str, str]) -> Iterator[str]:
    """An API over the filled workshop, in a thread."""
    config = msgspec.structs.replace(ledger.config, audit_api=msgspec.structs.replace(ledger.config.audit_api, port=0))
    told: queue.Queue[str] = queue.Queue()
    stop: list[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = []

    async def serve() -> None:
        stopped = asyncio.Event()
        stop.append((asyncio.get_running_loop(), stopped))

        def ready(where: Mapping[str, str]) -> None:
            told.put(where["http"])

        await serve_api(config, ledger.places, stopped=stopped, ready=ready)

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    try:
        yield told.get(timeout=30)
    finally:
        loop, stopped = stop[0]
        loop.call_soon_threadsafe(stopped.set)
        thread.join(30)


@pytest.fixture
def remote(url: str, tokens: dict[str, str], ledger: Workshop, tmp_path: Path) -> list[str]:
    """The options that name the API, its token and the ledger's key."""
    file = tmp_path / "token"
    file.write_text(tokens["auditor"] + "\n")
    file.chmod(0o600)
    return ["--api", url, "--token-file", str(file), "--log-key", str(ledger.places.log_vkey)]
