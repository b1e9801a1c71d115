"""What stands beside every export: of what it is, how much, how complete, and the hash of each file. Pure.

docs/export.md, "The manifest", has the members. Members are only ever added.
"""

from collections.abc import Sequence
from typing import Any

import msgspec

from audit_api.export.formats import Writer
from audit_api.export.walk import Walk

__all__ = ["VERSION", "FileSum", "manifest_of"]

VERSION = 1


class FileSum(msgspec.Struct, frozen=True, kw_only=True):
    """A file of an export: its name, its bytes, and their SHA-256 in hex."""

    name: str
    bytes: int
    sha256: str


def manifest_of(walk: Walk, writer: Writer, *, form: str, files: Sequence[FileSum]) -> bytes:
    """The manifest, one JSON object over several lines, for an export that is done."""
    cut = walk.truncated
    counts = {
        "trails": walk.counts["trails"],
        "rows": walk.counts["rows"],
        "events": walk.counts["events"],
        "retired": walk.counts["retired"],
        "damaged": walk.counts["damaged"],
        "oversized": walk.counts["oversized"],
    }
    told: dict[str, Any] = {
        "v": VERSION,
        "format": form,
        **writer.about,
        "selection": walk.selection.told,
        "checkpoints": walk.checkpoints(),
        "complete": cut is None,
        "truncated": None if cut is None else {"after_rows": cut.rows, "trail": cut.trail, "leaf": cut.leaf},
        "counts": counts,
        "kinds": dict(sorted(walk.kinds.items())),
        "notes": dict(sorted(writer.notes.items())),
        "files": list(files),
    }
    return msgspec.json.format(msgspec.json.encode(told), indent=2) + b"\n"
