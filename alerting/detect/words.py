"""How findings say amounts, durations and distances. Pure."""

from decimal import Decimal

__all__ = ["duration", "money"]

_UNITS = ((86_400, "day"), (3_600, "hour"), (60, "minute"), (1, "second"))


def money(amount: Decimal, currency: str) -> str:
    """``1234.50 EUR``, with the digits that the amount has; without a currency where none is said."""
    text = format(amount, "f")
    if "." in text and len(text.partition(".")[2]) > 4:
        text = format(amount, ".2f")
    return f"{text} {currency}".rstrip()


def duration(seconds: float) -> str:
    """In the largest unit that it is a round number of, else in seconds."""
    for size, unit in _UNITS:
        if seconds >= size and seconds % size == 0:
            count = int(seconds // size)
            return f"{count} {unit}{'' if count == 1 else 's'}"
    return f"{seconds:g} seconds"
