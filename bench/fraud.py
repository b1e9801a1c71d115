"""Rules on public data sets of payments with fraud labels: how much of it they tell, and how fast; and from a payment to its alert."""

from __future__ import annotations

import csv
import gzip
import http.client
import json
import os
import statistics
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from pathlib import Path

from alerting.detect.amounts import AmountRule, VelocityRule
from alerting.detect.anomaly import AnomalyRule
from alerting.detect.backtest import Backtest, try_rules
from alerting.detect.engine import Engine
from alerting.detect.flows import FanRule, RoundTripRule
from alerting.detect.habits import NewRule, TravelRule
from alerting.detect.payment import Payment
from alerting.detect.rule import Rule
from bench.hindsight import Labelled, Model, boosted_trees, features, highest, split_at
from bench.process import Tally

__all__ = ["BUDGET", "BUDGETS", "DataSet", "Delay", "Later", "bench_alerts", "bench_fraud", "data_folder", "later_part"]

_DAY_SECONDS = 86_400
BUDGET = 0.005
"""The share of payments that each baseline tells, and that the rule of kind anomaly is given."""

BUDGETS = (BUDGET, 0.01, 0.05)
"""The shares that whoever ranks payments is given on the later part of a history."""

CARD_RULES: tuple[Rule, ...] = (
    AmountRule(name="above 900", above=Decimal(900)),
    VelocityRule(name="1,500 a day", within_seconds=_DAY_SECONDS, total=Decimal(1_500)),
    NewRule(name="above 700 to a new merchant", field="counterparty", above=Decimal(700)),
    TravelRule(name="faster than 500 km/h", kmh=500),
    AnomalyRule(name="anomaly", budget=BUDGET),
)
TRANSFER_RULES: tuple[Rule, ...] = (
    RoundTripRule(name="round trip within 30 days", hops=8, share=0.7, within_seconds=30 * _DAY_SECONDS),
    FanRule(name="8 payers in 10 days", direction="in", count=8, within_seconds=10 * _DAY_SECONDS),
    FanRule(name="8 payees in 10 days", direction="out", count=8, within_seconds=10 * _DAY_SECONDS),
    AnomalyRule(name="anomaly", budget=BUDGET),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Later:
    """The later part of a history, and what each made of it; whatever learns had the earlier part to learn from.

    Attributes:
        begins: the first day of it (UTC, ISO 8601).
        payments, fraud: how many there are in it, and how many of them are fraud.
        told: by who told: how many payments, and how many of them were fraud.
        model: whether the model that was shown labels is among them; it is not where scikit-learn is missing.
    """

    begins: str
    payments: int
    fraud: int
    told: dict[str, tuple[int, int]]
    model: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class DataSet:
    """What the rules made of one data set.

    Attributes:
        baselines: of each by its name: how many payments it told (the budget), and how many of them were fraud.
        later: the later half alone, beside a model that was shown the labels of the earlier.
    """

    name: str
    found: Backtest
    baselines: dict[str, tuple[int, int]]
    later: Later
    payments_a_second: float
    declared_a_second: float


def bench_fraud(data: Path) -> list[DataSet]:
    """Show both data sets to their rules. `data`: the folder of data sets."""
    return [
        _shown("Sparkov, card payments", list(_sparkov(data / "txn" / "sparkov" / "transactions.csv.gz")), CARD_RULES),
        _shown("AMLSim, transfers", list(_amlsim(data / "txn" / "amlsim")), TRANSFER_RULES),
    ]


def _shown(name: str, payments: Labelled, rules: Sequence[Rule]) -> DataSet:
    found, seconds = _timed(payments, rules)
    _, declared_seconds = _timed(payments, [rule for rule in rules if not isinstance(rule, AnomalyRule)])
    told, fraud = int(len(payments) * BUDGET), [suspicious for _, suspicious in payments]
    return DataSet(
        name=name,
        found=found,
        baselines={name: (told, highest(scores, fraud, told)) for name, scores in _baselines(payments).items()},
        later=later_part(payments, rules, model=boosted_trees if find_spec("sklearn") else None),
        payments_a_second=len(payments) / seconds,
        declared_a_second=len(payments) / declared_seconds,
    )


def later_part(payments: Labelled, rules: Sequence[Rule], *, model: Model | None) -> Later:
    """Rules, baselines and a model on the later half of a history, all on the same payments.

    Rules and baselines see the earlier half as they saw it then, without labels; `model` is trained on it with labels. Rules tell as they go;
    baselines and model rank the later half when it is over, and tell of the highest.
    """
    at = split_at(payments, 0.5)
    fraud = [suspicious for _, suspicious in payments]
    later = len(payments) - at
    found = _found_later(rules, payments, at)
    budgets = [AnomalyRule(name=f"anomaly, {budget:.1%}", budget=budget) for budget in BUDGETS]
    told = {
        name: (score.told, score.right)
        for name, score in (
            *found.rules.items(),
            ("any rule", found.any_rule),
            *_found_later(budgets, payments, at).rules.items(),
        )
        if name != "anomaly"  # it is there with its budget
    }
    rankings: dict[str, Sequence[float]] = {
        f"baseline: {name}": scores[at:] for name, scores in _baselines(payments).items()
    }
    if model:
        rows = features(payment for payment, _ in payments)
        rankings["offline model"] = model(rows[:at], fraud[:at], rows[at:])
    for name, scores in rankings.items():
        right = partial(highest, scores, fraud[at:])
        told |= {f"{name}, {budget:.1%}": (int(later * budget), right(int(later * budget))) for budget in BUDGETS}
        if name == "offline model":
            told[f"{name}, as many as any rule"] = found.any_rule.told, right(found.any_rule.told)
    return Later(
        begins=datetime.fromtimestamp(payments[at][0].time_ns // 1_000_000_000, UTC).date().isoformat(),
        payments=later,
        fraud=sum(fraud[at:]),
        told=told,
        model=model is not None,
    )


def _found_later(rules: Sequence[Rule], payments: Labelled, at: int) -> Backtest:
    """What rules that have seen the payments before `at` find from there on."""
    engine = Engine(rules)
    for payment, _ in payments[:at]:
        engine.look(payment)
    return try_rules(engine, payments[at:])


def _baselines(payments: Labelled) -> dict[str, list[float]]:
    """What needs no rules: a score for each payment."""
    return {
        "the largest": [float(payment.amount) for payment, _ in payments],
        "furthest above what the account paid before": _against_before(payments),
    }


def _against_before(payments: Labelled) -> list[float]:
    """Each amount divided by the mean of what its account paid before it in its currency; 0 for an account's first."""
    before: dict[tuple[str, str], tuple[int, float]] = {}
    scores = []
    for payment, _ in payments:
        account, amount = (payment.account, payment.currency), float(payment.amount)
        count, total = before.get(account, (0, 0.0))
        scores.append(amount * count / total if total else 0.0)
        before[account] = count + 1, total + amount
    return scores


def _timed(payments: Labelled, rules: Sequence[Rule]) -> tuple[Backtest, float]:
    engine = Engine(rules)
    began = time.process_time()
    found = try_rules(engine, payments)
    return found, time.process_time() - began


def _sparkov(path: Path) -> Iterator[tuple[Payment, bool]]:
    with gzip.open(path, "rt", encoding="utf-8", newline="") as file:
        for at, row in enumerate(csv.DictReader(file, delimiter="|")):
            payment = Payment(
                kind="card",
                leaf=at,
                time_ns=int(row["unix_time"]) * 1_000_000_000,
                amount=Decimal(row["amt"]),
                currency="USD",
                account=row["cc_num"],
                counterparty=row["merchant"],
                category=row["category"],
                place=(float(row["merch_lat"]), float(row["merch_long"])),
            )
            yield payment, row["is_fraud"] == "1"


def _amlsim(folder: Path) -> Iterator[tuple[Payment, bool]]:
    """Steps are taken for days, and the transfers of a step spread over its day."""
    with gzip.open(folder / "nodes.csv.gz", "rt", encoding="utf-8", newline="") as file:
        ring = {row["nodeid"] for row in csv.DictReader(file) if row["isFraud"] != "0"}
    with gzip.open(folder / "transactions.csv.gz", "rt", encoding="utf-8", newline="") as file:
        rows = sorted(enumerate(csv.DictReader(file)), key=lambda one: (int(one[1]["time"]), one[0]))
    for at, row in rows:
        source, target = row["sourceNodeId"], row["targetNodeId"]
        seconds = 1_704_067_200 + int(row["time"]) * _DAY_SECONDS + at % _DAY_SECONDS
        payment = Payment(
            kind="transfer",
            leaf=at,
            time_ns=seconds * 1_000_000_000,
            amount=Decimal(row["value"]),
            currency="USD",
            account=source,
            counterparty=target,
        )
        yield payment, source in ring and target in ring


_CONFIG = """
data = "data"
[collector.forward]
port = -1
[collector.http]
port = 0
[correlator]
poll_max_seconds = 0.2
[detector]
poll_seconds = 0.1
[[detector.payments]]
name = "card"
event = "paid"
amount = "attributes.amount"
account = "attributes.card"
[[detector.rules]]
kind = "amount"
name = "large"
above = "1000"
[detector.alertmanager]
urls = ["{url}"]
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Delay:
    """Seconds from the sending of a payment until its alert was posted."""

    payments: int
    alerts: int
    payments_a_second: float
    p50: float
    p99: float


def bench_alerts(folder: Path, *, payments: int, payments_a_second: float, suspicious_of: int = 20) -> Delay:
    """Send payments at a steady rate to a sidecar; every so many is suspicious. Processes as a user runs them; the receiver is ours."""
    posted: dict[str, float] = {}

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            now = time.perf_counter()
            for alert in json.loads(self.rfile.read(int(self.headers["content-length"]))):
                posted.setdefault(alert["annotations"]["trail"], now)
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  (http.server's name)
            """Nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    folder.mkdir(parents=True)
    (folder / "tally.toml").write_text(_CONFIG.format(url=f"http://127.0.0.1:{server.server_port}"))
    running: list[Tally] = []
    try:
        running += (Tally(folder, process) for process in ("collector", "correlator", "detector"))
        sent = _send(
            running[0].addresses["http"].removeprefix("http://"), payments, payments_a_second, suspicious_of, running
        )
        deadline = time.monotonic() + 60
        while len(posted) < len(sent) and time.monotonic() < deadline:
            time.sleep(0.05)
    finally:
        for one in reversed(running):
            one.stop()
        server.shutdown()
        server.server_close()
        thread.join()
    if missing := sent.keys() - posted.keys():
        raise RuntimeError(f"{len(missing)} of {len(sent)} suspicious payments were never told")
    delays = sorted(posted[trail] - at for trail, at in sent.items())
    return Delay(
        payments=payments,
        alerts=len(sent),
        payments_a_second=payments_a_second,
        p50=statistics.median(delays),
        p99=delays[int(len(delays) * 0.99)],
    )


def _send(address: str, payments: int, rate: float, suspicious_of: int, running: Sequence[Tally]) -> dict[str, float]:
    connection = http.client.HTTPConnection(address, timeout=10)
    sent: dict[str, float] = {}
    begin = time.perf_counter()
    for at in range(payments):
        wait = begin + at / rate - time.perf_counter()
        if wait > 0:
            time.sleep(wait)
        suspicious = at % suspicious_of == suspicious_of - 1
        line = {
            "service": "shop",
            "event_name": "paid",
            "transaction_id": f"T-{at}",
            "amount": 5_000 if suspicious else 10,
            "card": f"A-{at % 1_000}",
        }
        if suspicious:
            sent[f"transaction/T-{at}"] = time.perf_counter()
        connection.request("POST", "/v1/events", json.dumps(line), {"content-type": "application/x-ndjson"})
        answer = connection.getresponse()
        answer.read()
        if answer.status != 200:
            raise RuntimeError(f"the sidecar answered {answer.status}")
        if at % 100 == 0:
            for one in running:
                one.drain_log()
    connection.close()
    return sent


def data_folder() -> Path:
    """The data sets: the folder that `TALLY_DATA` names, else `../shared/data` beside the checkout."""
    named = os.environ.get("TALLY_DATA")
    return Path(named) if named else Path(__file__).resolve().parents[2] / "shared" / "data"
