"""NDJSON: the lines that a bundle's ``trail.ndjson`` has (docs/format-bundle.md), so that who hashes `entry` and `event` finds leaf and digest."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from audit_api.export.walk import Row

__all__ = ["EntryLines"]

_encode = msgspec.json.Encoder().encode


class EntryLines:
    """`audit_api.export.formats.Writer` of the entries and events as they are.

    Each line: ``{"entry": …, "event": … or null, "leaf": n, "log": origin}``, and where the event is not here `problem` or
    `retired` says why. `entry` and `event` are canonical JSON (RFC 8785), put in byte by byte.
    """

    def __init__(self) -> None:
        self.notes: Counter[str] = Counter()
        self.about: Mapping[str, Any] = {}

    def write(self, rows: Sequence[Row]) -> bytes:
        """See `Writer.write`."""
        return b"".join(map(_line, rows))

    def finish(self) -> bytes:
        """See `Writer.finish`."""
        return b""


def _line(row: Row) -> bytes:
    more = b""
    if row.problem:
        more = b',"problem":' + _encode(row.problem)
    elif row.retired:
        more = b',"retired":' + _encode(row.retired)
    return b'{"entry":%b,"event":%b,"leaf":%d,"log":%b%b}\n' % (
        row.data,
        row.raw if row.raw is not None else b"null",
        row.leaf,
        _encode(row.log),
        more,
    )
