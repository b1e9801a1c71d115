"""From OTLP in to what is scraped and sent, through a whole sidecar."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cramjam
import httpx
import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceResponse
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.openmetrics.parser import text_string_to_metric_families
from prometheus_client.parser import text_string_to_metric_families as text_families

from collector.errors import Malformed
from collector.onward.exposition import Exposition
from collector.onward.metricsrequest import read_request
from collector.onward.ownmetrics import SERVICE, own_metrics
from collector.onward.passing import PATH
from collector.onward.promseries import translate
from collector.onward.seriestable import SeriesTable
from collector.onward.settings import MetricsToSettings
from collector.settings import CollectorSettings, ForwardSettings, HttpSettings
from collector.sidecar import run_sidecar
from tests.support.memory_store import MemoryStore
from tests.support.metrics_receiver import MetricsReceiver, Told
from tests.support.otlp_points import (
    DELTA,
    MS_NS,
    NOW_NS,
    add_exponential,
    add_gauge,
    add_histogram,
    add_sum,
    request_of,
)
from tests.support.prompb import labels_v1, write_request

OPENMETRICS = "application/openmetrics-text;version=1.0.0"
NDJSON = {"content-type": "application/x-ndjson"}
PROTOBUF = {"content-type": "application/x-protobuf"}


class Sidecar:
    """A sidecar that passes metrics on, in this event loop."""

    def __init__(self, root: Path, **metrics_to: Any) -> None:
        self.stopped = asyncio.Event()
        self.ready: asyncio.Future[Mapping[str, str]] = asyncio.get_running_loop().create_future()
        self.task = asyncio.create_task(
            run_sidecar(
                CollectorSettings(
                    name="side",
                    forward=ForwardSettings(port=-1),
                    http=HttpSettings(port=0),
                    metrics_to=msgspec.convert(metrics_to, MetricsToSettings),
                ),
                root=root,
                ledger="test/ledger",
                store=MemoryStore(),
                signing_key=Ed25519PrivateKey.from_private_bytes(b"k" * 32),
                token_key=b"t" * 32,
                stopped=self.stopped,
                ready=self.ready.set_result,
            )
        )

    async def client(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(base_url=f"http://{(await self.ready)['http']}", trust_env=False)

    async def stop(self) -> None:
        self.stopped.set()
        assert await self.task


def told(answer: httpx.Response) -> tuple[int, str]:
    assert answer.status_code == 200
    partial = ExportMetricsServiceResponse.FromString(answer.content).partial_success
    return partial.rejected_data_points, partial.error_message


def test_what_a_service_measures_is_scraped_in_both_formats(tmp_path: Path) -> None:
    async def life() -> None:
        sidecar = Sidecar(tmp_path, expose=True, max_series_of_service=3)
        async with await sidecar.client() as client:
            for at in (1, 2):
                request = request_of(instance="i", host="h")
                point = add_sum(
                    request, "paid", at, temporality=DELTA, at_ns=NOW_NS + at * MS_NS, card="4111111111111111"
                )
                point.exemplars.add(as_int=1, trace_id=b"\1" * 16, time_unix_nano=NOW_NS)
                add_histogram(request, "took", [1, 1, at], at_ns=NOW_NS + at * MS_NS)
                add_exponential(request, "spread", {0: at}, at_ns=NOW_NS + at * MS_NS)
                add_gauge(request, "extra", 1.0, at_ns=NOW_NS + at * MS_NS)
                count, why = told(
                    await client.post("/v1/metrics", content=request.SerializeToString(), headers=PROTOBUF)
                )
                assert (count, "max_series_of_service" in why) == (1, True)
            scraped = await client.get(PATH, headers={"accept": OPENMETRICS})
            plain = (await client.get(PATH)).text
            own = (await client.get("/metrics")).text
        assert scraped.headers["content-type"].startswith("application/openmetrics-text")
        parse: Any = text_string_to_metric_families
        samples = {
            (one.name, one.labels.get("le", "")): one for family in parse(scraped.text) for one in family.samples
        }
        paid = samples["paid_total", ""]
        assert (paid.value, paid.labels["job"], paid.labels["instance"]) == (3.0, "shop", "i")
        assert "411111******1111" in paid.labels["card"]
        assert paid.exemplar.labels == {"trace_id": "01" * 16}
        assert samples["took_seconds_bucket", "1.0"].value == 2.0
        assert samples["took_seconds_count", ""].value == 4.0
        assert samples["spread_seconds_bucket", "2.0"].value == 2.0
        assert samples["target_info", ""].labels["host"] == "h"
        assert ("extra", "") not in samples
        assert any(family.name == "paid" for family in text_families(plain))
        assert 'tally_collector_metrics_dropped_total{reason="service_limit"} 2.0' in own
        assert "tally_collector_metrics_series 3.0" in own
        await sidecar.stop()

    asyncio.run(life())


def test_a_server_that_is_away_for_a_while_gets_everything_in_order(tmp_path: Path) -> None:
    async def life() -> None:
        down = True
        with MetricsReceiver(lambda _: Told(503) if down else Told()) as receiver:
            sidecar = Sidecar(tmp_path, url=receiver.url, protocol="remote-write-1")
            async with await sidecar.client() as client:
                for at in range(1, 6):
                    request = request_of()
                    add_sum(request, "paid", at, at_ns=NOW_NS + at * MS_NS)
                    answer = await client.post("/v1/metrics", content=request.SerializeToString(), headers=PROTOBUF)
                    assert told(answer) == (0, "")
                down = False
                await sidecar.stop()
            values = [
                one.samples[0].value
                for asked in receiver.asked
                for one in write_request(bytes(cramjam.snappy.decompress_raw(asked.body))).timeseries
            ]
        assert sorted(set(values)) == [1, 2, 3, 4, 5]
        assert values == sorted(values)

    asyncio.run(life())


def test_a_short_life_pushes_its_own_metrics_at_its_end(tmp_path: Path) -> None:
    async def life() -> list[Any]:
        with MetricsReceiver(lambda _: Told()) as receiver:
            sidecar = Sidecar(tmp_path, url=receiver.url, protocol="remote-write-1", own_seconds=3_600.0)
            async with await sidecar.client() as client:
                assert (await client.post("/v1/events", content=b'{"message":"x"}', headers=NDJSON)).status_code == 200
                request = request_of(service="job")
                add_sum(request, "rows", 42)
                await client.post("/v1/metrics", content=request.SerializeToString(), headers=PROTOBUF)
            await sidecar.stop()
            return [write_request(bytes(cramjam.snappy.decompress_raw(asked.body))) for asked in receiver.asked]

    last: dict[str, float] = {}
    for read in asyncio.run(life()):
        for one in read.timeseries:
            labels = labels_v1(one)
            if labels.get("job") == SERVICE:
                assert labels["instance"] == "side"
            last[labels["__name__"]] = one.samples[0].value
    assert last["rows_total"] == 42
    assert last["tally_collector_events_total"] == 1
    assert last["tally_collector_spool_waiting_events"] == 0  # it tells of the end: everything is shipped


def test_own_metrics_have_the_names_that_are_scraped() -> None:
    registry = CollectorRegistry()
    Counter("a_total", "A", ["x"], registry=registry).labels("1").inc(3, exemplar={"trace_id": "ab" * 16})
    Gauge("b", "B", registry=registry).set(-1.5)
    Histogram("c_seconds", "C", ["x"], buckets=(0.1, 1.0), registry=registry)  # without series
    histogram = Histogram("d_seconds", "D", ["x"], buckets=(0.1, 1.0), registry=registry)
    for value in (0.05, 0.5, 5.0):
        histogram.labels("1").observe(value)
    request = own_metrics(registry, collector="side", now_ns=NOW_NS)
    assert not SeriesTable(most=9, most_of_service=9, stale_ns=1).take(request, now_ns=NOW_NS)  # it is sound
    pushed = {
        tuple((name, value) for name, value in series.labels if name not in {"job", "instance"}): series.value
        for point in translate(request, native=True)
        for series in point.series
        if point.family != "target"
    }
    shown = {
        tuple(sorted({**sample.labels, "__name__": sample.name}.items())): sample.value
        for family in text_families(generate_latest(registry).decode())
        for sample in family.samples
        if not sample.name.endswith("_created")
    }
    assert pushed == shown
    (exemplar,) = next(translate(request, native=True)).series[0].exemplars
    assert exemplar.labels == (("trace_id", "ab" * 16),)


def test_a_family_keeps_its_type_and_what_ends_is_not_shown() -> None:
    now = 0.0
    shown = Exposition(most=12, stale_seconds=60, monotonic=lambda: now)
    table = SeriesTable(most=9, most_of_service=9, stale_ns=60 * 10**9)

    def show(request: Any) -> int:
        return sum(map(shown.update, translate(request, native=False)))

    request = request_of(host="h")
    add_gauge(request, "a", 1.0)
    add_histogram(request, "a", [1, 0, 0], unit="")
    add_gauge(request, "温度", 1.0)
    table.take(request, now_ns=NOW_NS)
    assert show(request) == 2
    assert "a{" in shown.render("")[0].decode()
    assert "target_info{" in shown.render("")[0].decode()
    many = request_of(host="h")
    wide = add_histogram(many, "wide", [1] * 11, bounds=range(10), unit="")  # 13 series where 10 are left
    wide.start_time_unix_nano = 0
    add_gauge(many, "b", 1.0)
    table.take(many, now_ns=NOW_NS)
    assert show(many) == 1
    assert "b{" in shown.render("")[0].decode()
    assert "wide" not in shown.render("")[0].decode()
    show(table.forget(now_ns=NOW_NS + 61 * 10**9))
    now = 61.0
    assert shown.render("")[0] == b""


def test_what_a_process_measured_is_shown_when_the_one_before_it_is_forgotten() -> None:
    shown = Exposition(most=99, stale_seconds=600)
    table = SeriesTable(most=9, most_of_service=9, stale_ns=60 * 10**9)
    for pid, seconds in (("1", 0), ("2", 50)):
        request = request_of(process__pid=pid)  # without service.instance.id its series are the same ones
        add_sum(request, "hits", int(pid), at_ns=NOW_NS + seconds * 10**9)
        table.take(request, now_ns=NOW_NS + seconds * 10**9)
        assert not sum(map(shown.update, translate(request, native=False)))
    assert table.forget(now_ns=NOW_NS + 61 * 10**9) is None
    assert 'hits_total{job="shop"} 2.0' in shown.render("")[0].decode()


def test_a_histogram_is_shown_with_the_buckets_of_its_last_point_and_ends_whole() -> None:
    shown = Exposition(most=20, stale_seconds=60)
    table = SeriesTable(most=9, most_of_service=9, stale_ns=60 * 10**9)

    def bounds_after(request: Any) -> dict[str, list[str]]:
        table.take(request, now_ns=NOW_NS)
        assert not sum(map(shown.update, translate(request, native=False)))
        out: dict[str, list[str]] = {}
        for family in text_families(shown.render("")[0].decode()):
            out[family.name] = [one.labels["le"] for one in family.samples if one.name.endswith("_bucket")]
        return out

    before, after = request_of(), request_of()
    add_histogram(before, "took", [1, 1, 1], unit="")
    add_exponential(before, "spread", {3: 100, 4: 900}, unit="")
    assert bounds_after(before) == {"took": ["0.1", "1.0", "+Inf"], "spread": ["16.0", "32.0", "+Inf"]}
    add_histogram(after, "took", [1, 1], bounds=[5.0], unit="", at_ns=NOW_NS + MS_NS)  # the service began anew
    add_exponential(after, "spread", {0: 5}, unit="", at_ns=NOW_NS + MS_NS)
    assert bounds_after(after) == {"took": ["5.0", "+Inf"], "spread": ["2.0", "+Inf"]}
    ends = table.forget(now_ns=NOW_NS + 61 * 10**9)
    assert not sum(map(shown.update, translate(ends, native=False)))
    assert (shown.render("")[0], shown._shown) == (b"", 0)


@pytest.mark.parametrize("name", ["total", "_total", "total.total"])
def test_a_counter_named_total_does_not_keep_others_from_being_scraped(name: str) -> None:
    shown = Exposition(most=50, stale_seconds=60)
    request = request_of()
    add_sum(request, "paid", 1)
    add_sum(request, name, 1).exemplars.add(as_int=1, trace_id=b"\1" * 16, time_unix_nano=NOW_NS)
    for point in translate(request, native=False):
        shown.update(point)
    parse: Any = text_string_to_metric_families
    families = list(parse(shown.render(OPENMETRICS)[0].decode()))
    assert [sample.name for family in families for sample in family.samples] == ["paid_total", "total_total"]


def test_attributes_named_as_parts_of_histograms_are_shown_once() -> None:
    shown = Exposition(most=50, stale_seconds=60)
    request = request_of()
    for name in ("one", "other"):
        add_histogram(request, "took", [1, 1, 1], le=name)
    for point in translate(request, native=False):
        shown.update(point)
    lines = [line for line in shown.render("")[0].decode().splitlines() if "_bucket" in line]
    assert len(lines) == len(set(lines)) == 3


def test_json_says_the_same_as_protobuf() -> None:
    point = {
        "asInt": "7",
        "timeUnixNano": str(NOW_NS),
        "exemplars": [{"asInt": "1", "traceId": "AB" * 16, "spanId": "cd" * 8}],
    }
    metrics = [
        {"name": "m", "sum": {"dataPoints": [point], "isMonotonic": True, "aggregationTemporality": 2}, "unknown": 1}
    ]
    body = json.dumps({"resourceMetrics": [{"scopeMetrics": [{"metrics": metrics}]}]}).encode()
    read = read_request(body, json=True)
    exemplar = read.resource_metrics[0].scope_metrics[0].metrics[0].sum.data_points[0].exemplars[0]
    assert exemplar.trace_id == b"\xab" * 16
    assert read_request(read.SerializeToString(), json=False) == read
    for bad in (b"{", b"[]", b'{"resourceMetrics":1}', b'{"exemplars":[{"traceId":"zz"}]}'):
        with pytest.raises(Malformed):
            read_request(bad, json=True)


trees = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["resourceMetrics", "scopeMetrics", "metrics", "sum", "dataPoints", "exemplars", "traceId", "x"]
            ),
            inner,
            max_size=3,
        )
    ),
    max_leaves=12,
)


@given(st.binary(max_size=60) | trees.map(json.dumps).map(str.encode), st.booleans())
def test_whatever_is_read_is_a_request_or_malformed(body: bytes, as_json: bool) -> None:
    try:
        read_request(body, json=as_json)
    except Malformed:
        pass


def test_without_its_library_remote_write_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "cramjam", None)
    monkeypatch.delitem(sys.modules, "collector.onward.remotewrite", raising=False)

    async def life() -> None:
        await Sidecar(tmp_path, url="http://127.0.0.1:9/write").task

    with pytest.raises(Malformed, match=r"pip install 'tallystick\[remote-write\]'"):
        asyncio.run(life())
