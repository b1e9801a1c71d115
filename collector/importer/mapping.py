"""What the columns of a CSV mean: a mapping, written in TOML by whoever knows the file.

A mapping file holds one or more tables ``[[mapping]]``; a CSV is read by the one whose `columns` are exactly those of its header, in any
order. ``examples/import/`` has two. Columns that a mapping does not name become attributes under their own names; one that it names has
one use, but for the service's, which may be a resource attribute as well.
"""

import re
import tomllib
from collections import Counter
from pathlib import Path
from typing import Literal

import msgspec

from collector.errors import Malformed

__all__ = ["Body", "Mapping", "Service", "load_mappings"]


class Service(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where ``service.name`` comes from: a column, cut by a regular expression's first group where it matches."""

    column: str
    pattern: str = ""


class Body(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where the body comes from.

    Attributes:
        column: its column.
        format: ``text``; or ``docker-json``, one line of Docker's JSON log (log, stream, time).
        inner: what the text is: ``text``, or ``json``, an object as the service itself logs it, taken as a free record where it is one.
    """

    column: str
    format: Literal["text", "docker-json"] = "text"
    inner: Literal["text", "json"] = "text"


class Mapping(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One kind of CSV.

    Attributes:
        name: for messages.
        columns: all columns of the header.
        delimiter: between fields.
        kind: whether a row is a log record or a span.
        time: column of the time (a span's start): RFC 3339, or nanoseconds since 1970.
        same_time: columns that repeat the time; left out where they do.
        trace_id, span_id: columns of the ids.
        service: where ``service.name`` comes from.
        resource: column to resource attribute; the value is taken as it is.
        body: where a log record's body comes from.
        severity_pattern: regular expression whose first group is the level, searched in a log record's text.
        operation: column of the operation: a span's name, a log record's event name.
        operation_pattern: regular expression whose first group is the operation, searched in a log record's text.
        parent: column of a span's parent; `no_parent` is what stands there when there is none, beside nothing.
        end: column of a span's end, as `time`.
        duration_us: column of a span's duration in whole microseconds; checked, and left out where it agrees.
    """

    name: str
    columns: tuple[str, ...]
    delimiter: Literal[",", ";", "\t", "|"] = ","
    kind: Literal["log", "span"] = "log"
    time: str = ""
    same_time: tuple[str, ...] = ()
    trace_id: str = ""
    span_id: str = ""
    service: Service | None = None
    resource: dict[str, str] = {}
    body: Body | None = None
    severity_pattern: str = ""
    operation: str = ""
    operation_pattern: str = ""
    parent: str = ""
    no_parent: str = ""
    end: str = ""
    duration_us: str = ""

    def check(self) -> None:
        """Raises `Malformed` when the mapping cannot be used: a column that is not there or has two uses, a pattern without a group."""
        where = f"mapping {self.name!r}"
        named = Counter((
            self.time, *self.same_time, self.trace_id, self.span_id, self.operation, self.parent, self.end, self.duration_us,
            self.body.column if self.body else "", *{*self.resource, self.service.column if self.service else ""},
        ))  # fmt: skip
        del named[""]
        if len(set(self.columns)) != len(self.columns) or "" in self.columns:
            raise Malformed("a column is named twice, or not at all, in `columns`", where=where, label="bad_mapping")
        if missing := sorted(set(named) - set(self.columns)):
            raise Malformed(f"{', '.join(missing)} not among its `columns`", where=where, label="bad_mapping")
        if twice := sorted(
            column for column, uses in named.items() if uses > 1
        ):  # the first would take it from the second
            raise Malformed(
                f"{', '.join(twice)} has two uses; only the service and a resource attribute may come from one column",
                where=where,
                label="bad_mapping",
            )
        if self.kind == "span" and not (self.trace_id and self.span_id):
            raise Malformed("spans need `trace_id` and `span_id`", where=where, label="bad_mapping")
        for pattern in (self.severity_pattern, self.operation_pattern, self.service.pattern if self.service else ""):
            try:
                if pattern and re.compile(pattern).groups < 1:
                    raise Malformed(f"the pattern {pattern!r} has no group", where=where, label="bad_mapping")
            except re.error as error:
                raise Malformed(f"the pattern {pattern!r}: {error}", where=where, label="bad_mapping") from error


class _MappingFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    mapping: list[Mapping]


def load_mappings(path: Path) -> list[Mapping]:
    """The mappings of a TOML file.

    Raises:
        Malformed: it is not TOML, or not mappings that can be used: says where.
        OSError: it cannot be read.
    """
    try:
        mappings = msgspec.convert(tomllib.loads(path.read_text(encoding="utf-8")), _MappingFile).mapping
        for mapping in mappings:
            mapping.check()
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, msgspec.ValidationError) as error:
        raise Malformed(str(error), where=path.name, label="bad_mapping") from error
    except Malformed as error:
        raise Malformed(str(error), where=path.name, label="bad_mapping") from error
    return mappings
