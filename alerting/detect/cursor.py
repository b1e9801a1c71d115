"""How far the detector has come: one small file, written whole or not at all.

For each log three numbers: leaves below `recorded` are looked at, and their findings on record; those of leaves below `told` are told as
well, and for those below `frozen` a freeze was asked, where it was to be.
A crash before a write repeats what came after the last one: findings are recognised by their ids, alerts by their labels.
"""

import os
from collections.abc import Mapping
from pathlib import Path

import msgspec

from collector.errors import StateUnknown

__all__ = ["Position", "read_cursor", "write_cursor"]


class Position(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Of one log; all are numbers of leaves, `told` and `frozen` never above `recorded`."""

    recorded: int
    told: int
    frozen: int


_decode = msgspec.json.Decoder(dict[str, Position]).decode


def read_cursor(path: Path) -> dict[str, Position]:
    """Positions by the log's origin; none where there is no file yet. Raises `StateUnknown` when it does not read."""
    try:
        return _decode(path.read_bytes())
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
