"""Amounts in an index: the least and the greatest of a trail in each currency, in a form whose order as text is that of the numbers. Pure."""

import re
from dataclasses import dataclass

from collector.amounts import FRACTION_DIGITS, WHOLE_DIGITS, amount_text, is_amount, parts_of
from correlator.errors import VerificationError

__all__ = ["LEAST", "MOST", "AmountRange", "currency_of", "number_of", "ordered"]

_DIGITS = WHOLE_DIGITS + FRACTION_DIGITS
_ZERO = 10**_DIGITS
"""Added to each number, in units of its last digit, so that none is negative and all have the same length."""

LEAST, MOST = "0" * (_DIGITS + 1), "9" * (_DIGITS + 1)


def currency_of(name: str, value: str) -> str:
    """The currency that a key tells an amount in, ISO 4217's capitals; empty for a key that is none, whatever it is called: senders choose names."""
    return name[-3:].upper() if is_amount(name) and parts_of(value) is not None else ""


def ordered(text: str) -> str:
    """An amount's text as digits that sort as the numbers do; empty when it is not in the one form that amounts have."""
    parts = parts_of(text)
    if parts is None:
        return ""
    sign, whole, fraction = parts
    return f"{_ZERO + sign * int(whole + fraction.ljust(FRACTION_DIGITS, '0')):0{_DIGITS + 1}d}"


def number_of(digits: str) -> str:
    """The amount's text that `ordered` made these digits of. Raises `VerificationError` for other text."""
    if re.fullmatch(rf"[01][0-9]{{{_DIGITS}}}", digits, re.ASCII) is None:
        raise VerificationError(f"{digits[:50]!r} is no amount in an index")
    units = int(digits) - _ZERO
    whole, fraction = divmod(abs(units), 10**FRACTION_DIGITS)
    return f"{'-' if units < 0 else ''}{amount_text(f'{whole}.{fraction:0{FRACTION_DIGITS}d}')}"


@dataclass(frozen=True, slots=True, kw_only=True)
class AmountRange:
    """Amounts in one currency, bounds included.

    `currency` is ISO 4217's code in capitals; `least` and `most` are as `ordered` gives them.
    """

    currency: str
    least: str = LEAST
    most: str = MOST

    @classmethod
    def parse(cls, text: str) -> "AmountRange":
        """Read ``EUR:10..20``, ``EUR:10..``, ``EUR:..20``, ``EUR:10`` (that amount alone) or ``EUR:..`` (any).

        Raises:
            ValueError: it is none of these, or ends before it begins.
        """
        currency, colon, bounds = text.partition(":")
        least, dots, most = bounds.partition("..")
        if not colon or re.fullmatch(r"[A-Za-z]{3}", currency, re.ASCII) is None or not (bounds and bounds.isascii()):
            raise ValueError("write CURRENCY:LEAST..MOST, such as EUR:10..20, EUR:10.. or EUR:12.50")
        ends = [
            ordered(amount_text(end)) if end else open_
            for end, open_ in ((least, LEAST), (most if dots else least, MOST))
        ]
        if not all(ends):
            wrong = least if not ends[0] else most
            raise ValueError(
                f"{wrong[:40]!r} is no amount: at most {WHOLE_DIGITS} digits, a dot, and {FRACTION_DIGITS} more"
            )
        if ends[0] > ends[1]:
            raise ValueError(f"{least} is more than {most}")
        return cls(currency=currency.upper(), least=ends[0], most=ends[1])
