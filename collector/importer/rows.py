"""One CSV record becomes an event, as its mapping says."""

import re
from collections.abc import Callable, Sequence
from typing import Any

from collector.errors import Malformed
from collector.event import Event, Origin, Span, format_time, parse_time
from collector.importer.mapping import Body, Mapping
from collector.receive import Arrival
from collector.receive.docker import DockerLine, arrival_of_text, docker_line, same_time
from collector.receive.record import arrival_of_record, record_uid, severity_of, span_id_of, span_uid, trace_id_of

__all__ = ["CsvRows"]

_NANOSECONDS = re.compile(r"-?\d{1,20}", re.ASCII)
_SEARCHED_CHARACTERS = 4_096
"""How far into a text the patterns of a mapping are searched."""


class CsvRows:
    """The records of one CSV file.

    Args:
        header: its columns, in its order.
        mapping: what they mean; None takes each record as a free record (`collector.receive.record`).

    Raises:
        Malformed: a column's name stands in the header twice.
    """

    def __init__(self, header: Sequence[str], mapping: Mapping | None) -> None:
        if len(set(header)) != len(header):
            raise Malformed("a column's name stands in the header twice", label="bad_csv")
        self._header = tuple(header)
        self._mapping = mapping
        if mapping is not None:
            self._service = _searcher(mapping.service.pattern) if mapping.service else None
            self._severity = _searcher(mapping.severity_pattern)
            self._operation = _searcher(mapping.operation_pattern)

    def arrival(self, fields: list[str], *, origin: Origin, source_id: bytes) -> Arrival:
        """The event of a record.

        Args:
            fields: one for each column.
            origin: file and row.
            source_id: what the record is recognised by, unless it is a span: that has ids of its own.

        Raises:
            Malformed: too few or too many fields; a span without its ids.
        """
        if len(fields) != len(self._header):
            raise Malformed(f"{len(fields)} fields; the header has {len(self._header)}", label="bad_csv")
        values = dict(zip(self._header, fields, strict=True))
        if self._mapping is None:
            record: dict[str, Any] = {name: value for name, value in values.items() if value}
            arrival = arrival_of_record(record, origin=origin)
            return arrival if arrival.source_id else Arrival(event=arrival.event, source_id=source_id)
        if self._mapping.kind == "span":
            return self._span(self._mapping, values, origin)
        return self._log(self._mapping, values, origin, source_id)

    def _log(self, mapping: Mapping, values: dict[str, str], origin: Origin, source_id: bytes) -> Arrival:
        marks: list[str] = []
        unix_ns, time = _taken_time(values, mapping.time, marks)
        _leave_out(values, mapping.same_time, unix_ns, time)
        trace_id, span_id = values.pop(mapping.trace_id, ""), values.pop(mapping.span_id, "")
        attributes: dict[str, Any] = {}
        inner: Event | None = None
        text = observed = ""
        if mapping.body is not None:
            docker = _unwrapped(values.pop(mapping.body.column), mapping.body, time, marks)
            text, observed = docker.text, docker.observed
            if mapping.body.inner == "json" and text.startswith("{"):
                inner = arrival_of_text(docker, origin=origin, time=time if mapping.time else None).event
                attributes = inner.attributes
            else:
                attributes = docker.attributes()
        operation = values.pop(mapping.operation, "")
        resource = self._resource(mapping, values)
        for column, value in values.items():
            if value:  # a CSV has no way to leave a field out: what is empty was not said
                attributes[f"csv.{column}" if column in attributes else column] = value
        searched = text[:_SEARCHED_CHARACTERS]
        severity = (inner.severity_text if inner else "") or self._severity(searched)
        body: Any = text or None
        if inner is not None:
            body = inner.body
            marks += inner.marks
            resource = {**inner.resource, **resource}
        event = Event(
            time=(inner.time if inner else "") or time,
            observed=observed,
            severity_number=(inner.severity_number if inner else 0) or severity_of(severity),
            severity_text=severity,
            event_name=operation or (inner.event_name if inner else "") or self._operation(searched),
            body=body,
            attributes=attributes,
            resource=resource,
            # what is no id stays as it is: the intake keeps it among the attributes, and marks it
            trace_id=trace_id_of(trace_id) or trace_id or (inner.trace_id if inner else ""),
            span_id=span_id_of(span_id) or span_id or (inner.span_id if inner else ""),
            actor=inner.actor if inner else "",
            outcome=inner.outcome if inner else "",
            origin=origin,
            marks=marks,
        )
        return Arrival(event=event, source_id=record_uid(attributes.get("log.record.uid")) or source_id)

    def _span(self, mapping: Mapping, values: dict[str, str], origin: Origin) -> Arrival:
        trace_id, span_id = trace_id_of(values.pop(mapping.trace_id)), span_id_of(values.pop(mapping.span_id))
        if not trace_id or not span_id:
            raise Malformed("a span whose trace id or own id is none", label="bad_id")
        marks: list[str] = []
        unix_ns, time = _taken_time(values, mapping.time, marks)
        _leave_out(values, mapping.same_time, unix_ns, time)
        end_ns, end = _taken_time(values, mapping.end, marks)
        if unix_ns is not None and end_ns is not None:
            if end_ns < unix_ns:
                marks.append("end_before_start")
            if (stated := values.get(mapping.duration_us, "")) and stated == str((end_ns - unix_ns) // 1000):
                del values[mapping.duration_us]
            elif stated:
                marks.append("duration_unequal")
        parent = values.pop(mapping.parent, "")
        if parent in {"", mapping.no_parent}:
            parent = ""
        elif not span_id_of(parent):
            values["parent_span_id"] = parent
            marks.append("parent_span_id_unusable")
        span = Span(name=values.pop(mapping.operation, ""), parent_span_id=span_id_of(parent), end=end)
        resource = self._resource(mapping, values)
        event = Event(
            time=time,
            attributes={name: value for name, value in values.items() if value},
            resource=resource,
            trace_id=trace_id,
            span_id=span_id,
            span=span,
            origin=origin,
            marks=marks,
        )
        return Arrival(event=event, source_id=span_uid(trace_id, span_id, kind=span.kind, time=time))

    def _resource(self, mapping: Mapping, values: dict[str, str]) -> dict[str, Any]:
        resource: dict[str, Any] = {}
        if mapping.service is not None and self._service is not None:
            stated = values[mapping.service.column]
            if service := self._service(stated) or stated:
                resource["service.name"] = service
            if mapping.service.column not in mapping.resource:
                del values[mapping.service.column]
        for column, name in mapping.resource.items():
            if value := values.pop(column):
                resource[name] = value
        return resource


def _searcher(pattern: str) -> Callable[[str], str]:
    """Searches a text for the pattern; gives its first group, or empty."""
    if not pattern:
        return lambda _text: ""
    search = re.compile(pattern).search

    def found(text: str) -> str:
        match = search(text)
        return (match[1] or "") if match else ""

    return found


def _taken_time(values: dict[str, str], column: str, marks: list[str]) -> tuple[int | None, str]:
    """Takes a time out of the values: nanoseconds since 1970 and RFC 3339; what is none stays among them, and is marked."""
    stated = values.get(column, "")
    if not stated:
        values.pop(column, None)
        return None, ""
    try:
        unix_ns = int(stated) if _NANOSECONDS.fullmatch(stated) else parse_time(stated)
        text = format_time(unix_ns)
    except Malformed:
        marks.append("time_unusable")
        return None, ""
    del values[column]
    return unix_ns, text


def _leave_out(values: dict[str, str], columns: tuple[str, ...], unix_ns: int | None, time: str) -> None:
    """Drops the columns that say the same time once more; those that say another stay."""
    for column in columns:
        try:
            if unix_ns is not None and (same_time(values[column], time) or parse_time(values[column]) == unix_ns):
                del values[column]
        except Malformed:
            pass


def _unwrapped(text: str, body: Body, time: str, marks: list[str]) -> DockerLine:
    docker = DockerLine(text=text, stream="", observed="", truncated=False, others={})
    if body.format == "docker-json":
        try:
            docker = docker_line(text.encode("utf-8", "surrogateescape"), time)
        except (Malformed, UnicodeEncodeError):
            marks.append("body_unparsed")
        if docker.truncated:
            marks.append("truncated")
    return docker
