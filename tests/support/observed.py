"""A small installation with traffic, for boards and alerts: `tally up`, services that answer well and badly, payments, readers, a check.

What a single machine without OpenSearch, without a broker and without a SIEM has not got is served by the product's own metric objects, counted by
hand in this process (`Beside`): the queries meet the real names, labels and types, and the numbers are made up.
"""

from __future__ import annotations

import json
import math
import random
import time
from collections.abc import Container, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry

from audit_api.metrics import ApiMetrics, SiemMetrics
from collector.batch import Clock
from collector.metrics import CollectorMetrics
from collector.store.metrics import ClusterMetrics
from tests.support.exposed import Textfile
from tests.support.installed import Installed, auditor_token
from tests.support.tally_up import Up, supervised

CONFIG = """
ledger = "boards.example/audit"
[collector]
name = "side"
[collector.forward]
port = -1
[collector.http]
port = 0
[collector.requests]
max_operations = 4
[[collector.tail]]
paths = ["{folder}/*.log"]
name = "batch-jobs"
[[collector.stitch.amounts]]
fields = ["attributes.amount"]
currency_fields = ["attributes.currency"]
[[correlator.flows]]
name = "payment"
deadline_seconds = 3.0
steps = [
  {{ name = "received", match = {{ name = "received" }} }},
  {{ name = "paid", match = {{ name = "paid" }}, after = ["received"] }},
]
[audit_api]
port = 0
daily_review_since = "{review_since}"
[detector]
poll_seconds = 0.1
[[detector.payments]]
name = "shop"
event = "paid"
amount = "attributes.amount"
currency = "attributes.currency"
account = "attributes.card"
[[detector.rules]]
kind = "amount"
name = "large"
above = "500"
severity = "critical"
[[detector.rules]]
kind = "velocity"
name = "burst"
within_seconds = 20
count = 5
[alerting]
slos = [{{ service = "payments", objective = 0.98, latency_seconds = 1.0, team = "payments", least_requests = 1 }}]
{more}
"""

SERVICES = {
    "payments": ("POST /payments", "GET /payments/{id}", "POST /refunds"),
    "ledger": ("reserve", "capture"),
    "risk": ("assess",),
    "gateway": ("GET /", "POST /checkout"),
}


def _http(operation: str) -> list[dict[str, Any]]:
    """Attributes of a span whose name is a method and a route."""
    method, _, route = operation.partition(" ")
    told = {"http.request.method": method, "http.route": route} if route else {}
    return [{"key": key, "value": {"stringValue": value}} for key, value in told.items()]


class Observed(Installed):
    """A running `tally up` with made-up traffic."""

    def __init__(self, folder: Path, up: Up, token: str) -> None:
        super().__init__(folder, up, token)
        self._at = 0
        self._chance = random.Random(7)

    def second(self, trouble: float = 0.0) -> None:
        """About a second's traffic. `trouble` from 0 to 1: so much of what payments answers fails and is slow."""
        self._at += 1
        wave = 1 + 0.5 * math.sin(self._at / 20)
        for service, operations in SERVICES.items():
            spans = [
                self._span(operation, trouble if service == "payments" else 0.0)
                for operation in operations
                for _ in range(1 + round(3 * wave * self._chance.random()))
            ]
            self._spans(service, spans)
        self._payments(
            [*self._everyday(), *self._suspicious()],
            forgotten=[0] if self._at % 5 == 0 else (),
            late=self._at % 15 == 0,
        )
        with (self.folder / "jobs.log").open("a", encoding="utf-8") as log:
            log.write(json.dumps({"message": "a job is done", "service": "jobs"}) + "\n")
        self._http.get(f"{self.urls['api']}/v1/trails", params={"limit": "5"}, headers=self._headers)
        self._http.get(f"{self.urls['api']}/v1/status", headers=self._headers if self._at % 4 else {})
        if self._at % 7 == 0 and self._at % 150 < 100:  # then nothing for a while: what failed gets well again
            self._http.post(f"{self.urls['collector-side']}/v1/events", content="no json")

    def sign_day(self, day: str) -> None:
        """Sign a day off that nothing happened on."""
        answer = self._http.post(
            f"{self.urls['api']}/v1/review-days/{day}",
            json={"open": 0},
            headers=self._headers,
        )
        assert answer.status_code == 201, answer.text

    def _span(self, operation: str, trouble: float) -> dict[str, Any]:
        failed = self._chance.random() < 0.002 + trouble / 4
        seconds = self._chance.lognormvariate(-3.2, 0.6) * (1 + 20 * trouble)
        now_ns = time.time_ns()
        return {
            "traceId": f"{self._chance.getrandbits(128):032x}",
            "spanId": f"{self._chance.getrandbits(64):016x}",
            "name": operation,
            "kind": 2,
            "startTimeUnixNano": str(now_ns - int(seconds * 1e9)),
            "endTimeUnixNano": str(now_ns),
            "status": {"code": 2} if failed else {},
            "attributes": _http(operation),
        }

    def _spans(self, service: str, spans: list[dict[str, Any]]) -> None:
        resource = {"attributes": [{"key": "service.name", "value": {"stringValue": service}}]}
        body = {"resourceSpans": [{"resource": resource, "scopeSpans": [{"spans": spans}]}]}
        answer = self._http.post(f"{self.urls['collector-side']}/v1/traces", json=body)
        assert answer.status_code == 200, answer.text

    def _payments(
        self, payments: Sequence[tuple[str, float, str]], *, forgotten: Container[int], late: bool = False
    ) -> None:
        lines = []
        for one, (card, amount, currency) in enumerate(payments):
            payment = {"service": "shop", "transaction_id": f"pay-{self._at}-{one}"}
            money = {"card": card, "amount": amount, "currency": currency}
            lines.append({**payment, "event_name": "received", **money})
            if one not in forgotten:
                lines.append({**payment, "event_name": "paid", **money})
        if late:  # what was forgotten ten seconds ago comes after all
            paid = {"service": "shop", "transaction_id": f"pay-{self._at - 10}-0", "event_name": "paid"}
            lines.append({**paid, "card": f"card-{self._at}", "amount": 30.0, "currency": "EUR"})
        text = "\n".join(json.dumps(line) for line in lines)
        headers = {"content-type": "application/x-ndjson"}
        answer = self._http.post(f"{self.urls['collector-side']}/v1/events", content=text, headers=headers)
        assert answer.status_code == 200, answer.text

    def _everyday(self) -> list[tuple[str, float, str]]:
        """Cards, amounts and currencies that no rule tells, but for one amount in some thousands."""
        return [
            (f"card-{self._chance.randrange(400)}", round(self._chance.lognormvariate(3.4, 0.8), 2), currency)
            for currency in ("EUR", "EUR", "USD", "GBP")
        ]

    def _suspicious(self) -> list[tuple[str, float, str]]:
        """Now and then a large amount, or a card that pays six times within a second: together a few findings in a hundred payments."""
        found = []
        if self._at % 13 == 8:
            found.append((f"card-{self._chance.randrange(400)}", round(self._chance.uniform(600, 1_500), 2), "EUR"))
        if self._at % 25 == 9:
            found += [(f"stolen-{self._at}", round(self._chance.uniform(20, 60), 2), "EUR") for _ in range(6)]
        return found


@contextmanager
def observed(folder: Path, more: str = "", *, review_since: str = "") -> Iterator[Observed]:
    """An installation in `folder`; `more` is put at the end of its configuration, days are to be signed off from `review_since` on.

    Everything is stopped at the end.
    """
    config = CONFIG.format(folder=folder, more=more, review_since=review_since)
    (folder / "tally.toml").write_text(config)  # a token is added before anything runs
    token = auditor_token(folder)
    with supervised(folder, config) as up:
        here = Observed(folder, up, token)
        try:
            yield here
        finally:
            here.close()


class Beside:
    """What is not in the installation, by the product's metric objects; and `tally check --textfile`, as a node exporter serves it."""

    def __init__(self, textfile: Path) -> None:
        self.registry = CollectorRegistry()
        self._store = ClusterMetrics(self.registry, part="store")
        self._index = ClusterMetrics(self.registry, part="index")
        self._collector = CollectorMetrics(collector="elsewhere")
        self._siem = SiemMetrics(["desk"])
        self._api = ApiMetrics()
        self._collector.input_opens("forward")
        self._offset_ns = 0
        self._collector.watch_clock(lambda: Clock(offset_ns=self._offset_ns, uncertainty_ns=1_000_000))
        self._textfile = Textfile(textfile)
        self.registry.register(self)  # a collector by its method, as the library has it

    def collect(self) -> Iterator[Any]:
        """The metrics of a collector elsewhere for its broker, its clock, its full spool and the metrics that it lets go of, of an API that shares limits, of what sends to a SIEM, and what the check left."""
        for family in self._collector.registry.collect():
            if family.name.startswith(
                (
                    "tally_collector_broker",
                    "tally_collector_clock",
                    "tally_collector_input",
                    "tally_collector_metrics_dropped",
                )
            ):
                yield family
        for family in self._api.registry.collect():
            if family.name in ("tally_api_limits_shared", "tally_api_shared_limit_failures"):
                yield family
        yield from self._siem.registry.collect()
        yield from self._textfile.collect()

    def second(self, trouble: float = 0.0) -> None:
        """A second of a cluster's, a broker's, a SIEM's and a Redis' work; in trouble shards and Redis are away, the SIEM is slow, a spool full."""
        self._api.limits_shared.set(not trouble)
        self._api.shared_limit_failures.inc(bool(trouble))
        for way, room in (("forward", 6), ("http", 1)):
            self._collector.input_waited(way)
            for _ in range(room if trouble else 0):
                self._collector.refused_input(way)
        self._collector.metric_points_dropped("queue_full", 9 if trouble else 0)
        self._offset_ns = -80_000_000 if trouble else 2_000_000
        self._siem.sent.labels("desk").inc(0 if trouble else 40)
        self._siem.failures.labels("desk").inc(bool(trouble))
        self._siem.behind.labels("desk").set(400 if trouble else 3)
        self._siem.behind_seconds.labels("desk").set(40 if trouble else 0.3)
        self._collector.broker("kafka", "orders", not trouble, 20)
        for metrics in (self._store, self._index):
            for operation in ("read", "write"):
                for _ in range(3):
                    metrics.answered(operation, "ok", seconds=0.004 + trouble / 50, sent=4_000, received=300)
            outcome = "no_shard" if trouble else "created"
            metrics.wrote({outcome: 50})
            if trouble:
                metrics.answered("write", "no_shard", seconds=0.2, sent=4_000, received=100)
