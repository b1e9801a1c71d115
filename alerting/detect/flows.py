"""Rules over money that moves between accounts: many to one, one to many, and back to where it came from. Pure."""

from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from typing import Annotated, Literal

import msgspec

from alerting.detect.memory import Accounts, Window
from alerting.detect.payment import Payment
from alerting.detect.rule import Rule, Seconds, Watch
from alerting.detect.words import duration, money

__all__ = ["FanRule", "RoundTripRule"]

_DAY_SECONDS = 86_400.0
_MAX_STEPS = 2_000
"""Transfers that one search for a round trip looks at, at most: a hub with thousands of payees must not stop the detector."""

_Account = tuple[str, str]


class FanRule(Rule, frozen=True, kw_only=True, tag="fan"):
    """One account pays many, or many pay one.

    Attributes:
        direction: ``in`` (many pay one) or ``out``.
        count: so many different accounts are too many.
        within_seconds: the window of event time that ends with the payment.
        above: only payments above this amount.
    """

    direction: Literal["in", "out"]
    count: Annotated[int, msgspec.Meta(ge=2, le=1_000)]
    within_seconds: Seconds = _DAY_SECONDS
    above: Decimal = Decimal(0)

    def watch(self) -> Watch:
        """See `Rule.watch`."""
        return _Fan(self)

    @property
    def horizon_seconds(self) -> float:
        """See `Rule.horizon_seconds`."""
        return self.within_seconds


class _Fan:
    def __init__(self, rule: FanRule) -> None:
        self._rule = rule
        length_ns = int(rule.within_seconds * 1e9)
        self._seen: Accounts[_Account, Window[str]] = Accounts(lambda: Window(length_ns))

    def look(self, payment: Payment) -> str:
        rule = self._rule
        if not payment.counterparty or payment.amount <= rule.above:
            return ""
        hub, other = payment.account, payment.counterparty
        if rule.direction == "in":
            hub, other = other, hub
        window = self._seen.of((payment.tenant, hub))
        window.add(payment.time_ns, other)
        others = len(set(window.until(payment.time_ns)))
        if others < rule.count:
            return ""
        told = "one account is paid by {} others" if rule.direction == "in" else "one account pays {} others"
        return f"{told.format(others)} within {duration(rule.within_seconds)}"


class RoundTripRule(Rule, frozen=True, kw_only=True, tag="round_trip"):
    """Money comes back to an account that it left, through others, most of it still there (a cycle, as in layering).

    Attributes:
        hops: through so many payments at most, the closing one included; at least 2.
        share: each payment is at least this share of the closing one, and at most its reciprocal.
        above: only closing payments above this amount.
        within_seconds: from the first payment to the closing one.
    """

    hops: Annotated[int, msgspec.Meta(ge=2, le=12)] = 6
    share: Annotated[float, msgspec.Meta(gt=0.0, le=1)] = 0.8
    above: Decimal = Decimal(0)
    within_seconds: Seconds = 7 * _DAY_SECONDS

    def watch(self) -> Watch:
        """See `Rule.watch`."""
        return _RoundTrip(self)

    @property
    def horizon_seconds(self) -> float:
        """See `Rule.horizon_seconds`."""
        return self.within_seconds


@dataclass(frozen=True, slots=True)
class _Transfer:
    time_ns: int
    amount: Decimal
    source: str


class _RoundTrip:
    """Transfers by who received them. A search goes back in time from the payer of the closing payment."""

    def __init__(self, rule: RoundTripRule) -> None:
        self._rule = rule
        length_ns = int(rule.within_seconds * 1e9)
        self._received: Accounts[tuple[str, str, str], Window[_Transfer]] = Accounts(lambda: Window(length_ns))

    def look(self, payment: Payment) -> str:
        if not payment.counterparty or payment.counterparty == payment.account:
            return ""
        key = (payment.tenant, payment.currency)
        found = self._way_back(payment) if payment.amount > self._rule.above else None
        transfer = _Transfer(payment.time_ns, payment.amount, payment.account)
        self._received.of((*key, payment.counterparty)).add(payment.time_ns, transfer)
        if found is None:
            return ""
        hops, took_ns = found
        return (
            f"{money(payment.amount, payment.currency)} comes back to an account that paid it"
            f" {duration(took_ns // 1_000_000_000)} before, through {hops} payments"
        )

    def _way_back(self, payment: Payment) -> tuple[int, int] | None:
        """How many payments lead from the one who is paid to the one who pays, with this one, and how long ago the first was."""
        rule = self._rule
        share = Decimal(str(rule.share))
        least, most = payment.amount * share, payment.amount / share
        earliest_ns = payment.time_ns - int(rule.within_seconds * 1e9)
        steps = 0
        edge: list[tuple[str, int]] = [(payment.account, payment.time_ns)]
        seen: dict[
            str, int
        ] = {}  # account -> the latest moment from which it was searched: an earlier one finds no more
        for hops in range(2, rule.hops + 1):
            onward: list[tuple[str, int]] = []
            for account, until_ns in edge:
                for transfer in self._into(payment, account, until_ns):
                    steps += 1
                    if steps > _MAX_STEPS:
                        return None
                    if transfer.time_ns < earliest_ns or not least <= transfer.amount <= most:
                        continue
                    if transfer.source == payment.counterparty:
                        return hops, payment.time_ns - transfer.time_ns
                    if seen.get(transfer.source, -1) < transfer.time_ns:
                        seen[transfer.source] = transfer.time_ns
                        onward.append((transfer.source, transfer.time_ns))
            edge = onward
        return None

    def _into(self, payment: Payment, account: str, until_ns: int) -> Iterator[_Transfer]:
        window = self._received.look((payment.tenant, payment.currency, account))
        return iter(()) if window is None else reversed(window.until(until_ns))
