"""What is made of one value: `Take` compiled into a function. Pure."""

import fnmatch
import math
import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

from collector.errors import Malformed
from collector.event import format_time
from collector.mapping.language import Take
from collector.mapping.places import Unfit
from collector.receive.record import time_of

__all__ = ["Conversion", "conversion_of"]

_MAX_TEXT = 65_536
"""Longest text that is searched, matched or read as a number or time."""

_SCALES = {"unix": 10**9, "unix_ms": 10**6, "unix_us": 1000, "unix_ns": 1}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_TRUE, _FALSE = frozenset(("true", "yes", "on", "1")), frozenset(("false", "no", "off", "0"))


Conversion = Callable[[Any], Any]
"""The value that is taken of one that was found; None where there is none. Raises `Unfit`."""


def conversion_of(take: Take) -> Conversion:
    """The function that a checked `Take` says."""
    steps: list[Conversion] = []
    if take.pattern:
        steps.append(_searched(re.compile(take.pattern)))
    if take.into == "time":
        steps.append(_time(take.format, ZoneInfo(take.zone)))
    elif take.into == "integer":
        steps.append(lambda value: _integer(value, take.times))
    elif take.into == "number":
        steps.append(lambda value: _number(value, take.times))
    elif take.into != "any":
        steps.append(_text if take.into == "text" else _boolean)
    if take.cases:
        cases = [(re.compile(fnmatch.translate(pattern)).match, value) for pattern, value in take.cases.items()]
        steps.append(lambda value: next((then for fits, then in cases if fits(_text(value))), None))
    if not steps:
        return lambda value: value

    def convert(value: Any) -> Any:
        for step in steps:
            if value is None:
                return None
            value = step(value)
        return value

    return convert


def _searched(regex: re.Pattern[str]) -> Conversion:
    def search(value: Any) -> Any:
        match = regex.search(_text(value))
        return "".join(group for group in match.groups() if group) or None if match else None

    return search


def _text(value: Any) -> str:
    if type(value) is bool:
        return "true" if value else "false"
    if type(value) in (str, int, float):
        text = str(value)
        if len(text) <= _MAX_TEXT:
            return text
    raise Unfit


def _decimal(value: Any) -> int | float:
    if type(value) is str and len(value) <= 64:
        try:
            value = int(value)
        except ValueError:
            try:
                value = float(value)
            except ValueError:
                raise Unfit from None
    if type(value) not in (int, float):
        raise Unfit
    try:
        finite = math.isfinite(value)
    except OverflowError:  # JSON knows integers beyond the largest double
        raise Unfit from None
    if not finite:
        raise Unfit
    number: int | float = value
    return number


def _number(value: Any, times: float) -> int | float:
    number = _decimal(value)
    if times == 1.0:
        return number
    try:
        product = number * times
    except OverflowError:
        raise Unfit from None
    if not math.isfinite(product):
        raise Unfit
    # what a person would write: 0.004 s times 1000 is 4 ms, not 4.0, and 0.0123 is 12.3, not 12.299999999999999
    product = round(product, 9)
    return int(product) if product.is_integer() and abs(product) < 2**53 else product


def _integer(value: Any, times: float) -> int:
    number = _number(value, times)
    if type(number) is float:
        if not number.is_integer():
            raise Unfit
        number = int(number)
    return int(number)


def _boolean(value: Any) -> bool:
    if type(value) is bool:
        return value
    text = _text(value).lower()
    if text in _TRUE or text in _FALSE:
        return text in _TRUE
    raise Unfit


def _time(form: str, zone: ZoneInfo) -> Conversion:
    def convert(value: Any) -> str:
        try:
            if form == "":
                return time_of(_decimal(value) if type(value) is str and value[:10].isdecimal() else value)
            if form in _SCALES:
                return format_time(_scaled(value, _SCALES[form]))
            moment = datetime.strptime(_text(value), form)  # noqa: DTZ007 - the zone is given right below
            if moment.tzinfo is None:
                moment = moment.replace(tzinfo=zone)
            since = moment - _EPOCH
            return format_time((since.days * 86_400 + since.seconds) * 10**9 + since.microseconds * 1_000)
        except (Malformed, ValueError, OverflowError):
            raise Unfit from None

    return convert


def _scaled(value: Any, scale: int) -> int:
    """Nanoseconds of a number in this unit; decimal digits are exact (``1700000000.123``, as nginx writes $msec), in a text or a JSON number."""
    if type(value) is float:
        value = repr(value)  # the digits that were written, where there are no more than a float can tell apart
    if type(value) is str and len(value) <= 64:
        whole, _, part = value.partition(".")
        digits = len(str(scale)) - 1
        if whole.isascii() and whole.isdecimal() and (part == "" or (part.isascii() and part.isdecimal())):
            return int(whole) * scale + int(part[:digits].ljust(digits, "0") or "0")
    number = _decimal(value)
    return number * scale if type(number) is int else round(number * scale)
