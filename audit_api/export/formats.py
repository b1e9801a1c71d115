"""The formats of an export as data: each has a name, a file ending, and a `Writer` that makes bytes of rows.

A writer whose library is an extra is imported when it is asked for.
"""

import importlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from audit_api.export.walk import Row
from collector.errors import TallyError

__all__ = ["FORMATS", "Format", "FormatUnavailable", "Writer", "open_writer"]


class FormatUnavailable(TallyError):
    """The format's library is not installed; the message says how to have it."""


class Writer(Protocol):
    """Makes bytes of rows, in memory that does not grow with them. One thread at a time; it reads nothing.

    Attributes:
        notes: what the format could not hold as it is, counted by what it is: for the manifest.
        about: what a reader of the file must know, for the manifest.
    """

    notes: Counter[str]
    about: Mapping[str, Any]

    def write(self, rows: Sequence[Row]) -> bytes:
        """The next bytes; may be none yet."""

    def finish(self) -> bytes:
        """The last bytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Format:
    """One format.

    Attributes:
        name: as it is asked for.
        ending: of the file's name.
        about: for people.
        module, attribute: where its `Writer` is; made without arguments.
        extra: the extra of this distribution that it needs; empty: none.
        needs: the top-level modules of that extra.
    """

    name: str
    ending: str
    about: str
    module: str
    attribute: str
    extra: str = ""
    needs: tuple[str, ...] = ()


FORMATS: Mapping[str, Format] = {
    one.name: one
    for one in (
        Format(
            name="ndjson",
            ending="ndjson",
            about="one JSON object a line: the entry and its event as they are hashed",
            module="audit_api.export.jsonlines",
            attribute="EntryLines",
        ),
        Format(
            name="csv",
            ending="csv",
            about="a table for spreadsheets (RFC 4180), formulas defused",
            module="audit_api.export.csvtable",
            attribute="CsvTable",
        ),
        Format(
            name="parquet",
            ending="parquet",
            about="a typed table for data frames (Apache Parquet)",
            module="audit_api.export.parquet",
            attribute="ParquetTable",
            extra="parquet",
            needs=("pyarrow",),
        ),
        Format(
            name="ecs",
            ending="ecs.ndjson",
            about="one Elastic Common Schema document a line",
            module="audit_api.export.ecs",
            attribute="EcsLines",
        ),
        Format(
            name="ocsf",
            ending="ocsf.ndjson",
            about="one OCSF API Activity a line",
            module="audit_api.export.ocsf",
            attribute="OcsfLines",
        ),
    )
}


def open_writer(name: str) -> Writer:
    """A writer of this format.

    Raises:
        KeyError: there is no such format.
        FormatUnavailable: what it needs is not installed.
    """
    chosen = FORMATS[name]
    try:
        make: Callable[[], Writer] = getattr(importlib.import_module(chosen.module), chosen.attribute)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in chosen.needs:
            raise
        raise FormatUnavailable(
            f"{name} needs the extra {chosen.extra}: pip install 'tallystick[{chosen.extra}]'"
        ) from error
    return make()
