"""How far a destination has come: one small file for each, written whole or not at all.

A crash before a write sends again what came after the last one, under the same ids. The file also keeps the size and root of the tree of what was sent last,
so that a log that was rolled back or forked meanwhile is noticed when the destination goes on.
"""

import os
from pathlib import Path

import msgspec

from collector.errors import StateUnknown

__all__ = ["Cursor", "Position"]


class Position(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Of one log: leaves below `next` are dealt with; `size` and `root` (hex) are of the checkpoint then, 0 and empty before the first."""

    next: int
    size: int = 0
    root: str = ""


class _File(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    declared: str = ""
    positions: dict[str, Position] = {}


_decode = msgspec.json.Decoder(_File).decode


class Cursor:
    """The cursor of one destination. For one thread. Raises `StateUnknown` when its file does not read, or cannot be written."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._file = _decode(path.read_bytes())
        except FileNotFoundError:
            self._file = _File()
        except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
            raise StateUnknown(
                f"{path} does not read ({error}): remove it to begin again; the SIEM knows doubles by their ids"
            ) from error

    @property
    def declared(self) -> str:
        """What `declare` was last given; empty: this destination never ran."""
        return self._file.declared

    def of(self, origin: str) -> Position | None:
        """Where it is in the log of this origin; None: it has not begun."""
        return self._file.positions.get(origin)

    def positions(self) -> dict[str, Position]:
        """All of them, by origin."""
        return dict(self._file.positions)

    def declare(self, digest: str) -> None:
        """Remember how the destination is declared now; durable on return."""
        self._write(msgspec.structs.replace(self._file, declared=digest))

    def move(self, origin: str, position: Position) -> None:
        """Durable on return."""
        self._write(msgspec.structs.replace(self._file, positions={**self._file.positions, origin: position}))

    def _write(self, file: _File) -> None:
        scratch = self._path.with_suffix(".new")
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with scratch.open("wb") as opened:
                opened.write(msgspec.json.encode(file) + b"\n")
                opened.flush()
                os.fsync(opened.fileno())
            scratch.replace(self._path)  # a crash before: the old one; after: the new one
            folder = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
        except OSError as error:
            raise StateUnknown(f"{self._path} cannot be written: {error}") from error
        self._file = file
