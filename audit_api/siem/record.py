"""A record: what a SIEM is sent of one entry, in one line of bytes; and what becomes of an entry that is too long, or that no format takes.

Nothing holds up what follows. A record that is too long, that cannot be mapped, or that the destination refuses is made again with less in it:

    whole    the entry with its event
    facts    the entry without its event's body and attributes
    bare     where it stands in the log, and its hash

and says so itself (`cut`). Each has the same id, the log's origin and the leaf index, and tells what the log was when it was sent: a checkpoint's
size and root. So a SIEM's copy can be held to the log later, and the log to the SIEM's copy.
"""

import base64
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from audit_api.evidence import SignedTree
from audit_api.export.walk import Row
from correlator.merkle import leaf_hash

__all__ = ["Cut", "Form", "Mark", "Record", "Shaper", "severity_of"]

Level = Literal["whole", "facts", "bare"]
Cut = Literal["", "oversized", "unmappable", "refused"]
"""Why a record says less than its entry and event do; empty: it does not."""

_LESS: Mapping[Level, Level | None] = {"whole": "facts", "facts": "bare", "bare": None}


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """What stands in every record, whatever its format.

    Attributes:
        id: ``<origin>#<leaf index>``: the same whenever the entry is sent.
        leaf_hash: of the entry (RFC 6962 section 2.1), 64 hex digits.
        size, root: of the checkpoint that the log had; the root in base64, as in a checkpoint.
        cut: why there is not more in it.
        of_bytes: how long the event is that was left out; 0: none was.
    """

    id: str
    leaf_hash: str
    size: int
    root: str
    cut: Cut = ""
    of_bytes: int = 0


class Form:
    """A format of records. Both may raise anything for an entry that it cannot take: then less is tried."""

    def whole(self, row: Row, mark: Mark) -> bytes:
        """The entry with what is known of its event, in one line."""
        raise NotImplementedError

    def bare(self, row: Row, mark: Mark) -> bytes:
        """Where the entry stands and what it hashes to, at most some hundred bytes more than the log's origin."""
        raise NotImplementedError


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One entry as it is sent.

    Attributes:
        mark: what tells it from all others.
        row: the entry.
        data: UTF-8 without a line end.
        severity: 0 to 10, as CEF counts.
    """

    mark: Mark
    row: Row = field(repr=False)
    data: bytes = field(repr=False)
    severity: int
    level: Level
    shaper: "Shaper" = field(repr=False)

    def refused(self) -> "Record | None":
        """The same with less in it, for a destination that refused this one; None: there is nothing less."""
        less = _LESS[self.level]
        return None if less is None else self.shaper.at(self.row, self.mark, less, "refused")


class Shaper:
    """Makes records of one format.

    Args:
        form: the format.
        max_bytes: longest record; only a bare one may be longer, where the log's origin is.
        reduced: hears why each record that was made says less than it could.
    """

    def __init__(self, form: Form, *, max_bytes: int, reduced: Callable[[Cut], None]) -> None:
        self._form = form
        self._max_bytes = max_bytes
        self._reduced = reduced

    def record(self, row: Row, tree: SignedTree) -> Record:
        """The record of an entry, with as much in it as fits. `tree`: the log as it was read."""
        mark = Mark(
            id=f"{row.log}#{row.leaf}",
            leaf_hash=leaf_hash(row.data).hex(),
            size=tree.size,
            root=base64.b64encode(tree.checkpoint.root).decode("ascii"),
        )
        return self.at(row, mark, "whole", "")

    def at(self, row: Row, mark: Mark, level: Level, cut: Cut) -> Record:
        """The record with so much in it, or with less where that does not do."""
        if cut:
            mark = replace(mark, cut=cut, of_bytes=len(row.raw or b""))
        if level == "bare":
            data = self._form.bare(row, mark)
        else:
            shown = row if level == "whole" else replace(row, raw=None)
            try:
                data = self._form.whole(shown, mark)
            except Exception:  # noqa: BLE001 - whatever a mapping makes of somebody's event, what follows is sent
                return self.at(row, mark, _LESS[level] or "bare", "unmappable")
            if len(data) > self._max_bytes:
                return self.at(row, mark, _LESS[level] or "bare", "oversized")
        if cut:
            self._reduced(cut)
        return Record(mark=mark, row=row, data=data, severity=severity_of(row), level=level, shaper=self)


_VERDICTS = {"complete": 2, "compensated": 4, "incomplete": 6, "failed": 8}
_KINDS = {"gap": 9, "fork": 10}


def severity_of(row: Row) -> int:
    """How grave it is, from 0 to 10 as CEF counts: OpenTelemetry's severity of an event, the outcome of a verdict, 9 for a gap, 10 for a fork."""
    if row.entry.kind == "verdict":
        return _VERDICTS.get(str(row.entry.detail.get("verdict")), 6)
    if row.entry.kind != "event":
        return _KINDS.get(row.entry.kind, 1)
    event = row.event()
    number = event.severity_number if event is not None else 0
    if number <= 0:
        return 8 if row.facts().error else 3
    return 3 if number <= 12 else 6 if number <= 16 else 8 if number <= 20 else 10
