"""What each kind of rule tells, and what it leaves alone."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from alerting.detect.amounts import AmountRule, StructuringRule, VelocityRule
from alerting.detect.flows import FanRule, RoundTripRule
from alerting.detect.habits import DormantRule, NewRule, TravelRule, kilometres
from alerting.detect.listed import ListedRule
from alerting.detect.memory import MAX_WINDOW, Accounts, Window
from alerting.detect.payment import MOST_AHEAD_NS
from alerting.detect.rule import version_of
from alerting.detect.settings import AnyRule
from collector.errors import Malformed
from tests.alerting.payments import DAY, HOUR, payment, told

SECOND_NS = 1_000_000_000


def test_an_amount_above_the_limit_is_told_and_the_limit_itself_is_not() -> None:
    rule = AmountRule(name="large", above=Decimal(1000), currency="EUR")
    said = told(rule, [payment(0, "1000"), payment(0, "1000.01"), payment(0, "9999", currency="JPY")])
    assert said == ["", "1000.01 EUR is above 1000 EUR", ""]


@pytest.mark.parametrize("amount", ["NaN", "sNaN", "Infinity", "-Infinity"])
def test_an_amount_that_is_no_number_is_refused_with_the_rule(amount: str) -> None:
    for rule in (
        {"kind": "amount", "name": "x", "above": amount},
        {"kind": "velocity", "name": "x", "within_seconds": 1, "count": 2, "total": amount},
        {"kind": "new", "name": "x", "field": "device", "above": amount},
    ):
        with pytest.raises(msgspec.ValidationError, match=r"rule x: .* is no amount"):
            msgspec.convert(rule, AnyRule)


def test_velocity_counts_within_the_window_and_each_account_for_itself() -> None:
    rule = VelocityRule(name="fast", within_seconds=HOUR, count=3)
    at = [(0, "A"), (10, "A"), (20, "B"), (HOUR - 1, "A"), (HOUR + 5, "A"), (3 * HOUR, "A")]
    said = told(rule, [payment(second, account=account) for second, account in at])
    assert [bool(one) for one in said] == [False, False, False, True, True, False]
    assert said[3] == "3 payments of one account within 1 hour"


def test_velocity_adds_no_currencies_together() -> None:
    rule = VelocityRule(name="sum", within_seconds=HOUR, total=Decimal(100))
    said = told(rule, [payment(0, "60"), payment(1, "60", currency="USD"), payment(2, "41")])
    assert said == ["", "", "101 EUR from one account within 1 hour"]


def test_a_late_payment_counts_at_its_own_time() -> None:
    rule = VelocityRule(name="fast", within_seconds=60, count=3)
    said = told(rule, [payment(100), payment(40.5), payment(90), payment(41)])
    assert [bool(one) for one in said] == [False, False, False, False], (
        "at 90 s and before there were two within a minute"
    )
    said = told(rule, [payment(100), payment(50), payment(99)])
    assert not any(said), "the one at 99 s sees those up to 99 s"
    assert told(rule, [payment(100), payment(99), payment(100)])[-1]


def test_a_rule_of_velocity_that_says_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="needs count or total"):
        VelocityRule(name="none", within_seconds=1)


def test_structuring_is_many_just_below_the_threshold() -> None:
    rule = StructuringRule(name="smurf", threshold=Decimal(10_000), margin=0.1, count=3, within_seconds=DAY)
    said = told(
        rule, [payment(at, amount) for at, amount in enumerate(["9500", "8999.99", "9000", "10000", "9999.99"])]
    )
    assert said[:4] == ["", "", "", ""]
    assert said[4] == "3 payments between 9000.0 EUR and just below 10000 EUR within 1 day, 28499.99 EUR in all"


def test_a_new_device_is_told_once_an_account_has_habits() -> None:
    rule = NewRule(name="device", field="device", known_payments=2, remember_seconds=30 * DAY)
    devices = [(0, "phone"), (1, "tablet"), (2, "phone"), (3, "watch"), (4, "watch"), (40 * DAY, "phone")]
    said = told(rule, [payment(at, device=device) for at, device in devices])
    assert [bool(one) for one in said] == [False, False, False, True, False, True]
    assert "watch" not in said[3], "a device may name a person"
    assert told(rule, [payment(0), payment(1)]) == ["", ""], "no device, nothing to say"


def test_a_new_country_is_named() -> None:
    rule = NewRule(name="country", field="country", known_payments=1)
    assert told(rule, [payment(0, country="DE"), payment(1, country="PA")])[1].endswith("(PA)")


def test_nobody_travels_so_fast() -> None:
    berlin, tokyo, potsdam = (52.52, 13.40), (35.68, 139.69), (52.39, 13.06)
    rule = TravelRule(name="travel")
    said = told(rule, [payment(0, place=berlin), payment(HOUR, place=tokyo), payment(2 * HOUR, place=tokyo)])
    assert [bool(one) for one in said] == [False, True, False]
    assert "8,9" in said[1], "some 8,900 km"
    assert told(rule, [payment(0, place=berlin), payment(1, place=potsdam)])[1] == "", "too near to tell"
    assert told(rule, [payment(0, place=berlin), payment(13 * HOUR, place=tokyo)])[1] == "", "by plane"
    late = told(rule, [payment(2 * HOUR, place=berlin), payment(HOUR, place=tokyo), payment(3 * HOUR, place=berlin)])
    assert [bool(one) for one in late] == [False, True, False], (
        "a late one is compared, and does not move the account back"
    )


@given(st.tuples(st.floats(-90, 90), st.floats(-180, 180)), st.tuples(st.floats(-90, 90), st.floats(-180, 180)))
def test_a_distance_is_one(one: tuple[float, float], other: tuple[float, float]) -> None:
    assert 0.0 <= kilometres(one, other) <= 20_016
    assert kilometres(one, other) == pytest.approx(kilometres(other, one), abs=1e-6)


def test_an_account_that_slept_and_wakes_up_rich() -> None:
    rule = DormantRule(name="asleep", silent_seconds=100 * DAY, above=Decimal(500))
    said = told(
        rule, [payment(0, "900"), payment(120 * DAY, "20"), payment(240 * DAY, "900"), payment(250 * DAY, "900")]
    )
    assert said == ["", "", "900 EUR after 120 days without a payment", ""]


@pytest.mark.parametrize(
    ("amount", "said"),
    [("900.5", "900.5"), ("0.1234", "0.1234"), ("0.12345", "0.12"), ("1e3", "1000"), ("1e-99999999999", "0.00")],
)
def test_an_amount_is_told_in_few_digits_whatever_it_has(amount: str, said: str) -> None:
    rule = DormantRule(name="asleep", silent_seconds=DAY)
    assert told(rule, [payment(0), payment(DAY, amount)])[-1] == f"{said} EUR after 1 days without a payment"


def test_one_account_that_many_pay() -> None:
    rule = FanRule(name="mule", direction="in", count=3, within_seconds=DAY)
    payers = ["a", "b", "a", "c"]
    said = told(rule, [payment(at, account=payer, counterparty="hub") for at, payer in enumerate(payers)])
    assert said == ["", "", "", "one account is paid by 3 others within 1 day"]
    rule = FanRule(name="spread", direction="out", count=2, within_seconds=DAY)
    said = told(rule, [payment(0, counterparty="x"), payment(1, counterparty="y"), payment(2 * DAY, counterparty="z")])
    assert [bool(one) for one in said] == [False, True, False]


def transfers(*moves: tuple[str, str, str]) -> list[str]:
    rule = RoundTripRule(name="cycle", hops=4, share=0.8, within_seconds=10 * DAY)
    return told(
        rule,
        [
            payment(at * HOUR, amount, account=source, counterparty=target)
            for at, (source, target, amount) in enumerate(moves)
        ],
    )


def test_money_that_comes_back_is_a_round_trip() -> None:
    said = transfers(("A", "B", "1000"), ("B", "C", "950"), ("x", "C", "5"), ("C", "A", "900"))
    assert said[:3] == ["", "", ""]
    assert said[3] == "900 EUR comes back to an account that paid it 3 hours before, through 3 payments"
    assert transfers(("A", "B", "100"), ("B", "A", "100"))[1]


def test_what_is_no_round_trip() -> None:
    assert not any(transfers(("B", "C", "950"), ("A", "B", "1000"), ("C", "A", "900"))), "not in that order"
    assert not any(transfers(("A", "B", "1000"), ("B", "C", "100"), ("C", "A", "900"))), "other money"
    chain = [("A", "B", "10"), ("B", "C", "10"), ("C", "D", "10"), ("D", "E", "10"), ("E", "A", "10")]
    assert not any(transfers(*chain)), "longer than the rule looks"
    assert not any(transfers(("A", "A", "10"), ("A", "A", "10")))


def test_a_hub_with_thousands_of_payers_is_searched_within_bounds() -> None:
    rule = RoundTripRule(name="cycle", hops=12, share=0.01, within_seconds=10 * DAY)
    watch = rule.watch()
    for at in range(3_000):
        watch.look(payment(at, "10", account=f"p{at % 60}", counterparty=f"p{(at * 7 + 1) % 60}"))


def test_names_on_a_list_are_found_however_they_are_written(tmp_path: Path) -> None:
    names = tmp_path / "sanctioned.txt"
    names.write_text("# provided by compliance\n\nEvil  Corp\nＢａｄ Ltd\n", encoding="utf-8")
    rule = ListedRule(name="listed", file=str(names))
    said = told(
        rule, [payment(0, counterparty="EVIL CORP"), payment(0, account="bad ltd"), payment(0, counterparty="Evil")]
    )
    assert said == ["its counterparty is on the list sanctioned.txt", "its account is on the list sanctioned.txt", ""]


@pytest.mark.parametrize(("data", "said"), [(None, "No such file"), (b"#\n", "no name"), (b"\xff", "not UTF-8")])
def test_a_list_that_cannot_be_used_is_refused(tmp_path: Path, data: bytes | None, said: str) -> None:
    names = tmp_path / "list"
    if data is not None:
        names.write_bytes(data)
    with pytest.raises(Malformed, match=said):
        ListedRule(name="listed", file=str(names)).watch()


def test_another_threshold_is_another_version() -> None:
    one = AmountRule(name="large", above=Decimal(1))
    assert version_of(one) == version_of(msgspec.structs.replace(one))
    assert version_of(one) != version_of(msgspec.structs.replace(one, above=Decimal(2)))


def test_of_too_many_accounts_the_one_that_was_idle_longest_is_forgotten() -> None:
    kept: Accounts[str, list[int]] = Accounts(list, most=2)
    kept.of("a").append(1)
    kept.of("b")
    kept.of("a")
    kept.of("c")
    assert (kept.look("a"), kept.look("b"), kept.forgotten) == ([1], None, 1)


@given(st.lists(st.integers(0, 2_000), max_size=60), st.integers(1, 600))
def test_a_window_holds_what_is_in_it(seconds: list[int], length: int) -> None:
    window: Window[int] = Window(length * SECOND_NS)
    newest = 0
    for at, second in enumerate(seconds):
        window.add(second * SECOND_NS, second)
        newest = max(newest, second)
        kept = [one for one in seconds[: at + 1] if one > newest - length - MOST_AHEAD_NS // SECOND_NS]
        assert window.until(second * SECOND_NS) == sorted(one for one in kept if second - length < one <= second)


def test_a_payment_that_is_dated_a_little_too_late_hides_no_others() -> None:
    rule = VelocityRule(name="r", within_seconds=60, count=3)
    found = told(rule, [payment(299), payment(0), payment(1), payment(2)])
    assert found == ["", "", "", "3 payments of one account within 1 minute"]


def test_a_window_is_bounded() -> None:
    window: Window[int] = Window(10**9)
    for at in range(MAX_WINDOW + 5):
        window.add(at, at)
    assert window.until(10**6)[0] == 5
