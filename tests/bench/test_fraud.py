"""Who is compared on payments with labels is compared on the same ones, and is told nothing that was not known yet."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from math import isnan

import pytest

from alerting.detect.amounts import AmountRule
from alerting.detect.payment import Payment
from bench.fraud import BUDGETS, later_part
from bench.hindsight import FEATURES, features, highest, split_at

DAY = 86_400


def paid(seconds: float, amount: str, account: str = "A", to: str = "shop", category: str = "food") -> Payment:
    return Payment(
        kind="card",
        leaf=0,
        time_ns=int(seconds * 1e9),
        amount=Decimal(amount),
        currency="EUR",
        account=account,
        counterparty=to,
        category=category,
        place=(0.0, seconds / DAY),
    )


def row(payments: Sequence[Payment]) -> dict[str, float]:
    """What is told of the last of them."""
    return dict(zip(FEATURES, features(payments)[-1], strict=True))


def test_a_row_tells_of_the_payment_and_of_what_was_before() -> None:
    first = row([paid(3 * 3_600, "10")])
    assert (first["amount"], first["hour"], first["payer_payments"], first["payer_paid_count_month"]) == (10, 3, 0, 0)
    assert all(isnan(first[name]) for name in ("payer_pause_seconds", "amount_to_payer_mean", "kilometres"))
    before = [paid(0, "10"), paid(DAY / 2, "30", to="other"), paid(DAY, "50", "B"), paid(DAY + 60, "7", "shop", "C")]
    last = row([*before, paid(DAY + 3_600, "40", category="rent")])
    assert last["payer_pause_seconds"] == DAY / 2 + 3_600
    assert last["amount_to_payer_mean"] == 2
    assert last["amount_to_payer_most"] == pytest.approx(40 / 30)
    assert (last["payer_paid_count_day"], last["payer_paid_sum_day"]) == (1, 30)  # the first is older
    assert (last["payer_paid_count_week"], last["payer_paid_sum_week"]) == (2, 40)
    assert (last["payee_got_count_hour"], last["payee_got_sum_day"], last["payee_paid_sum_hour"]) == (1, 50, 7)
    assert (last["pair_payments"], last["payee_payments"], last["payer_category_share"]) == (1, 2, 0)
    assert last["kilometres"] == pytest.approx(111.2 * (0.5 + 3_600 / DAY), rel=0.01)


def test_nothing_that_comes_later_changes_a_row() -> None:
    payments = [paid(at * 7_000, str(at % 7 + 1), f"A{at % 3}", f"A{at % 4}", f"c{at % 2}") for at in range(60)]
    assert repr(features(payments)[:30]) == repr(features(payments[:30]))  # repr: no number equals itself


def test_a_history_is_cut_at_midnight() -> None:
    payments = [(paid(at * DAY / 4, "1"), False) for at in range(16)]
    assert split_at(payments, 0.5) == 8
    assert split_at(payments, 0.4) == 8  # the rest of a day goes with it
    with pytest.raises(ValueError, match="later day"):
        split_at(payments[:3], 0.5)
    with pytest.raises(ValueError, match="earlier day"):
        split_at([*payments, payments[0]], 0.5)


def test_of_equal_scores_the_earlier_is_told() -> None:
    assert highest([1.0, 3.0, 3.0, 2.0], [True, False, True, True], 1) == 0
    assert highest([1.0, 3.0, 3.0, 2.0], [True, False, True, True], 3) == 2


def test_all_are_scored_on_the_later_half_alone() -> None:
    """Earlier payments are large or fraud at will: they are trained on, and nobody is scored on them."""
    earlier = [(paid(at, "900"), at % 2 == 0) for at in range(200)]
    later = [(paid(DAY + at, "950" if at < 4 else "5", "B"), at < 2) for at in range(200)]
    trained = []

    def by_amount(
        rows: Sequence[Sequence[float]], fraud: Sequence[bool], after: Sequence[Sequence[float]]
    ) -> Sequence[float]:
        trained.append((len(rows), sum(fraud), len(after)))
        return [one[FEATURES.index("amount")] for one in after]

    found = later_part([*earlier, *later], [AmountRule(name="large", above=Decimal(800))], model=by_amount)
    assert trained == [(200, 100, 200)]
    assert (found.begins, found.payments, found.fraud, found.model) == ("1970-01-02", 200, 2, True)
    assert found.told["large"] == found.told["any rule"] == (4, 2)
    assert found.told["baseline: the largest, 5.0%"] == found.told["offline model, 5.0%"] == (10, 2)
    assert found.told["offline model, 0.5%"] == (1, 1)
    assert found.told["offline model, as many as any rule"] == (4, 2)
    assert [name for name in found.told if name.startswith("anomaly")] == [f"anomaly, {one:.1%}" for one in BUDGETS]
    alone = later_part([*earlier, *later], [], model=None)
    assert not alone.model
    assert not any(name.startswith("offline") for name in alone.told)
