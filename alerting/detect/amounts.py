"""Rules over amounts and how often they come: large ones, many within a while, many just below a threshold. Pure."""

from decimal import Decimal
from typing import Annotated

import msgspec

from alerting.detect.memory import Accounts, Window
from alerting.detect.payment import Payment
from alerting.detect.rule import Rule, Seconds, Watch
from alerting.detect.words import duration, money

__all__ = ["AmountRule", "StructuringRule", "VelocityRule"]

_Currency = Annotated[str, msgspec.Meta(pattern=r"^([A-Z]{3})?$")]
_Key = tuple[str, str, str]


def _key(payment: Payment) -> _Key:
    """Amounts of different currencies are not added."""
    return payment.tenant, payment.account, payment.currency


class AmountRule(Rule, frozen=True, kw_only=True, tag="amount"):
    """A payment above an amount.

    Attributes:
        above: the largest amount that is not told.
        currency: only payments in this currency; empty: whatever the currency.
    """

    above: Decimal
    currency: _Currency = ""

    def watch(self) -> Watch:
        """See `Rule.watch`."""
        return _Amounts(self)


class _Amounts:
    def __init__(self, rule: AmountRule) -> None:
        self._rule = rule

    def look(self, payment: Payment) -> str:
        rule = self._rule
        if payment.amount <= rule.above or (rule.currency and payment.currency != rule.currency):
            return ""
        return f"{money(payment.amount, payment.currency)} is above {money(rule.above, rule.currency)}"


class VelocityRule(Rule, frozen=True, kw_only=True, tag="velocity"):
    """Too many payments of one account within a while, or too much money.

    Attributes:
        within_seconds: the window of event time that ends with the payment.
        count: so many payments are too many; 0: any number may be.
        total: the sum that must not be exceeded, in each currency; 0: any.
    """

    within_seconds: Seconds
    count: Annotated[int, msgspec.Meta(ge=0, le=1_000)] = 0
    total: Decimal = Decimal(0)

    def __post_init__(self) -> None:
        """Refuse a rule that can say nothing."""
        super().__post_init__()
        if not self.count and not self.total:
            raise ValueError("a rule of velocity needs count or total")

    def watch(self) -> Watch:
        """See `Rule.watch`."""
        return _Velocity(self)

    @property
    def horizon_seconds(self) -> float:
        """See `Rule.horizon_seconds`."""
        return self.within_seconds


class _Velocity:
    def __init__(self, rule: VelocityRule) -> None:
        self._rule = rule
        length_ns = int(rule.within_seconds * 1e9)
        self._seen: Accounts[_Key, Window[Decimal]] = Accounts(lambda: Window(length_ns))

    def look(self, payment: Payment) -> str:
        rule = self._rule
        window = self._seen.of(_key(payment))
        window.add(payment.time_ns, payment.amount)
        amounts = window.until(payment.time_ns)
        while_ = duration(rule.within_seconds)
        if rule.count and len(amounts) >= rule.count:
            return f"{len(amounts)} payments of one account within {while_}"
        if rule.total and (total := sum(amounts, Decimal(0))) > rule.total:
            return f"{money(total, payment.currency)} from one account within {while_}"
        return ""


class StructuringRule(Rule, frozen=True, kw_only=True, tag="structuring"):
    """Several payments of one account just below an amount at which somebody would look (smurfing).

    Attributes:
        threshold: the amount that is avoided.
        margin: how far below it counts as avoiding it, as a fraction of it.
        count: so many of those are too many.
        within_seconds: the window of event time that ends with the payment.
    """

    threshold: Decimal
    margin: Annotated[float, msgspec.Meta(gt=0.0, lt=1)] = 0.1
    count: Annotated[int, msgspec.Meta(ge=2, le=1_000)] = 3
    within_seconds: Seconds = 86_400.0

    def watch(self) -> Watch:
        """See `Rule.watch`."""
        return _Structuring(self)

    @property
    def horizon_seconds(self) -> float:
        """See `Rule.horizon_seconds`."""
        return self.within_seconds


class _Structuring:
    def __init__(self, rule: StructuringRule) -> None:
        self._rule = rule
        self._least = rule.threshold * (1 - Decimal(str(rule.margin)))
        length_ns = int(rule.within_seconds * 1e9)
        self._seen: Accounts[_Key, Window[Decimal]] = Accounts(lambda: Window(length_ns))

    def look(self, payment: Payment) -> str:
        rule = self._rule
        if not self._least <= payment.amount < rule.threshold:
            return ""
        window = self._seen.of(_key(payment))
        window.add(payment.time_ns, payment.amount)
        amounts = window.until(payment.time_ns)
        if len(amounts) < rule.count:
            return ""
        return (
            f"{len(amounts)} payments between {money(self._least, payment.currency)} and just below"
            f" {money(rule.threshold, payment.currency)} within {duration(rule.within_seconds)},"
            f" {money(sum(amounts, Decimal(0)), payment.currency)} in all"
        )
