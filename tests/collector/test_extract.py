"""Extraction: where identities are found, which rule wins, and that its reason is told."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from collector.errors import Malformed
from collector.event import Event, Scope, Span
from collector.extract import Extractor, Found, KeyRule, OperationRule, StitchSettings
from collector.paths import shape_of
from collector.statedkeys import MAX_KEY_BYTES


def find(event: Event, **settings: Any) -> Found:
    return Extractor(StitchSettings(**settings)).find(event)


def key(event: Event, **rule: Any) -> tuple[str, str]:
    found = find(event, keys=(KeyRule(name="order_id", **rule),))
    return found.keys.get("order_id", ""), found.rules.get("order_id", "")


@pytest.mark.parametrize(
    ("event", "transaction", "rule"),
    [
        (Event(transaction="T", attributes={"transaction.id": "other"}), "T", "stated"),
        (Event(attributes={"transaction.id": "T"}), "T", "attributes.transaction.id"),
        (Event(attributes={"transaction": {"id": "T"}}), "T", "attributes.transaction.id"),
        (Event(attributes={"transaction.id": "", "transaction_id": "T"}), "T", "attributes.transaction_id"),
        (Event(attributes={"transactionId": 7}), "7", "attributes.transactionId"),
        (Event(attributes={"transaction_id": True}), "true", "attributes.transaction_id"),
        (Event(resource={"transaction.id": "T"}), "T", "resource.transaction.id"),
        (Event(attributes={"baggage": "a=1, transaction.id=T%2F1;prop=x,b=2"}), "T/1", "baggage transaction.id"),
        (Event(attributes={"baggage": "transaction.id"}), "", ""),
        (Event(attributes={"baggage": f"transaction.id={'T' * 300}"}), "", ""),
        (Event(attributes={"baggage": 7}), "", ""),
        (Event(attributes={"transaction.id": 1.5}), "", ""),
        (Event(attributes={"transaction.id": None}), "", ""),
        (Event(attributes={"transaction.id": {"id": "T"}}), "", ""),
        (Event(body="transaction.id=T"), "", ""),
    ],
)
def test_the_transaction_and_the_rule_that_found_it(event: Event, transaction: str, rule: str) -> None:
    found = find(event)
    assert found.transaction == transaction
    assert found.rules == ({"transaction": rule} if rule else {}), "what was not found has no rule that found it"


@pytest.mark.parametrize("path", ["transaction.id", "events.x", "attributes", "attributes.", "", "body", "scope"])
def test_a_path_that_leads_nowhere_is_refused_by_name(path: str) -> None:
    with pytest.raises(Malformed, match="a path starts with"):
        Extractor(StitchSettings(transaction=(path,)))


@pytest.mark.parametrize(
    ("event", "path"),
    [
        (Event(attributes={"order.id": "O"}), "attributes.order.id"),
        (Event(attributes={"order": {"id": "O"}}), "attributes.order.id"),
        (Event(resource={"order": {"id": "O"}}), "resource.order.id"),
        (Event(body={"order": {"id": "O"}}), "body.order.id"),
        (Event(scope=Scope(attributes={"order.id": "O"})), "scope.attributes.order.id"),
    ],
)
def test_a_path_is_one_dotted_name_or_a_way_down(event: Event, path: str) -> None:
    assert key(event, fields=(path,)) == ("O", path)
    assert key(Event(), fields=(path,)) == ("", "")
    assert key(Event(body="text", attributes={"order": "x"}), fields=(path,)) == ("", "")


def test_the_first_field_that_is_there_wins() -> None:
    fields = ("attributes.a", "attributes.b")
    assert key(Event(attributes={"b": "2", "a": "1"}), fields=fields)[0] == "1"
    assert key(Event(attributes={"b": "2", "a": ""}), fields=fields)[0] == "2"


def test_a_composite_key_needs_all_its_parts_and_cannot_be_forged_by_a_bar() -> None:
    parts = ("attributes.a", "attributes.b")
    assert key(Event(attributes={"a": "1", "b": 2}), parts=parts) == ("1|2", "attributes.a+attributes.b")
    assert key(Event(attributes={"a": "1"}), parts=parts)[0] == ""
    values = [("x|y", "z"), ("x", "y|z"), ("x%7Cy", "z")]
    made = {key(Event(attributes={"a": a, "b": b}), parts=parts)[0] for a, b in values}
    assert len(made) == len(values)


def test_a_pattern_reads_the_bodys_text() -> None:
    pattern = r"order (?:id )?(\w+)"
    assert key(Event(body="created order id O1"), pattern=pattern) == ("O1", "pattern of keys[0]")
    assert key(Event(body={"text": "order O1"}), pattern=pattern)[0] == ""
    assert key(Event(body="nothing"), pattern=pattern)[0] == ""
    assert key(Event(body="b"), pattern=r"(a)?b")[0] == ""  # the group took no part in the match


def test_a_rule_holds_for_its_services_and_operations_alone() -> None:
    rule = {"fields": ("attributes.id",), "services": ("pay*",), "operations": ("charge", "refund*")}
    for service, operation, holds in (
        ("payments", "charge", True),
        ("payments", "refund.all", True),
        ("payments", "list", False),
        ("orders", "charge", False),
        ("Payments", "charge", False),
    ):
        event = Event(resource={"service.name": service}, event_name=operation, attributes={"id": "O"})
        assert bool(key(event, **rule)[0]) is holds, (service, operation)
    span = Event(resource={"service.name": "payments"}, span=Span(name="charge"), attributes={"id": "O"})
    assert key(span, **rule)[0] == "O"


def test_what_an_event_states_is_kept_before_any_rule() -> None:
    found = find(
        Event(keys={"order_id": "stated", "Bad Name": "x"}, attributes={"id": "found"}),
        keys=(KeyRule(name="order_id", fields=("attributes.id",)), KeyRule(name="other", fields=("attributes.id",))),
    )
    assert found.keys == {"order_id": "stated", "other": "found"}
    assert found.rules == {"order_id": "stated", "other": "attributes.id"}
    assert found.marks == ("key_name_unusable",)


def test_a_value_too_long_is_left_out_and_marked() -> None:
    longest = "é" * (MAX_KEY_BYTES // 2)
    assert find(Event(transaction=longest)).transaction == longest
    found = find(Event(transaction=longest + "x", attributes={"tenant.id": "\ud800" * 200}))
    assert (found.transaction, found.tenant) == ("", "")
    assert set(found.marks) == {"key_too_long"}


def test_an_operation_is_named_by_the_first_pattern_of_its_service() -> None:
    operations = (
        OperationRule(services=("orders",), pattern=r"^(\w+) order"),
        OperationRule(pattern=r"^(\w+)"),
    )
    orders = {"service.name": "orders"}
    assert find(Event(body="create order 7", resource=orders), operations=operations).event_name == "create"
    assert find(Event(body="ping", resource=orders), operations=operations).event_name == "ping"
    assert find(Event(body="ping", event_name="stated"), operations=operations).event_name == "stated"
    assert find(Event(body={"a": 1}), operations=operations).event_name == ""
    assert find(Event(body="b"), operations=(OperationRule(pattern=r"(a)?b"),)).event_name == ""


@pytest.mark.parametrize(
    ("stated", "outcome"),
    [("OK", "success"), ("Failed", "failure"), (True, "success"), (False, "failure"), ("maybe", ""), ("", "")],
)
def test_an_outcome_is_success_failure_or_not_said(stated: object, outcome: str) -> None:
    assert find(Event(attributes={"outcome": stated})).outcome == outcome


@pytest.mark.parametrize(
    ("rule", "reason"),
    [
        (KeyRule(name="Order", fields=("attributes.a",)), r"keys\[0\].name"),
        (KeyRule(name="order"), "exactly one of"),
        (KeyRule(name="order", fields=("attributes.a",), pattern="(a)"), "exactly one of"),
        (KeyRule(name="order", pattern="("), "not a regular expression"),
        (KeyRule(name="order", pattern="a"), "needs a group"),
        (KeyRule(name="order", parts=("nowhere",)), "a path starts with"),
    ],
)
def test_a_rule_that_cannot_be_used_is_refused_with_its_place(rule: KeyRule, reason: str) -> None:
    with pytest.raises(Malformed, match=reason):
        Extractor(StitchSettings(keys=(rule,)))


def test_plans_do_not_grow_with_what_comes_from_outside() -> None:
    extractor = Extractor(
        StitchSettings(keys=(KeyRule(name="k", fields=("attributes.k",)),), operations=(OperationRule(pattern="(x)"),))
    )
    event = Event(attributes={"k": "v"}, body="y")
    plan = extractor.plan(shape_of(event))
    assert plan.keys is not None
    for at in range(10_000):
        found = extractor.find(msgspec.structs.replace(event, resource={"service.name": f"s{at}"}), plan)
        assert found.keys == {"k": "v"}
    assert len(plan.keys) <= 4_096
    assert len(extractor._operations) <= 4_096


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.binary(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["a", "b", "id", "a.b"]), inner),
    max_leaves=8,
)


@given(values, st.dictionaries(st.sampled_from(["a", "a.b", "baggage", "transaction.id", "tenant"]), values))
def test_nothing_in_an_event_makes_extraction_raise(body: Any, attributes: dict[str, Any]) -> None:
    keys = (
        KeyRule(name="one", fields=("attributes.a.b", "body.a.id")),
        KeyRule(name="two", parts=("attributes.a", "body.b")),
        KeyRule(name="three", pattern=r"(\d)|x"),
    )
    found = find(Event(body=body, attributes=attributes, resource=attributes), keys=keys)
    assert all(isinstance(value, str) for value in found.keys.values())
    assert set(found.rules) <= {"transaction", "one", "two", "three"}
