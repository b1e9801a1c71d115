"""What AMQP 0-9-1 permits in a message's properties and the library's decoder refuses.

It refuses with an error in the middle of a frame, which ends the connection; the broker then delivers the same message first, so nothing behind it
would ever come. The broker takes any 64 bits for a time, and any bytes for a name.
"""

from datetime import UTC, datetime
from typing import Any

from pamqp import decode

__all__ = ["UNREADABLE", "read_all_properties"]

UNREADABLE = "headers.unreadable"
"""The name under which headers that cannot be read stand, as bytes."""

_YEAR_10000 = 253_402_300_800
_UNITS = ((1, 2**32), (10**3, _YEAR_10000), (10**6, _YEAR_10000), (10**9, 2**63 // 10**9))
"""Units in a second, and how many seconds are too many to be told in them: then it is the next. The first is as the library has it."""


def read_all_properties() -> None:
    """Have the library, for the whole process, read the properties of every message that a broker delivers."""
    decode.METHODS["timestamp"] = decode.TABLE_MAPPING[b"T"] = _timestamp
    decode.METHODS["shortstr"] = _short_text
    decode.METHODS["table"] = _table


def _timestamp(value: bytes) -> tuple[int, datetime | None]:
    """A time in whatever unit it fits; none when it is negative, to whoever counts with a sign, or fits none."""
    if len(value) < 8:
        raise ValueError("a time of less than 8 bytes")
    number = int.from_bytes(value[:8])
    for units, too_many in _UNITS:
        if number // units < too_many:
            return 8, datetime.fromtimestamp(number // units, tz=UTC)
    return 8, None


def _short_text(value: bytes) -> tuple[int, str]:
    """A short text; bytes that are not UTF-8 are kept as lone surrogates, which the intake marks."""
    if not value or len(value) <= value[0]:
        raise ValueError("a short text that is cut")
    end = 1 + value[0]
    return end, value[1:end].decode("utf-8", "surrogateescape")


def _table(value: bytes) -> tuple[int, dict[str, Any]]:
    """Headers; such as the library cannot read (a name that is not UTF-8, nested very deeply) as their bytes."""
    try:
        return decode.field_table(value)
    except (ValueError, ArithmeticError, LookupError, RecursionError):
        end = 4 + int.from_bytes(value[:4])
        if len(value) < max(end, 4):
            raise
        return end, {UNREADABLE: value[4:end]}
