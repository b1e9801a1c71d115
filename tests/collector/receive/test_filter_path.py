"""filter_path, as the documentation of both products shows it."""

from __future__ import annotations

import sys
from types import FrameType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collector.errors import Malformed
from collector.receive.filter_path import FilterPath

ANSWER = {
    "took": 7,
    "errors": True,
    "items": [
        {"index": {"_index": "a", "status": 201}},
        {"create": {"_index": "a", "status": 400, "error": {"type": "t", "reason": "r"}}},
    ],
}


@pytest.mark.parametrize(
    ("path", "left"),
    [
        ("", ANSWER),
        (",", ANSWER),
        ("errors", {"errors": True}),
        ("nothing", {}),
        ("took.deeper", {}),
        ("items.*.error", {"items": [{"create": {"error": {"type": "t", "reason": "r"}}}]}),
        # what Logstash and Beats ask for
        ("errors,items.*.error,items.*.status",
         {"errors": True,
          "items": [{"index": {"status": 201}}, {"create": {"status": 400, "error": {"type": "t", "reason": "r"}}}]}),
        ("**.reason", {"items": [{"create": {"error": {"reason": "r"}}}]}),
        ("items.**.type", {"items": [{"create": {"error": {"type": "t"}}}]}),
        ("t*,err*s", {"took": 7, "errors": True}),
        ("items.index", {"items": [{"index": {"_index": "a", "status": 201}}]}),
        ("-items", {"took": 7, "errors": True}),
        ("items.*.*,-**.error,-items.index",
         {"items": [{"create": {"_index": "a", "status": 400}}]}),
        ("**", ANSWER),
    ],
)  # fmt: skip
def test_what_is_left(path: str, left: dict[str, Any]) -> None:
    assert FilterPath(path).of(ANSWER) == left


@pytest.mark.parametrize("path", ["a" * 1_025, ",".join("a" * 33)])
def test_a_filter_has_bounds(path: str) -> None:
    with pytest.raises(Malformed, match="filter_path is too long"):
        FilterPath(path)


@given(st.text(alphabet="*.-,aeit_", max_size=60))
def test_any_filter_leaves_a_part_of_the_answer(path: str) -> None:
    left = FilterPath(path).of(ANSWER)
    assert left.keys() <= ANSWER.keys()
    assert len(left.get("items", [])) <= 2


def test_a_long_answer_is_not_matched_name_by_name() -> None:
    # 32 patterns over the answer to a hundred thousand actions, a few kilobytes of gzip, kept everybody waiting for most of a minute
    calls = 0

    def see(_: FrameType, event: str, __: object) -> None:
        nonlocal calls
        calls += event == "call"

    answer = {"items": [{"create": {"status": 201, "_index": "logs"}}] * 1_000}
    wanted = FilterPath(",".join(["**.*s*t*", *(f"**.*{letter}*z*" for letter in "abcdefghijklmnopqrstuvwxyzABCDE")]))
    sys.setprofile(see)
    try:
        left = wanted.of(answer)
    finally:
        sys.setprofile(None)
    assert left == {"items": [{"create": {"status": 201}}] * 1_000}
    assert calls < 20_000
