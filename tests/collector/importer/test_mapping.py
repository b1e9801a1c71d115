"""What columns mean: mappings, and CSV records read by them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from collector.errors import Malformed
from collector.event import Event, Origin, Span
from collector.importer.mapping import Body, Mapping, Service, load_mappings
from collector.importer.rows import CsvRows
from collector.receive import Arrival

TRACE = "2ffbc4a03bbc5600a45841d05e452454"
SPAN = "04ba577c01a08838"
ORIGIN = Origin(receiver="import", file="f.csv", row=3)


def arrival(mapping: Mapping | None, values: dict[str, str]) -> Arrival:
    return CsvRows(list(values), mapping).arrival(list(values.values()), origin=ORIGIN, source_id=b"row")


@pytest.fixture
def log_mapping(repo_root: Path) -> Mapping:
    return load_mappings(repo_root / "examples" / "import" / "trainticket.toml")[0]


@pytest.fixture
def span_mapping(repo_root: Path) -> Mapping:
    return load_mappings(repo_root / "examples" / "import" / "trainticket.toml")[1]


def log_row(**changed: str) -> dict[str, str]:
    docker = {"log": "19:50:59.971 WARN  t.s.X#457 TraceID: t SpanID: 04ba [getTickets][x]\n", "stream": "stdout",
              "time": "2023-01-30T11:50:59.9716Z"}  # fmt: skip
    row = {
        "Timestamp": "2023-01-30T11:50:59.971622667Z",
        "TimeUnixNano": "1675079459971622667",
        "Node": "n1",
        "PodName": "ts-travel-service-64469b5b48-5rjvb",
        "Container": "server",
        "TraceID": TRACE,
        "SpanID": SPAN,
        "Log": json.dumps(docker),
    }
    return {**row, **changed}


def test_a_log_row(log_mapping: Mapping) -> None:
    one = arrival(log_mapping, log_row())
    assert one.source_id == b"row"
    assert one.event == Event(
        time="2023-01-30T11:50:59.971622667Z",
        observed="2023-01-30T11:50:59.971600000Z",
        severity_number=13,
        severity_text="WARN",
        event_name="getTickets",
        body="19:50:59.971 WARN  t.s.X#457 TraceID: t SpanID: 04ba [getTickets][x]",
        attributes={"log.iostream": "stdout"},
        resource={
            "service.name": "ts-travel-service",
            "k8s.pod.name": "ts-travel-service-64469b5b48-5rjvb",
            "k8s.node.name": "n1",
            "k8s.container.name": "server",
        },
        trace_id=TRACE,
        span_id=SPAN,
        origin=ORIGIN,
    )


def test_a_time_from_1754_stays_and_the_column_that_says_otherwise_too(log_mapping: Mapping) -> None:
    row = log_row(TimeUnixNano="-6795364578871345152", Timestamp="2023-01-30T12:01:02.090")
    event = arrival(log_mapping, row).event
    assert event.time == "1754-08-30T22:43:41.128654848Z"
    assert event.attributes["Timestamp"] == "2023-01-30T12:01:02.090"


def test_a_row_cut_by_docker_is_marked(log_mapping: Mapping) -> None:
    for text, marks in (("x" * 16_384, ["truncated"]), ("x" * 16_383, []), ("x" * 16_384 + "\n", [])):
        log = json.dumps({"log": text, "stream": "stdout", "time": "2023-01-30T11:50:59Z"})
        event = arrival(log_mapping, log_row(Log=log)).event
        assert event.marks == marks
        assert event.body == text.rstrip("\n")


@pytest.mark.parametrize("log", ["no json", "{}", '{"log": 1, "stream": "s", "time": "t"}', ""])
def test_a_body_that_is_not_docker_s_is_kept_as_it_is(log_mapping: Mapping, log: str) -> None:
    event = arrival(log_mapping, log_row(Log=log)).event
    assert event.body == (log or None)
    assert event.marks == ["body_unparsed"]


def test_what_is_no_time_and_no_id_is_kept(log_mapping: Mapping) -> None:
    event = arrival(log_mapping, log_row(TimeUnixNano="noon", TraceID="zz", SpanID="")).event
    assert event.time == ""
    assert event.marks == ["time_unusable"]
    assert event.attributes["TimeUnixNano"] == "noon"
    assert event.attributes["Timestamp"] == "2023-01-30T11:50:59.971622667Z"
    assert event.trace_id == "zz"  # the intake moves it to the attributes and marks it


def test_the_service_s_own_json_inside_docker_s(repo_root: Path) -> None:
    mapping = load_mappings(repo_root / "examples" / "import" / "onlineboutique.toml")[0]
    own = {
        "message": "paid",
        "severity": "INFO",
        "timestamp": "2022-08-22T05:18:42.9Z",
        "Node": "mine",
        "outcome": "success",
    }
    log = json.dumps({"log": json.dumps(own) + "\n", "stream": "stdout", "time": "2022-08-22T05:18:43Z"})
    event = arrival(mapping, log_row(Log=log)).event
    assert (event.body, event.severity_number, event.outcome) == ("paid", 9, "success")
    assert event.time == "2023-01-30T11:50:59.971622667Z"
    assert event.attributes == {"timestamp": "2022-08-22T05:18:42.9Z", "log.iostream": "stdout", "Node": "mine"}
    assert event.resource["k8s.node.name"] == "n1"


def span_row(**changed: str) -> dict[str, str]:
    row = {
        "TraceID": TRACE.upper(),
        "SpanID": SPAN,
        "ParentID": "root",
        "PodName": "ts-gateway-service-6f6cfc45b-d9pnv",
        "OperationName": "HTTP POST",
        "StartTimeUnixNano": "1675079501299000000",
        "EndTimeUnixNano": "1675079501682364930",
        "Duration": "383364",
    }
    return {**row, **changed}


def test_a_span_row(span_mapping: Mapping) -> None:
    one = arrival(span_mapping, span_row())
    assert one.source_id == b"span\0" + bytes.fromhex(TRACE + SPAN)
    assert one.event == Event(
        time="2023-01-30T11:51:41.299000000Z",
        resource={"service.name": "ts-gateway-service", "k8s.pod.name": "ts-gateway-service-6f6cfc45b-d9pnv"},
        trace_id=TRACE,
        span_id=SPAN,
        span=Span(name="HTTP POST", end="2023-01-30T11:51:41.682364930Z"),
        origin=ORIGIN,
    )


@pytest.mark.parametrize(
    ("changed", "marks", "attributes"),
    [
        ({"Duration": "383365"}, ["duration_unequal"], {"Duration": "383365"}),
        ({"EndTimeUnixNano": "1"}, ["end_before_start", "duration_unequal"], {"Duration": "383364"}),
        ({"ParentID": "zz"}, ["parent_span_id_unusable"], {"parent_span_id": "zz"}),
        ({"EndTimeUnixNano": "later"}, ["time_unusable"], {"EndTimeUnixNano": "later", "Duration": "383364"}),
        ({"ParentID": SPAN[::-1]}, [], {}),
    ],
)
def test_spans_that_do_not_add_up_are_kept_and_marked(
    span_mapping: Mapping, changed: dict[str, str], marks: list[str], attributes: dict[str, Any]
) -> None:
    event = arrival(span_mapping, span_row(**changed)).event
    assert (event.marks, event.attributes) == (marks, attributes)


def test_a_span_without_its_ids_and_a_row_of_another_length_are_malformed(span_mapping: Mapping) -> None:
    for changed in ({"TraceID": ""}, {"SpanID": "0" * 16}):
        with pytest.raises(Malformed, match="id is none"):
            arrival(span_mapping, span_row(**changed))
    with pytest.raises(Malformed, match="7 fields; the header has 8"):
        CsvRows(list(span_row()), span_mapping).arrival(["x"] * 7, origin=ORIGIN, source_id=b"")
    with pytest.raises(Malformed, match="twice"):
        CsvRows(["a", "a"], None)


def test_without_a_mapping_a_record_is_a_free_record() -> None:
    one = arrival(
        None, {"time": "2023-01-30T11:50:59Z", "message": "hello", "trace_id": TRACE, "amount": "12", "note": ""}
    )
    assert (one.event.time, one.event.body, one.event.trace_id) == ("2023-01-30T11:50:59.000000000Z", "hello", TRACE)
    assert one.event.attributes == {"amount": "12"}
    assert one.source_id == b"row"


# ----------------------------------------------------------------------------------------------------- mapping files
GOOD = Mapping(name="m", columns=("t", "pod", "log"), time="t", service=Service(column="pod"), body=Body(column="log"))


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"time": "when"}, "when not among its `columns`"),
        ({"columns": ("t", "t", "pod", "log")}, "twice"),
        ({"columns": ("t", "", "pod", "log")}, "not at all"),
        ({"operation": "pod"}, "pod has two uses"),
        ({"resource": {"log": "log.message"}}, "log has two uses"),
        ({"same_time": ("t",)}, "t has two uses"),
        ({"trace_id": "log", "span_id": "log"}, "log has two uses"),
        ({"kind": "span"}, "spans need"),
        ({"severity_pattern": "(["}, "pattern"),
        ({"operation_pattern": "abc"}, "has no group"),
        ({"service": Service(column="pod", pattern="x")}, "has no group"),
    ],
)
def test_a_mapping_that_cannot_be_used_says_why(changed: dict[str, Any], reason: str) -> None:
    GOOD.check()
    msgspec.structs.replace(GOOD, resource={"pod": "k8s.pod.name"}).check()
    with pytest.raises(Malformed, match=reason):
        msgspec.structs.replace(GOOD, **changed).check()


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[[mapping]\n", "mine.toml"),
        ("", "missing required field `mapping`"),
        ('[[mapping]]\nname = "a"\ncolumns = ["x"]\ntyme = "x"\n', "unknown field `tyme`"),
        ('[[mapping]]\nname = "a"\ncolumns = ["x"]\ntime = "y"\n', "mine.toml: mapping 'a': y not among"),
    ],
)
def test_a_mapping_file_that_cannot_be_used_says_where(tmp_path: Path, text: str, reason: str) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(text)
    with pytest.raises(Malformed, match=reason):
        load_mappings(path)
