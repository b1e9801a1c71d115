"""The language of mappings: what is refused before the first record comes, and with which words."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collector.errors import Malformed
from collector.mapping.language import PRESETS, load_mappings, read_mappings

GOOD = '[[mapping]]\nname = "m"\n'


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[[mapping]\n", "Expected ']]'"),
        ("", "missing required field `mapping`"),
        ('[[mapping]]\nname = "M 1"\n', "a name is"),
        (GOOD + "colour = 1\n", "unknown field `colour`"),
        (GOOD + 'take = { when = "a" }\n', "no place 'when'"),
        (GOOD + 'take = { "attributes." = "a" }\n', "no place 'attributes.'"),
        (GOOD + 'take = { "keys.Order" = "a" }\n', "a key's name"),
        (GOOD + 'take = { "keys.transaction" = "a" }\n', "a key's name"),
        (GOOD + 'take = { "keys._order" = "a" }\n', "a key's name"),
        (GOOD + f'take = {{ "keys.{"o" * 65}" = "a" }}\n', "a key's name"),
        (GOOD + 'set = { body = 1 }\ntake = { body = "a" }\n', "both in `set` and in `take`"),
        (GOOD + 'take = { body = "" }\n', "names no field"),
        (GOOD + "take = { body = { from = [] } }\n", "names no field"),
        (GOOD + 'take = { body = { from = "a", as = "colour" } }\n', "Invalid enum value 'colour'"),
        (GOOD + 'take = { body = { from = "a", pattern = "a" } }\n', "has no group"),
        (GOOD + 'take = { body = { from = "a", pattern = "(" } }\n', "not a regular expression"),
        (GOOD + 'take = { body = { from = "a", times = 2 } }\n', "`times` goes with"),
        (GOOD + 'take = { body = { from = "a", zone = "Europe/Berlin" } }\n', "go with as = 'time'"),
        (GOOD + 'take = { time = { from = "a", as = "time", zone = "Mars/Base" } }\n', "'Mars/Base' is not known here"),
        (GOOD + 'take = { time = { from = "a", as = "time", zone = "../etc" } }\n', "cannot be used"),
        (GOOD + 'take = { time = { from = "a", as = "time", format = "ISO" } }\n', "the format is none of"),
        (GOOD + 'take = { time = { from = "a", as = "time", format = "%d.%Q.%Y" } }\n', "'Q' is a bad directive"),
        (GOOD + 'take = { time = { from = "a", as = "time", format = "%Y %" } }\n', "the format '%Y %' cannot be used"),
        (GOOD + 'set = { outcome = "ok" }\n', "'outcome' cannot be 'ok'"),
        (GOOD + 'set = { severity_number = "9" }\n', "'severity_number' cannot be '9'"),
        (GOOD + "set = { severity_number = 25 }\n", "'severity_number' cannot be 25"),
        (GOOD + 'set = { time = "now" }\n', "'time' cannot be 'now'"),
        (GOOD + 'set = { trace_id = "x" }\n', "'trace_id' cannot be 'x'"),
        (GOOD + 'set = { event_name = "" }\n', "'event_name' cannot be ''"),
        (GOOD + "set = { service = 1.5 }\n", "'service' cannot be 1.5"),
        (GOOD + 'set = { "keys.order" = "" }\n', "'keys.order' cannot be ''"),
        (GOOD + 'parse = { pattern = "a" }\n', "names no group"),
        (GOOD + "parse = {}\n", "needs a pattern"),
        (GOOD + 'parse = { format = "json", pattern = "(?P<a>.)" }\n', "needs a pattern"),
        (GOOD + f'parse = {{ pattern = "(?P<a>{"x" * 5000})" }}\n', "more than 4096 characters"),
    ],
)
def test_what_cannot_be_used_is_refused_and_says_where(text: str, reason: str) -> None:
    with pytest.raises(Malformed, match=r".") as refused:
        read_mappings(text, "site.toml")
    assert reason in str(refused.value)
    assert str(refused.value).startswith("site.toml: ")


@pytest.mark.parametrize(
    "form",
    [
        "%d/%b/%Y:%H:%M:%S %z",
        "%a %d %B %I:%M:%S.%f %p %Y %Z",
        "%j %y %H",
        "%G-W%V-%u",
        "%H:%M",
        "%c",
        "%x %X",
        "100%% %Y",
    ],
)
def test_what_strptime_knows_may_be_a_times_format(form: str) -> None:
    take = f'take = {{ time = {{ from = "a", as = "time", format = "{form}" }} }}\n'
    assert read_mappings(GOOD + take, "site.toml")


@given(
    st.text()
    | st.text().map(lambda text: GOOD + text)
    | st.text().map(lambda one: GOOD + f"take = {{ body = {one!r} }}")
)
def test_any_text_is_mappings_or_malformed(text: str) -> None:
    try:
        read_mappings(text, "fuzz")
    except Malformed:
        pass
    else:
        tomllib.loads(text)


def test_files_and_presets_are_read_in_their_order(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(GOOD)
    names = [mapping.name for mapping in load_mappings([str(file), *(f"preset:{preset}" for preset in PRESETS)])]
    assert names[0] == "m"
    assert len(names) == len(set(names)) >= 1 + len(PRESETS)


def test_a_preset_that_there_is_not_names_those_there_are(tmp_path: Path) -> None:
    with pytest.raises(Malformed, match="there are aws-alb, aws-api-gateway, envoy, kong, nginx"):
        load_mappings(["preset:apache"])
    large = tmp_path / "large.toml"
    large.write_bytes(b"#" * 300_000)
    with pytest.raises(Malformed, match="more than 262144 bytes"):
        load_mappings([str(large)])
    large.write_bytes(b"\xff")
    with pytest.raises(Malformed, match="not UTF-8 at byte 0"):
        load_mappings([str(large)])
    with pytest.raises(FileNotFoundError):
        load_mappings([str(tmp_path / "none.toml")])
