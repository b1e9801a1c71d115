"""A record that a mapping is for, as the event that it means. Pure.

What was taken leaves its old place at the top of the attributes (unless it is to be kept); everything else stays where it was. A value
that does not fit stays too, and the event says so: ``unmapped:<place>``. Nothing is lost and nothing is guessed.
"""

import fnmatch
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from collector.errors import Malformed
from collector.event import Event, parse_time
from collector.mapping.convert import Conversion, Unfit, conversion_of
from collector.mapping.language import Mapping, Parse
from collector.paths import as_key, compile_path, lookup
from collector.receive import Arrival
from collector.receive.json_lines import object_of_line
from collector.receive.record import FIELDS, severity_of, span_id_of, trace_id_of

__all__ = ["Mapper"]

_MAX_PARSED = 65_536
"""Longest text in which a pattern or an object is looked for."""

_ROOTS = ("attributes.", "resource.", "body.", "scope.")
_NOWHERE: dict[str, Any] = {}


class Mapper:
    """Maps arrivals by the first mapping that is for them; the others pass as they are.

    Args:
        mappings: checked ones, in order of preference.
    """

    def __init__(self, mappings: Sequence[Mapping]) -> None:
        self._compiled = [_Compiled(mapping) for mapping in mappings]

    def map(self, arrival: Arrival) -> Arrival:
        """The arrival as its mapping says; the same one when none is for it. The arrival that came is not changed."""
        for mapping in self._compiled:
            event = mapping.mapped(arrival.event)
            if event is not None:
                return Arrival(event=event, source_id=arrival.source_id)
        return arrival


class _Compiled:
    def __init__(self, mapping: Mapping) -> None:
        self._mark = f"mapped:{mapping.name}"
        self._conditions = list(_conditions(mapping))
        self._parse = _parser(mapping.parse) if mapping.parse else None
        self._absent = frozenset(mapping.absent)
        self._set = dict(mapping.set)
        self._takes = [
            _Choice(place, [_Source(source) for source in take.sources], conversion_of(take), keep=take.keep)
            for place, take in mapping.takes
        ]

    def mapped(self, event: Event) -> Event | None:
        """The event as this mapping says; None when it is not for it."""
        if not all(holds(event) for holds in self._conditions):
            return None
        parsed = _NOWHERE
        if self._parse is not None:
            found = self._parse(event)
            if found is None:
                return None
            parsed = found
        made = _Made(event, self._mark)
        for place, value in self._set.items():
            made.put(place, value)
        filled: set[str] = set()
        for choice in self._takes:
            if choice.place not in filled and self._take(made, choice, parsed):
                filled.add(choice.place)
        return made.event()

    def _take(self, made: "_Made", choice: "_Choice", parsed: dict[str, Any]) -> bool:
        """Fill a place by this choice; says whether it did."""
        for source in choice.sources:
            value = source.value(made.former, parsed)
            if value is None or (type(value) is str and value in self._absent):
                continue
            try:
                taken = choice.convert(value)
                if taken is None:
                    continue
                made.put(choice.place, taken)
            except Unfit:
                made.marks.add(f"unmapped:{choice.place}")
                continue
            if not choice.keep and lookup(parsed, source.name) is None:
                made.taken.add(source.name)
            return True
        return False


@dataclass(frozen=True, slots=True)
class _Choice:
    """One way to fill a place."""

    place: str
    sources: Sequence["_Source"]
    convert: Conversion
    keep: bool = field(kw_only=True)


class _Source:
    """A field: among those that were parsed, else in the record, else where the way in has put it."""

    def __init__(self, text: str) -> None:
        self.name = text
        self._path = compile_path(text if text.startswith(_ROOTS) else f"attributes.{text}")
        self._place = next((place for place, names in FIELDS.items() if text in names), "")

    def value(self, event: Event, parsed: dict[str, Any]) -> Any:
        """The value; None when the record has none."""
        value = lookup(parsed, self.name) if parsed else None
        if value is None:
            value = self._path.get(event)
        if value is not None:
            return value
        if self.name in ("origin.tag", "origin.file"):
            return (getattr(event.origin, self.name[7:]) or None) if event.origin else None
        if self._place == "service":
            return event.service or None
        return (getattr(event, self._place) or None) if self._place else None


class _Made:
    """The event in the making; `taken` are names that leave the attributes."""

    def __init__(self, event: Event, mark: str) -> None:
        self.former = event
        self.taken: set[str] = set()
        self.marks = {*event.marks, mark}
        self._fields: dict[str, Any] = {}
        self._attributes: dict[str, Any] = {}
        self._resource = dict(event.resource)
        self._keys = dict(event.keys)

    def put(self, place: str, value: Any) -> None:
        """Fill a place. Raises `Unfit`: the value is none for it."""
        root, _, name = place.partition(".")
        if root == "attributes":
            self._attributes[name] = value
        elif root == "resource":
            self._resource[name] = value
        elif root == "keys":
            self._keys[name] = _fitted(as_key(value))
        elif place == "service":
            self._resource["service.name"] = _fitted(as_key(value))
        else:
            self._fields[place] = _FITS[place](value)

    def event(self) -> Event:
        """What it has become."""
        fields = self._fields
        if "severity_text" in fields and "severity_number" not in fields:
            fields["severity_number"] = severity_of(fields["severity_text"])
        attributes = {name: value for name, value in self.former.attributes.items() if name not in self.taken}
        attributes.update(self._attributes)
        return msgspec.structs.replace(
            self.former,
            attributes=attributes,
            resource=self._resource,
            keys=self._keys,
            marks=sorted(self.marks),
            **fields,
        )


def _fitted(value: Any) -> Any:
    if not value:
        raise Unfit
    return value


def _text(value: Any) -> str:
    if type(value) is not str or not value:
        raise Unfit
    return value


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


_FITS: dict[str, Conversion] = {
    "time": _rfc3339,
    "body": lambda value: value,
    "severity_text": _text,
    "severity_number": _severity,
    "event_name": _text,
    "trace_id": lambda value: _fitted(trace_id_of(value)),
    "span_id": lambda value: _fitted(span_id_of(value)),
    "transaction": lambda value: _fitted(as_key(value)),
    "tenant": lambda value: _fitted(as_key(value)),
    "actor": lambda value: _fitted(as_key(value)),
    "outcome": _outcome,
}
"""What a value must be in a place of the event."""


def _conditions(mapping: Mapping) -> Sequence[Callable[[Event], bool]]:
    when = mapping.when
    found: list[Callable[[Event], bool]] = []
    if when.receiver:
        found.append(lambda event: event.origin is not None and event.origin.receiver in when.receiver)
    for name, patterns in (("tag", when.tag), ("file", when.file)):
        if patterns:
            found.append(_origin_fits(name, patterns))
    if when.service:
        found.append(lambda event: event.service in when.service)
    if when.has:
        needed = [_Source(name) for name in when.has]
        found.append(lambda event: all(source.value(event, _NOWHERE) is not None for source in needed))
    for name, wanted in when.equals.items():
        found.append(_equals(_Source(name), wanted))
    return found


def _origin_fits(name: str, patterns: Sequence[str]) -> Callable[[Event], bool]:
    fits = re.compile("|".join(fnmatch.translate(pattern) for pattern in patterns)).match
    return lambda event: event.origin is not None and fits(getattr(event.origin, name)) is not None


def _equals(source: _Source, wanted: Any) -> Callable[[Event], bool]:
    def holds(event: Event) -> bool:
        value = source.value(event, _NOWHERE)
        return type(value) is type(wanted) and bool(value == wanted)

    return holds


def _parser(parse: Parse) -> Callable[[Event], dict[str, Any] | None]:
    source = _Source(parse.source)
    match = re.compile(parse.pattern).match if parse.pattern else None

    def fields(event: Event) -> dict[str, Any] | None:
        text = source.value(event, _NOWHERE)
        if type(text) is not str or len(text) > _MAX_PARSED:
            return None
        if match is not None:
            found = match(text)
            return {name: value for name, value in found.groupdict().items() if value is not None} if found else None
        try:
            return object_of_line(text.encode("utf-8", "surrogatepass"))
        except Malformed:
            return None

    return fields
