"""How far the detector has come: one small file, written whole or not at all.

For each log a number: leaves below `recorded` are looked at; and those of their findings that are not on record yet, not told, or for which
a freeze is still to be asked. They are kept, not found again: rules may be others by then, or remember less. It is written before anything
that was found goes on record, so that whatever is on record stands here until it is told.
A crash before a write repeats what came after the last one: findings are recognised by their ids, alerts by their labels.
"""

import os
from collections.abc import Mapping
from pathlib import Path

import msgspec

from alerting.detect.waiting import Told
from collector.errors import StateUnknown

__all__ = ["Cursor", "Position", "read_cursor", "write_cursor"]


class Position(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Of one log: the first leaf that is not looked at yet, and findings of leaves below it that wait, the first of them to go on record."""

    recorded: int
    to_record: tuple[Told, ...] = ()
    to_tell: tuple[Told, ...] = ()
    to_freeze: tuple[Told, ...] = ()


class _Stored(Position, frozen=True, kw_only=True, forbid_unknown_fields=True):
    # where an older version wrote it, in place of what waits: the leaves below which findings were told, and freezes asked for
    told: int | None = None
    frozen: int | None = None

    def position(self) -> Position:
        # what waited then is found again, known by its id, and told; some of it once more
        recorded = min(one for one in (self.recorded, self.told, self.frozen) if one is not None)
        return Position(recorded=recorded, to_record=self.to_record, to_tell=self.to_tell, to_freeze=self.to_freeze)


_decode = msgspec.json.Decoder(dict[str, _Stored]).decode


def read_cursor(path: Path) -> dict[str, Position]:
    """Positions by the log's origin; none where there is no file yet. Raises `StateUnknown` when it does not read."""
    try:
        return {origin: stored.position() for origin, stored in _decode(path.read_bytes()).items()}
    except FileNotFoundError:
        return {}
    except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
        raise StateUnknown(
            f"{path} does not read ({error}): remove it to look at the whole log again; nothing is recorded twice"
        ) from error


def write_cursor(path: Path, positions: Mapping[str, Position | int]) -> None:
    """Durable on return. Raises `OSError`."""
    scratch = path.with_suffix(".new")
    with scratch.open("wb") as file:
        file.write(msgspec.json.encode(dict(positions)) + b"\n")
        file.flush()
        os.fsync(file.fileno())
    scratch.replace(path)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


class Cursor:
    """The file of a detector that runs. Raises `StateUnknown` when it does not read.

    Attributes:
        positions: as they stand in the file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.positions: Mapping[str, Position] = read_cursor(path)

    def write(self, positions: Mapping[str, Position]) -> None:
        """Durable on return; nothing is done where the file says so already. Raises `StateUnknown` when it cannot be written."""
        if positions == self.positions:
            return
        try:
            write_cursor(self._path, positions)
        except OSError as error:
            raise StateUnknown(f"{self._path} cannot be written: {error}") from error
        self.positions = positions
