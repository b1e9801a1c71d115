"""Events as Fluent Bit writes them since its version 2: ``[[time, metadata], record]``.

The Forward specification knows ``[time, record]`` alone; Fluent Bit's own form (``retain_metadata_in_forward_mode``, on by default since
5.0.4, https://docs.fluentbit.io/manual/data-pipeline/outputs/forward) puts a map beside the time. Most often it is empty. Logs that came into
Fluent Bit by OTLP have there what OpenTelemetry's data model has beside body and time, under ``otlp``, and stand between two markers:
events with the times −1 and −2, the first of which tells resource and scope of all that follow it. What has a place in an `Event`
goes there unless the record itself says it; the rest is kept under ``fluent.metadata`` and ``fluent.group``.
"""

from dataclasses import dataclass, field
from typing import Any

import msgspec
from msgspec.msgpack import Ext

from collector.errors import Malformed
from collector.event import MAX_TRACE_FLAGS, Event, Origin, Scope
from collector.receive import Arrival
from collector.receive.fluent_msgpack import ARRAY, Values, kept_time, time_text, unpack
from collector.receive.record import arrival_of_record, record_uid, span_id_of, trace_id_of

__all__ = ["FluentBitEvents", "check_record", "is_stamped", "stamp_in", "with_metadata"]

_START, _END = b"\xff\xff\xff\xff", b"\xff\xff\xff\xfe"  # −1 and −2 as an EventTime's seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class _LogGroup:
    """What a start marker says of the events up to the end marker; `size_bytes` is about how long it is."""

    resource: dict[str, Any] = field(default_factory=dict)
    scope: Scope | None = None
    rest: dict[str, Any] = field(default_factory=dict)
    size_bytes: int = 0


class FluentBitEvents:
    """Reads the events of one message, in their order.

    Args:
        max_repeated_bytes: what groups say of their events is repeated for each; most of it in a message.

    Attributes:
        markers: how many of the message's entries were markers, and are no events.
        repeated_bytes: by how much the message has grown by what is repeated.
    """

    def __init__(self, *, max_repeated_bytes: int) -> None:
        self._max_repeated_bytes = max_repeated_bytes
        self._group: _LogGroup | None = None
        self.markers = 0
        self.repeated_bytes = 0

    def arrival(
        self,
        stamp: Any,
        record: dict[Any, Any],
        *,
        origin: Origin,
        service: str,
        observed: str,
        plain: bool,
    ) -> Arrival | None:
        """The event of one entry, whose first part is `stamp` (`is_stamped`); None for a marker.

        Raises:
            Malformed: groups with long headers and many events (``too_large``).
        """
        time, metadata = stamp
        marker = _marker(time)
        if marker is not None:
            self.markers += 1
            self._group = _log_group(metadata, record) if marker == _START else None
            return None
        group = self._group
        text = time_text(time)
        if not text:
            kept_time(time, record)
        resource: dict[str, Any] = {}
        if group is not None:
            self.repeated_bytes += group.size_bytes
            if self.repeated_bytes > self._max_repeated_bytes:
                raise Malformed(
                    f"groups that would grow to more than {self._max_repeated_bytes} bytes", label="too_large"
                )
            resource = group.resource
        arrival = arrival_of_record(
            record,
            origin=origin,
            service="" if "service.name" in resource else service,
            time=text,
            observed=observed,
            resource=resource,
            marks=() if text else ("time_unusable",),
            plain=plain and group is None and not metadata,
        )
        if group is None and not metadata:
            return arrival
        return _folded(arrival, metadata, group)


def is_stamped(time: Any) -> bool:
    """Whether an entry's first part is a time with metadata."""
    return type(time) in {tuple, list} and len(time) == 2 and type(time[1]) is dict


def check_record(time: Any, record: Any) -> None:
    """Raises `Malformed` unless these are a time, with or without metadata, and a map."""
    if is_stamped(time):
        time = time[0]
    if type(time) not in {Ext, int, float}:
        raise Malformed("the time is neither an EventTime nor a number", label="bad_record")
    if type(record) is not dict:
        raise Malformed("the record is not a map", label="bad_record")


def stamp_in(raw: bytes) -> Any:
    """The time with metadata that `raw` holds; None when it holds something else, such as an array of entries."""
    head = 1 if raw[:1] == b"\x92" else 3 if raw[:3] == b"\xdc\x00\x02" else 0
    if not head or raw[head] in ARRAY:
        return None
    try:
        Values(raw).take(raw)
        stamp = unpack(raw)
    except Malformed:
        return None
    return stamp if is_stamped(stamp) else None


def with_metadata(time: Any, option: Any) -> Any:
    """The first part of an entry in Message mode, whose metadata Fluent Bit puts into the option, as ``metadata``."""
    metadata = option.get("metadata") if type(option) is dict else None
    return (time, metadata) if type(metadata) is dict and not is_stamped(time) else time


def _marker(time: Any) -> bytes | None:
    if type(time) is Ext:
        data = bytes(time.data)
        return data[:4] if time.code == 0 and len(data) == 8 and data[:4] in {_START, _END} else None
    return _START if time == -1 else _END if time == -2 else None


def _log_group(metadata: dict[Any, Any], body: dict[Any, Any]) -> _LogGroup:
    try:
        size_bytes = len(repr((metadata, body)))
    except RecursionError as error:
        raise Malformed("a group's header that is nested too deeply", label="too_deep") from error
    if metadata.get("schema") != "otlp":
        rest = {name: part for name, part in (("metadata", metadata), ("attributes", body)) if part}
        return _LogGroup(rest=rest, size_bytes=size_bytes)
    resource, scope = body.pop("resource", None), body.pop("scope", None)
    attributes = _taken(resource, "attributes", dict)
    named = _taken(scope, "name", str), _taken(scope, "version", str), _taken(scope, "attributes", dict)
    # what is left: schema_url, dropped_attributes_count, and what does not fit
    body |= {name: left for name, left in (("resource", resource), ("scope", scope)) if left}
    return _LogGroup(
        resource=attributes or {},
        scope=Scope(name=named[0] or "", version=named[1] or "", attributes=named[2] or {}) if any(named) else None,
        rest=body,
        size_bytes=size_bytes,
    )


def _taken(of: Any, name: str, kind: type) -> Any:
    """Take the value out of a map if it is of the kind; None if it is not there."""
    return of.pop(name) if type(of) is dict and type(of.get(name)) is kind else None


def _folded(arrival: Arrival, metadata: dict[Any, Any], group: _LogGroup | None) -> Arrival:
    """The arrival with what metadata and group say; `metadata` is used up."""
    event, source_id = arrival.event, arrival.source_id
    attributes = event.attributes
    changes: dict[str, Any] = {}
    otlp = metadata.get("otlp")
    if type(otlp) is dict:
        changes = _places(otlp, event)
        own = otlp.get("attributes")
        if type(own) is dict:
            for name in [name for name in own if name not in attributes]:
                attributes[name] = own.pop(name)
            if not own:
                del otlp["attributes"]
        if not otlp:
            del metadata["otlp"]
        if source_id is None:
            source_id = record_uid(attributes.get("log.record.uid"))
    if group is not None and group.scope is not None:
        changes["scope"] = group.scope
    for name, rest in (("fluent.metadata", metadata), ("fluent.group", group.rest if group is not None else None)):
        if rest:
            while name in attributes:
                name += "_"  # noqa: PLW2901 - nothing takes the place of what the record itself says
            attributes[name] = rest
    if changes:
        event = msgspec.structs.replace(event, **changes)
    return msgspec.structs.replace(arrival, event=event, source_id=source_id)


def _places(otlp: dict[Any, Any], event: Event) -> dict[str, Any]:
    """Take out of `otlp` what fits a place in the event that is still free."""
    changes: dict[str, Any] = {}
    text, number = otlp.get("severity_text"), otlp.get("severity_number")
    if not (event.severity_text or event.severity_number):
        if type(text) is str and text:
            changes["severity_text"] = otlp.pop("severity_text")
        if type(number) is int and 1 <= number <= 24:
            changes["severity_number"] = otlp.pop("severity_number")
    for name, known, read in (("trace_id", event.trace_id, trace_id_of), ("span_id", event.span_id, span_id_of)):
        stated = otlp.get(name)
        found = read(stated.hex() if type(stated) is bytes else stated)
        if found and not known:
            changes[name] = found
        if found and found == (known or found):
            del otlp[name]
    flags = otlp.get("trace_flags")
    if type(flags) is int and 0 <= flags <= MAX_TRACE_FLAGS and not event.trace_flags:
        changes["trace_flags"] = otlp.pop("trace_flags")
    stated = otlp.get("timestamp")
    if type(stated) is int and event.time and event.time == _time_of_ns(stated):
        del otlp["timestamp"]
    return changes


def _time_of_ns(unix_ns: int) -> str:
    seconds, fraction_ns = divmod(unix_ns, 1_000_000_000)
    text = time_text(seconds)
    return f"{text[:-10]}{fraction_ns:09d}Z" if text else ""
