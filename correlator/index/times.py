"""Times that people write: RFC 3339, with their zone. Pure."""

import re

from collector.errors import Malformed
from collector.event import format_time, parse_time

__all__ = ["zoned"]

_DATED = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", re.ASCII)
_ZONELESS = re.compile(r"\d{4}-\d\d-\d\d(?:[Tt ]\d\d:\d\d(?::\d\d(?:\.\d+)?)?)?", re.ASCII)


def zoned(text: str) -> str:
    """A time in the form that events carry: UTC with nine digits. No zone is guessed: not the reader's, and not the server's.

    Raises:
        Malformed: it is no RFC 3339 time, or does not say its zone.
    """
    if _ZONELESS.fullmatch(text) is not None:
        day = "" if len(text) > 10 else "a time of day and "
        raise Malformed(
            f"{text} does not say {day}its time zone: write Z for UTC, or an offset, as in 2026-01-31T09:00:00+01:00",
            label="bad_time",
        )
    if _DATED.match(text) is None:
        raise Malformed("not an RFC 3339 time with a zone, such as 2026-01-31T09:00:00Z", label="bad_time")
    return format_time(parse_time(text))
