"""Amounts of money: declared and found like business keys, and no identities. Pure.

An amount is a key named ``amount.<currency>``, its currency in ISO 4217's letters, lower case (``amount.eur``; ``amount.xxx`` where
none is said), and its value a decimal number in one form: ``12.5``, ``-3``, ``0``. So it stands in the event, in its facts and in the
log where keys stand, and nothing of their formats is new. What is new is that it places and links nothing: a thousand payments of
12.50 have nothing to do with each other.
"""

import re
from decimal import Decimal
from typing import Any

import msgspec

__all__ = ["FRACTION_DIGITS", "WHOLE_DIGITS", "AmountRule", "amount_key", "amount_text", "is_amount", "parts_of"]

WHOLE_DIGITS = 15
FRACTION_DIGITS = 8
"""An amount with more digits than these is no amount."""

_PREFIX = "amount."
_NONE = "xxx"  # ISO 4217's own code for no currency
_CURRENCY = re.compile(r"[A-Za-z]{3}", re.ASCII)
_NUMBER = re.compile(r"([+-]?)([0-9]{1,24})(?:\.([0-9]{1,24}))?", re.ASCII)
_CANONICAL = re.compile(r"(-?)(0|[1-9][0-9]{0,14})(?:\.([0-9]{0,7}[1-9]))?", re.ASCII)


class AmountRule(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Declares where an amount stands, so that trails can be found by it. It is in the log then: do not declare what you mask.

    Attributes:
        services, operations: glob patterns of ``service.name`` and of the event's name; empty means all.
        fields: paths of the number, such as ``attributes.amount``; the first that is there.
        currency_fields: paths of its currency, as ISO 4217 writes it (``EUR``); the first that is there.
        currency: the currency where no field says it; empty: the amount is kept without one (``XXX``).
        minor_digits: how many of its last digits are minor units: 2 where the field counts cents.
    """

    services: tuple[str, ...] = ()
    operations: tuple[str, ...] = ()
    fields: tuple[str, ...]
    currency_fields: tuple[str, ...] = ()
    currency: str = ""
    minor_digits: int = 0


def is_amount(name: str) -> bool:
    """Whether a key of this name is an amount."""
    return len(name) == 10 and name.startswith(_PREFIX) and name[7:].isascii() and name[7:].isalpha() and name.islower()


def amount_key(currency: str) -> str:
    """The name of the key of an amount in this currency; empty when it is none. The empty currency is ``XXX``."""
    if not currency:
        return f"{_PREFIX}{_NONE}"
    return f"{_PREFIX}{currency.lower()}" if _CURRENCY.fullmatch(currency) else ""


def amount_text(value: Any, minor_digits: int = 0) -> str:
    """A number as an amount's text; empty for what is none, or has too many digits: nothing is rounded.

    Args:
        value: an integer, a float or a text, as it stands in an event; a text is digits with at most one dot.
        minor_digits: how many of the last digits are minor units.
    """
    if type(value) is int:
        text = str(value) if value.bit_length() <= 96 else ""
    elif type(value) is float:
        # the shortest decimal that is this double is what was meant; no infinity, no NaN
        text = format(Decimal(repr(value)), "f") if abs(value) < 1e24 else ""
    else:
        text = value.strip() if type(value) is str else ""
    match = _NUMBER.fullmatch(text)
    if match is None:
        return ""
    sign, whole, fraction = match[1], match[2], match[3] or ""
    if minor_digits:
        whole = whole.rjust(minor_digits + 1, "0")
        whole, fraction = whole[:-minor_digits], whole[-minor_digits:] + fraction
    whole, fraction = whole.lstrip("0") or "0", fraction.rstrip("0")
    if len(whole) > WHOLE_DIGITS or len(fraction) > FRACTION_DIGITS:
        return ""
    number = f"{whole}.{fraction}" if fraction else whole
    return f"-{number}" if sign == "-" and number != "0" else number


def parts_of(text: str) -> tuple[int, str, str] | None:
    """Sign (1 or -1), whole digits and fraction digits of an amount's text; None when it is not in the one form."""
    match = _CANONICAL.fullmatch(text)
    if match is None or text == "-0":
        return None
    return -1 if match[1] else 1, match[2], match[3] or ""
