"""A rule: a table of settings, and the watch that it makes. What every rule has, and what it says of a payment. Pure."""

import hashlib
from decimal import Decimal
from typing import Annotated, Literal, Protocol

import msgspec

from alerting.detect.payment import Payment

__all__ = ["Rule", "Severity", "Watch", "version_of"]

Severity = Literal["info", "warning", "critical"]

Seconds = Annotated[float, msgspec.Meta(gt=0.0, le=366 * 86_400)]
_Name = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")]


class Watch(Protocol):
    """A rule at work: it remembers what it needs of the payments that it was shown."""

    def look(self, payment: Payment) -> str:
        """Look at a payment, and remember it. Gives why it is suspicious, in words for a person; empty: it is not."""


class Rule(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="kind"):
    """What every rule has.

    Attributes:
        name: what findings call it.
        payments: names of the kinds of payment that it looks at; empty: all.
        severity: of its findings: info, warning or critical.
        freeze: ask for the payment to be stopped.
    """

    name: _Name
    payments: tuple[str, ...] = ()
    severity: Severity = "warning"
    freeze: bool = False

    def __post_init__(self) -> None:
        """Refuse amounts that are no numbers: no payment can be compared with them."""
        for field in self.__struct_fields__:
            amount = getattr(self, field)
            if isinstance(amount, Decimal) and not amount.is_finite():
                raise ValueError(f"rule {self.name}: {field} is no amount: {amount}")

    def watch(self) -> Watch:
        """A new watch, which has seen nothing yet."""
        raise NotImplementedError

    @property
    def horizon_seconds(self) -> float:
        """How far back in event time its watch remembers: what must be read again after a restart. 0: nothing."""
        return 0.0


def version_of(rule: Rule) -> str:
    """Names a rule's settings: 12 hex digits of SHA-256 of their JSON. Another threshold is another version."""
    return hashlib.sha256(msgspec.json.encode(rule, order="sorted")).hexdigest()[:12]
