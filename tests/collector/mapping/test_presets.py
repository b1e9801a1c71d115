"""The mappings that come with Tallystick, on lines as each gateway's own documentation says that it writes them."""

from __future__ import annotations

import re
import time
from typing import Any

import msgspec
import pytest

from collector.event import Origin
from collector.mapping.language import load_mappings
from collector.mapping.mapper import Mapper
from collector.receive.record import arrival_of_record

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
SPAN = "00f067aa0ba902b7"
TRACEPARENT = f"00-{TRACE}-{SPAN}-01"

LINES: dict[str, tuple[str, str | dict[str, Any], dict[str, Any]]] = {
    "nginx's combined format": (
        "nginx",
        '203.0.113.7 - ann [10/Oct/2026:13:55:36 +0200] "GET /pay?id=1 HTTP/1.1" 502 2326 "-" "curl \\"x\\""',
        {
            "time": "2026-10-10T11:55:36.000000000Z",
            "outcome": "failure",
            "http.request.method": "GET",
            "url.path": "/pay",
            "url.query": "id=1",
            "http.response.status_code": 502,
            "http.response.body.size": 2326,
            "client.address": "203.0.113.7",
            "user.name": "ann",
            "mark": "mapped:nginx-combined",
        },
    ),
    "the same with a request ID": (
        "nginx",
        '2001:db8::1 - - [10/Oct/2026:13:55:36 +0000] "POST / HTTP/2.0" 201 0 "https://a/" "x" "req-1"',
        {"request_id": "req-1", "client.address": "2001:db8::1", "outcome": "success", "user.name": None},
    ),
    "nginx's JSON": (
        "nginx",
        {
            "msec": "1700000000.123",
            "remote_addr": "1.1.1.1",
            "request_method": "GET",
            "request_uri": "/p?a",
            "status": "204",
            "request_time": "0.012",
            "body_bytes_sent": "0",
            "request_id": "z",
            "http_traceparent": TRACEPARENT,
            "server_protocol": "HTTP/1.1",
        },
        {
            "time": "2023-11-14T22:13:20.123000000Z",
            "trace_id": TRACE,
            "span_id": SPAN,
            "request_id": "z",
            "http.server.request.duration": 0.012,
            "url.query": "a",
            "status": None,  # taken: it stands under its new name alone
            "http.response.status_code": 204,
        },
    ),
    "Envoy's default format": (
        "envoy",
        '[2026-10-10T11:55:36.123Z] "POST /pay HTTP/1.1" 503 UF 12 91 23 - "203.0.113.7, 10.0.0.1" "curl/8" "8b1a" "shop" "10.1.1.1:80"',
        {
            "time": "2026-10-10T11:55:36.123000000Z",
            "request_id": "8b1a",
            "client.address": "203.0.113.7",
            "envoy.response_flags": "UF",
            "http.server.request.duration": 0.023,
            "outcome": "failure",
            "mark": "mapped:envoy-text",
        },
    ),
    "a request that the client gave up, as Envoy writes it": (
        "envoy",
        '[2026-10-10T11:55:36.123Z] "GET / HTTP/2" 0 DC 0 0 5 - "-" "-" "8b1a" "shop" "-"',
        {"http.response.status_code": 0, "outcome": "failure", "client.address": None, "envoy.upstream_host": None},
    ),
    "Istio's default format": (
        "envoy",
        (
            '[2026-11-25T21:26:18.409Z] "GET /status/418 HTTP/1.1" 418 - via_upstream - "-" 0 135 4 4 "-" "curl/7.73.0" "84961386" '
            '"httpbin:8000" "127.0.0.1:80" inbound|8000|| 127.0.0.1:41854 10.44.1.27:80 10.44.1.23:37652 outbound_.8000_._.httpbin default'
        ),
        {
            "request_id": "84961386",
            "client.address": "10.44.1.23",
            "envoy.upstream_cluster": "inbound|8000||",
            "http.response.body.size": 135,
            "outcome": "failure",
            "mark": "mapped:istio-text",
        },
    ),
    "Istio's JSON": (
        "envoy",
        {
            "start_time": "2026-10-10T11:55:36.123Z",
            "method": "GET",
            "path": "/x?y",
            "protocol": "HTTP/2",
            "response_code": 200,
            "response_flags": "-",
            "duration": 4,
            "request_id": "q",
            "user_agent": None,
            "downstream_remote_address": "[2001:db8::9]:4000",
        },
        {
            "client.address": "2001:db8::9",
            "url.path": "/x",
            "request_id": "q",
            "response_flags": "-",
            "outcome": "success",
        },
    ),
    "Kong's logging plugins": (
        "kong",
        {
            "started_at": 1726783838000,
            "client_ip": "1.1.1.1",
            "request": {
                "id": "abc",
                "method": "GET",
                "uri": "/a?x=1",
                "size": 64,
                "headers": {"traceparent": TRACEPARENT},
            },
            "response": {"status": 500, "size": 9982, "headers": {}},
            "latencies": {"request": 172, "kong": 1, "proxy": 171},
            "service": {"name": "s", "host": "b"},
            "consumer": {"username": "acme"},
        },
        {
            "time": "2024-09-19T22:10:38.000000000Z",
            "request_id": "abc",
            "trace_id": TRACE,
            "actor": "acme",
            "http.server.request.duration": 0.172,
            "outcome": "failure",
        },
    ),
    "API Gateway's JSON": (
        "aws-api-gateway",
        {
            "requestId": "r1",
            "ip": "1.2.3.4",
            "caller": "-",
            "user": "ann",
            "requestTime": "09/Apr/2026:12:34:56 +0000",
            "httpMethod": "GET",
            "resourcePath": "/pay",
            "status": "200",
            "protocol": "HTTP/1.1",
            "responseLength": "12",
        },
        {
            "time": "2026-04-09T12:34:56.000000000Z",
            "request_id": "r1",
            "actor": "ann",
            "http.route": "/pay",
            "caller": "-",
        },
    ),
    "a load balancer's entry": (
        "aws-alb",
        (
            "https 2026-07-02T22:23:00.186641Z app/my-lb/50dc6c495c0c9188 192.168.131.39:2817 10.0.0.1:80 0.086 0.048 0.037 200 200 0 57 "
            '"GET https://www.example.com:443/ HTTP/1.1" "curl/7.46.0" ECDHE-RSA-AES128-GCM-SHA256 TLSv1.2 arn:aws:x '
            '"Root=1-58337281-1d84f3d73c47ec4e58577259" "www.example.com" "arn:aws:y" 1 2026-07-02T22:22:48.364000Z "forward" "-" "-" '
            '"10.0.0.1:80" "200" "-" "-" TID_1234'
        ),
        {
            "time": "2026-07-02T22:22:48.364000000Z",
            "trace_id": "583372811d84f3d73c47ec4e58577259",
            "request_id": "1-58337281-1d84f3d73c47ec4e58577259",
            "client.address": "192.168.131.39",
            "aws.alb.target.duration": 0.048,
            "outcome": "success",
        },
    ),
    "one whose client sent a trace, to which the balancer adds its Self": (
        "aws-alb",
        (
            "http 2026-07-02T22:23:00.186641Z app/my-lb/50dc6c495c0c9188 192.168.131.39:2817 10.0.0.1:80 0.086 0.048 0.037 200 200 0 57 "
            '"GET http://www.example.com:80/ HTTP/1.1" "curl/7.46.0" - - arn:aws:x '
            '"Self=1-58337281-1d84f3d73c47ec4e58577259;Root=1-58337262-36d228ad5d99923122bbe354" "-" "-" 0 '
            '2026-07-02T22:22:48.364000Z "forward" "-" "-" "10.0.0.1:80" "200" "-" "-"'
        ),
        {"trace_id": "5833726236d228ad5d99923122bbe354", "request_id": "1-58337262-36d228ad5d99923122bbe354"},
    ),
    "one that the balancer answered itself": (
        "aws-alb",
        (
            "http 2026-07-02T22:23:00.186641Z app/my-lb/50dc6c495c0c9188 192.168.131.39:2817 - -1 -1 -1 503 - 34 366 "
            '"GET http://www.example.com:80/ HTTP/1.1" "curl/7.46.0" - - arn:aws:x "Root=1-58337281-1d84f3d73c47ec4e58577259" "-" "-" 0 '
            '2026-07-02T22:22:48.364000Z "forward" "-" "-" "-" "-" "-" "-"'
        ),
        {
            "http.response.status_code": 503,
            "outcome": "failure",
            "aws.alb.target": None,
            "aws.alb.target.duration": None,
        },
    ),
}


@pytest.mark.parametrize("name", LINES)
def test_a_line_as_the_gateway_writes_it(name: str) -> None:
    preset, line, expected = LINES[name]
    record = {"message": line} if isinstance(line, str) else line
    event = Mapper(load_mappings([f"preset:{preset}"])).map(arrival_of_record(dict(record), origin=Origin())).event
    assert event.event_name == "http.server.request"
    assert not [mark for mark in event.marks if mark.startswith("unmapped:")]
    plain = msgspec.to_builtins(event)
    found = {**plain.pop("attributes"), **plain.pop("keys", {}), **plain, "mark": event.marks[0]}
    assert {field: found.get(field) for field in expected} == expected


@pytest.mark.parametrize(
    ("forwarded", "client"),
    [
        ("203.0.113.7", "203.0.113.7"),
        ("203.0.113.7:4000, 10.0.0.1", "203.0.113.7"),
        ("2001:db8::1", "2001:db8::1"),
        ("2001:db8:0:0:0:0:0:8080,10.0.0.1", "2001:db8:0:0:0:0:0:8080"),
        ("[2001:db8::1]:443", "2001:db8::1"),
        ("::ffff:203.0.113.7", "::ffff:203.0.113.7"),
        ("unknown, 203.0.113.7", "10.0.0.9"),
    ],
)
def test_a_client_s_address_of_either_kind(forwarded: str, client: str) -> None:
    record = {"start_time": "2026-10-10T11:55:36.123Z", "response_code": 200, "response_flags": "-"}
    record |= {"x_forwarded_for": forwarded, "downstream_remote_address": "10.0.0.9:37652"}
    event = Mapper(load_mappings(["preset:envoy"])).map(arrival_of_record(record, origin=Origin())).event
    assert event.attributes["client.address"] == client


@pytest.mark.parametrize("name", [name for name, (_, line, _) in LINES.items() if isinstance(line, str)])
def test_a_hostile_line_takes_no_longer_than_it_is(name: str) -> None:
    preset, line, _ = LINES[name]
    assert isinstance(line, str)
    mapper = Mapper(load_mappings([f"preset:{preset}"]))
    words = [*dict.fromkeys(re.findall(r"\W\w?", line)), "u [", "\\", " "]
    for cut in {0, *(at.end() for at in re.finditer(r"\W+", line))}:
        for word in words:
            text = line[:cut] + word * (30_000 // len(word))
            started = time.process_time()
            mapper.map(arrival_of_record({"message": text}, origin=Origin()))
            # about a hundredth of it is needed; where each of these words may begin a field it is more
            assert time.process_time() - started < 0.3, (line[:cut], word)


def test_each_mapping_of_each_preset_has_a_line_here() -> None:
    presets = {preset for preset, _, _ in LINES.values()}
    every = {mapping.name for preset in presets for mapping in load_mappings([f"preset:{preset}"])}
    used = {
        Mapper(load_mappings([f"preset:{preset}"]))
        .map(arrival_of_record({"message": line} if isinstance(line, str) else dict(line), origin=Origin()))
        .event.marks[0]
        for preset, line, _ in LINES.values()
    }
    assert used == {f"mapped:{name}" for name in every}
