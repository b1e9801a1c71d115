"""What faults are made in: the demo, running, a real Prometheus with our rules, a real Alertmanager with our routes, and a webhook.

Rules and the grouping of messages can be hurried: minutes are `HURRY` times as short, windows and patience alike, so that a fault and its end take a minute and not an hour. What is
measured holds for those. Not hurried are the pauses of a sidecar whose store is away, some seconds: the keeper's patience is longer, as it is by default. On a real installation an
alert takes its own `for` and window longer (promtool shows these: tests/alerting). Without hurry everything is as `tally render` writes it, and the keeper has its defaults.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry

from drills.faults.demo import APART, EVERYDAY, Demo, demo
from drills.installation import until
from tests.servers.alertmanager import RECEIVERS, Alertmanager, Webhook, need_alertmanager, webhook
from tests.servers.prometheus import Prometheus, free_port, need_prometheus
from tests.support.exposed import Textfile, exposed
from tests.support.installed import tally
from tests.support.time_server import TimeServer, time_server

__all__ = ["HURRY", "Setting", "hurried", "setting"]

HURRY = 20
"""By how much the rules' time is shortened: five minutes are fifteen seconds."""

_LEAST_SECONDS = 10
_SETTLE_SECONDS = 180.0
_CHECK_SECONDS = 1.0
_CHECK_MOST_SECONDS = 600.0

_UNITS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}
_WINDOW = re.compile(r"(\[|\[\d+[smhd]:|offset )(\d+)([smhd])\b")
_GROUPED = re.compile(r"(group_wait: |group_interval: )(\d+)([smhd])\b")
_PATIENCE = re.compile(r"^(\s+for: )(\d+)([smhd])$", re.MULTILINE)

_INCIDENTS = """
[dashboards]
grafana_url = "https://grafana.example"
api_url = "https://audit.example"
[incidents]
check_file = "{folder}/check.prom"
alertmanagers = ["http://{alertmanager}"]
"""

_HURRIED = """
poll_seconds = 0.2
probe_seconds = 1.0
patience_seconds = 18.0
quiet_seconds = 30.0
lost_seconds = 15.0
[collector.ship]
heartbeat_seconds = 1
"""

_ALERTING = """
[alerting]
slos = [{{ service = "payments", objective = 0.98, latency_seconds = 1.0, team = "payments", least_requests = 1 }}]
expected_collectors = ["{apart}"]
runbook_url = "https://wiki.example/tally/"
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


@dataclass
class Setting:
    """Everything that runs.

    Attributes:
        here: the demo; its customers pay in a thread (`mood` says how).
        heard: the webhook.
        clock: the time server that the sidecar apart asks.
        mood: what the customers rehearse.
        cluster: the store, where it is OpenSearch.
        failed: what the customers met with that they should not.
        findings: what each check said that found something.
        checks: how many came to their end.
    """

    folder: Path
    here: Demo
    heard: Webhook
    clock: TimeServer
    alertmanager: Alertmanager
    prometheus: Prometheus
    cluster: Any = None
    mood: Sequence[str] = EVERYDAY
    failed: list[BaseException] = field(default_factory=list)
    findings: list[str] = field(default_factory=list)
    checks: int = 0

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
def setting(folder: Path, *, cluster: Any = None, hurry: bool = True) -> Iterator[Setting]:
    """Start everything in a folder, wait until it is calm, and stop it in the end.

    Args:
        folder: an empty one.
        cluster: a `tests.servers.opensearch.Cluster` for the store; None: SQLite.
        hurry: whether rules, grouping and the keeper of incidents are hurried.
    """
    need_prometheus()
    need_alertmanager()
    folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as ends:
        heard = ends.enter_context(webhook("s3cret"))
        clock = ends.enter_context(time_server())
        port = free_port()  # known before it runs: the keeper of incidents asks it
        more = _ALERTING.format(apart=APART) + RECEIVERS.format(url=heard.url)
        more += _INCIDENTS.format(folder=folder, alertmanager=f"127.0.0.1:{port}") + (_HURRIED if hurry else "")
        if cluster is not None:
            urls = json.dumps(list(cluster.urls))
            more += f'[store]\nurls = {urls}\nprefix = "faults"\ntimeout_seconds = 3.0\n'
        asked = f'server = "127.0.0.1"\nport = {clock.port}\n' + ("interval_seconds = 16\n" if hurry else "")
        here = ends.enter_context(demo(folder, more, asked))
        left = CollectorRegistry()
        left.register(Textfile(folder / "check.prom"))
        targets = here.targets | {"check": ends.enter_context(exposed(left))}
        done = here.tally("render", "-o", str(folder / "out"), "--only", "alerts")
        if done.returncode:
            raise RuntimeError(done.stderr)
        rules = folder / "out" / "prometheus" / "tallystick.rules.yml"
        config = folder / "out" / "alertmanager" / "alertmanager.yml"
        if hurry:
            rules.write_text(hurried(rules.read_text()))
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
            alertmanager=alertmanager,
            prometheus=prometheus,
            cluster=cluster,
        )
        stop = threading.Event()
        pause_seconds = _CHECK_SECONDS if hurry else _CHECK_SECONDS * HURRY
        threads = [
            threading.Thread(target=_customers, args=(made, stop), daemon=True),
            threading.Thread(target=_checks, args=(made, stop, pause_seconds), daemon=True),
        ]
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


def _customers(made: Setting, stop: threading.Event) -> None:
    while not stop.wait(0.7):
        try:
            made.here.second(made.mood)
        except Exception as error:  # noqa: BLE001 - told by who looks at the outcome
            made.failed.append(error)


def _checks(made: Setting, stop: threading.Event, pause_seconds: float) -> None:
    """As a timer runs `tally check` every day, here again and again."""
    while not stop.wait(pause_seconds):
        done = tally(made.folder, "check", "--textfile", str(made.folder / "check.prom"), seconds=_CHECK_MOST_SECONDS)
        made.checks += done.returncode in (0, 1)  # else it could not tell, as when the store is away
        if done.returncode == 1:
            made.findings.append(done.stdout)
