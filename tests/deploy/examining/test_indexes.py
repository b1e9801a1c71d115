"""What is wrong with an index, judged from its settings and mapping; what the server says of one of ours is what we want."""

from __future__ import annotations

from typing import Any

import pytest

from collector.store.opensearch.layout import Layout
from correlator.index.opensearch.generations import index_body
from correlator.index.settings import IndexSettings
from deploy.examining.indexes import Problem, differences, problems_of
from deploy.examining.questions import flat

LAYOUT = Layout(prefix="tally", shards=1, replicas=1)
EVENTS = "tally-events-2026.01"
WANTED = LAYOUT.body(EVENTS)
SETTINGS = flat(WANTED["settings"])
MAPPINGS: dict[str, Any] = {"dynamic": "false", "properties": dict(WANTED["mappings"]["properties"])}


def found(settings: dict[str, str | None] | None = None, *, writing: bool = True, **properties: Any) -> list[Problem]:
    changed = {name: value for name, value in (SETTINGS | (settings or {})).items() if value is not None}
    fields = {name: field for name, field in (MAPPINGS["properties"] | properties).items() if field is not None}
    return problems_of(changed, MAPPINGS | {"properties": fields}, WANTED, open_for_writing=writing)


def test_ours_is_fine() -> None:
    assert found() == []
    trails = index_body(IndexSettings())
    mappings = {"dynamic": "false", "properties": dict(trails["mappings"]["properties"])}
    assert problems_of(flat(trails["settings"]), mappings, trails, open_for_writing=True) == []


@pytest.mark.parametrize(
    ("settings", "outcome", "body"),
    [
        ({"index.append_only.enabled": None}, "failed", None),
        ({"index.append_only.enabled": "false"}, "failed", None),
        ({"index.translog.durability": "async"}, "failed", {"index.translog.durability": "request"}),
        ({"index.final_pipeline": "enrich"}, "failed", {"index.final_pipeline": "_none"}),
        ({"index.default_pipeline": "enrich"}, "failed", {"index.default_pipeline": "_none"}),
        ({"index.replication.type": "SEGMENT"}, "warning", None),
        ({"index.number_of_replicas": "0"}, "warning", {"index.number_of_replicas": 1}),
        ({"index.blocks.read_only_allow_delete": "true"}, "failed", {"index.blocks.read_only_allow_delete": None}),
        ({"index.blocks.write": "true"}, "failed", {"index.blocks.write": None}),
        ({"index.verified_before_close": "true"}, "failed", {}),
    ],
)
def test_a_setting_that_is_not_ours(settings: dict[str, str | None], outcome: str, body: Any) -> None:
    (problem,) = found(settings)
    assert (problem.outcome, problem.body) == (outcome, body)
    assert problem.suffix or problem.help


def test_what_is_as_good_is_no_problem() -> None:
    assert found({"index.translog.durability": None, "index.replication.type": None}) == [], "the server's defaults"
    assert found({"index.number_of_replicas": "2"}) == []
    assert found({"index.number_of_replicas": "0", "index.auto_expand_replicas": "0-1"}) == []
    assert found({"index.blocks.write": "false"}) == []


def test_a_month_that_is_over_may_be_blocked_for_writing_and_not_for_reading() -> None:
    assert found({"index.blocks.write": "true"}, writing=False) == []
    assert len(found({"index.blocks.read": "true"}, writing=False)) == 1


def test_a_mapping_that_is_not_ours() -> None:
    (problem,) = found(transaction=None)
    assert problem.body == {"properties": {"transaction": {"type": "keyword", "ignore_above": 1_024}}}
    (problem,) = found(transaction={"type": "text"})
    assert (problem.outcome, problem.suffix) == ("failed", "")
    (problem,) = found(mood={"type": "keyword"})
    assert (problem.outcome, "mood" in problem.what) == ("warning", True)
    for dynamic in ({"dynamic": "true"}, {"dynamic": True}, {}):
        mappings = {"properties": MAPPINGS["properties"]} | dynamic
        (problem,) = problems_of(SETTINGS, mappings, WANTED, open_for_writing=True)
        assert problem.body == {"dynamic": False}


def test_differences_in_words() -> None:
    assert differences({"a": "1", "b": "2", "c": "3"}, {"a": "1", "b": "x", "d": "4"}) == [
        "b is 2, not x",
        "d is missing",
    ]


def test_nested_and_dotted_names_are_the_same() -> None:
    assert flat({"index": {"append_only": {"enabled": True}, "shards": 3}}) == flat(
        {"index.append_only.enabled": "true", "index.shards": "3"}
    )
