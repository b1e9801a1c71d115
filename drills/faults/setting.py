"""What faults are made in: Tallystick with traffic, a real Prometheus with our rules, a real Alertmanager with our routes, and a webhook.

Rules and the grouping of messages are hurried: minutes are `HURRY` times as short, windows and patience alike, so that a fault and its end take a minute and not an hour. What is
measured holds for those. Not hurried are the pauses of a sidecar whose store is away, some seconds: the keeper's patience is longer, as it is by default. On a real installation an alert takes its own `for` and window longer (promtool shows these: tests/alerting).
"""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.parser import text_string_to_metric_families

from deploy.processes import running
from drills.installation import until
from tests.servers.alertmanager import RECEIVERS, Alertmanager, Webhook, need_alertmanager, webhook
from tests.servers.prometheus import Prometheus, free_port, need_prometheus
from tests.support.observed import Observed, observed
from tests.support.time_server import TimeServer, time_server

__all__ = ["HURRY", "Setting", "hurried", "setting"]

HURRY = 20
"""By how much the rules' time is shortened: five minutes are fifteen seconds."""

_LEAST_SECONDS = 10
_SETTLE_SECONDS = 180.0

_UNITS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}
_WINDOW = re.compile(r"(\[|offset )(\d+)([smhd])\b")
_GROUPED = re.compile(r"(group_wait: |group_interval: )(\d+)([smhd])\b")
_PATIENCE = re.compile(r"^(\s+for: )(\d+)([smhd])$", re.MULTILINE)

_CONFIG = """
[collector.clock]
server = "127.0.0.1"
port = {clock_port}
interval_seconds = 16
[collector.ship]
heartbeat_seconds = 1
{store}
[dashboards]
grafana_url = "https://grafana.example"
api_url = "https://audit.example"
[incidents]
poll_seconds = 0.2
probe_seconds = 1.0
patience_seconds = 18.0
quiet_seconds = 30.0
lost_seconds = 15.0
check_file = "{folder}/check.prom"
alertmanagers = ["http://{alertmanager}"]
"""

_ALERTING = """
expected_collectors = ["side", "edge"]
runbook_url = "https://wiki.example/tally/"
check_hours = 0
incident_hours = 0
reads_least = 5000
"""

_EDGE = """
ledger = "boards.example/audit"
[collector]
name = "edge"
[collector.forward]
port = -1
[collector.http]
port = {port}
[collector.ship]
heartbeat_seconds = 1
{store}
"""


def hurried(rules: str) -> str:
    """Rules whose windows, offsets and patience are `HURRY` times as short, and ten seconds at least, and which are evaluated as often as the server says."""

    def shorter(found: re.Match[str]) -> str:
        seconds = int(found[2]) * _UNITS[found[3]]
        return f"{found[1]}{max(_LEAST_SECONDS, round(seconds / HURRY))}s"

    text = _PATIENCE.sub(shorter, _WINDOW.sub(shorter, rules))
    return re.sub(r"^\s+interval: .+\n", "", text, flags=re.MULTILINE)


def _sooner(found: re.Match[str]) -> str:
    return f"{found[1]}{max(1, round(int(found[2]) * _UNITS[found[3]] / HURRY))}s"


class Sidecar:
    """A sidecar beside those of `tally up`, which nobody starts again: it is killed, and started by who killed it."""

    def __init__(self, folder: Path, store: str) -> None:
        self._file = folder / "edge.toml"
        self._file.write_text(
            _EDGE.format(store=store, port=free_port())
        )  # the same after each start: it is scraped there
        self._run = folder / "tally-data" / "run"
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> str:
        """Start it; gives host:port of its metrics once it is ready."""
        with (self._folder / "edge.log").open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "deploy.cli", "--config", str(self._file), "run", "collector"],
                stdin=subprocess.DEVNULL,
                stderr=log,
            )
        pid = self._process.pid
        (mine,) = until("the other sidecar is ready", lambda: [one for one in running(self._run) if one.pid == pid])
        return str(mine.addresses["http"]).removeprefix("http://")

    def kill(self) -> None:
        """SIGKILL."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def stop(self) -> None:
        """Stop it as a service manager does."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(30)
            finally:
                self.kill()


@dataclass
class Setting:
    """Everything that runs.

    Attributes:
        here: the installation; its traffic is made by a thread (`mood` says how).
        heard: the webhook.
        clock: the time server that its sidecar asks.
        edge: the sidecar that may be killed.
        mood: arguments of `Observed.second` for the traffic.
        cluster: the store, where it is OpenSearch.
        findings: what each check said that found something.
    """

    folder: Path
    here: Observed
    heard: Webhook
    clock: TimeServer
    edge: Sidecar
    alertmanager: Alertmanager
    prometheus: Prometheus
    cluster: Any = None
    mood: dict[str, Any] = field(default_factory=lambda: {"calm": True})
    failed: list[BaseException] = field(default_factory=list)
    findings: list[str] = field(default_factory=list)

    @property
    def alerts(self) -> list[dict[str, Any]]:
        """What Alertmanager has now, but for the watchdog."""
        return [one for one in self.alertmanager.alerts() if one["labels"]["alertname"] != "TallyWatchdog"]

    def told(self, since: float) -> list[dict[str, Any]]:
        """What the webhook heard since this time, but for the watchdog."""
        return [
            one for one in self.heard.heard if one["arrived"] > since and one["labels"]["alertname"] != "TallyWatchdog"
        ]

    def incidents(self) -> dict[str, dict[str, Any]]:
        """Those that the log has, by id."""
        return {one["id"]: one for one in self.here.incidents()}

    def settled(self, seconds: float = _SETTLE_SECONDS) -> None:
        """Wait until no alert fires and no incident is open."""
        until("no alert fires", lambda: not self.alerts, seconds=seconds)
        until(
            "no incident is open",
            lambda: not [one for one in self.incidents().values() if one["open"]],
            seconds=seconds,
        )


@contextmanager
def setting(folder: Path, *, cluster: Any = None) -> Iterator[Setting]:
    """Start everything in a folder, wait until it is calm, and stop it in the end.

    Args:
        folder: an empty one.
        cluster: a `tests.servers.opensearch.Cluster` for the store; None: SQLite.
    """
    need_prometheus()
    need_alertmanager()
    folder.mkdir(parents=True, exist_ok=True)
    store = ""
    if cluster is not None:
        store = f'[store]\nurls = {list(cluster.urls)}\nprefix = "faults"\ntimeout_seconds = 3.0\n'.replace("'", '"')
    with ExitStack() as ends:
        heard = ends.enter_context(webhook("s3cret"))
        clock = ends.enter_context(time_server())
        port = free_port()  # known before it runs: the keeper of incidents asks it
        more = (
            _ALERTING
            + RECEIVERS.format(url=heard.url)
            + _CONFIG.format(clock_port=clock.port, store=store, folder=folder, alertmanager=f"127.0.0.1:{port}")
        )
        here = ends.enter_context(observed(folder, more))
        edge = Sidecar(folder, store)
        ends.callback(edge.stop)
        targets = here.targets | {"collector-edge": edge.start(), "check": ends.enter_context(_textfile(folder))}
        done = here.tally("render", "-o", str(folder / "out"), "--only", "alerts")
        if done.returncode:
            raise RuntimeError(done.stderr)
        rules = folder / "out" / "prometheus" / "tallystick.rules.yml"
        rules.write_text(hurried(rules.read_text()))
        config = folder / "out" / "alertmanager" / "alertmanager.yml"
        config.write_text(_GROUPED.sub(_sooner, config.read_text()))
        (config.parent / "token").write_text("s3cret\n")
        alertmanager = ends.enter_context(Alertmanager(folder / "alertmanager", config, port=port))
        prometheus = ends.enter_context(
            Prometheus(folder / "prometheus", targets, rules=rules, alertmanager=alertmanager.address)
        )
        made = Setting(
            folder=folder,
            here=here,
            heard=heard,
            clock=clock,
            edge=edge,
            alertmanager=alertmanager,
            prometheus=prometheus,
            cluster=cluster,
        )
        stop = threading.Event()
        threads = [threading.Thread(target=one, args=(made, stop), daemon=True) for one in (_traffic, _checks)]
        for thread in threads:
            thread.start()
        try:
            heard.until(lambda one: one["labels"]["alertname"] == "TallyWatchdog")
            made.settled()
            yield made
        finally:
            stop.set()
            for thread in threads:
                thread.join(60)


def _traffic(made: Setting, stop: threading.Event) -> None:
    while not stop.wait(0.5):
        try:
            made.here.second(**made.mood)
        except Exception as error:  # noqa: BLE001 - told by who looks at the outcome
            made.failed.append(error)


def _checks(made: Setting, stop: threading.Event) -> None:
    """As a timer runs `tally check` every day, here again and again."""
    while not stop.wait(1.0):
        done = made.here.tally("check", "--textfile", str(made.folder / "check.prom"))
        if done.returncode == 1:
            made.findings.append(done.stdout)


class _Textfile:
    """What the check left, as a node exporter serves it."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def collect(self) -> Iterator[Any]:
        """Its metrics."""
        if self._path.is_file():
            yield from text_string_to_metric_families(self._path.read_text())


@contextmanager
def _textfile(folder: Path) -> Iterator[str]:
    registry = CollectorRegistry()
    registry.register(_Textfile(folder / "check.prom"))  # a collector by its method, as the library has it
    server, thread = start_http_server(0, addr="127.0.0.1", registry=registry)
    try:
        yield f"127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
