"""A payment, as the detector sees it: what declared fields of one event say. Pure.

Nothing of it is believed to be well formed: events come from many services. A payment whose amount or time cannot be read is
none, and says why.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from decimal import Decimal, InvalidOperation
from fnmatch import fnmatchcase
from typing import Annotated, Any, Literal

import msgspec

from collector.errors import Malformed
from collector.event import Event, Facts, parse_time

__all__ = ["MOST_AHEAD_NS", "Payment", "PaymentReader", "PaymentSettings", "Unreadable", "credible"]

MOST_AHEAD_NS = 300 * 1_000_000_000
"""A payment may be dated so much later than its entry was recorded: clocks differ by as much. What is later still has not happened yet."""
MAX_TEXT = 200
_MAX_DIGITS = 34  # of an amount, as decimal128 has them
_Name = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")]
_Currency = Annotated[str, msgspec.Meta(pattern=r"^([A-Z]{3})?$")]

Get = Callable[[Event], Any]
"""The value that an event has at a path, None where it has none."""


class Unreadable(Malformed):
    """An event that should be a payment, and what it lacks."""


class PaymentSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which events are payments of one kind, and where they keep what rules look at. Fields are paths (docs/detection.md).

    Attributes:
        name: of the kind of payment.
        service, event: which events: patterns with ``*`` and ``?`` for the service's and the event's name.
        outcome: only events of this outcome; ``not_failure`` leaves failures out; empty: any.
        amount: path to the amount, a number or its text in decimal digits.
        currency: path to the currency (ISO 4217, in capitals or not).
        default_currency: what it is where the event does not say.
        account: path to who pays.
        counterparty: path to who is paid.
        category: path to what was paid for, as the merchant's category.
        device, country: paths to what the payment was made with, and from where.
        latitude, longitude: paths to where, in degrees (WGS 84).
    """

    name: _Name
    service: str = "*"
    event: str = "*"
    outcome: Literal["", "success", "failure", "not_failure"] = "not_failure"
    amount: str
    currency: str = ""
    default_currency: _Currency = ""
    account: str
    counterparty: str = ""
    category: str = ""
    device: str = ""
    country: str = ""
    latitude: str = ""
    longitude: str = ""

    def paths(self) -> dict[str, str]:
        """The declared paths by what they lead to."""
        names = "amount currency account counterparty category device country latitude longitude".split()
        return {name: path for name in names if (path := getattr(self, name))}


@dataclass(frozen=True, slots=True, kw_only=True)
class Payment:
    """One payment.

    Attributes:
        kind: the name of its `PaymentSettings`.
        leaf: of its event's entry in the log; −1 for one of a file.
        time_ns: when it was made, Unix time, as its service stated it; else when the collector saw it. See `credible`.
        amount: never negative: a refund's sign is cut off.
        currency: in capitals; empty where none is said.
        place: latitude and longitude in degrees; None where one is missing or out of range.
        transaction, tenant, trace_id: of its event.
    """

    kind: str
    leaf: int
    time_ns: int
    amount: Decimal
    currency: str = ""
    account: str
    counterparty: str = ""
    category: str = ""
    device: str = ""
    country: str = ""
    place: tuple[float, float] | None = None
    transaction: str = ""
    tenant: str = ""
    trace_id: str = ""


class PaymentReader:
    """Reads payments of one kind.

    Args:
        settings: which events, and where what is.
        getters: for each of `settings.paths()` what reads it.
    """

    def __init__(self, settings: PaymentSettings, getters: Mapping[str, Get]) -> None:
        self.settings = settings
        self._get = dict(getters)

    def matches(self, facts: Facts) -> bool:
        """Whether an event with these facts is a payment of this kind: asked before its body is read."""
        wanted = self.settings
        if facts.access is not None or facts.retirement is not None or facts.incident is not None:
            return False
        if wanted.outcome and (facts.error if wanted.outcome == "not_failure" else facts.outcome != wanted.outcome):
            return False
        return fnmatchcase(facts.service, wanted.service) and fnmatchcase(facts.name, wanted.event)

    def payment(self, event: Event, leaf: int) -> Payment:
        """The payment that an event tells of.

        Raises:
            Unreadable: it has no account, no readable amount or no time.
        """
        account = self._text(event, "account")
        if not account:
            raise Unreadable("no account", where=self.settings.account)
        return Payment(
            kind=self.settings.name,
            leaf=leaf,
            time_ns=_time_ns(event),
            amount=self._amount(event),
            currency=self._text(event, "currency").strip().upper() or self.settings.default_currency,
            account=account,
            counterparty=self._text(event, "counterparty"),
            category=self._text(event, "category"),
            device=self._text(event, "device"),
            country=self._text(event, "country"),
            place=_place(self._value(event, "latitude"), self._value(event, "longitude")),
            transaction=event.transaction,
            tenant=event.tenant,
            trace_id=event.trace_id,
        )

    def _value(self, event: Event, name: str) -> Any:
        get = self._get.get(name)
        return None if get is None else get(event)

    def _text(self, event: Event, name: str) -> str:
        value = self._value(event, name)
        if isinstance(value, str):
            return value[:MAX_TEXT]
        return str(value)[:MAX_TEXT] if type(value) is int else ""

    def _amount(self, event: Event) -> Decimal:
        value = self._value(event, "amount")
        if not isinstance(value, int | float | str) or isinstance(value, bool):
            raise Unreadable("no amount", where=self.settings.amount)
        text = str(value)
        try:
            amount = Decimal(text) if len(text) <= 2 * _MAX_DIGITS else None
        except InvalidOperation:
            amount = None
        if amount is None or not amount.is_finite() or amount.adjusted() >= _MAX_DIGITS:
            raise Unreadable("not an amount", where=self.settings.amount)
        return abs(amount)


def credible(payment: Payment, event: Event, *, recorded_ns: int) -> Payment:
    """The payment at a time that can be: one from the future would be the latest of its account for as long as it is remembered.

    Args:
        payment: as its event states it.
        event: the event.
        recorded_ns: when the entry of its event was recorded.

    Returns:
        The payment itself, unless it is dated more than `MOST_AHEAD_NS` later than that; then with the time at which the collector saw
        it, or, where that cannot be either, with `recorded_ns`.
    """
    latest_ns = recorded_ns + MOST_AHEAD_NS
    if payment.time_ns <= latest_ns:
        return payment
    try:
        observed_ns = parse_time(event.observed)
    except Malformed:  # there is none, of imported files
        observed_ns = recorded_ns
    return replace(payment, time_ns=observed_ns if observed_ns <= latest_ns else recorded_ns)


def _time_ns(event: Event) -> int:
    for text in (event.time, event.observed):
        if text:
            return parse_time(text)
    raise Unreadable("no time", where="time")


def _place(latitude: Any, longitude: Any) -> tuple[float, float] | None:
    try:
        place = float(latitude), float(longitude)
    except (TypeError, ValueError, OverflowError):
        return None
    return place if abs(place[0]) <= 90.0 and abs(place[1]) <= 180.0 else None
