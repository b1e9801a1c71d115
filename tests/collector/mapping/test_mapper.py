"""Mapping records: what is taken, what stays, and that nothing is lost."""

from __future__ import annotations

import copy
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from collector.event import Event, Origin
from collector.mapping.language import PRESETS, load_mappings, read_mappings
from collector.mapping.mapper import Mapper
from collector.receive import Arrival
from collector.receive.record import arrival_of_record


def mapper(body: str) -> Mapper:
    return Mapper(read_mappings(f'[[mapping]]\nname = "m"\n{body}', "test"))


def mapped(rules: str, record: dict[str, Any], **origin: Any) -> Event:
    return mapper(rules).map(arrival_of_record(record, origin=Origin(**({"receiver": "ndjson"} | origin)))).event


def test_fields_go_to_their_places_and_the_rest_stays() -> None:
    event = mapped(
        """
        set = { event_name = "paid", "resource.region" = "eu", "attributes.version" = 2 }
        [mapping.take]
        transaction = "payRef"
        "keys.order" = "order.id"
        "attributes.amount" = { from = "amt", as = "number" }
        actor = ["operator", "user"]
        service = "app"
        severity_text = "prio"
        trace_id = { from = "tp", pattern = '^00-([0-9a-f]{16})([0-9a-f]{16})-' }
        """,
        {
            "payRef": 4711,
            "order": {"id": "o-1", "lines": 2},
            "amt": "12.50",
            "user": "ann",
            "app": "shop",
            "prio": "warn",
            "tp": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "other": [1],
        },
    )
    assert (event.event_name, event.transaction, event.keys, event.actor) == ("paid", "4711", {"order": "o-1"}, "ann")
    assert event.resource == {"service.name": "shop", "region": "eu"}
    assert (event.severity_text, event.severity_number) == ("warn", 13)
    assert event.trace_id == "4bf92f3577b34da6a3ce929d0e0e4736"
    # a nested value stays where it is, and so does what no rule names
    assert event.attributes == {"order": {"id": "o-1", "lines": 2}, "other": [1], "amount": 12.5, "version": 2}
    assert event.marks == ["mapped:m"]


@pytest.mark.parametrize(
    ("take", "value", "expected"),
    [
        ('as = "integer"', "17", 17),
        ('as = "integer"', 17.0, 17),
        ('as = "integer"', "17.5", None),
        ('as = "integer"', True, None),
        ('as = "integer"', "9" * 65, None),
        ('as = "integer", times = 100', "0.29", 29),
        ('as = "number"', "1e3", 1000.0),
        ('as = "number"', "nan", None),
        ('as = "number"', [1], None),
        ('as = "number", times = 0.001', 23, 0.023),
        ('as = "number", times = 1000', "0.004", 4),
        ('as = "number", times = 1e308', 10**10, None),
        ('as = "boolean"', "Yes", True),
        ('as = "boolean"', 0, False),
        ('as = "boolean"', "perhaps", None),
        ('as = "text"', 1.5, "1.5"),
        ('as = "text"', None, ...),
        ('as = "text"', {"a": 1}, None),
        ('pattern = "id=([0-9]+)(x?)"', "id=12x", "12x"),
        ('pattern = "id=([0-9]+)"', "none", ...),
        ('cases = { "2??" = "ok", "*" = "not" }', 204, "ok"),
        ('cases = { "2??" = "ok", "*" = "not" }', "500", "not"),
        ('cases = { "2??" = "ok" }', "500", ...),
        ('as = "time"', "2026-01-02T03:04:05+01:00", "2026-01-02T02:04:05.000000000Z"),
        ('as = "time"', "1700000000123", "2023-11-14T22:13:20.123000000Z"),
        ('as = "time"', "yesterday", None),
        ('as = "time", format = "unix"', "1700000000.123456789", "2023-11-14T22:13:20.123456789Z"),
        ('as = "time", format = "unix"', 1700000000.123, "2023-11-14T22:13:20.123000000Z"),
        ('as = "time", format = "unix_ms"', 1700000000123.5, "2023-11-14T22:13:20.123500000Z"),
        ('as = "time", format = "unix"', 1e-05, "1970-01-01T00:00:00.000010000Z"),
        ('as = "time", format = "unix_ms"', -0.5, "1969-12-31T23:59:59.999500000Z"),
        ('as = "time", format = "unix"', float("inf"), None),
        ('as = "time", format = "unix_ms"', 1700000000123, "2023-11-14T22:13:20.123000000Z"),
        ('as = "time", format = "unix_ns"', 5, "1970-01-01T00:00:00.000000005Z"),
        ('as = "time", format = "unix"', -1e30, None),
        (
            'as = "time", format = "%d.%m.%Y %H:%M", zone = "Europe/Berlin"',
            "01.07.2026 12:00",
            "2026-07-01T10:00:00.000000000Z",
        ),
        (
            'as = "time", format = "%d.%m.%Y %H:%M", zone = "Europe/Berlin"',
            "01.01.2026 12:00",
            "2026-01-01T11:00:00.000000000Z",
        ),
        # an hour that comes twice is the first one, one that there is not is read as before the change
        (
            'as = "time", format = "%d.%m.%Y %H:%M", zone = "Europe/Berlin"',
            "25.10.2026 02:30",
            "2026-10-25T00:30:00.000000000Z",
        ),
        ('as = "time", format = "%Y-%m-%d"', "0001-01-01", "0001-01-01T00:00:00.000000000Z"),
        ('as = "time", format = "%Y-%m-%d"', "2026-13-01", None),
    ],
)
def test_what_is_made_of_a_value(take: str, value: Any, expected: Any) -> None:
    """None: it does not fit, stays and is marked; an ellipsis: there is no value, and no mark."""
    event = mapped(f'take = {{ "attributes.out" = {{ from = "in", {take} }} }}', {"in": value})
    if expected is None or expected is ...:
        assert event.attributes == {"in": value}
        assert event.marks == (["mapped:m"] if expected is ... else ["mapped:m", "unmapped:attributes.out"])
    else:
        assert event.attributes == {"out": expected}
        assert type(event.attributes["out"]) is type(expected)
        assert event.marks == ["mapped:m"]


@pytest.mark.parametrize(
    "take",
    ['as = "number"', 'as = "integer"', 'as = "number", times = 0.1', 'as = "time"', 'as = "time", format = "unix"'],
)
def test_an_integer_beyond_the_largest_double_does_not_fit(take: str) -> None:
    """JSON has such integers, and `math` raises at them."""
    event = mapped(f'take = {{ "attributes.out" = {{ from = "in", {take} }} }}', {"in": 10**400})
    assert event.attributes == {"in": 10**400}
    assert event.marks == ["mapped:m", "unmapped:attributes.out"]


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("outcome", "maybe"),
        ("trace_id", "xyz"),
        ("span_id", "1"),
        ("time", "noon"),
        ("severity_number", 99),
        ("actor", {}),
    ],
)
def test_what_does_not_fit_its_place_stays_and_is_marked(place: str, value: Any) -> None:
    event = mapped(f'take = {{ {place} = "in" }}', {"in": value})
    assert event.attributes == {"in": value}
    assert event.marks == ["mapped:m", f"unmapped:{place}"]


@pytest.mark.parametrize(
    ("rules", "record", "attributes"),
    [
        ('take = { "attributes.amount" = "AMT" }', {"AMT": 5, "amount": 7}, {"amount": 5, "amount.stated": 7}),
        ('take = { "attributes.amount" = "AMT" }', {"AMT": 5, "amount": 5}, {"amount": 5}),
        ('take = { "attributes.amount" = { from = "amount", as = "integer" } }', {"amount": "7"}, {"amount": 7}),
        ('take = { body = "TXT" }', {"TXT": "new", "message": "old"}, {"body.stated": "old"}),
        ('take = { body = "TXT", actor = "message" }', {"TXT": "new", "message": "old"}, {}),
        ('take = { body = { from = "message", pattern = "(o)" } }', {"message": "old"}, {}),
        ('parse = { pattern = "(?P<rest>.*)" }\ntake = { body = "rest" }', {"message": "old\n"}, {}),
        ('set = { event_name = "paid" }', {"event.name": "order"}, {"event_name.stated": "order"}),
        ('take = { severity_text = { from = "level", cases = { "W" = "warn" } } }', {"level": "W"}, {}),
        ('take = { outcome = "o" }', {"o": "failure", "outcome": "success"}, {"outcome.stated": "success"}),
        ('take = { time = "t" }', {"t": "2026-01-02T03:04:05Z", "time": "2026-01-02T03:04:04Z"}, {}),
    ],
)
def test_what_stood_in_a_place_that_is_filled_is_kept(
    rules: str, record: dict[str, Any], attributes: dict[str, Any]
) -> None:
    assert mapped(rules, record).attributes == attributes


def test_nothing_is_lost_where_something_has_the_name_of_what_is_kept_or_stands_elsewhere() -> None:
    event = mapped(
        'take = { "attributes.amount" = "AMT", "attributes.x" = "y" }',
        {"AMT": 5, "amount": 7, "amount.stated": 9, "y": 1, "x": 2, "x.stated": 2},
    )
    assert event.attributes == {
        "amount": 5, "amount.stated": 9, "amount.stated.stated": 7, "x": 1, "x.stated": 2, "x.stated.stated": 2,
    }  # fmt: skip
    stated = Event(
        attributes={"O": "o2", "H": "h2", "S": "s2", "p": "p"},
        keys={"order": "o1", "payment": "p"},
        resource={"host.name": "h1", "service.name": "s1", "zone": "z"},
    )
    take = '"keys.order" = "O", "keys.payment" = "p", "resource.host.name" = "H", service = "S", "resource.zone" = { from = "resource.zone", pattern = "(.)" }'
    event = mapper(f"take = {{ {take} }}").map(Arrival(event=stated, source_id=None)).event
    assert event.keys == {"order": "o2", "payment": "p"}
    assert event.resource == {"host.name": "h2", "service.name": "s2", "zone": "z"}
    assert event.attributes == {"keys.order.stated": "o1", "resource.host.name.stated": "h1"}


def test_a_field_that_the_way_in_has_placed_is_found_under_its_old_name() -> None:
    event = mapped(
        'take = { "attributes.text" = "msg", "keys.stamp" = "ts" }', {"msg": "hello", "ts": "2026-01-01T00:00:00Z"}
    )
    assert event.attributes == {"text": "hello"}
    assert event.keys == {"stamp": "2026-01-01T00:00:00.000000000Z"}
    assert event.body == "hello"


@pytest.mark.parametrize(
    ("when", "holds"),
    [
        ('receiver = ["forward", "ndjson"]', True),
        ('receiver = ["otlp"]', False),
        ('tag = ["web.*", "x"]', True),
        ('tag = ["web"]', False),
        ('file = ["*.log"]', False),
        ('service = ["shop"]', True),
        ('has = ["a", "b.c", "message"]', True),
        ('has = ["a", "b.d"]', False),
        ('equals = { a = 1, "b.c" = "x" }', True),
        ("equals = { a = true }", False),
        ('equals = { a = "1" }', False),
    ],
)
def test_a_mapping_is_for_the_records_that_it_says(when: str, holds: bool) -> None:
    record = {"a": 1, "b": {"c": "x"}, "service": "shop", "message": "m"}
    event = mapped(f"when = {{ {when} }}", record, tag="web.access")
    assert event.marks == (["mapped:m"] if holds else [])


def test_the_first_mapping_that_is_for_a_record_is_used_and_none_leaves_it_alone() -> None:
    both = Mapper(
        read_mappings(
            '[[mapping]]\nname = "a"\nwhen = { has = ["x"] }\n[[mapping]]\nname = "b"\nwhen = { has = ["x", "y"] }\n',
            "t",
        )
    )
    arrival = arrival_of_record({"x": 1, "y": 2}, origin=Origin())
    assert both.map(arrival).event.marks == ["mapped:a"]
    other = arrival_of_record({"z": 1}, origin=Origin())
    assert both.map(other) is other


def test_parsed_fields_leave_the_text_and_json_inside_is_found() -> None:
    event = mapped(
        "parse = { format = 'json' }\ntake = { transaction = 'pay', 'attributes.n' = 'a.b' }",
        {"log": '{"pay":"p1","a":{"b":2}}'},
    )
    assert (event.transaction, event.attributes, event.body) == ("p1", {"n": 2}, '{"pay":"p1","a":{"b":2}}')
    assert mapped("parse = { format = 'json' }", {"log": "[1]"}).marks == []
    assert mapped("parse = { pattern = '(?P<a>x+)' }", {"log": "x" * 70_000}).marks == []


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(10**308, 10**4299)
    | st.floats()
    | st.text(max_size=20)
    | st.binary(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=10,
)
NAMES = st.sampled_from(
    ("status", "msg", "time", "request", "response", "latencies", "started_at", "requestId", "httpMethod", "start_time",
     "response_code", "response_flags", "request_time", "request_uri", "request_method", "duration", "service", "ip")
) | st.text(max_size=5) | st.integers()  # fmt: skip
EVERY = Mapper(load_mappings([f"preset:{preset}" for preset in PRESETS]))
LAST = mapper(
    """
    [mapping.take]
    time = [{ from = "time", as = "time" }, { from = "status", as = "time", format = "%H:%M" }]
    body = { from = "request.method", as = "integer" }
    "attributes.a" = { from = "status", cases = { "*" = 1 } }
    outcome = { from = "duration", keep = true }
    trace_id = ["requestId", "msg"]
    """
)


@given(st.dictionaries(NAMES, JSON, max_size=8), st.sampled_from((EVERY, LAST)))
def test_any_record_is_mapped_without_an_error_and_nothing_is_lost(record: dict[Any, Any], by: Mapper) -> None:
    arrival = arrival_of_record(copy.deepcopy(record), origin=Origin(receiver="forward"))
    before = copy.deepcopy(arrival)
    after = by.map(arrival)
    assert repr(arrival) == repr(before)  # a group that comes again is mapped from the same; NaN is not equal to itself
    assert repr(by.map(arrival)) == repr(after)
    values = repr(msgspec.structs.asdict(after.event))
    for name, value in arrival.event.attributes.items():
        if name not in after.event.attributes and isinstance(value, str) and value.isascii() and value.isalnum():
            assert value in values or value.lower() in values or value.isdecimal()


class Unreadable(dict[str, Any]):
    """Attributes at which whatever reads all of them fails."""

    def items(self) -> Any:
        raise RuntimeError("4111 1111 1111 1111")


def test_a_record_at_which_a_mapping_fails_passes_as_it_came(caplog: pytest.LogCaptureFixture) -> None:
    by = mapper('take = { body = "a" }')
    arrival = Arrival(event=Event(attributes=Unreadable(a="x"), marks=["truncated"]), source_id=b"id")
    for _ in range(2):
        after = by.map(arrival)
        assert (after.source_id, after.event.attributes) == (b"id", {"a": "x"})
        assert after.event.marks == ["mapping_failed:m", "truncated"]
    (told,) = caplog.messages  # once, and nothing of what the record held
    assert told == "mapping m failed at a record (RuntimeError): such records pass unmapped"


def test_source_ids_are_kept() -> None:
    arrival = Arrival(event=Event(attributes={"a": "x"}), source_id=b"id")
    assert mapper('take = { body = "a" }').map(arrival).source_id == b"id"
