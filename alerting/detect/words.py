"""How findings say amounts, durations and distances. Pure."""

from decimal import Decimal

__all__ = ["duration", "money"]

_MOST_DIGITS = 4  # behind the point
_UNITS = ((86_400, "day"), (3_600, "hour"), (60, "minute"), (1, "second"))


def money(amount: Decimal, currency: str) -> str:
    """``1234.50 EUR``, with the digits that the amount has, or two behind the point of more than four; without a currency where none is said."""
    exponent = amount.as_tuple().exponent
    # asked first: of 1e-99999999999 all digits are more than there is memory
    long = isinstance(exponent, int) and exponent < -_MOST_DIGITS
    return f"{format(amount, '.2f' if long else 'f')} {currency}".rstrip()


def duration(seconds: float) -> str:
    """In the largest unit that it is a round number of, else in seconds."""
    for size, unit in _UNITS:
        if seconds >= size and seconds % size == 0:
            count = int(seconds // size)
            return f"{count} {unit}{'' if count == 1 else 's'}"
    return f"{seconds:g} seconds"
