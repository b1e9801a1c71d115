"""A free record becomes an event: the table in `collector.receive.record`, and nothing lost."""

from __future__ import annotations

import re
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collector.errors import Malformed
from collector.event import Event, Origin, parse_time
from collector.protect.classify import find_cards
from collector.receive.record import (
    FIELDS,
    arrival_of_record,
    put_over,
    record_uid,
    severity_of,
    span_id_of,
    time_of,
    trace_id_of,
)

TRACE = "2ffbc4a03bbc5600a45841d05e452454"
SPAN = "04ba577c01a08838"
ORIGIN = Origin(receiver="ndjson")


def test_the_documentation_has_the_whole_table(repo_root: Path) -> None:
    page = (repo_root / "docs" / "ways-in.md").read_text(encoding="utf-8")
    table = page.split("## Records")[1].split("## OTLP")[0]
    rows = dict(re.findall(r"^\| `(\w+)` \| (.*) \|$", table, re.MULTILINE))
    assert {place: tuple(re.findall(r"`([^`]+)`", names)) for place, names in rows.items()} == dict(FIELDS)


def event_of(record: dict[str, Any], **options: Any) -> Event:
    return arrival_of_record(record, origin=ORIGIN, **options).event


def test_fields_with_a_place_go_there_and_the_others_are_attributes() -> None:
    event = event_of(
        {
            "message": "payment authorised",
            "level": "warn",
            "traceId": TRACE.upper(),
            "span_id": SPAN,
            "service": {"name": "payments"},
            "outcome": "success",
            "actor": "user-7",
            "event.name": "authorise",
            "amount": 12,
        }
    )
    assert event == Event(
        body="payment authorised",
        severity_text="warn",
        severity_number=13,
        trace_id=TRACE,
        span_id=SPAN,
        resource={"service.name": "payments"},
        outcome="success",
        actor="user-7",
        event_name="authorise",
        attributes={"amount": 12},
        origin=ORIGIN,
    )


def test_of_two_fields_for_one_place_the_first_of_the_table_wins_and_the_other_stays() -> None:
    for record in ({"log": "b", "message": "a"}, {"message": "a", "log": "b"}):
        event = event_of(dict(record))
        assert (event.body, event.attributes) == ("a", {"log": "b"})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("trace_id", "not hex"),
        ("trace_id", "0" * 32),
        ("trace_id", 17),
        ("span_id", "0" * 16),
        ("level", 30),
        ("severity_number", 25),
        ("severity_number", True),
        ("service", {"name": "a", "version": "1"}),
        ("outcome", "perhaps"),
        ("outcome", ["success"]),
        ("actor", {"id": 1}),
        ("time", "yesterday"),
        ("time", True),
    ],
)
def test_a_value_that_does_not_fit_its_place_stays_an_attribute(name: str, value: object) -> None:
    event = event_of({name: value})
    assert event == Event(attributes={name: value}, origin=ORIGIN)


def test_the_wire_s_own_time_and_the_record_s_own_service_win() -> None:
    event = event_of({"time": "2020-01-01T00:00:00Z", "service": "mine"}, time="", service="the tag's")
    assert (event.time, event.attributes) == ("", {"time": "2020-01-01T00:00:00Z"})
    assert event.service == "mine"
    assert event_of({}, service="the tag's").service == "the tag's"


@pytest.mark.parametrize(
    "uid",
    [
        "f81d4fae-7dec-11d0-a765-00a0c91e6bf6",
        "F81D4FAE-7DEC-11D0-A765-00A0C91E6BF6",
        "01ARZ3NDEKTSV4RRFFQ69G5FAV",
        "01arz3ndektsv4rrffq69g5fav",
        TRACE,
        "da39a3ee5e6b4b0d3255bfef95601890afd80709",
    ],
)
def test_a_record_uid_is_the_source_id_and_stays_as_it_is_where_a_generator_made_it(uid: str) -> None:
    arrival = arrival_of_record({"log.record.uid": uid}, origin=ORIGIN)
    assert arrival.source_id == b"log\0" + uid.encode()
    assert arrival.event.attributes == {"log.record.uid": uid}


@pytest.mark.parametrize(
    "uid",
    [
        "auth-4111111111111111-7",
        "4111111111111111",
        "41111111-1111-1111-7777-777777777777",
        "4111-1111-1111-1111-a",
        "a@example.org",
        "DE89370400440532013000",
        "TR330006100519786457841326",
        "12345678901234567890123456789012",
        "01H",
        "\ud800",
        "x" * 1_000,
    ],
)
def test_another_record_uid_is_a_source_id_by_its_digest_alone(uid: str) -> None:
    arrival = arrival_of_record({"log.record.uid": uid}, origin=ORIGIN)
    assert arrival.source_id == b"log\0" + sha256(b"log\0" + uid.encode("utf-8", "surrogatepass")).digest()
    assert arrival.event.attributes == {"log.record.uid": uid}


@pytest.mark.parametrize("hidden", ["4111111111111111", "4111-1111-1111-1111"])
def test_no_card_number_is_a_source_id_whatever_is_around_it(hidden: str) -> None:
    for before in range(25):
        for after in range(25):
            source_id = record_uid("a" * before + hidden + "b" * after)
            assert source_id is not None
            assert find_cards((source_id[4:]).decode("latin-1")) == []


def test_a_record_uid_that_is_no_text_is_none() -> None:
    assert [record_uid(value) for value in (5, "", None, ["a"])] == [None] * 4


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("2023-01-30T19:50:59.5+08:00", "2023-01-30T11:50:59.500000000Z"),
        (1_675_079_459, "2023-01-30T11:50:59.000000000Z"),
        (1_675_079_459_971, "2023-01-30T11:50:59.971000000Z"),
        (1_675_079_459_971_622, "2023-01-30T11:50:59.971622000Z"),
        (1_675_079_459_971_622_667, "2023-01-30T11:50:59.971622667Z"),
        (1_675_079_459.5, "2023-01-30T11:50:59.500000000Z"),
        (1_675_079_459_971.25, "2023-01-30T11:50:59.971250000Z"),
    ],
)
def test_times_of_records(value: object, text: str) -> None:
    assert time_of(value) == text


@pytest.mark.parametrize(
    "value", ["", "12:00", None, -1, float("nan"), float("inf"), 1e300, 10**30, [], "0000-01-01T00:00:00Z"]
)
def test_what_is_no_time(value: object) -> None:
    with pytest.raises(Malformed):
        time_of(value)


@given(st.one_of(st.integers(), st.floats(), st.text(), st.none()))
def test_a_time_is_a_time_or_malformed(value: object) -> None:
    try:
        parse_time(time_of(value))
    except Malformed:
        pass


@pytest.mark.parametrize(
    ("text", "number"),
    [("INFO", 9), ("info", 9), (" Warning ", 13), ("error", 17), ("FATAL", 21), ("trace", 1), ("DEBUG2", 6), ("INFO4", 12),
     ("emerg", 21), ("", 0), ("nonsense", 0), ("x" * 1000, 0), ("WARN9", 0), ("NOTICE2", 0)],
)  # fmt: skip
def test_severity_numbers(text: str, number: int) -> None:
    assert severity_of(text) == number


def test_ids() -> None:
    assert trace_id_of(SPAN) == "0" * 16 + SPAN
    assert trace_id_of(TRACE + "00") == ""
    assert trace_id_of(TRACE[:-1] + "g") == ""
    assert trace_id_of(TRACE[:-1] + "\n") == ""
    assert span_id_of(TRACE) == ""
    assert span_id_of("٠" * 16) == ""


names = st.sampled_from(sorted(name for group in FIELDS.values() for name in group)) | st.text(max_size=4)
values = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=20)
    | st.lists(st.none(), max_size=1)
    | st.just(TRACE)
    | st.just("INFO")
)


def test_what_is_known_stands_over_what_is_stated_and_nothing_is_lost() -> None:
    stated = {"a": 1, "b": 2, "c": 3, "a.stated": 4, "b.stated": 5}
    put_over(stated, {"a": 9, "b": 2, "d": 6, "a.stated.stated": 7})
    assert stated == {
        "a": 9, "b": 2, "c": 3, "d": 6, "a.stated": 4, "b.stated": 5, "a.stated.stated": 7, "a.stated.stated.stated": 1
    }  # fmt: skip


@given(st.dictionaries(names, values, max_size=12))
def test_no_field_is_lost(record: dict[str, Any]) -> None:
    count = len(record)
    event = event_of(dict(record))
    placed = sum(
        1
        for value in (
            event.severity_text, event.trace_id, event.span_id, event.event_name, event.outcome, event.actor, event.time, event.service
        )
        if value
    )  # fmt: skip
    number = next((n for n in ("severity_number", "severityNumber") if n in record and n not in event.attributes), None)
    body = next((n for n in FIELDS["body"] if n in record and n not in event.attributes), None)
    assert len(event.attributes) + placed + (number is not None) + (body is not None) == count
    assert all(record[name] is value for name, value in event.attributes.items())
