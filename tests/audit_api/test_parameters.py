"""Queries, cursors and paths: fuzzed for raising only problems."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.requests import Request

from audit_api.parameters import (
    Parameter,
    decode_cursor,
    encode_cursor,
    flag,
    parse_query,
    raw_tail,
    time,
    trail_of,
    whole_number,
)
from audit_api.problems import Problem
from collector.errors import Malformed

KNOWN = (
    Parameter(name="limit", about="", schema={}, parse=whole_number(1, 10), default=5),
    Parameter(name="since", about="", schema={}, parse=time),
    Parameter(name="events", about="", schema={}, parse=flag, default=True),
    Parameter(name="cursor", about="", schema={}, parse=decode_cursor, default=None),
)


def request(path: str, raw: bytes | None, root: str = "") -> Request:
    scope: dict[str, object] = {"type": "http", "path": path, "root_path": root, "headers": []}
    if raw is not None:
        scope["raw_path"] = raw
    return Request(scope)


def test_defaults() -> None:
    assert parse_query(b"", KNOWN) == {"limit": 5, "since": "", "events": True, "cursor": None}


@given(
    st.binary()
    | st.lists(
        st.sampled_from([b"limit=", b"1", b"&", b"since=", b"2026-01-01T00:00:00Z", b"%", b"=", b"+", b"cursor="])
    ).map(b"".join)
)
def test_any_query_is_read_or_a_problem(query: bytes) -> None:
    try:
        values = parse_query(query, KNOWN)
    except Problem as problem:
        kind = problem.kind.name
    else:
        kind = ""
        assert 1 <= values["limit"] <= 10
    assert kind in ("", "bad-parameter")


@given(st.integers(0, 10**17), st.integers(0, 10**17))
def test_a_cursor_goes_through_text(size: int, below: int) -> None:
    assert decode_cursor(encode_cursor(size, below)) == (size, below)


@given(st.text(max_size=40))
def test_what_is_no_cursor_is_refused(text: str) -> None:
    try:
        assert encode_cursor(*decode_cursor(text)) == text
    except ValueError:
        pass


@given(st.text(max_size=60))
def test_a_time_is_read_or_refused(text: str) -> None:
    try:
        assert time(time(text)) == time(text)
    except Malformed:
        pass


@given(st.text(st.characters(codec="ascii"), max_size=200))
def test_a_path_names_a_trail_or_is_a_problem(tail: str) -> None:
    try:
        trail = trail_of(tail)
    except Problem as problem:
        said = problem.extra
    else:
        said = {"parameter": "trail"}
        assert trail_of(trail) == trail
    assert said == {"parameter": "trail"}


def test_the_path_is_read_as_it_was_sent() -> None:
    sent = request("/v1/trails/key/a/b/c", b"/v1/trails/key/a/b%2Fc?x=1")
    assert raw_tail(sent, "/v1/trails/") == "key/a/b%2Fc"
    assert raw_tail(request("/api/v1/trails/x/y", b"/api/v1/trails/x/y", "/api"), "/v1/trails/") == "x/y"
    assert raw_tail(request("/v1/trails/transaction/ü", None), "/v1/trails/") == "transaction/%C3%BC"
    for raw in (b"/v1/other/x", b"/v1/trails/\xff", b"/v1/trails/" + b"a" * 4000):
        with pytest.raises(Problem):
            raw_tail(request("/", raw), "/v1/trails/")
