"""A record that a mapping is for, as the event that it means. Pure.

What was taken leaves its old place at the top of the attributes (unless it is to be kept); everything else stays where it was. A value
that does not fit stays too, and the event says so: ``unmapped:<place>``. Nothing is lost and nothing is guessed. Nor is anything raised, whatever
a record holds: who reads a file or a broker stands still at a record that raises, and meets it again after every restart.
"""

import fnmatch
import logging
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from collector.errors import Malformed
from collector.event import Event
from collector.mapping.convert import Conversion, conversion_of
from collector.mapping.language import Mapping, Parse
from collector.mapping.places import fitted
from collector.paths import compile_path, lookup
from collector.receive import Arrival
from collector.receive.json_lines import object_of_line
from collector.receive.record import FIELDS, severity_of

__all__ = ["Mapper"]

_log = logging.getLogger(__name__)

_MAX_PARSED = 65_536
"""Longest text in which a pattern or an object is looked for."""

_STATED = ("body", "severity_text", "event_name", "trace_id", "span_id", "transaction", "tenant", "actor", "outcome")
"""Fields that hold what the record itself said; its time may be that of the way in, as its service may."""

_SERVICE = "resource.service.name"
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
        """The arrival as its mapping says; the same one when none is for it. The arrival that came is not changed.

        Where a mapping fails at a record, which is a defect of ours, the record passes as it came, marked ``mapping_failed:<name>``.
        """
        for mapping in self._compiled:
            try:
                event = mapping.mapped(arrival.event)
            except Exception as error:  # noqa: BLE001 - whatever it is, the record must be taken
                return Arrival(event=mapping.failed(arrival.event, error), source_id=arrival.source_id)
            if event is not None:
                return Arrival(event=event, source_id=arrival.source_id)
        return arrival


class _Compiled:
    def __init__(self, mapping: Mapping) -> None:
        self._name = mapping.name
        self._mark = f"mapped:{mapping.name}"
        self._told = False
        self._conditions = list(_conditions(mapping))
        self._parse = _parser(mapping.parse) if mapping.parse else None
        self._parsed = _Source(mapping.parse.source) if mapping.parse else None
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
        if self._parsed is not None:
            made.taken_places.add(self._parsed.place_in(event))
        for place, value in self._set.items():
            made.put(place, value)
        filled: set[str] = set()
        for choice in self._takes:
            if choice.place not in filled and self._take(made, choice, parsed):
                filled.add(choice.place)
        return made.event()

    def failed(self, event: Event, error: Exception) -> Event:
        """The event as it came, with the mark that says so; the first one is told in the log, without what the record held."""
        if not self._told:
            self._told = True
            _log.error(
                "mapping %s failed at a record (%s): such records pass unmapped", self._name, type(error).__name__
            )
        return msgspec.structs.replace(event, marks=sorted({*event.marks, f"mapping_failed:{self._name}"}))

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
            except Exception:  # noqa: BLE001 - `Unfit`, or what nobody thought of: the value stays where it is
                made.marks.add(f"unmapped:{choice.place}")
                continue
            if not choice.keep and lookup(parsed, source.name) is None:
                made.taken.add(source.name)
                made.taken_places.add(source.place_in(made.former))
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

    def place_in(self, event: Event) -> str:
        """The place of the event that the value comes from; empty when it comes from a name in the record."""
        return self._place if self._place and self._path.get(event) is None else ""


class _Made:
    """The event in the making; `taken` are names that leave the attributes, `taken_places` fields of the event that a rule has read."""

    def __init__(self, event: Event, mark: str) -> None:
        self.former = event
        self.taken: set[str] = set()
        self.taken_places: set[str] = set()
        self.marks = {*event.marks, mark}
        self._fields: dict[str, Any] = {}
        self._attributes: dict[str, Any] = {}
        self._resource = dict(event.resource)
        self._keys = dict(event.keys)

    def put(self, place: str, value: Any) -> None:
        """Fill a place. Raises `Unfit`: the value is none for it."""
        value = fitted(place, value)
        root, _, name = place.partition(".")
        if root == "attributes":
            self._attributes[name] = value
        elif root == "resource":
            self._resource[name] = value
        elif root == "keys":
            self._keys[name] = value
        elif place == "service":
            self._resource["service.name"] = value
        else:
            self._fields[place] = value

    def event(self) -> Event:
        """What it has become."""
        fields = self._fields
        if "severity_text" in fields and "severity_number" not in fields:
            fields["severity_number"] = severity_of(fields["severity_text"])
        attributes = {name: value for name, value in self.former.attributes.items() if name not in self.taken}
        for name, value in [*self._displaced(attributes)]:
            free = f"{name}.stated"
            while free in attributes or free in self._attributes:  # the record has such a name itself
                free += ".stated"
            attributes[free] = value
        attributes.update(self._attributes)
        return msgspec.structs.replace(
            self.former,
            attributes=attributes,
            resource=self._resource,
            keys=self._keys,
            marks=sorted(self.marks),
            **fields,
        )

    def _displaced(self, left: dict[str, Any]) -> Iterator[tuple[str, Any]]:
        """What stood in places that are filled now, and that nothing has taken: of the attributes, the keys, the resource and the event's fields."""
        for name, value in self._attributes.items():
            if name in left and left[name] != value:
                yield name, left[name]
        for root, former, filled in (
            ("keys", self.former.keys, self._keys),
            ("resource", self.former.resource, self._resource),
        ):
            for name, value in former.items():
                place = f"{root}.{name}"
                if filled[name] != value and place not in self.taken and place != _SERVICE:
                    yield place, value
        for place, value in self._fields.items():
            stated = getattr(self.former, place)
            if place in _STATED and place not in self.taken_places and stated and stated != value:
                yield place, stated


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
