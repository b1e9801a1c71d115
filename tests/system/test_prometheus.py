"""A real Prometheus scrapes a running sidecar, correlator and API: its queries give the account's counts, its exemplars lead to trails."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from tests.servers.prometheus import Prometheus, need_prometheus, promtool_check
from tests.support.tally_up import tally_up, trail_until

pytestmark = pytest.mark.prometheus

OPENMETRICS = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5"

CONFIG = """
[collector]
name = "side"
mappings = ["preset:nginx"]
[collector.forward]
port = -1
[collector.http]
port = 0
[collector.requests]
max_services = 3
max_operations = 5
[[collector.stitch.amounts]]
fields = ["attributes.amount"]
currency_fields = ["attributes.currency"]
[[correlator.flows]]
name = "payment"
deadline_seconds = 1.0
steps = [
  { name = "received", match = { name = "received" } },
  { name = "paid", match = { name = "paid" }, after = ["received"] },
]
[audit_api]
port = 0
"""


@pytest.fixture
def addresses(tmp_path: Path) -> Iterator[dict[str, str]]:
    """`tally up`: URL of each process."""
    need_prometheus()
    with tally_up(tmp_path, CONFIG) as urls:
        yield urls


def spans(first: int, count: int, *, name: str = "charge", kind: int = 2, error: bool = False) -> dict[str, Any]:
    """An export of OTLP/JSON: server spans of 30 ms, numbered from `first`."""
    now_ns = time.time_ns()
    made = [
        {
            "traceId": f"{at:032x}",
            "spanId": f"{at:016x}",
            "name": name.format(at),
            "kind": kind,
            "startTimeUnixNano": str(now_ns),
            "endTimeUnixNano": str(now_ns + 30_000_000),
            "status": {"code": 2} if error else {},
        }
        for at in range(first, first + count)
    ]
    resource = {"attributes": [{"key": "service.name", "value": {"stringValue": "payments"}}]}
    return {"resourceSpans": [{"resource": resource, "scopeSpans": [{"spans": made}]}]}


def send(url: str, body: dict[str, Any]) -> None:
    assert httpx.post(f"{url}/v1/traces", json=body, timeout=10).status_code == 200


def tell(url: str, *lines: dict[str, Any]) -> None:
    text = "\n".join(json.dumps(line) for line in lines)
    assert (
        httpx.post(
            f"{url}/v1/events", content=text, headers={"content-type": "application/x-ndjson"}, timeout=10
        ).status_code
        == 200
    )


def step(name: str, transaction: str, **fields: Any) -> dict[str, Any]:
    return {"service": "shop", "event_name": name, "transaction_id": transaction, **fields}


def test_prometheus_says_what_the_account_says(addresses: dict[str, str], tmp_path: Path) -> None:
    sidecar = addresses["collector-side"]
    for url in addresses.values():
        speaks_both_formats(url)
    targets = {name: url.removeprefix("http://") for name, url in addresses.items()}
    with Prometheus(tmp_path / "prometheus", targets) as prometheus:
        send(sidecar, spans(1, 1))
        tell(sidecar, step("received", "pay-2"))
        requests = "sum(tally_service_requests_total) by (service, operation, kind, outcome)"
        charged = ("server", "charge", "success", "payments")
        failed_to_charge = ("server", "charge", "failure", "payments")
        # kind, operation, outcome, service: labels by name
        prometheus.until(requests, {charged: 1, failed_to_charge: 0})  # what has not failed yet is a zero, not a hole
        prometheus.until("sum(up)", {(): len(targets)})

        some = spans(2, 19)
        send(sidecar, some)
        send(sidecar, {"resourceSpans": some["resourceSpans"] * 2})  # again, in another batch: it has heard no answer
        send(sidecar, spans(100, 5, error=True))
        send(sidecar, spans(200, 7, kind=3))  # what a client saw
        access = {"request_method": "GET", "request_uri": "/orders/4711", "request_time": "0.2", "service": "edge"}
        tell(sidecar, *({**access, "status": status} for status in ("200", "404", "502")))
        tell(sidecar, step("received", "pay-1"), step("paid", "pay-1", amount=12.5, currency="EUR"))
        account: dict[tuple[str, ...], float] = {
            charged: 20,
            failed_to_charge: 5,
            ("gateway", "GET", "success", "edge"): 1,
            ("gateway", "GET", "client_error", "edge"): 1,
            ("gateway", "GET", "failure", "edge"): 1,
        }
        prometheus.until(requests, account)
        rate = prometheus.query('sum(rate(tally_service_requests_total{service="payments"}[1m]))')
        failed = prometheus.query(
            'sum(increase(tally_service_requests_total{service="payments"}[1m])) > 0'
            ' and sum(tally_service_requests_total{outcome="failure", service="payments"})'
            ' / sum(tally_service_requests_total{service="payments"}) == 0.2'
        )
        assert rate[()] > 0
        assert len(failed) == 1
        prometheus.until(
            "sum(tally_service_request_duration_seconds_count) by (service)", {("payments",): 25, ("edge",): 3}
        )
        (median,) = prometheus.query(
            'histogram_quantile(0.5, sum(tally_service_request_duration_seconds_bucket{service="payments"}) by (le))'
        ).values()
        assert 0.025 < median < 0.05

        end = time.time()
        found = prometheus.ask(
            "query_exemplars",
            query='tally_service_request_duration_seconds_bucket{service="payments"}',
            start=str(end - 300),
            end=str(end + 60),
        )
        traces = {one["labels"]["trace_id"] for series in found for one in series["exemplars"]}
        assert traces
        assert traces <= {f"{at:032x}" for at in (*range(1, 21), *range(100, 105))}
        trail_until(tmp_path, f"trace/{max(traces)}", "charge")

        send(sidecar, spans(1_000, 300, name="made-up-{}"))
        other = 'tally_service_requests_total{service="payments", operation="other"}'
        prometheus.until(f"sum({other})", {(): 296})
        prometheus.until('count(tally_service_requests_total{service="payments"})', {(): 2 * (5 + 1)})
        prometheus.until("sum(tally_service_folded_requests_total) by (label)", {("operation",): 296, ("service",): 0})

        prometheus.until("sum(tally_flow_trails) by (state) > 0", {("complete",): 1, ("incomplete",): 1})
        prometheus.until(
            "sum(tally_flow_verdicts_total) by (flow, verdict, currency) > 0",
            {("EUR", "payment", "complete"): 1, ("none", "payment", "incomplete"): 1},
        )
        prometheus.until("sum(tally_stitch_latency_seconds_count) >= bool 3", {(): 1})
    for name, url in addresses.items():
        text = httpx.get(f"{url}/metrics", headers={"accept": "text/plain"}, timeout=10).text
        assert promtool_check(text) == [], name


def speaks_both_formats(url: str) -> None:
    """OpenMetrics to who asks for it, and the text format to everybody else."""
    plain = httpx.get(f"{url}/metrics", timeout=10)
    assert plain.headers["content-type"].startswith("text/plain")
    asked = httpx.get(f"{url}/metrics", headers={"accept": OPENMETRICS}, timeout=10)
    assert asked.headers["content-type"].startswith("application/openmetrics-text")
    parse: Any = text_string_to_metric_families
    assert len(list(parse(asked.text))) > 3
