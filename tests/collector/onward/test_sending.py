"""Remote-write and OTLP as their specifications have them, to receivers that know more or less of them."""

from __future__ import annotations

import base64
import gzip
import itertools
import ssl
import time
from collections.abc import Callable
from contextlib import closing
from email.utils import formatdate
from pathlib import Path
from typing import Any

import cramjam
import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)

from collector.errors import Malformed
from collector.onward.endpoint import Answer, Endpoint, Later, Refused
from collector.onward.otlpwrite import OtlpWrite
from collector.onward.promseries import NativeHistogram
from collector.onward.remotewrite import RemoteWrite
from collector.onward.settings import MetricsToSettings
from tests.servers.certificates import Authority
from tests.support.metrics_receiver import Asked, MetricsReceiver, Told
from tests.support.otlp_points import MS_NS, NOW_NS, add_exponential, add_gauge, add_histogram, add_sum, request_of
from tests.support.prompb import labels_v1, request_v2, write_request


def a_request(points: int = 1, *, at_ns: int = NOW_NS) -> bytes:
    request = request_of()
    for at in range(points):
        add_sum(request, "hits", at, user=str(at), at_ns=at_ns)
    return bytes(request.SerializeToString())


def always(told: Told) -> Callable[[Asked], Told]:
    return lambda _: told


def is_v2(asked: Asked) -> bool:
    return "io.prometheus.write.v2.Request" in asked.headers["content-type"]


def written(samples: int, histograms: int = 0) -> dict[str, str]:
    return {
        "X-Prometheus-Remote-Write-Samples-Written": str(samples),
        "X-Prometheus-Remote-Write-Histograms-Written": str(histograms),
        "X-Prometheus-Remote-Write-Exemplars-Written": "0",
    }


def knows_both(asked: Asked) -> Told:
    if not is_v2(asked):
        return Told()
    read = request_v2(bytes(cramjam.snappy.decompress_raw(asked.body)))
    return Told(
        headers=written(
            sum(len(one.samples) for one in read.timeseries), sum(len(one.histograms) for one in read.timeseries)
        )
    )


def write(url: str, body: bytes, *, newest: int = 2) -> tuple[RemoteWrite, int]:
    way = RemoteWrite(Endpoint(MetricsToSettings(url=url)), newest=newest, native=True)
    with closing(way):
        return way, sum(way.send(part) for part in way.parts(body) if not part.empty)


def test_a_receiver_that_knows_version_2_gets_it() -> None:
    with MetricsReceiver(knows_both) as receiver:
        way, taken = write(receiver.url, a_request(3))
    assert (way.version, taken) == (2, 3)
    (asked,) = receiver.asked
    assert asked.path == "/api/v1/write"
    assert asked.headers["content-encoding"] == "snappy"
    assert asked.headers["x-prometheus-remote-write-version"] == "2.0.0"
    assert asked.headers["user-agent"].startswith("tallystick/")
    assert len(request_v2(bytes(cramjam.snappy.decompress_raw(asked.body))).timeseries) == 3


@pytest.mark.parametrize("first", [Told(415), Told(400, {}, b"cannot decode"), Told(204), Told(200)])
def test_one_that_does_not_gets_version_1_from_then_on(first: Told) -> None:
    with MetricsReceiver(lambda asked: first if is_v2(asked) else Told()) as receiver:
        way, taken = write(receiver.url, a_request(2))
        assert (way.version, taken) == (1, 2)
        with closing(way):
            assert sum(way.send(part) for part in way.parts(a_request(2, at_ns=NOW_NS + MS_NS))) == 2
    assert [is_v2(asked) for asked in receiver.asked] == [True, False, False]
    last = receiver.asked[-1]
    assert last.headers["content-type"] == "application/x-protobuf"
    assert last.headers["x-prometheus-remote-write-version"] == "0.1.0"
    read = write_request(bytes(cramjam.snappy.decompress_raw(last.body)))
    assert [labels_v1(one)["user"] for one in read.timeseries] == ["0", "1"]


def test_what_is_said_of_a_resource_does_not_go_back_in_time() -> None:
    way = RemoteWrite(Endpoint(MetricsToSettings(url="http://127.0.0.1:9/write")), newest=1, native=True)
    each = itertools.count()

    def told(*millis: int, host: str = "h") -> list[tuple[str, int]]:
        request = request_of(host=host)
        for at in millis:
            add_gauge(request, f"g{at}", 1.0, at_ns=NOW_NS + at * MS_NS, of=str(next(each)))
        return [
            (one.family, one.series[0].ms - NOW_NS // MS_NS)
            for part in way.parts(bytes(request.SerializeToString()))
            for one in getattr(part, "translated", ())
        ]

    with closing(way):
        assert told(200) == [("g200", 200), ("target", 200)]
        assert told(100, 150) == [("g100", 100), ("g150", 150)]  # another reader of it, overtaken on the way
        assert told(200) == [("g200", 200)]
        assert told(100, host="other") == [("g100", 100), ("target", 100)]
        assert told(201) == [("g201", 201), ("target", 201)]


@pytest.mark.parametrize("newest", [1, 2])
def test_series_that_are_one_in_prometheus_have_one_point_of_a_time(newest: int) -> None:
    way = RemoteWrite(Endpoint(MetricsToSettings(url="http://127.0.0.1:9/write")), newest=newest, native=True)

    def told(*processes: str, at: int) -> tuple[list[tuple[str, float]], int]:
        request = ExportMetricsServiceRequest()
        for process in processes:
            one = request_of(process__pid=process)  # which is no part of a series' name
            add_sum(one, "hits", int(process), at_ns=NOW_NS + at * MS_NS)
            add_histogram(one, "took", [int(process), 0, 0], at_ns=NOW_NS + at * MS_NS)
            add_gauge(one, "a.b", float(process), at_ns=NOW_NS + at * MS_NS)
            add_gauge(one, "a_b", 0.5, at_ns=NOW_NS + at * MS_NS)
            request.resource_metrics.append(one.resource_metrics[0])
        parts = list(way.parts(bytes(request.SerializeToString())))
        assert sum(part.points + part.overtaken for part in parts) == 4 * len(processes)
        return [
            (one.family, point.value)
            for part in parts
            for one in getattr(part, "translated", ())
            for point in one.series[-1:]
            if one.points and not isinstance(point.value, NativeHistogram)
        ], sum(part.overtaken for part in parts)

    with closing(way):
        assert told("1", "2", at=10) == ([("hits", 1.0), ("took_seconds", 1.0), ("a_b", 1.0)], 5)
        assert told("2", at=9) == ([], 4)
        assert told("2", at=11) == ([("hits", 2.0), ("took_seconds", 2.0), ("a_b", 2.0)], 1)


def test_a_histogram_that_was_a_summary_before_is_no_older_than_that() -> None:
    way = RemoteWrite(Endpoint(MetricsToSettings(url="http://127.0.0.1:9/write")), newest=1, native=True)

    def told(request: Any) -> list[str]:
        parts = way.parts(bytes(request.SerializeToString()))
        return [one.kind for part in parts for one in getattr(part, "translated", ())]

    before, after = request_of(process__pid="1"), request_of(process__pid="2")
    metric = before.resource_metrics[0].scope_metrics[0].metrics.add(name="took", unit="s")
    metric.summary.data_points.add(time_unix_nano=NOW_NS, count=2, sum=1.0)
    add_histogram(after, "took", [1, 0, 0], at_ns=NOW_NS - MS_NS)
    add_gauge(after, "took_seconds.count", 1.0, at_ns=NOW_NS)
    with closing(way):
        assert told(before) == ["summary", "info"]
        assert told(after) == ["info"]
        add_histogram(after, "took", [1, 0, 0], at_ns=NOW_NS + MS_NS)
        assert told(after) == ["histogram", "info"]


def test_a_400_that_is_about_the_samples_does_not_settle_the_version() -> None:
    with MetricsReceiver(lambda _: Told(400, {"Content-Type": "text/plain"}, b"out of order sample\n")) as receiver:
        way = RemoteWrite(Endpoint(MetricsToSettings(url=receiver.url)), newest=2, native=True)
        (part,) = way.parts(a_request())
        with closing(way), pytest.raises(Refused, match="HTTP 400 out of order sample"):
            way.send(part)
        assert way.version == 2


def test_what_version_2_says_was_not_written_is_counted() -> None:
    with MetricsReceiver(lambda _: Told(204, written(2))) as receiver:
        assert write(receiver.url, a_request(5))[1] == 2
    with MetricsReceiver(lambda _: Told(400, written(3), b"")) as receiver, pytest.raises(Refused) as refused:
        write(receiver.url, a_request(5))
    assert refused.value.taken == 3
    native = request_of()
    add_exponential(native, "x", {0: 1})
    with MetricsReceiver(lambda _: Told(204, written(9, 0))) as receiver:
        assert write(receiver.url, native.SerializeToString())[1] == 0


def test_a_server_without_native_histograms_gets_classic_ones_from_then_on() -> None:
    def answer(asked: Asked) -> Told:
        read = write_request(bytes(cramjam.snappy.decompress_raw(asked.body)))
        if any(one.histograms for one in read.timeseries):
            return Told(500, {"Content-Type": "text/plain; charset=utf-8"}, b"native histograms are disabled\n")
        return Told()

    request = request_of()
    add_sum(request, "hits", 1)
    add_exponential(request, "spread", {0: 1})
    only, later = request_of(), request_of()
    add_exponential(only, "spread", {0: 1}, at_ns=NOW_NS + MS_NS)
    add_sum(later, "hits", 1, at_ns=NOW_NS + 2 * MS_NS)
    add_exponential(later, "spread", {0: 1}, at_ns=NOW_NS + 2 * MS_NS)
    with (
        MetricsReceiver(answer) as receiver,
        closing(RemoteWrite(Endpoint(MetricsToSettings(url=receiver.url)), newest=1, native=True)) as way,
    ):
        parts = [*way.parts(request.SerializeToString()), *way.parts(only.SerializeToString())]
        assert [way.send(part) for part in parts] == [1, 0]  # what was translated by then is counted as not written
        assert [way.send(part) for part in way.parts(later.SerializeToString())] == [2]
    last = write_request(bytes(cramjam.snappy.decompress_raw(receiver.asked[-1].body)))
    assert "spread_seconds_count" in {labels_v1(one)["__name__"] for one in last.timeseries}


@pytest.mark.parametrize(
    ("status", "expected"),
    [(500, Later), (503, Later), (429, Later), (404, Refused), (401, Refused), (413, Refused), (302, Refused)],
)
def test_what_is_tried_again_and_what_is_not(status: int, expected: type[Exception]) -> None:
    for newest in (1, 2):
        with (
            MetricsReceiver(lambda _: Told(status, {"Retry-After": "7"})) as receiver,
            pytest.raises(expected) as caught,
        ):
            write(receiver.url, a_request(), newest=newest)
        if isinstance(caught.value, Later):
            assert caught.value.after_seconds == 7.0
        assert len(receiver.asked) == 1


def test_a_large_request_goes_in_parts_of_whole_points() -> None:
    request = request_of(host="h")
    for at in range(4_500):
        add_gauge(request, "load", float(at), user=str(at))
    add_gauge(request, "温度", 1.0)
    with MetricsReceiver(knows_both) as receiver:
        way = RemoteWrite(Endpoint(MetricsToSettings(url=receiver.url)), newest=1, native=True)
        parts = list(way.parts(request.SerializeToString()))
        assert [(part.points, part.unsayable) for part in parts] == [(2_000, 0), (2_000, 0), (500, 1)]
        with closing(way):
            assert sum(way.send(part) for part in parts) == 4_500


def otlp(url: str, body: bytes) -> int:
    with closing(OtlpWrite(Endpoint(MetricsToSettings(url=url, protocol="otlp")))) as way:
        return sum(way.send(part) for part in way.parts(body))


def test_otlp_goes_as_it_is_and_hears_of_partial_success() -> None:
    with MetricsReceiver(lambda _: Told(200)) as receiver:
        assert otlp(receiver.url, a_request(3)) == 3
        assert otlp(receiver.url, b"") == 0
    (asked,) = receiver.asked
    assert asked.headers["content-type"] == "application/x-protobuf"
    assert ExportMetricsServiceRequest.FromString(
        gzip.decompress(asked.body)
    ) == ExportMetricsServiceRequest.FromString(a_request(3))
    partial = ExportMetricsServiceResponse()
    partial.partial_success.rejected_data_points = 2
    with MetricsReceiver(lambda _: Told(200, {}, partial.SerializeToString())) as receiver:
        assert otlp(receiver.url, a_request(3)) == 1
    with MetricsReceiver(lambda _: Told(200, {}, b"\xff")) as receiver:
        assert otlp(receiver.url, a_request(3)) == 3
    for status, expected in ((503, Later), (429, Later), (500, Refused), (400, Refused)):
        with MetricsReceiver(always(Told(status))) as receiver, pytest.raises(expected):
            otlp(receiver.url, a_request())


def test_a_connection_that_the_server_has_closed_is_no_failure() -> None:
    answers = [Told(), Told(0), Told()]
    with MetricsReceiver(lambda _: answers.pop(0)) as receiver:
        endpoint = Endpoint(MetricsToSettings(url=receiver.url))
        assert [endpoint.post(b"x", {}).status for _ in range(2)] == [204, 204]
        answers[:] = [Told(0), Told(0)]
        with pytest.raises(Later):
            endpoint.post(b"x", {})
    with pytest.raises(Later, match="refused"):
        endpoint.post(b"x", {})


def test_who_we_are_comes_from_files_and_is_read_each_time(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("old-token\n")
    with MetricsReceiver(lambda _: Told()) as receiver:
        endpoint = Endpoint(MetricsToSettings(url=receiver.url, token_file=str(secret)))
        endpoint.post(b"x", {})
        secret.write_text("new-token")
        endpoint.post(b"x", {})
        endpoint.close()
        secret.unlink()
        with pytest.raises(Later):
            endpoint.post(b"x", {})
        secret.write_text("a password")
        with closing(Endpoint(MetricsToSettings(url=receiver.url, user="ann", password_file=str(secret)))) as endpoint:
            endpoint.post(b"x", {})
    told = [asked.headers["authorization"] for asked in receiver.asked]
    assert told == ["Bearer old-token", "Bearer new-token", f"Basic {base64.b64encode(b'ann:a password').decode()}"]
    for text in ("", "two words", "é"):
        secret.write_text(text)
        with pytest.raises(Malformed, match="bearer token"):
            Endpoint(MetricsToSettings(url=receiver.url, token_file=str(secret)))
    with pytest.raises(FileNotFoundError):
        Endpoint(MetricsToSettings(url=receiver.url, token_file=str(tmp_path / "missing")))


def test_over_tls_both_sides_are_checked(tmp_path: Path) -> None:
    ours, others = Authority(tmp_path / "ours"), Authority(tmp_path / "others")
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(*ours.issue("prometheus"))
    server.load_verify_locations(ours.ca)
    server.verify_mode = ssl.CERT_REQUIRED
    certificate, key = map(str, ours.issue("sidecar"))
    with MetricsReceiver(lambda _: Told(), tls=server) as receiver:

        def post(**settings: Any) -> int:
            with closing(Endpoint(MetricsToSettings(url=receiver.url, **settings))) as endpoint:
                return endpoint.post(b"x", {}).status

        assert post(ca_file=str(ours.ca), client_certificate=certificate, client_key=key) == 204
        with pytest.raises(Later):
            post(ca_file=str(ours.ca))
        with pytest.raises(Later, match=r"(?i)certificate"):
            post(ca_file=str(others.ca), client_certificate=certificate, client_key=key)
    assert len(receiver.asked) == 1


def answer(retry_after: str) -> float:
    return Answer(503, {"retry-after": retry_after}, b"").after_seconds


def test_how_long_to_wait_is_told_in_seconds_or_by_a_date() -> None:
    assert answer("12") == 12.0
    assert answer("99999") == 300.0
    assert 20 < answer(formatdate(time.time() + 30, usegmt=True)) <= 30
    assert answer(formatdate(0, usegmt=True)) == 0.0


@given(st.text(max_size=40))
def test_whatever_it_says_is_a_wait_that_ends(text: str) -> None:
    assert 0.0 <= answer(text) <= 300.0
