"""Times, numbers, durations and money as the reader's locale and zone write them. The language is English; the locale is the reader's.

Money: ISO 4217's letters behind the number, with as many decimals as the currency has minor units (12.5 EUR is 12.50 EUR, 1200 JPY has
none, 1.5 BHD is 1.500 BHD); more digits than that are shown, never rounded.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone, tzinfo
from decimal import Decimal
from functools import lru_cache
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from babel import Locale, UnknownLocaleError
from babel.dates import format_date
from babel.numbers import format_decimal, parse_pattern

from collector.errors import Malformed
from collector.event import parse_time

__all__ = ["MINOR_UNITS", "ZONES", "Manner", "local_to_rfc3339", "locale_of", "zone_of"]

MINOR_UNITS = {
    **dict.fromkeys("BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX UYI VND VUV XAF XOF XPF".split(), 0),
    **dict.fromkeys("BHD IQD JOD KWD LYD OMR TND".split(), 3),
    **dict.fromkeys("CLF UYW".split(), 4),
}
"""Decimals of the currencies that have not two (ISO 4217 list one, column "minor unit"). CLDR's differ: they say what is printed on prices."""

ZONES = (
    "UTC",
    *"Africa/Johannesburg Africa/Lagos America/Chicago America/Los_Angeles America/New_York America/Sao_Paulo Asia/Dubai".split(),
    *"Asia/Hong_Kong Asia/Kolkata Asia/Singapore Asia/Tokyo Australia/Sydney Europe/Berlin Europe/London Europe/Zurich".split(),
)
"""Zones that the form offers; any other of the IANA database may be typed."""

_NO_CURRENCY = "XXX"
_MAX_LANGUAGES = 10
_ZONE = re.compile(r"[A-Za-z0-9+_/-]{1,64}", re.ASCII)
_LANGUAGE = re.compile(
    r"\s*([A-Za-z]{2,3}(?:-[A-Za-z0-9]{2,8}){0,3})\s*(?:;\s*q=([01](?:\.[0-9]{0,3})?)\s*)?", re.ASCII
)
_WALL = re.compile(r"\d{4}-\d\d-\d\d(T\d\d:\d\d(:\d\d)?)?", re.ASCII)


@lru_cache(maxsize=256)
def locale_of(accept_language: str) -> Locale:
    """The locale that a reader likes best of those that CLDR has (RFC 9110 section 12.5.4); British English where none is said."""
    wanted: list[tuple[float, int, str]] = []
    for at, part in enumerate(accept_language[:500].split(",")[:_MAX_LANGUAGES]):
        found = _LANGUAGE.fullmatch(part)
        if found is not None:
            wanted.append((-float(found[2] or 1), at, found[1]))
    for quality, _, tag in sorted(wanted):
        try:
            if quality:
                return Locale.parse(tag, sep="-")
        except (UnknownLocaleError, ValueError):
            continue
    return Locale("en", "GB")


@lru_cache(maxsize=256)
def zone_of(name: str) -> tzinfo:
    """The zone of this IANA name.

    Raises:
        ValueError: there is none.
    """
    if name in ("", "UTC"):
        return timezone.utc  # noqa: UP017 - the one zone that is there without a database
    if _ZONE.fullmatch(name) is None:
        raise ValueError("it is not the name of a time zone, such as Europe/Berlin")
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise ValueError(f"no time zone is called {name}: try UTC or Europe/Berlin") from error


def local_to_rfc3339(text: str, zone: tzinfo) -> str:
    """A form's date, or date and time, in a zone, as RFC 3339; what states its own offset is left as it is.

    Raises:
        ValueError: it is neither.
    """
    if _WALL.fullmatch(text) is None:
        return text
    moment = datetime.fromisoformat(text).replace(tzinfo=zone)
    return moment.isoformat()


@dataclass(frozen=True, slots=True, kw_only=True)
class Manner:
    """How a reader reads: a locale and a zone.

    Attributes:
        locale: for numbers and dates.
        zone: for times.
        zone_name: as it was asked for; ``UTC`` by default.
    """

    locale: Locale
    zone: tzinfo
    zone_name: str = "UTC"

    def number(self, value: int) -> str:
        """A whole number with its groups."""
        return str(format_decimal(value, locale=self.locale))

    def money(self, amount: str, currency: str) -> str:
        """An amount as `collector.amounts` writes it, and its currency's letters; those of no currency are left out."""
        code = currency.upper()
        value = Decimal(amount)
        exponent = value.as_tuple().exponent
        decimals = max(
            -exponent if isinstance(exponent, int) else 0, 0 if code == _NO_CURRENCY else MINOR_UNITS.get(code, 2)
        )
        pattern = parse_pattern(self.locale.decimal_formats[None].pattern)  # the locale's groups, and our decimals
        pattern.frac_prec = (decimals, decimals)
        text = str(pattern.apply(value, self.locale))
        return text if code == _NO_CURRENCY else f"{text}\u00a0{code}"

    def monies(self, least: str, most: str, currency: str) -> str:
        """A span of amounts; one amount where both ends are the same."""
        if least == most:
            return self.money(least, currency)
        return f"{self.money(least, _NO_CURRENCY)} – {self.money(most, currency)}"

    def day(self, text: str) -> str:
        """The date of a time, in words; empty for a time that cannot be read."""
        moment = self._moment(text)
        return "" if moment is None else str(format_date(moment[0], format="long", locale=self.locale))

    def clock(self, text: str, digits: int = 3) -> str:
        """The time of day, with so many digits of the second's fraction (0 to 9); what cannot be read as it stands."""
        moment = self._moment(text)
        if moment is None:
            return text
        fraction = f".{moment[1]:09d}"[: digits + 1] if digits else ""
        return f"{moment[0]:%H:%M:%S}{fraction}"

    def offset(self, text: str) -> str:
        """The zone's offset at this time: ``UTC`` or ``+01:00``."""
        moment = self._moment(text)
        if moment is None or not moment[0].utcoffset():
            return "UTC"
        return f"{moment[0]:%z}"[:3] + ":" + f"{moment[0]:%z}"[3:]

    def time(self, text: str, digits: int = 0) -> str:
        """Day, time of day and offset, always all three."""
        moment = self._moment(text)
        if moment is None:
            return text
        day = format_date(moment[0], format="medium", locale=self.locale)
        return f"{day}, {self.clock(text, digits)} {self.offset(text)}"

    def _moment(self, text: str) -> tuple[datetime, int] | None:
        try:
            nanoseconds = parse_time(text)
        except Malformed:
            return None
        seconds, fraction = divmod(nanoseconds, 1_000_000_000)
        try:
            moment = datetime(1970, 1, 1, tzinfo=timezone.utc) + timedelta(seconds=seconds)  # noqa: UP017 - as above
            return moment.astimezone(self.zone), fraction
        except (OverflowError, ValueError):
            return None

    def duration(self, nanoseconds: int) -> str:
        """In the unit that reads best: 870 µs, 12.3 ms, 4.56 s, 3 min 20 s, 5 h 10 min, 2 d 3 h; a negative one has a minus sign."""
        if nanoseconds < 0:
            return f"−{self.duration(-nanoseconds)}"
        for unit, size, below in (
            ("µs", 1_000, 1_000_000),
            ("ms", 1_000_000, 1_000_000_000),
            ("s", 1_000_000_000, 60_000_000_000),
        ):
            if nanoseconds < below:
                return f"{self._three_digits(nanoseconds / size)}\u00a0{unit}"
        seconds = round(nanoseconds / 1_000_000_000)
        for unit, size_s, small, step in (("d", 86_400, "h", 3_600), ("h", 3_600, "min", 60), ("min", 60, "s", 1)):
            if seconds >= size_s:
                return f"{self.number(seconds // size_s)}\u00a0{unit} {seconds % size_s // step}\u00a0{small}"
        return f"{seconds}\u00a0s"

    def _three_digits(self, value: float) -> str:
        decimals: Sequence[str] = ("#,##0.##", "#,##0.#", "#,##0")
        return str(format_decimal(value, format=decimals[(value >= 10) + (value >= 100)], locale=self.locale))
