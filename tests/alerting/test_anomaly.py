"""What was not written down: a payment unlike the others is told, within the budget, with the feature that makes it so."""

from __future__ import annotations

import dataclasses
import random

import pytest

from alerting.detect.anomaly import AnomalyRule
from alerting.detect.payment import Payment
from tests.alerting.payments import HOUR, payment, told

RULE = AnomalyRule(name="odd", budget=0.03, learn_payments=500, trees=15, window_payments=250, seed=3)

QUICK = AnomalyRule(name="odd", budget=0.03, learn_payments=500, trees=4, height=5, window_payments=250, seed=3)


def usual(count: int, seed: int = 1) -> list[Payment]:
    dice = random.Random(seed)
    return [
        payment(
            at * 60,
            f"{dice.lognormvariate(3, 0.4):.2f}",
            account=f"a{dice.randrange(20)}",
            counterparty=f"s{dice.randrange(5)}",
            category="food",
        )
        for at in range(count)
    ]


def test_a_payment_unlike_the_others_is_told_and_why() -> None:
    history = usual(1_500)
    odd = payment(1_500 * 60, "25000", account="a1", counterparty="s1", category="food")
    said = told(RULE, [*history, odd])
    assert said[-1].startswith("25000 EUR is unlike the last 250 payments: its amount")
    assert not any(said[:500]), "it only learned"
    assert sum(map(bool, said[500:-1])) <= 0.06 * 1_000, "the budget, give or take"


def test_the_same_history_gives_the_same_findings() -> None:
    history = usual(800, seed=2)
    assert told(RULE, history) == told(RULE, history)


def test_each_currency_is_learned_for_itself() -> None:
    yen = [payment(HOUR * 40 + at, "9000", currency="JPY") for at in range(5)]
    assert not any(told(RULE, [*usual(700), *yen])[-5:])


def test_what_is_no_currency_is_learned_together_however_many_there_are() -> None:
    history = [dataclasses.replace(one, currency=f"order {at}") for at, one in enumerate(usual(1_000))]
    odd = payment(1_000 * 60, "25000", account="a1", counterparty="s1", category="food", currency="order 1000")
    assert told(RULE, [*history, odd])[-1]


@pytest.mark.parametrize(("others", "between", "known"), [(49, 10_000, True), (60, 9_000, True), (50, 10_000, False)])
def test_of_too_many_currencies_one_that_was_idle_for_long_is_forgotten(others: int, between: int, known: bool) -> None:
    codes = [f"X{chr(65 + at // 26)}{chr(65 + at % 26)}" for at in range(others)]
    odd = payment(1_000 * 60, "25000", account="a1", counterparty="s1", category="food")
    history = [
        *usual(1_000),
        *(payment(0, currency=code) for code in codes[:49]),
        *(payment(0, currency=codes[0]) for _ in range(between)),
        *(payment(0, currency=code) for code in codes[49:]),
    ]
    assert bool(told(QUICK, [*history, odd])[-1]) == known


def test_currencies_for_which_there_is_no_room_are_learned_together() -> None:
    codes = [f"{chr(65 + at // 26)}X{chr(65 + at % 26)}" for at in range(400)]
    history = [dataclasses.replace(one, currency=codes[at % 400]) for at, one in enumerate(usual(1_200))]
    odd = payment(1_200 * 60, "25000", account="a1", counterparty="s1", category="food", currency=codes[-1])
    assert told(QUICK, [*history, odd])[-1]


@pytest.mark.parametrize("amount", ["0", "9" * 34])
def test_no_amount_breaks_it(amount: str) -> None:
    assert len(told(RULE, [*usual(600), payment(0, amount), payment(10**9, amount)])) == 602
