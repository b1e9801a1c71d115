"""CEF lines and RFC 5424 messages, read back by parsers that know nothing of how they were written."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audit_api.siem.cef import cef_line
from audit_api.siem.rfc5424 import framed, message, structured
from collector.receive.syslog.message import parse_message
from tests.support.siems import unframed

TEXT = st.text(st.characters(codec="utf-8"), max_size=60)
NASTY = st.text(st.sampled_from('\\|=\n\r \t]"ab\x00\x85\u2028'), max_size=30)
ANY = TEXT | NASTY
KEYS = st.sampled_from(["msg", "cs1", "cs1Label", "suser", "request", "cn1", "reason"])


def read_cef(line: str) -> tuple[list[str], dict[str, str]]:
    """A parser by the letter of the standard: character by character, no regular expression."""
    fields, field, at = list[str](), "", 0
    while len(fields) < 7:
        if line[at] == "\\":
            assert line[at + 1] in "\\|", "nothing else is escaped in a header"
            field, at = field + line[at + 1], at + 2
        elif line[at] == "|":
            fields, field, at = [*fields, field], "", at + 1
        else:
            field, at = field + line[at], at + 1
    # in the extension an equals sign that no backslash stands before ends a key, which begins behind the last space
    told, key, value = dict[str, str](), "", ""
    while at < len(line):
        if line[at] == "\\":
            value, at = value + {"n": "\n", "r": "\r", "\\": "\\", "=": "="}[line[at + 1]], at + 2
        elif line[at] == "=":
            before, _, name = value.rpartition(" ")
            if key:
                told[key] = before
            else:
                assert before == ""
            key, value, at = name, "", at + 1
        else:
            value, at = value + line[at], at + 1
    if key:
        told[key] = value
    return fields, told


def carried(text: str, *, line_ends: bool) -> str:
    """What CEF can carry of a text."""
    kept = "\n\r" if line_ends else ""
    return "".join(
        "\ufffd" if one not in kept and (ord(one) < 32 or 0x7F <= ord(one) < 0xA0 or one in "\u2028\u2029") else one
        for one in text
    )


@given(ANY, ANY, st.integers(0, 10), st.dictionaries(KEYS, ANY))
def test_a_cef_line_says_what_it_was_given(signature: str, name: str, severity: int, extension: dict[str, str]) -> None:
    line = cef_line(version="1.0", signature=signature, name=name, severity=severity, extension=extension)
    assert len(line.splitlines()) == 1, "nobody's text begins a line of its own"
    header, told = read_cef(line)
    assert header == [
        *("CEF:0", "Tallystick", "Tallystick", "1.0"),
        *(carried(one, line_ends=False) for one in (signature, name)),
        str(severity),
    ]
    assert told == {key: carried(value, line_ends=True) for key, value in extension.items() if value}


def test_a_value_cannot_be_a_field() -> None:
    forged = "nothing outcome=success\nCEF:0|Bank|Core|1|ok|paid|1|"
    line = cef_line(version="1", signature="a|b", name="n", severity=1, extension={"msg": forged, "outcome": "failure"})
    assert line == (
        r"CEF:0|Tallystick|Tallystick|1|a\|b|n|1|msg=nothing outcome\=success\nCEF:0|Bank|Core|1|ok|paid|1| outcome=failure"
    )


@pytest.mark.parametrize("given", [{"severity": 11}, {"extension": {"a b": 1}}, {"extension": {"a=": 1}}])
def test_what_is_no_cef(given: dict[str, Any]) -> None:
    plain: dict[str, Any] = {"version": "1", "signature": "s", "name": "n", "severity": 1, "extension": {}}
    assert cef_line(**plain)
    with pytest.raises(ValueError, match=r"severity|key"):
        cef_line(**(plain | given))


@given(ANY, st.dictionaries(st.sampled_from(["id", "leafHash", "x"]), ANY), ANY, st.integers(0, 23), st.integers(0, 7))
def test_a_message_is_read_as_it_was_written(
    hostname: str, parameters: dict[str, str], text: str, facility: int, severity: int
) -> None:
    made = message(
        facility=facility,
        severity=severity,
        time="2026-01-02T03:04:05.123456789Z",
        hostname=hostname,
        message_id="event",
        elements=structured("tally@32473", parameters),
        text=text.encode(),
    )
    (taken,) = unframed(framed(made))
    read = parse_message(
        taken, now=dt.datetime.now(dt.UTC), zone=dt.UTC
    )  # what our receiver reads others' messages with
    assert (read.facility, read.severity) == (facility, severity)
    assert read.time == "2026-01-02T03:04:05.123456000Z"
    assert (read.app, read.process, read.message_id) == ("tallystick", "", "event")
    assert read.structured["tally@32473"] == {name: [value.encode()] for name, value in parameters.items()}
    assert read.text == text.removeprefix("\ufeff").encode()


@pytest.mark.parametrize("name", ["", "a b", "a=b", 'a"b', "a]b", "ü", "x" * 33])
def test_a_bad_name_of_structured_data(name: str) -> None:
    with pytest.raises(ValueError, match="no name"):
        structured(name, {})


def test_words_of_a_header_stay_words() -> None:
    made = message(
        facility=13, severity=6, time="", hostname="a b\nü" + "c" * 300, message_id="", elements="", text=b"x"
    )
    assert made.startswith(b"<110>1 - a?b??c")
    assert made.endswith(b"c tallystick - - - x")
    assert made.count(b" ") == 7
