"""Payments for tests, and the events that tell of them."""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal
from typing import Any

from alerting.detect.payment import Payment, PaymentReader, PaymentSettings
from alerting.detect.rule import Rule
from collector.event import Event, format_time
from collector.paths import compile_path

BEGIN_NS = 1_700_000_000_000_000_000
HOUR = 3_600
DAY = 86_400

SETTINGS = PaymentSettings(
    name="card",
    service="payments",
    event="paid",
    amount="attributes.amount",
    currency="attributes.currency",
    default_currency="EUR",
    account="attributes.card",
    counterparty="attributes.shop",
    category="attributes.category",
    device="attributes.device",
    country="attributes.country",
    latitude="attributes.lat",
    longitude="attributes.lon",
)


def reader(settings: PaymentSettings = SETTINGS) -> PaymentReader:
    return PaymentReader(settings, {name: compile_path(path).get for name, path in settings.paths().items()})


def payment(at: float = 0.0, amount: str = "10", **fields: Any) -> Payment:
    """A payment `at` seconds after the beginning."""
    given: dict[str, Any] = {"kind": "card", "leaf": 0, "currency": "EUR", "account": "A"} | fields
    return Payment(time_ns=BEGIN_NS + int(at * 1e9), amount=Decimal(amount), **given)


def event(at: float = 0.0, amount: Any = "10", card: str = "A", transaction: str = "", **attributes: Any) -> Event:
    """The event of one."""
    return Event(
        time=format_time(BEGIN_NS + int(at * 1e9)),
        event_name="paid",
        resource={"service.name": "payments"},
        transaction=transaction,
        attributes={"amount": amount, "card": card, **attributes},
    )


def told(rule: Rule, payments: Iterable[Payment]) -> list[str]:
    """What a fresh watch says of each."""
    watch = rule.watch()
    return [watch.look(one) for one in payments]
