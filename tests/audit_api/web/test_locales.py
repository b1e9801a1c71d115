"""Money, times and durations as people of a place write them; and that no header or zone can break a page."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audit_api.web.locales import Manner, local_to_rfc3339, locale_of, zone_of

TIME = "2026-07-01T10:00:00.123456789Z"


def manner(language: str = "en-GB", zone: str = "UTC") -> Manner:
    return Manner(locale=locale_of(language), zone=zone_of(zone), zone_name=zone)


@pytest.mark.parametrize(
    ("amount", "currency", "told"),
    [
        ("12.5", "eur", "12.50 EUR"),
        ("1234567", "USD", "1,234,567.00 USD"),
        ("1200", "JPY", "1,200 JPY"),
        ("1200.5", "JPY", "1,200.5 JPY"),  # more digits than the currency has: shown, never rounded
        ("1.5", "BHD", "1.500 BHD"),
        ("0.1234", "CLF", "0.1234 CLF"),
        ("0.00000001", "XXX", "0.00000001"),
        ("-3", "EUR", "-3.00 EUR"),
        ("999999999999999.12345678", "EUR", "999,999,999,999,999.12345678 EUR"),
    ],
)
def test_money(amount: str, currency: str, told: str) -> None:
    assert manner().money(amount, currency).replace("\xa0", " ") == told


def test_money_of_other_places() -> None:
    assert manner("de-DE").money("1234.5", "EUR") == "1.234,50\xa0EUR"
    assert manner("hi-IN").money("1234567.5", "INR") == "12,34,567.50\xa0INR"


def test_times_name_their_offset() -> None:
    assert manner().time(TIME) == "1 Jul 2026, 10:00:00 UTC"
    assert manner(zone="Europe/Berlin").time(TIME, 3) == "1 Jul 2026, 12:00:00.123 +02:00"
    assert manner(zone="Asia/Kolkata").offset(TIME) == "+05:30"
    assert manner(zone="America/New_York").offset("2026-01-01T00:00:00Z") == "-05:00"
    assert manner().clock("no time", 3) == "no time"


def test_a_forms_time_is_of_its_zone() -> None:
    assert local_to_rfc3339("2026-07-01T12:00", zone_of("Europe/Berlin")) == "2026-07-01T12:00:00+02:00"
    assert local_to_rfc3339("2026-07-01", zone_of("UTC")) == "2026-07-01T00:00:00+00:00"
    assert local_to_rfc3339("2026-07-01T12:00:00Z", zone_of("Europe/Berlin")) == "2026-07-01T12:00:00Z"


@pytest.mark.parametrize(
    ("nanoseconds", "told"),
    [
        (0, "0 µs"),
        (870, "0.87 µs"),
        (12_345_678, "12.3 ms"),
        (-4_560_000_000, "−4.56 s"),
        (200_000_000_000, "3 min 20 s"),
        (18_600_000_000_000, "5 h 10 min"),
        (183_600_000_000_000, "2 d 3 h"),
    ],
)
def test_durations(nanoseconds: int, told: str) -> None:
    assert manner().duration(nanoseconds).replace("\xa0", " ") == told


def test_the_reader_s_language_by_preference() -> None:
    assert str(locale_of("xx, de;q=0.5, fr;q=0.8")) == "fr"
    assert str(locale_of("de;q=0, fr;q=0.1")) == "fr"
    assert str(locale_of("")) == "en_GB"
    assert str(locale_of("../../etc/passwd")) == "en_GB"


@given(st.text(max_size=600))
def test_no_header_breaks_a_page(text: str) -> None:
    assert Manner(locale=locale_of(text), zone=zone_of("UTC")).money("12.5", "EUR")


@given(st.text(max_size=80) | st.sampled_from(["../UTC", "/etc/passwd", "posixrules", "Europe", "localtime"]))
def test_a_zone_is_one_or_a_value_error(text: str) -> None:
    try:
        zone = zone_of(text)
    except ValueError:
        return
    assert Manner(locale=locale_of(""), zone=zone, zone_name=text).time(TIME)


@given(st.integers(-(10**18), 10**21))
def test_every_duration_can_be_told(nanoseconds: int) -> None:
    assert manner().duration(nanoseconds)
