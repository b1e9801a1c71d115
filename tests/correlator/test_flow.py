"""Verdicts: from the set of steps that happened, whatever their order. The example is that of docs/flows.md."""

import re
import tomllib
from collections import Counter
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from collector.event import Facts
from correlator.flow import CompiledFlow, Flow, FlowMatch, FlowStep, Verdict
from correlator.settings import CorrelatorSettings

DOCS = Path(__file__).resolve().parents[2] / "docs" / "flows.md"


def documented() -> Flow:
    """The flow of the documentation's first example."""
    text = re.findall(r"```toml\n(.*?)```", DOCS.read_text(), re.DOTALL)[0]
    settings = msgspec.convert(tomllib.loads(text)["correlator"], CorrelatorSettings)
    return settings.flows[0]


PAYMENT = documented()


def judge(*happened: str, expired: bool = False, flow: Flow = PAYMENT) -> Verdict | None:
    return CompiledFlow(flow).judge(Counter(happened), expired=expired)


def verdict(*happened: str, expired: bool = False, flow: Flow = PAYMENT) -> tuple[str, tuple[str, ...]]:
    found = judge(*happened, expired=expired, flow=flow)
    return ("open", ()) if found is None else (found.verdict, found.missing)


SUCCESS = ("received", "assessed", "reserved", "charged", "captured", "notified")


@pytest.mark.parametrize(
    ("happened", "before", "after"),
    [
        (SUCCESS, ("complete", ()), ("complete", ())),
        (("received", "assessed", "declined"), ("complete", ()), ("complete", ())),
        (("received",), ("open", ()), ("incomplete", ("assessed",))),
        (("received", "assessed"), ("open", ()), ("incomplete", ("declined", "reserved"))),
        (SUCCESS[:-1], ("open", ()), ("incomplete", ("notified",))),
        (("received", "assessed", "charged"), ("open", ()), ("incomplete", ("declined", "reserved", "captured"))),
        (("received", "failed"), ("failed", ()), ("failed", ())),
        (
            ("received", "assessed", "reserved", "charged", "failed"),
            ("open", ()),
            ("incomplete", ("refunded", "released")),
        ),
        (
            ("received", "assessed", "reserved", "charged", "failed", "refunded"),
            ("open", ()),
            ("incomplete", ("released",)),
        ),
        (
            ("received", "assessed", "reserved", "charged", "failed", "refunded", "released"),
            ("compensated", ()),
            ("compensated", ()),
        ),
        (("received", "assessed", "reserved", "failed", "released"), ("compensated", ()), ("compensated", ())),
        ((*SUCCESS, "refunded", "released"), ("compensated", ()), ("compensated", ())),
        ((*SUCCESS, "refunded"), ("open", ()), ("incomplete", ("released",))),
        ((*SUCCESS, "failed"), ("complete", ()), ("complete", ())),
        ((*SUCCESS, "charged", "received"), ("complete", ()), ("complete", ())),
    ],
)
def test_a_payment(happened: tuple[str, ...], before: object, after: object) -> None:
    assert verdict(*happened) == before
    assert verdict(*happened, expired=True) == after


def test_reasons_say_what_happened() -> None:
    assert judge(*SUCCESS) == Verdict(flow="payment", verdict="complete")
    assert judge(*SUCCESS, "failed") == Verdict(flow="payment", verdict="complete", reason="although failed happened")
    late = judge("received", expired=True)
    assert late is not None
    assert late.reason == "not within 30 s of the first step"
    owed = judge("received", "assessed", "reserved", "failed", expired=True)
    assert owed is not None
    assert owed.reason == "failed happened, and reserved still stands uncompensated"


@given(st.lists(st.sampled_from([step.name for step in PAYMENT.steps])), st.randoms(), st.booleans())
def test_the_order_of_arrival_does_not_matter(happened: list[str], random: Any, expired: bool) -> None:
    shuffled = list(happened)
    random.shuffle(shuffled)
    assert judge(*happened, expired=expired) == judge(*shuffled, expired=expired)


@given(st.lists(st.sampled_from([step.name for step in PAYMENT.steps])))
def test_the_deadline_only_ends_what_is_open(happened: list[str]) -> None:
    early, late = judge(*happened), judge(*happened, expired=True)
    assert late is not None
    if early is not None:
        assert early == late
    else:
        assert late.verdict == "incomplete"
        assert late.missing
    if late.verdict != "incomplete":
        assert late.missing == ()


def flow(*steps: FlowStep, **fields: Any) -> Flow:
    return Flow(name="f", steps=steps, **fields)


def step(name: str, **fields: Any) -> FlowStep:
    return FlowStep(name=name, match=FlowMatch(name=name), **fields)


def test_a_loop_in_which_each_turn_needs_its_own_compensation() -> None:
    loop = flow(step("item", repeat=True, compensated_by="undo"), step("undo", role="compensation"))
    assert verdict("item", "item", "undo", flow=loop) == ("open", ())
    assert verdict("item", "item", "undo", flow=loop, expired=True) == ("incomplete", ("undo",))
    assert verdict("item", "item", "undo", "undo", flow=loop) == ("compensated", ())
    once = flow(step("item", compensated_by="undo"), step("undo", role="compensation"))
    assert verdict("item", "item", "undo", flow=once) == ("compensated", ())


def test_optional_steps_and_what_comes_after_them() -> None:
    optional = flow(step("a"), step("check", optional=True, after=("a",)), step("report", after=("check",)))
    assert verdict("a", flow=optional) == ("complete", ())
    assert verdict("a", "check", flow=optional, expired=True) == ("incomplete", ("report",))
    assert verdict("a", "check", "report", flow=optional) == ("complete", ())


def test_a_terminal_step_must_happen() -> None:
    ends = flow(step("a"), step("end", optional=True, terminal=True))
    assert verdict("a", flow=ends, expired=True) == ("incomplete", ("end",))
    assert verdict("a", "end", flow=ends) == ("complete", ())


def facts(**fields: Any) -> Facts:
    return Facts(digest="0" * 64, **fields)


def test_matching() -> None:
    compiled = CompiledFlow(
        flow(
            FlowStep(name="any", match=FlowMatch()),
            FlowStep(name="service", match=FlowMatch(service="pay*", name="card.?harged")),
            FlowStep(name="good", match=FlowMatch(name="card.*", outcome="success")),
            FlowStep(name="not_bad", match=FlowMatch(name="card.*", outcome="not_failure")),
        )
    )
    assert compiled.steps_of(facts()) == ("any",)
    assert compiled.steps_of(facts(service="payments", name="card.charged")) == ("any", "service", "not_bad")
    assert compiled.steps_of(facts(name="card.charged", outcome="success")) == ("any", "good", "not_bad")
    assert compiled.steps_of(facts(name="card.charged", outcome="failure")) == ("any",)
    assert compiled.steps_of(facts(service="xpay", name="card.charged\n")) == ("any", "not_bad")


@pytest.mark.parametrize(
    ("trail", "applies_to", "not_to"),
    [
        ("transaction", ["transaction/a", "tenant/x/transaction/a"], ["key/transaction/a", "trace/" + "0" * 32]),
        ("trace", ["trace/" + "0" * 32], ["transaction/trace"]),
        ("order_id", ["key/order_id/7", "tenant/x/key/order_id/7"], ["key/order/7", "transaction/order_id"]),
    ],
)
def test_which_trails_a_flow_applies_to(trail: str, applies_to: list[str], not_to: list[str]) -> None:
    compiled = CompiledFlow(flow(step("a"), trail=trail))
    assert all(compiled.applies_to(one) for one in applies_to)
    assert not any(compiled.applies_to(one) for one in not_to)


@pytest.mark.parametrize(
    ("steps", "problem"),
    [
        ([], "length >= 1"),
        ([{"name": "a", "match": {}}, {"name": "a", "match": {}}], "two steps have the same name"),
        ([{"name": "a", "match": {}, "after": ["b"]}], "step a comes after 'b', which is no other step"),
        ([{"name": "a", "match": {}, "after": ["a"]}], "step a comes after 'a', which is no other step"),
        (
            [{"name": "a", "match": {}, "after": ["b"]}, {"name": "b", "match": {}, "after": ["a"]}],
            "the steps a, b come after each other in a circle",
        ),
        (
            [{"name": "a", "match": {}, "compensated_by": "b"}, {"name": "b", "match": {}}],
            'which is no step with role = "compensation"',
        ),
        ([{"name": "a", "match": {}, "optional": True}], "no step of it ever has to happen"),
        (
            [{"name": "a", "match": {}}, {"name": "b", "match": {}, "role": "failure", "terminal": True}],
            "b is a failure: no branch, terminal or compensated_by",
        ),
        ([{"name": "a", "match": {"servcie": "x"}}], "unknown field `servcie`"),
        ([{"name": "a b", "match": {}}], "matching regex"),
    ],
)
def test_what_cannot_be_meant_is_refused_with_its_place(steps: list[Any], problem: str) -> None:
    with pytest.raises(msgspec.ValidationError) as told:
        msgspec.convert({"flows": [{"name": "f", "steps": steps}]}, CorrelatorSettings)
    assert problem in str(told.value)
    assert "$.flows[0]" in str(told.value)


def test_two_flows_of_one_name_are_refused() -> None:
    one = {"name": "f", "steps": [{"name": "a", "match": {}}]}
    with pytest.raises(msgspec.ValidationError, match="two flows have the same name"):
        msgspec.convert({"flows": [one, one]}, CorrelatorSettings)
