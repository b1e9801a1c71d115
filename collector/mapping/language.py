"""The language of mappings: TOML read into these structs, and checked, before the first record comes.

A file holds one or more tables ``[[mapping]]``; the first whose `when` holds for a record is used. See docs/mappings.md.
"""

import re
import tomllib
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from importlib import resources
from pathlib import Path
from typing import Literal
from zoneinfo import ZoneInfo

import msgspec

from collector.errors import Malformed
from collector.mapping.places import PLACES, Unfit, fitted
from collector.statedkeys import is_key_name

__all__ = ["PRESETS", "Mapping", "Parse", "Take", "When", "load_mappings", "read_mappings"]

PRESETS = ("aws-alb", "aws-api-gateway", "envoy", "kong", "nginx")
"""Mappings that come with Tallystick: ``preset:NAME``."""

MAX_FILE_BYTES = 262_144
MAX_PATTERN_CHARACTERS = 4_096
_UNITS = ("unix", "unix_ms", "unix_us", "unix_ns")
_SOME_TIME = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)

Scalar = str | int | float | bool


class When(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which records a mapping is for: all that is given must hold.

    Attributes:
        receiver: the way in (``forward``, ``ndjson`` …), one of them.
        tag, file: patterns with ``*`` and ``?`` for Forward's tag or the file's name; one of them.
        service: ``service.name`` as far as it is known before the mapping; one of them.
        has: fields that the record must have.
        equals: fields that must have these values.
    """

    receiver: tuple[str, ...] = ()
    tag: tuple[str, ...] = ()
    file: tuple[str, ...] = ()
    service: tuple[str, ...] = ()
    has: tuple[str, ...] = ()
    equals: dict[str, Scalar] = {}


class Parse(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A text in which there are fields: they become sources for `Mapping.take`, before those that the record has.

    Attributes:
        source: ``from`` in TOML: the field that holds the text.
        format: ``pattern``: a regular expression's named groups; ``json``: an object.
        pattern: the expression, which must match from the text's start; a mapping whose text does not match is not used.
    """

    source: str = msgspec.field(default="body", name="from")
    format: Literal["pattern", "json"] = "pattern"
    pattern: str = ""


class Take(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where a value comes from and what is made of it.

    Attributes:
        source: ``from`` in TOML: a field, or several, of which the first that the record has is taken.
        into: ``as`` in TOML: ``any`` leaves the value as it is.
        pattern: of a text, what the regular expression's groups hold, put together; where it does not match there is no value.
        times: a number is multiplied by it: 1000 makes milliseconds of seconds.
        format: of a time: empty for RFC 3339, or a number whose unit its size shows; ``unix``, ``unix_ms``, ``unix_us``, ``unix_ns``; else
            a pattern of strptime.
        zone: IANA time zone of times that have none; of an hour that comes twice it is the first.
        cases: patterns with ``*`` and ``?`` for the value's text → the value that is taken; where none fits there is no value.
        keep: the field stays in the record as well.
    """

    source: str | tuple[str, ...] = msgspec.field(name="from")
    into: Literal["any", "text", "integer", "number", "boolean", "time"] = msgspec.field(default="any", name="as")
    pattern: str = ""
    times: float = 1.0
    format: str = ""
    zone: str = "UTC"
    cases: dict[str, Scalar] = {}
    keep: bool = False

    @property
    def sources(self) -> tuple[str, ...]:
        """The fields, first choice first."""
        return (self.source,) if isinstance(self.source, str) else self.source


class Mapping(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One mapping.

    Attributes:
        name: stands in the mark ``mapped:<name>`` of each event that it made.
        when: which records it is for.
        parse: a text to find fields in, if there is one.
        absent: texts that stand for no value, such as ``-``.
        set: places that get a constant.
        take: places that get a value of the record: a field's name, a table, or a list of them of which the first that gives a value counts.
    """

    name: str
    when: When = When()
    parse: Parse | None = None
    absent: tuple[str, ...] = ("-", "")
    set: dict[str, Scalar] = {}
    take: dict[str, str | Take | list[str | Take]] = {}

    @property
    def takes(self) -> Iterator[tuple[str, Take]]:
        """Each place with where its value comes from; a place with several choices comes several times, first choice first."""
        for place, given in self.take.items():
            for one in given if isinstance(given, list) else [given]:
                yield place, one if isinstance(one, Take) else Take(source=one)


def read_mappings(text: str, where: str) -> list[Mapping]:
    """The mappings of a TOML text; `where` stands in front of errors.

    Raises:
        Malformed: not TOML, an unknown key, a place that there is not, a constant that does not fit its place, an expression, a time's format or
            a time zone that cannot be used.
    """
    try:
        read = msgspec.convert(tomllib.loads(text), _File)
    except (tomllib.TOMLDecodeError, msgspec.ValidationError, RecursionError) as error:
        raise Malformed(str(error), where=where, label="bad_mapping") from error
    for mapping in read.mapping:
        _check(mapping, f"{where}: mapping {mapping.name!r}")
    return read.mapping


def load_mappings(names: Sequence[str]) -> list[Mapping]:
    """The mappings of these files, in order; ``preset:NAME`` is one of `PRESETS`.

    Raises:
        Malformed: as `read_mappings`, or there is no such preset.
        OSError: a file cannot be read.
    """
    found: list[Mapping] = []
    for name in names:
        preset = name.removeprefix("preset:") if name.startswith("preset:") else ""
        if preset:
            if preset not in PRESETS:
                raise Malformed(
                    f"there is no such preset; there are {', '.join(PRESETS)}", where=name, label="bad_mapping"
                )
            text = (resources.files("collector.mapping") / "presets" / f"{preset}.toml").read_text(encoding="utf-8")
        else:
            with Path(name).open("rb") as stream:
                data = stream.read(MAX_FILE_BYTES + 1)
            if len(data) > MAX_FILE_BYTES:
                raise Malformed(f"more than {MAX_FILE_BYTES} bytes", where=name, label="bad_mapping")
            try:
                text = data.decode()
            except UnicodeDecodeError as error:
                raise Malformed(f"not UTF-8 at byte {error.start}", where=name, label="bad_mapping") from error
        found += read_mappings(text, name)
    return found


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    mapping: list[Mapping]


def _check(mapping: Mapping, where: str) -> None:
    if not re.fullmatch(r"[a-z0-9._-]{1,64}", mapping.name):
        raise _bad("a name is up to 64 lower-case letters, digits, dots, dashes and underscores", where)
    for place in (*mapping.set, *mapping.take):
        root, _, name = place.partition(".")
        if place not in PLACES and (root not in ("attributes", "resource", "keys") or not name):
            raise _bad(f"there is no place {place!r}: {', '.join(PLACES)}, attributes.…, resource.… or keys.…", where)
        if root == "keys" and (not is_key_name(name) or name == "transaction"):
            raise _bad(
                f"{place!r}: a key's name is lower-case letters, digits, dots and underscores; from a letter, at most 64",
                where,
            )
    for place, value in mapping.set.items():
        try:
            fitted(place, value)
        except Unfit:
            raise _bad(f"{place!r} cannot be {value!r}", where) from None
    if twice := sorted(set(mapping.set) & set(mapping.take)):
        raise _bad(f"{', '.join(twice)} both in `set` and in `take`", where)
    parse = mapping.parse
    if parse is not None:
        if (parse.format == "pattern") != bool(parse.pattern):
            raise _bad("`parse` needs a pattern where its format is `pattern`, and only there", where)
        if parse.pattern and not _regex(parse.pattern, where).groupindex:
            raise _bad("the pattern of `parse` names no group: (?P<name>…)", where)
    for place, take in mapping.takes:
        _check_take(take, f"{where}, {place}")


def _check_take(take: Take, where: str) -> None:
    if not all(take.sources) or not take.sources:
        raise _bad("`from` names no field", where)
    if take.pattern and _regex(take.pattern, where).groups < 1:
        raise _bad("the pattern has no group", where)
    if take.times != 1.0 and take.into not in ("integer", "number"):
        raise _bad("`times` goes with as = 'integer' or 'number'", where)
    if take.into != "time" and (take.format or take.zone != "UTC"):
        raise _bad("`format` and `zone` go with as = 'time'", where)
    if take.format and take.format not in _UNITS and "%" not in take.format:
        raise _bad(f"the format is none of {', '.join(_UNITS)}, and no pattern of strptime", where)
    if take.format and take.format not in _UNITS:
        try:
            datetime.strptime(_SOME_TIME.strftime(take.format), take.format)  # noqa: DTZ007 - only whether it can be read
        except ValueError as error:
            raise _bad(f"the format {take.format!r} cannot be used: {error}", where) from error
    try:
        ZoneInfo(take.zone)
    except (OSError, ValueError) as error:  # ZoneInfoNotFoundError is a KeyError
        raise _bad(f"the time zone {take.zone!r} cannot be used: {error}", where) from error
    except KeyError as error:
        raise _bad(f"the time zone {take.zone!r} is not known here", where) from error


def _regex(pattern: str, where: str) -> re.Pattern[str]:
    if len(pattern) > MAX_PATTERN_CHARACTERS:
        raise _bad(f"a pattern of more than {MAX_PATTERN_CHARACTERS} characters", where)
    try:
        return re.compile(pattern)
    except (re.error, OverflowError, RecursionError) as error:
        raise _bad(f"not a regular expression: {error}", where) from error


def _bad(reason: str, where: str) -> Malformed:
    return Malformed(reason, where=where, label="bad_mapping")
