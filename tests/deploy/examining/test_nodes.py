"""Answers of a cluster, judged: watermarks as its settings may write them, shards, health, clocks."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploy.examining import Chart
from deploy.examining.cluster import judge_version
from deploy.examining.nodes import (
    Health,
    Node,
    Nodes,
    judge_clocks,
    judge_disks,
    judge_health,
    judge_shards,
    makes_by_itself,
    room_at,
)
from tests.support.charts import outcomes, troubles

GB = 1 << 30
DISK = "cluster.routing.allocation.disk"
MARKS = {
    f"{DISK}.threshold_enabled": "true",
    f"{DISK}.watermark.low": "85%",
    f"{DISK}.watermark.high": "0.9",
    f"{DISK}.watermark.flood_stage": "5gb",
}


@pytest.mark.parametrize(
    ("mark", "least"),
    [
        ("85%", 15 * GB),
        ("0.85", 15 * GB),
        ("100%", 0),
        ("1", 0),
        ("5gb", 5 * GB),
        ("5 GB", 5 * GB),
        ("512b", 512),
        ("", None),
        ("x", None),
        ("85", None),
    ],
)
def test_a_watermark_in_every_form(mark: str, least: int | None) -> None:
    found = room_at(mark, 100 * GB)
    assert found == least if least is None else found == pytest.approx(least, abs=2)


@given(st.text(max_size=30), st.integers(0, 1 << 60))
def test_any_watermark_is_read_or_is_none(mark: str, total: int) -> None:
    room_at(mark, total)


def node(free: int, *, name: str = "node0", roles: tuple[str, ...] = ("data",), timestamp: int = 0) -> Node:
    disks: dict[str, Any] = {"total": {"total_in_bytes": 100 * GB, "available_in_bytes": free}}
    return msgspec.convert({"name": name, "timestamp": timestamp, "roles": list(roles), "fs": disks}, Node)


@pytest.mark.parametrize(
    ("free", "outcome", "said"),
    [
        (20 * GB, "ok", ""),
        (12 * GB, "warning", "low (85%)"),
        (8 * GB, "warning", "high (0.9)"),
        (4 * GB, "failed", "flood_stage (5gb)"),
    ],
)
def test_a_disk_against_its_watermarks(free: int, outcome: str, said: str) -> None:
    chart = Chart("x")
    judge_disks(chart, [node(free)], MARKS)
    assert outcomes(chart) == {"disk": outcome}
    assert said in chart.checks[0].found
    troubles(chart)


def test_one_full_disk_of_several_is_told_and_those_without_data_are_not() -> None:
    chart = Chart("x")
    judge_disks(
        chart, [node(20 * GB), node(GB, name="full"), node(GB, name="manager", roles=("cluster_manager",))], MARKS
    )
    (trouble,) = troubles(chart)
    assert trouble.found.startswith("full: ")


def test_without_watermarks_a_disk_that_is_nearly_full_is_told_all_the_same() -> None:
    for free, outcome in ((20 * GB, "ok"), (4 * GB, "failed")):
        chart = Chart("x")
        judge_disks(chart, [node(free)], {f"{DISK}.threshold_enabled": "false"})
        assert outcomes(chart) == {"disk": outcome}


def health(status: str = "green", active: int = 10, indices: dict[str, str] | None = None) -> Health:
    told = {name: {"status": one} for name, one in (indices or {}).items()}
    whole = {
        "status": status,
        "number_of_nodes": 2,
        "number_of_data_nodes": 1,
        "active_shards": active,
        "indices": told,
    }
    return msgspec.convert(whole, Health)


@pytest.mark.parametrize(("active", "outcome"), [(10, "ok"), (895, "warning"), (999, "failed")])
def test_shards_against_their_limit(active: int, outcome: str) -> None:
    chart = Chart("x")
    judge_shards(chart, health(active=active), {}, month=10)
    assert outcomes(chart) == {"shards": outcome}


@pytest.mark.parametrize(
    ("whole", "ours", "outcome"),
    [
        ("green", {"tally-batches": "green"}, "ok"),
        ("red", {"tally-batches": "green"}, "ok"),
        ("yellow", {"tally-batches": "green", "tally-streams": "yellow"}, "warning"),
        ("red", {"tally-batches": "red", "tally-streams": "yellow"}, "failed"),
    ],
)
def test_our_indexes_health_is_what_counts(whole: str, ours: dict[str, str], outcome: str) -> None:
    worst = max(ours.values(), key=("green", "yellow", "red").index)
    chart = Chart("x")
    judge_health(chart, health(whole), health(worst, indices=ours))
    assert outcomes(chart) == {"health": outcome}
    assert all(name in check.found for check in troubles(chart) for name, one in ours.items() if one == worst)


def test_a_nodes_clock_is_ours_to_within_the_time_that_the_answer_took() -> None:
    began_ns = 1_767_225_600_000_000_000
    for ahead_ms, outcome in ((0, "ok"), (40, "ok"), (5_000, "warning"), (-5_000, "warning"), (100_000, "failed")):
        chart = Chart("x")
        asked = node(GB, timestamp=began_ns // 1_000_000 + 20 + ahead_ms)
        judge_clocks(chart, [asked], began_ns=began_ns, ended_ns=began_ns + 50_000_000)
        assert outcomes(chart) == {"clock of node0": outcome}


@pytest.mark.parametrize(
    ("setting", "made"),
    [
        ("true", True),
        ("false", False),
        ("-tally-*,+*", False),
        ("+tally-events-*,-tally-*", True),
        ("tally-*", True),
        ("logs-*", False),
        ("", False),
    ],
)
def test_which_indexes_come_by_themselves(setting: str, made: bool) -> None:
    assert makes_by_itself(setting, "tally-events-2026.01") is made


@pytest.mark.parametrize(
    ("number", "distribution", "outcome"),
    [
        ("3.4.0", "opensearch", "ok"),
        ("3.9.1", "opensearch", "ok"),
        ("3.1.0", "opensearch", "warning"),
        ("4.0.0", "opensearch", "warning"),
        ("2.19.0", "opensearch", "failed"),
        ("8.17.0", "", "failed"),
        ("three", "opensearch", "unknown"),
    ],
)
def test_versions(number: str, distribution: str, outcome: str) -> None:
    chart = Chart("x")
    judge_version(chart, number, distribution)
    assert outcomes(chart) == {"version": outcome}


def test_a_real_answer_is_read() -> None:
    # cut down from what 3.4.0 answered
    answer = (
        b'{"_nodes":{"total":1},"nodes":{"B9s-kZtNQqSUxwHBmD4Ktg":{"timestamp":1795760605958,"name":"node0",'
        b'"roles":["cluster_manager","data"],"fs":{"timestamp":1795760605958,"total":{"total_in_bytes":270553174016,'
        b'"free_in_bytes":252226686976,"available_in_bytes":79466807296}}}}}'
    )
    (found,) = msgspec.json.decode(answer, type=Nodes).nodes.values()
    assert (found.name, found.fs.total.available_in_bytes) == ("node0", 79_466_807_296)
