"""What services measure, with OpenTelemetry's own SDK, is in a real Prometheus as it was measured: by remote-write, by OTLP, and scraped.

Debian's Prometheus 2.42 takes remote-write 1.0, so 2.0 is asked for and given up; `make test-prometheus3` does the same with 3.16, by remote-write 2.0 and OTLP.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceResponse
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.metrics import Counter as SdkCounter
from opentelemetry.sdk.metrics import Histogram, MeterProvider
from opentelemetry.sdk.metrics.export import AggregationTemporality, PeriodicExportingMetricReader
from opentelemetry.sdk.metrics.view import ExponentialBucketHistogramAggregation, View
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor

from tests.servers.certificates import Authority
from tests.servers.prometheus import THREE, Prometheus, free_port, need_prometheus, promtool_check
from tests.support.collector_process import CollectorProcess
from tests.support.otlp_points import add_exponential, add_gauge, add_histogram, add_sum, request_of
from tests.support.tally_up import tally_up, trail_until

pytestmark = pytest.mark.prometheus

PATHS = {"remote-write": "/api/v1/write", "otlp": "/api/v1/otlp/v1/metrics"}
UP = """
[collector]
name = "side"
[collector.forward]
port = -1
[collector.http]
port = 0
[audit_api]
port = 0
"""
PROTOBUF = {"content-type": "application/x-protobuf"}


class Service:
    """A service with OpenTelemetry's SDK for Python; it exports when it is told to."""

    def __init__(self, url: str, *, delta: bool = False) -> None:
        resource = Resource.create({"service.name": "shop", "service.instance.id": "shop-1", "host.name": "h1"})
        temporality = dict.fromkeys((SdkCounter, Histogram), AggregationTemporality.DELTA) if delta else None
        exporter = OTLPMetricExporter(endpoint=f"{url}/v1/metrics", preferred_temporality=temporality)  # type: ignore[arg-type]  # kinds as the SDK's own guide has them
        self.metrics = MeterProvider(
            resource=resource,
            metric_readers=[PeriodicExportingMetricReader(exporter, export_interval_millis=3_600_000)],
            views=[View(instrument_name="spread", aggregation=ExponentialBucketHistogramAggregation())],
        )
        self.traces = TracerProvider(resource=resource)
        self.traces.add_span_processor(SimpleSpanProcessor(OTLPSpanExporter(endpoint=f"{url}/v1/traces")))
        meter = self.metrics.get_meter("shop")
        self._tracer = self.traces.get_tracer("shop")
        self.paid = meter.create_counter("orders.paid", unit="{order}", description="Orders")
        self.took = meter.create_histogram(
            "checkout.duration", unit="s", description="Checkout", explicit_bucket_boundaries_advisory=[0.1, 0.5, 1.0]
        )
        self.spread = meter.create_histogram("spread", unit="By", description="Spread")
        self.open = meter.create_up_down_counter("carts.open", description="Carts")
        self.trace_ids: list[str] = []

    def sells(self, count: int, *, way: str = "card") -> None:
        """So many orders, each in a trace of its own."""
        for _ in range(count):
            with self._tracer.start_as_current_span("checkout") as span:
                self.trace_ids.append(f"{span.get_span_context().trace_id:032x}")
                self.paid.add(1, {"way": way})
                self.took.record(0.3)
                self.spread.record(1_000)
                self.open.add(1)
        assert self.metrics.force_flush(20_000)

    def close(self) -> None:
        self.metrics.shutdown()
        self.traces.shutdown()


@contextmanager
def collecting(folder: Path, further: str) -> Iterator[CollectorProcess]:
    """A collector, that is killed when the test fails before it stops it."""
    collector = CollectorProcess(folder, further=further)
    collector.start()
    try:
        yield collector
        collector.stop()
    except BaseException:
        collector.kill()
        raise


def account(prometheus: Prometheus, orders: float, *, native: bool = True) -> None:
    """Every kind of metric says that so many orders were there."""
    prometheus.until("sum(orders_paid_total) by (job, instance)", {("shop-1", "shop"): orders})
    prometheus.until("sum(checkout_duration_seconds_count)", {(): orders})
    prometheus.until('sum(checkout_duration_seconds_bucket{le="0.5"})', {(): orders})
    prometheus.until("sum(carts_open)", {(): orders})
    spread = "histogram_count(sum(spread_bytes))" if native else "sum(spread_bytes_count)"
    prometheus.until(spread, {(): orders})
    prometheus.until('sum(target_info{job="shop"}) by (host_name)', {("h1",): 1})


@pytest.mark.parametrize(
    "delta", [True, *([False] if THREE else [])], ids=lambda delta: "delta" if delta else "cumulative"
)
@pytest.mark.parametrize("protocol", ["remote-write", *(["otlp"] if THREE else [])])
def test_queries_give_what_was_measured_though_prometheus_dies(tmp_path: Path, protocol: str, delta: bool) -> None:
    need_prometheus()
    port = free_port()
    further = f"""[collector.metrics_to]\nurl = "http://127.0.0.1:{port}{PATHS[protocol]}"\nprotocol = "{protocol}"\nown_seconds = 1.0\n"""
    with tally_up(tmp_path, UP + further) as urls:
        url = urls["collector-side"]
        service = Service(url, delta=delta)
        service.sells(3)  # nobody is there yet
        with Prometheus(tmp_path / "prometheus", {}, port=port) as prometheus:
            account(prometheus, 3)
            service.sells(4)
            account(prometheus, 7)
            prometheus.kill()
            service.sells(5)
            service.sells(1, way="transfer")
        with Prometheus(tmp_path / "prometheus", {}, port=port) as prometheus:
            account(prometheus, 13)
            prometheus.until("sum(orders_paid_total) by (way)", {("card",): 12, ("transfer",): 1})
            prometheus.until("tally_collector_metrics_dropped_total", {})
            # the sidecar's own, under the names that are scraped at /metrics
            mine = 'tally_collector_metric_points_total{job="tallystick-collector", instance="side"}'
            prometheus.until(f"sum({mine}) > bool 0", {(): 1})
            end = time.time()
            found = prometheus.ask(
                "query_exemplars", query="orders_paid_total", start=str(end - 600), end=str(end + 60)
            )
            traces = {one["labels"]["trace_id"] for series in found for one in series["exemplars"]}
            assert traces
            assert traces <= set(service.trace_ids)
            trail_until(tmp_path, f"trace/{max(traces)}", "metric.exemplar")
        own = httpx.get(f"{url}/metrics", timeout=10).text
        assert re.search(r'metric_requests_total\{result="later"\} [1-9]', own)
        assert "metrics_dropped_total{" not in own
        service.close()


def test_what_is_scraped_is_what_was_measured(tmp_path: Path) -> None:
    need_prometheus()
    with (
        collecting(tmp_path, "[collector.metrics_to]\nexpose = true\nstale_seconds = 8.0\n") as collector,
        Prometheus(tmp_path / "prometheus", {"side": f"{collector.addresses['http']}/service-metrics"}) as prometheus,
    ):
        service = Service(f"http://{collector.addresses['http']}")
        prometheus.until("sum(up)", {(): 1})  # the first scrape is seconds after the start
        service.sells(3)
        account(prometheus, 3, native=False)
        text = httpx.get(f"http://{collector.addresses['http']}/service-metrics", timeout=10).text
        assert promtool_check(text) == []
        end = time.time()
        found = prometheus.ask("query_exemplars", query="orders_paid_total", start=str(end - 300), end=str(end + 60))
        assert {one["labels"]["trace_id"] for series in found for one in series["exemplars"]} <= set(service.trace_ids)
        assert found
        service.close()
        prometheus.until("orders_paid_total", {})  # eight seconds later it is no longer shown, and ends


def test_a_hundred_thousand_made_up_names_and_label_sets_stay_bounded(tmp_path: Path) -> None:
    need_prometheus()
    port = free_port()
    further = f"""
[collector.requests]
max_operations = 50
[collector.metrics_to]
url = "http://127.0.0.1:{port}/api/v1/write"
max_series_of_service = 500
"""
    with (
        collecting(tmp_path, further) as collector,
        Prometheus(tmp_path / "prometheus", {"side": collector.addresses["http"]}, port=port) as prometheus,
    ):
        url = f"http://{collector.addresses['http']}"
        for first in range(0, 100_000, 10_000):
            spans = made_up_spans(first, 10_000)
            assert httpx.post(f"{url}/v1/traces", content=spans, headers=PROTOBUF, timeout=60).status_code == 200
        for first in range(0, 100_000, 10_000):
            measured = made_up_label_sets(first, 10_000)
            answer = httpx.post(f"{url}/v1/metrics", content=measured, headers=PROTOBUF, timeout=60)
            assert answer.status_code == 200
            partial = ExportMetricsServiceResponse.FromString(answer.content).partial_success
            assert partial.rejected_data_points == (10_000 if first else 9_500)  # their sender hears of it
        prometheus.until("sum(tally_service_requests_total)", {(): 100_000})
        each: dict[tuple[str, ...], float] = {
            ("failure",): 51,
            ("success",): 51,
        }  # fifty operations and "other", failures at zero
        prometheus.until("count(tally_service_requests_total) by (outcome)", each)
        prometheus.until('sum(tally_service_requests_total{operation="other"})', {(): 99_950})
        prometheus.until('sum(tally_service_folded_requests_total{label="operation"})', {(): 99_950})
        prometheus.until("count(orders_paid_total)", {(): 500})
        prometheus.until("sum(tally_collector_metrics_dropped_total) by (reason)", {("service_limit",): 99_500})
        prometheus.until("sum(tally_collector_metrics_series)", {(): 500})


def made_up_spans(first: int, count: int) -> bytes:
    request = ExportTraceServiceRequest()
    group = request.resource_spans.add()
    group.resource.attributes.add(key="service.name").value.string_value = "made-up"
    spans = group.scope_spans.add().spans
    now_ns = time.time_ns()
    for at in range(first, first + count):
        spans.add(
            trace_id=b"\1" * 16,
            span_id=(at + 1).to_bytes(8, "big"),
            name=f"order {at}",
            kind=2,
            start_time_unix_nano=now_ns,
            end_time_unix_nano=now_ns + 1_000_000,
        )
    return request.SerializeToString()


def made_up_label_sets(first: int, count: int) -> bytes:
    request = request_of()
    point = add_sum(request, "orders.paid", 1, at_ns=time.time_ns(), user="")
    points = request.resource_metrics[0].scope_metrics[0].metrics[0].sum.data_points
    for at in range(first, first + count):
        point.attributes[0].value.string_value = f"user-{at}"
        if at < first + count - 1:
            points.add().CopyFrom(point)
    data: bytes = request.SerializeToString()
    return data


def test_a_prometheus_with_tls_and_a_password_takes_what_a_short_lived_job_pushes_at_its_end(tmp_path: Path) -> None:
    need_prometheus()
    authority = Authority(tmp_path / "ca")
    server = authority.issue("prometheus")
    client = authority.issue("side")
    (tmp_path / "password").write_text("a password of the test\n")
    web = {
        "tls_server_config": {
            "cert_file": str(server[0]), "key_file": str(server[1]), "client_ca_file": str(authority.ca),
            "client_auth_type": "RequireAndVerifyClientCert",
        },
        # bcrypt of the password above, cost 4
        "basic_auth_users": {"side": "$2b$04$abcdefghijklmnopqrstuu4uxwczyp4PIX3ZlTaTy67K58Orv55Km"},
    }  # fmt: skip
    port = free_port()
    further = f"""[collector.metrics_to]
url = "https://127.0.0.1:{port}/api/v1/write"
own_seconds = 3600.0
user = "side"
password_file = "password"
ca_file = "{authority.ca}"
client_certificate = "{client[0]}"
client_key = "{client[1]}"
"""
    with Prometheus(tmp_path / "prometheus", {}, port=port, web=web) as prometheus:
        prometheus.identify(ca=authority.ca, certificate=client, user="side", password="a password of the test")
        with collecting(tmp_path, further) as collector:
            service = Service(f"http://{collector.addresses['http']}")
            service.sells(2)
            service.close()
        account(prometheus, 2)
        prometheus.until('sum(tally_collector_spool_waiting_events{instance="collector"})', {(): 0})
        prometheus.until('sum(tally_collector_events_total{instance="collector"}) > bool 2', {(): 1})


@pytest.mark.skipif(not THREE, reason="Debian's Prometheus has no OTLP receiver: make test-prometheus3")
def test_our_translation_is_that_of_prometheus_itself(tmp_path: Path) -> None:
    from collector.onward.endpoint import Endpoint
    from collector.onward.otlpwrite import OtlpWrite
    from collector.onward.remotewrite import RemoteWrite
    from collector.onward.settings import MetricsToSettings

    request = every_kind()
    told = []
    for protocol, folder in (("otlp", "theirs"), ("remote-write", "ours")):
        with Prometheus(tmp_path / folder, {}) as prometheus:
            endpoint = Endpoint(MetricsToSettings(url=prometheus.url + PATHS[protocol]))
            way: Any = OtlpWrite(endpoint) if protocol == "otlp" else RemoteWrite(endpoint, newest=2, native=True)
            for part in way.parts(request.SerializeToString()):
                assert way.send(part) == part.points
            assert getattr(way, "version", 2) == 2
            way.close()
            found = prometheus.ask("query", query='{__name__!=""}')["result"]
            told.append({_comparable(one["metric"]): one.get("value", one.get("histogram"))[1] for one in found})
    theirs, ours = told
    assert len(theirs) > 30
    assert ours == theirs


def _comparable(labels: dict[str, str]) -> tuple[tuple[str, str], ...]:
    """Without the scope, which Prometheus keeps only when asked to; bounds as numbers, which it writes without a full stop here and with one where it scrapes."""
    return tuple(
        sorted(
            (name, str(float(value)) if name in {"le", "quantile"} else value)
            for name, value in labels.items()
            if not name.startswith("otel_scope_")
        )
    )


def every_kind() -> Any:
    now_ns = time.time_ns()
    request = request_of(instance="i", scope="lib", service__namespace="eu", host__name="h", os__type="linux")
    names = [
        ("http.server.requests", "{request}"), ("a..b__c", ""), ("4xx", "1"), ("requests.total.count", ""), ("net.io", "By/s"),
        ("a:b", "ms"), ("Überweisungen", "€"), ("paper", "paper/min"), ("duration_seconds", "s"), ("bytes_read", "By"), ("total", "1"),
    ]  # fmt: skip
    for name, unit in names:
        add_sum(request, name, 7, unit=unit, at_ns=now_ns, http__method="GET", a__b="1", a_b="2", _private="x", c="")
        add_gauge(request, f"gauge.{name}", 0.5, unit=unit, at_ns=now_ns)
    add_sum(request, "queue", 3, monotonic=False, at_ns=now_ns)
    add_histogram(request, "took", [1, 2, 3], bounds=(0.005, 2.5), at_ns=now_ns)
    add_exponential(request, "spread", {-3: 1, 4: 2, 9: 1}, negative={2: 1}, zeros=1, scale=3, at_ns=now_ns)
    add_exponential(request, "fine", {1_000: 1, 1_009: 2, 1_030: 5}, scale=12, at_ns=now_ns)
    summary = request.resource_metrics[0].scope_metrics[0].metrics.add(name="old").summary.data_points.add()
    summary.time_unix_nano, summary.count, summary.sum = now_ns, 9, 3.0
    summary.quantile_values.add(quantile=0.5, value=0.3)
    return request
