"""Rules over what an account is used to: new devices and countries, journeys nobody makes, long silence. Pure."""

from decimal import Decimal
from math import asin, cos, radians, sin, sqrt
from typing import Annotated, Literal

import msgspec

from alerting.detect.memory import Accounts
from alerting.detect.payment import Payment
from alerting.detect.rule import Rule, Seconds, Watch
from alerting.detect.words import duration, money

__all__ = ["DormantRule", "NewRule", "TravelRule", "kilometres"]

_EARTH_KM = 6_371.0
_DAY_SECONDS = 86_400.0
_Account = tuple[str, str]


def _account(payment: Payment) -> _Account:
    return payment.tenant, payment.account


class NewRule(Rule, frozen=True, kw_only=True, tag="new"):
    """A payment with a device, from a country or to a counterparty that its account was not seen with before.

    Attributes:
        field: which of them.
        known_payments: an account has habits once so many payments of it were seen.
        above: only payments above this amount.
        remember_seconds: what was not seen for so long is new again.
        most: so many values are remembered for an account, the latest.
    """

    field: Literal["device", "country", "counterparty"]
    known_payments: Annotated[int, msgspec.Meta(ge=1, le=1_000)] = 3
    above: Decimal = Decimal(0)
    remember_seconds: Seconds = 90 * _DAY_SECONDS
    most: Annotated[int, msgspec.Meta(ge=1, le=1_000)] = 50

    def watch(self) -> Watch:
        """See `Rule.watch`."""
        return _New(self)

    @property
    def horizon_seconds(self) -> float:
        """See `Rule.horizon_seconds`."""
        return self.remember_seconds


class _Habits:
    """Of one account: how many payments were seen, and each value with the last time that it was."""

    __slots__ = ("payments", "values")

    def __init__(self) -> None:
        self.payments = 0
        self.values: dict[str, int] = {}


class _New:
    def __init__(self, rule: NewRule) -> None:
        self._rule = rule
        self._habits: Accounts[_Account, _Habits] = Accounts(_Habits)

    def look(self, payment: Payment) -> str:
        rule = self._rule
        value: str = getattr(payment, rule.field)
        if not value:
            return ""
        habits = self._habits.of(_account(payment))
        last_ns = habits.values.pop(value, None)
        is_new = last_ns is None or payment.time_ns - last_ns > rule.remember_seconds * 1e9
        had_habits = habits.payments >= rule.known_payments
        habits.values[value] = payment.time_ns if last_ns is None else max(last_ns, payment.time_ns)
        habits.payments += 1
        if len(habits.values) > rule.most:
            del habits.values[next(iter(habits.values))]
        if not (is_new and had_habits) or payment.amount <= rule.above:
            return ""
        shown = f" ({value})" if rule.field == "country" else ""  # the others may name a person
        return f"a {rule.field} that this account did not use in {habits.payments - 1} payments before{shown}"


class TravelRule(Rule, frozen=True, kw_only=True, tag="travel"):
    """Two payments of one account further apart than anybody travels in the time between them.

    Attributes:
        kmh: the speed that is believed.
        least_km: shorter ways are not looked at, whatever the speed: places are rough.
        within_seconds: payments further apart in time are not compared.
    """

    kmh: Annotated[float, msgspec.Meta(gt=0.0, le=100_000)] = 900.0
    least_km: Annotated[float, msgspec.Meta(ge=0, le=20_000)] = 100.0
    within_seconds: Seconds = _DAY_SECONDS

    def watch(self) -> Watch:
        """See `Rule.watch`."""
        return _Travel(self)

    @property
    def horizon_seconds(self) -> float:
        """See `Rule.horizon_seconds`."""
        return self.within_seconds


class _Whereabouts:
    """Of one account: where the latest payment was made."""

    __slots__ = ("place", "time_ns")

    def __init__(self) -> None:
        self.place: tuple[float, float] | None = None
        self.time_ns = 0


class _Travel:
    def __init__(self, rule: TravelRule) -> None:
        self._rule = rule
        self._last: Accounts[_Account, _Whereabouts] = Accounts(_Whereabouts)

    def look(self, payment: Payment) -> str:
        if payment.place is None:
            return ""
        rule = self._rule
        last = self._last.of(_account(payment))
        before, then_ns = last.place, last.time_ns
        if before is None or payment.time_ns >= then_ns:  # a late one does not move the account back
            last.place, last.time_ns = payment.place, payment.time_ns
        if before is None:
            return ""
        seconds = abs(payment.time_ns - then_ns) / 1e9
        way_km = kilometres(before, payment.place)
        if way_km < rule.least_km or seconds > rule.within_seconds or way_km <= rule.kmh * seconds / 3_600:
            return ""
        return f"{way_km:,.0f} km from this account's payment {duration(round(seconds))} before"


class DormantRule(Rule, frozen=True, kw_only=True, tag="dormant"):
    """The first payment after a long silence, if it is a large one.

    Attributes:
        silent_seconds: how long an account must have been silent.
        above: only payments above this amount.
    """

    silent_seconds: Seconds = 180 * _DAY_SECONDS
    above: Decimal = Decimal(0)

    def watch(self) -> Watch:
        """See `Rule.watch`."""
        return _Dormant(self)

    @property
    def horizon_seconds(self) -> float:
        """Twice the silence: an account that was seen before it must be known."""
        return 2 * self.silent_seconds


class _Latest:
    __slots__ = ("time_ns",)

    def __init__(self) -> None:
        self.time_ns: int | None = None


class _Dormant:
    def __init__(self, rule: DormantRule) -> None:
        self._rule = rule
        self._latest: Accounts[_Account, _Latest] = Accounts(_Latest)

    def look(self, payment: Payment) -> str:
        latest = self._latest.of(_account(payment))
        before = latest.time_ns
        latest.time_ns = payment.time_ns if before is None else max(before, payment.time_ns)
        if before is None or payment.amount <= self._rule.above:
            return ""
        silent = (payment.time_ns - before) / 1e9
        if silent < self._rule.silent_seconds:
            return ""
        return f"{money(payment.amount, payment.currency)} after {silent / _DAY_SECONDS:,.0f} days without a payment"


def kilometres(one: tuple[float, float], other: tuple[float, float]) -> float:
    """The great-circle distance of two places given in degrees of latitude and longitude (haversine)."""
    (from_lat, from_lon), (to_lat, to_lon) = one, other
    half = sin(radians(to_lat - from_lat) / 2) ** 2
    half += cos(radians(from_lat)) * cos(radians(to_lat)) * sin(radians(to_lon - from_lon) / 2) ** 2
    return 2 * _EARTH_KM * asin(min(1.0, sqrt(half)))
