"""Bodies of _bulk requests: actions and documents, limits, and nothing but Malformed for whatever else comes."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from collector.errors import Malformed
from collector.receive.bulk_body import ACTIONS, items_of


def body(*lines: Any) -> bytes:
    return b"".join((line if isinstance(line, bytes) else json.dumps(line).encode()) + b"\n" for line in lines)


def test_actions_and_documents_in_order() -> None:
    items = items_of(
        body({"index": {"_index": "a", "_id": "1"}}, {"n": 1}, {"create": {}}, {"n": 2}, {"delete": {"_id": 3}},
             {"update": {"_id": "4"}}, {"doc": {}}, {"index": {"_index": "a", "_type": "_doc", "pipeline": "p"}}, {"n": 5}),
        index="of-the-path",
    )  # fmt: skip
    assert [(item.action, item.index, item.name, item.document) for item in items] == [
        ("index", "a", "1", b'{"n": 1}'),
        ("create", "of-the-path", "", b'{"n": 2}'),
        ("delete", "of-the-path", "3", b""),
        ("update", "of-the-path", "4", b'{"doc": {}}'),
        ("index", "a", "", b'{"n": 5}'),
    ]
    assert [item.error.label if item.error else "" for item in items] == ["", "", "append_only", "append_only", ""]


def test_the_last_newline_may_be_missing_and_lines_may_end_like_on_windows() -> None:
    items = items_of(b'{"index":{}}\r\n{"n":1}\r\n\r\n\n{"index":{}}\n{"n":2}')
    assert [(item.action, item.document) for item in items] == [("index", b'{"n":1}'), ("index", b'{"n":2}')]


def test_empty_lines_are_passed_over_together_and_counted() -> None:
    began = time.process_time()
    with pytest.raises(Malformed) as refused:
        items_of(b'{"index":{}}\n{"n":1}\n' + b"\n \r\n" * (4 * 2**20) + b"broken\n")
    assert (refused.value.label, refused.value.where) == ("bad_action", f"line {8 * 2**20 + 3}")
    assert time.process_time() - began < 1.5  # a look at each would take several


def test_a_documents_own_bytes_are_not_looked_at() -> None:
    (item,) = items_of(body({"index": {}}, b"{broken"))
    assert (item.document, item.error) == (b"{broken", None)


@pytest.mark.parametrize(
    ("given", "label", "where"),
    [
        (b"", "empty", ""),
        (b"\n \n", "empty", ""),
        (b"broken\n{}\n", "bad_action", "line 1"),
        (b"[]\n{}\n", "bad_action", "line 1"),
        (b"{}\n{}\n", "bad_action", "line 1"),
        (b'{"index":{},"create":{}}\n{}\n', "bad_action", "line 1"),
        (b'{"upsert":{}}\n{}\n', "bad_action", "line 1"),
        (b'{"index":1}\n{}\n', "bad_action", "line 1"),
        (b'{"index":{}}\n{}\n{"message":"no action"}\n', "bad_action", "line 3"),
        (b'{"index":{}}\n', "bad_action", "line 1"),
        (b'{"index":{}}\n\n', "bad_action", "line 1"),
        (b'{"index":{"a":"' + b"x" * 65_536 + b'"}}\n{}\n', "bad_action", "line 1"),
        (b'{"index":{}}\n{}\n' * 6, "too_many_items", ""),
    ],
)
def test_a_body_that_makes_no_sense_is_refused_as_a_whole(given: bytes, label: str, where: str) -> None:
    with pytest.raises(Malformed) as refused:
        items_of(given, max_items=5)
    assert (refused.value.label, refused.value.where) == (label, where)


def test_what_is_wrong_with_one_action_is_that_ones_error() -> None:
    items = items_of(
        body({"index": {"_id": "x" * 513}}, {}, {"index": {"_index": ["a"]}}, {}, {"index": {}}, {"m": "x" * 100}, {"index": {}}, {}),
        max_document_bytes=50,
    )  # fmt: skip
    assert [item.error.label if item.error else "" for item in items] == ["bad_name", "bad_name", "too_large", ""]
    assert len(items[2].document) == 51


line_like = st.one_of(
    st.sampled_from([json.dumps({action: {}}).encode() for action in ACTIONS]),
    st.sampled_from([b"", b"{}", b"\r", b'{"index":null}', b'{"create":{"_id":1e400}}', b'{"index":{"_id":"\\ud800"}}', b"[" * 100_000]),
    st.binary(max_size=30),
)  # fmt: skip


@given(st.lists(line_like, max_size=12))
@example([b'{"index":' * 2_000])
def test_nothing_but_malformed_is_raised(lines: list[bytes]) -> None:
    whole = b"\n".join(lines)
    try:
        items = items_of(whole)
    except Malformed:
        return
    assert all(item.action in ACTIONS and item.document in whole for item in items)
