"""The places of an event that a mapping fills, and what a value must be in each. Pure."""

from collections.abc import Callable, Mapping
from typing import Any

from collector.errors import Malformed
from collector.event import parse_time
from collector.paths import as_key
from collector.receive.record import span_id_of, trace_id_of

__all__ = ["PLACES", "Unfit", "fitted"]

PLACES = (
    "time", "body", "severity_text", "severity_number", "event_name", "trace_id", "span_id", "service", "transaction",
    "tenant", "actor", "outcome",
)  # fmt: skip
"""Places of an event that a mapping may fill; beside them ``attributes.NAME``, ``resource.NAME`` and ``keys.NAME``."""


class Unfit(Exception):
    """The value cannot become what was asked for."""


def fitted(place: str, value: Any) -> Any:
    """What a value is in this place, which is one of `PLACES` or a name below attributes, resource or keys. Raises `Unfit`."""
    fits = _FITS.get(place.partition(".")[0])
    return value if fits is None else fits(value)


def _some(value: str) -> str:
    if not value:
        raise Unfit
    return value


def _key(value: Any) -> str:
    return _some(as_key(value))


def _text(value: Any) -> str:
    if type(value) is not str:
        raise Unfit
    return _some(value)


def _rfc3339(value: Any) -> str:
    text = _text(value)
    try:
        parse_time(text)
    except Malformed:
        raise Unfit from None
    return text


def _severity(value: Any) -> int:
    if type(value) is not int or not 1 <= value <= 24:
        raise Unfit
    return value


def _outcome(value: Any) -> str:
    text = _text(value)
    if text not in {"success", "failure"}:
        raise Unfit
    return text


_FITS: Mapping[str, Callable[[Any], Any]] = {
    "time": _rfc3339,
    "severity_text": _text,
    "severity_number": _severity,
    "event_name": _text,
    "trace_id": lambda value: _some(trace_id_of(value)),
    "span_id": lambda value: _some(span_id_of(value)),
    "service": _key,
    "transaction": _key,
    "tenant": _key,
    "actor": _key,
    "outcome": _outcome,
    "keys": _key,
}
"""Where a place takes not everything: what makes of a value the one that stands there."""
