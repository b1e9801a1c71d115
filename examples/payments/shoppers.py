"""The customers: which payments are made, and one call of the gateway for each."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from examples.payments.http_service import Refused, call

__all__ = ["Payment", "orders", "pay_all", "payments"]

# Card numbers that the schemes publish for tests: they pass every check, and belong to nobody.
CARDS = ("4111 1111 1111 1111", "5555-5555-5555-4444", "378282246310005")
CUSTOMERS = ("ada", "grace", "edsger", "barbara", "donald", "frances")
UNUSUAL = ("decline", "retry", "timeout", "compensation", "forget") * 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Payment:
    """One payment that a customer wants to make; `rehearse` is what is to go wrong with it (`success`: nothing)."""

    payment_id: str
    order_id: str
    customer: str
    amount: str
    card: str
    rehearse: str


def payments(count: int, *, run: str, seed: int = 1) -> list[Payment]:
    """`count` payments in a shuffled order: each kind of trouble twice, the rest succeed.

    `run` is part of every ID, so that the demo can run again over the same data.
    """
    dice = random.Random(seed)
    kinds = [*UNUSUAL, *["success"] * (count - len(UNUSUAL))]
    dice.shuffle(kinds)
    return orders(kinds, run=run, dice=dice)


def orders(kinds: Sequence[str], *, run: str, dice: random.Random) -> list[Payment]:
    """A payment for each of these kinds, in this order; `run` is part of every ID."""
    return [
        Payment(
            payment_id=f"pay-{run}-{at:02d}",
            order_id=f"order-{run}-{at:02d}",
            customer=dice.choice(CUSTOMERS),
            amount=f"{dice.randint(200, 90_000) / 100:.2f}",
            card=dice.choice(CARDS),
            rehearse=kind,
        )
        for at, kind in enumerate(kinds)
    ]


def pay_all(gateway: str, wanted: Sequence[Payment]) -> Counter[str]:
    """Make the payments, four at a time; how many were answered what."""

    def pay(order: Payment) -> str:
        body = {
            "payment_id": order.payment_id,
            "order_id": order.order_id,
            "customer": order.customer,
            "amount": order.amount,
            "currency": "EUR",
            "card": order.card,
            "rehearse": order.rehearse,
        }
        try:
            return str(call(f"{gateway}/payments", body, {})["status"])
        except Refused as error:
            return error.reason

    with ThreadPoolExecutor(max_workers=4) as pool:
        return Counter(pool.map(pay, wanted))
