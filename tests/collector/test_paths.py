"""Paths into events, and that a shape never says no to a path that leads somewhere."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collector.errors import Malformed
from collector.event import Event, Scope
from collector.paths import compile_path, compile_paths, first, shape_of

names = st.sampled_from(["a", "b", "a.b", "b.a", "a.b.a", "c"])
values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(names, inner, max_size=3),
    max_leaves=6,
)
fields = st.dictionaries(names | st.integers(), values, max_size=4)
events = st.builds(
    Event, attributes=fields, resource=fields, body=values, scope=st.none() | st.builds(Scope, attributes=fields)
)
paths = st.builds(
    lambda root, rest: compile_path(f"{root}.{rest}"),
    st.sampled_from(["attributes", "resource", "body", "scope.attributes"]),
    names,
)


@given(events, paths)
def test_what_a_shape_rules_out_is_not_there(event: Event, path: Any) -> None:
    assert path.may_be_in(shape_of(event)) or path.get(event) is None


def test_the_whole_path_is_tried_as_one_name_first() -> None:
    event = Event(attributes={"a.b": 1, "a": {"b": 2, "c.d": {"e": 3}}})
    assert compile_path("attributes.a.b").get(event) == 1
    assert compile_path("attributes.a.c.d.e").get(event) is None  # only a whole rest is tried, not every cut of it
    assert compile_path("attributes.a.c.d").get(event) == {"e": 3}


def test_the_first_that_can_be_a_key_wins() -> None:
    event = Event(attributes={"a": "", "b": None, "c": 7, "d": True}, body={"x": 1.5})
    assert first(compile_paths(["attributes.a", "attributes.b", "attributes.c", "attributes.d"]), event) == "7"
    assert first(compile_paths(["attributes.d"]), event) == "true"
    assert first(compile_paths(["body.x"]), event) == ""


@pytest.mark.parametrize("text", ["", "attributes", "attributes.", "scope", "scope.attributes", "span.name"])
def test_a_path_starts_somewhere(text: str) -> None:
    with pytest.raises(Malformed, match="a path starts with"):
        compile_path(text)
