"""The parts of a story: messages with their masks, nesting, the axis and its folds, clocks that contradict, flows, amendments."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from audit_api.web.axis import WIDTH, axis_of, disorders
from audit_api.web.flows import amendments, late_facts, steps_of, verdicts_of
from audit_api.web.rows import MAX_EVENT_BYTES, MAX_MESSAGE, Row, by_stated_time, nested, row_of, stretches
from collector.event import format_time
from correlator.flow import Flow, FlowMatch, FlowStep

MS = 1_000_000


def row(leaf: int, start_ms: float, length_ms: float = -1, **fields: Any) -> Row:
    """An event; a span when it has a length."""
    start = 1_767_225_600_000_000_000 + int(start_ms * MS)
    given: dict[str, Any] = {
        "leaf": leaf,
        "trail": "transaction/p1",
        "position": leaf,
        "kind": "event",
        "recorded": format_time(start),
        "time": format_time(start),
        "start_ns": start,
        "end_ns": start + int(length_ms * MS) if length_ms >= 0 else None,
        "is_span": length_ms >= 0,
    }
    return Row(**(given | fields))


def verdict(leaf: int, word: str, *missing: str) -> Row:
    """A verdict entry."""
    detail = {"flow": "payment", "verdict": word, "missing": list(missing), "reason": "deadline"}
    return Row(leaf=leaf, trail="transaction/p1", position=leaf, kind="verdict", recorded="", detail=detail)


def test_what_is_masked_stands_apart_and_its_token_is_short() -> None:
    parts = stretches(f"paid with [4111 11** **** 1111~card:{'mdkp' * 5}] by ada, token [jwt:{'abcd' * 5}], pin ***")
    assert [(one.text, one.masked) for one in parts] == [
        ("paid with ", ""),
        ("[4111 11** **** 1111~card:mdkp…]", "card"),
        (" by ada, token ", ""),
        ("[jwt:abcd…]", "jwt"),
        (", pin ", ""),
        ("***", "field"),
    ]


@given(st.text(max_size=300))
def test_no_character_of_a_message_is_lost(text: str) -> None:
    parts = stretches(text)
    if all(not one.masked for one in parts):
        assert "".join(one.text for one in parts) == text


def test_rows_of_an_auditor_and_of_an_sre_say_the_same() -> None:
    facts = {
        "digest": "0" * 64,
        "time": "2026-01-01T00:00:00.000000000Z",
        "service": "ledger",
        "name": "booked",
        "outcome": "success",
    }
    entry = {"position": 3, "kind": "event", "recorded": facts["time"], "stream": "a/b", "sequence": 0, "facts": facts}
    full = row_of("transaction/p1", {"leaf": 9, "entry": entry, "event": None})
    told = {name: value for name, value in facts.items() if name != "digest"}
    theirs = row_of(
        "transaction/p1", {"leaf": 9, "error": False, **{k: v for k, v in entry.items() if k != "facts"}, **told}
    )
    assert full == theirs


def of_event(event: dict[str, Any]) -> Row:
    """The row of an event that is shown."""
    entry = {"position": 0, "kind": "event", "recorded": "2026-01-01T00:00:00.000000000Z"}
    return row_of("transaction/p1", {"leaf": 0, "entry": entry, "event": msgspec.json.encode(event)})


def test_a_long_event_is_shown_as_it_begins_and_a_deep_one_without_its_indent() -> None:
    short = of_event({"attributes": {"items": 3, "to": "ann"}, "body": "paid"})
    assert (short.event_bytes, short.event.splitlines()[1]) == (0, '  "attributes": {')
    assert short.attributes == {"items": "3", "to": "ann"}
    long = {"body": "ü" * MAX_EVENT_BYTES}
    assert of_event(long).event_bytes == len(msgspec.json.encode(long))
    assert of_event(long).event == f'{{"body":"{"ü" * ((MAX_EVENT_BYTES - 9) // 2)}'
    deep: Any = [0] * 7_000
    for _ in range(50):
        deep = [deep]
    assert of_event({"body": deep}).event == msgspec.json.encode({"body": deep}).decode()
    assert of_event({"body": deep}).event_bytes == 0


def test_logs_stand_in_their_spans_and_circles_end() -> None:
    rows = nested(
        [
            row(1, 0, 10, span_id="a", parent_span_id="b"),
            row(2, 1, 5, span_id="b", parent_span_id="a"),
            row(3, 2, span_id="b"),
            row(4, 2, 1, span_id="c", parent_span_id="c"),
            row(5, 2, span_id="nobody"),
        ]
    )
    assert [one.depth for one in rows] == [1, 1, 2, 0, 0]


def test_long_silence_is_folded_and_what_happened_keeps_its_proportions() -> None:
    rows = [row(1, 0, 10), row(2, 5), row(3, 6_000, 20), row(4, 6_015)]
    axis = axis_of(rows)
    assert [fold.nanoseconds for fold in axis.folds] == [5_990 * MS]
    bars = [axis.bar(one) for one in rows]
    assert all(bar is not None for bar in bars)
    first, instant, second, _ = (bar for bar in bars if bar is not None)
    assert instant.width == 0
    assert abs(second.width - 2 * first.width) < 1
    assert first.left == 0
    assert second.left + second.width == WIDTH


def test_an_even_story_is_not_folded() -> None:
    assert axis_of([row(at, at * 10, 2) for at in range(20)]).folds == ()
    assert axis_of([]).bar(row(1, 0)) is not None
    assert axis_of([replace(row(1, 0), start_ns=None)]).bar(replace(row(1, 0), start_ns=None)) is None


@given(st.lists(st.tuples(st.integers(0, 10**12), st.integers(-1, 10**12)), min_size=1, max_size=30))
def test_everything_stands_on_the_axis_and_in_order(spans: list[tuple[int, int]]) -> None:
    rows = sorted((row(at, start, length) for at, (start, length) in enumerate(spans)), key=by_stated_time)
    axis = axis_of(rows)
    lefts = [bar.left for bar in (axis.bar(one) for one in rows) if bar is not None]
    for bar in (axis.bar(one) for one in rows):
        assert bar is not None
        assert bar.left >= 0
        assert bar.left + bar.width <= WIDTH + 0.2
    places = [axis.place(one.start_ns) for one in rows if one.start_ns is not None]
    assert places == sorted(places)
    assert len(lefts) == len(rows)


def test_a_call_that_begins_before_its_caller_shows_a_clock_that_is_off() -> None:
    parent = row(1, 100, 50, span_id="a", service="payments", name="POST /reserve")
    child = row(2, 88, 20, span_id="b", parent_span_id="a", service="ledger", name="reserve")
    worse = row(3, 80, 20, span_id="c", parent_span_id="a", service="ledger", name="reserve again")
    own = row(4, 10, 20, span_id="d", parent_span_id="a", service="payments", name="inner")
    (found,) = disorders([parent, child, worse, own])
    assert (found.parent, found.child, found.nanoseconds, found.name) == (
        "payments",
        "ledger",
        20 * MS,
        "reserve again",
    )
    assert disorders([parent, row(2, 100, 5, span_id="b", parent_span_id="a", service="ledger")]) == []


FLOW = Flow(
    name="payment",
    steps=(
        FlowStep(name="received", match=FlowMatch(service="gateway", name="received")),
        FlowStep(name="declined", match=FlowMatch(name="declined"), branch="decision"),
        FlowStep(
            name="booked",
            match=FlowMatch(name="booked"),
            after=("received",),
            branch="decision",
            compensated_by="undone",
        ),
        FlowStep(name="notified", match=FlowMatch(name="notified"), after=("booked",)),
        FlowStep(name="broke", match=FlowMatch(name="broke"), role="failure"),
        FlowStep(name="undone", match=FlowMatch(name="undone"), role="compensation"),
    ),
)


def states(*rows: Row, judged: Row | None = None) -> dict[str, str]:
    """What became of each step."""
    verdicts = verdicts_of([judged]) if judged is not None else [None]
    return {step.name: step.state for step in steps_of(FLOW, rows, verdicts[-1])}


def test_steps_that_happened_are_missing_or_were_not_taken() -> None:
    happened = (row(1, 0, service="gateway", name="received"), row(2, 1, name="booked"))
    assert states(*happened) == {"received": "done", "declined": "open", "booked": "done", "notified": "open"}
    judged = states(*happened, judged=verdict(3, "incomplete", "notified", "of an older flow"))
    assert judged == {
        "received": "done",
        "declined": "passed",
        "booked": "done",
        "notified": "missing",
        "of an older flow": "missing",
    }
    failed = states(*happened, row(3, 2, name="broke"), row(4, 3, name="undone"), judged=verdict(5, "compensated"))
    assert (failed["broke"], failed["undone"]) == ("failed", "undone")


def test_amendments_say_what_is_no_longer_missing_and_what_is() -> None:
    verdicts = verdicts_of([verdict(5, "incomplete", "a", "b"), verdict(2, "incomplete", "a", "c")])
    (found,) = amendments(verdicts)
    assert (found.before.leaf, found.after.leaf, found.found, found.lost) == (2, 5, ["c"], ["b"])


def test_a_late_facts_long_texts_are_cut() -> None:
    early = row(1, 0, attributes={"note": "a" * 5_000 + "b", "same": "c" * 5_000})
    late = row(2, 1, attributes={"note": "a" * 5_000, "same": "c" * 5_000}, late=True)
    (change,) = late_facts([early, late])[0].changes
    assert (change.before, change.after) == ("a" * MAX_MESSAGE + "…",) * 2


def test_late_facts_are_held_against_the_last_of_their_name() -> None:
    early = row(1, 0, service="ledger", name="booked", attributes={"amount": "12", "by": "ann"}, outcome="failure")
    late = row(9, 5, service="ledger", name="booked", attributes={"amount": "13", "to": "3"}, late=True)
    new = row(10, 5, service="ledger", name="closed", late=True)
    found = late_facts([late, new, early])
    assert [(change.name, change.before, change.after) for change in found[0].changes] == [
        ("amount", "12", "13"),
        ("by", "ann", None),
        ("outcome", "failure", None),
        ("to", None, "3"),
    ]
    assert found[1].earlier is None
