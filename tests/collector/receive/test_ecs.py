"""Elastic Common Schema, nested and dotted, and the ids that documents have of themselves."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collector.errors import Malformed
from collector.event import Event, Origin
from collector.receive.ecs import arrival_of_document, digest_of, place_id
from collector.receive.json_lines import object_of_line

TRACE, SPAN = "2ffbc4a03bbc5600a45841d05e452454", "04ba577c01a08838"
NESTED: dict[str, Any] = {
    "@timestamp": "2026-01-02T03:04:05.678Z",
    "message": "paid",
    "log": {"level": "warn", "logger": "shop.Pay", "offset": 7, "file": {"path": "/var/log/shop.log", "inode": "12"}},
    "trace": {"id": TRACE},
    "span": {"id": SPAN},
    "transaction": {"id": "aaaabbbbccccdddd"},
    "service": {"name": "shop", "version": "1.2"},
    "event": {"action": "payment", "outcome": "success", "dataset": "shop.log"},
}
DOTTED: dict[str, Any] = {
    "@timestamp": "2026-01-02T03:04:05.678Z",
    "message": "paid",
    "log.level": "warn",
    "log.logger": "shop.Pay",
    "log.offset": 7,
    "log.file.path": "/var/log/shop.log",
    "log.file.inode": "12",
    "trace.id": TRACE,
    "span.id": SPAN,
    "transaction.id": "aaaabbbbccccdddd",
    "service.name": "shop",
    "service.version": "1.2",
    "event.action": "payment",
    "event.outcome": "success",
    "event.dataset": "shop.log",
}


def event_of(document: dict[str, Any]) -> Event:
    return arrival_of_document(json.loads(json.dumps(document)), origin=Origin(receiver="elasticsearch")).event


@pytest.mark.parametrize("document", [NESTED, DOTTED])
def test_what_has_a_place_in_the_event_goes_there(document: dict[str, Any]) -> None:
    event = event_of(document)
    assert event.time == "2026-01-02T03:04:05.678000000Z"
    assert (event.body, event.severity_text, event.severity_number) == ("paid", "warn", 13)
    assert (event.trace_id, event.span_id, event.service) == (TRACE, SPAN, "shop")
    assert (event.event_name, event.outcome) == ("payment", "success")
    assert event.attributes["log.file.path"] == "/var/log/shop.log"
    assert event.transaction == ""  # ECS means a span by it


def test_what_has_none_stays_as_it_was() -> None:
    attributes = event_of(NESTED).attributes
    assert attributes == {
        "log.logger": "shop.Pay",
        "log.offset": 7,
        "log.file.path": "/var/log/shop.log",
        "log.file.inode": "12",
        "transaction": {"id": "aaaabbbbccccdddd"},
        "service": {"version": "1.2"},
        "event": {"dataset": "shop.log"},
    }


@pytest.mark.parametrize(
    "document",
    [
        {"log": {"level": "info"}, "log.level": "warn", "message": "both"},
        {"log": {"a.b": 1, "a": {"b": 2}}, "message": "twice"},
        {"trace": {"id": TRACE}, "trace.id": SPAN + SPAN, "message": "both"},
        {"trace": {"id": 7}, "service": {}, "event": {"action": None}, "message": "odd"},
        {"log": {}, "message": "empty"},
    ],
)
def test_nothing_is_overwritten(document: dict[str, Any]) -> None:
    event = event_of(document)
    told = json.dumps([event.attributes, event.severity_text, event.trace_id, event.body])
    for value in (leaf for leaf in leaves(document) if leaf is not None):
        assert json.dumps(value) in told


def leaves(value: Any) -> list[Any]:
    return [leaf for below in value.values() for leaf in leaves(below)] if isinstance(value, dict) else [value]


def test_a_log_without_a_message_is_no_message() -> None:
    assert event_of({"log": {"level": "info", "file": {"path": "/a"}}}).body is None


names = st.sampled_from(["log", "level", "log.level", "trace", "id", "trace.id", "event", "action", "file", "x"])
documents = st.dictionaries(
    names, st.recursive(st.integers(0, 9), lambda below: st.dictionaries(names, below, max_size=3)), max_size=4
)


@given(documents)
def test_no_value_is_ever_lost(document: dict[str, Any]) -> None:
    event = event_of(document)
    left = [*leaves(event.attributes), *leaves(event.resource), *(leaves(event.body) if event.body is not None else [])]
    assert sorted(left) == sorted(leaves(document))


def test_the_place_in_a_file_names_a_document_whatever_the_order_of_its_names() -> None:
    backwards = {name: NESTED[name] for name in reversed(NESTED)}
    assert place_id(NESTED) == place_id(backwards) is not None
    assert place_id(DOTTED) is not None
    assert place_id(NESTED) != place_id({**NESTED, "message": "another line, after the file was rotated"})
    assert place_id(NESTED) != place_id({**NESTED, "@timestamp": "2026-01-02T03:04:05.679Z"})


@pytest.mark.parametrize(
    "log", [None, "text", {}, {"offset": 7}, {"file": {"path": "/a"}}, {"offset": "7", "file": {"path": "/a"}}]
)
def test_without_a_place_there_is_no_id(log: Any) -> None:
    assert place_id({"message": "x", "log": log}) is None


@pytest.mark.parametrize("line", [b'{"a":NaN}', b'{"a":"\xff"}', b'{"a":"\\ud800"}', b'{"a":' + b"9" * 40 + b"}"])
def test_what_only_a_lenient_decoder_takes_has_a_digest_too(line: bytes) -> None:
    assert len(digest_of(object_of_line(line))) == 32


def test_what_is_too_deep_is_said_so() -> None:
    deep: dict[str, Any] = {}
    for _ in range(100_000):
        deep = {"a": deep}
    with pytest.raises(Malformed, match="nested too deeply"):
        digest_of(deep)
    while deep:  # else the interpreter takes it apart recursively
        deep = deep["a"]
