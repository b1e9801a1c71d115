"""Incarnations: each life of a collector's spool is a folder and a stream of its own.

    <root>/lock                one process at a time
    <root>/journal/            source ids, across incarnations (`collector.journal`)
    <root>/dead/               dead letters (`collector.deadletters`)
    <root>/<incarnation>/      meta.json, segments, header log; forked-<number> when another one has taken over what the store refused
    <root>/<incarnation>.damaged/    kept aside for a person when it could not be read

A new incarnation is minted when there is none, when the last one was closed, forked or damaged. Its folder appears by a
rename, so a crash leaves either the whole of it or nothing.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

from collector.batch import Fork, StreamId, stream_id
from collector.canonical import MAX_SAFE_INTEGER
from collector.disk import Disk
from collector.errors import StateUnknown
from collector.event import format_time

__all__ = ["Incarnation", "Meta", "find_incarnations", "mark_forked", "mint", "read_meta", "remove", "set_aside"]

_META = "meta.json"
_FORKED = re.compile(r"forked(?:-([1-9][0-9]{0,15}))?", re.ASCII)
_NEW = ".new"
_DAMAGED = ".damaged"
_INCARNATION_BYTES = 8


class Meta(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``meta.json``: which stream a folder holds. `created` is RFC 3339; `fork` the stream that this one replaces."""

    v: int
    ledger: str
    stream: str
    created: str
    fork: Fork | None = None


def read_meta(data: bytes) -> Meta:
    """Read the bytes of a ``meta.json``; raises `StateUnknown`."""
    try:
        return msgspec.json.decode(data, type=Meta)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise StateUnknown(f"{_META} cannot be read: {error}") from error


@dataclass(frozen=True, slots=True, kw_only=True)
class Incarnation:
    """One life of a spool.

    Attributes:
        directory: its folder.
        stream: its stream's id.
        created: when it was minted, RFC 3339.
        fork: the stream it replaces, if that one forked.
        forked: the number of the batch that the store refused, when the events from there on were taken over by another incarnation; else 0.
    """

    directory: Path
    stream: StreamId
    created: str
    fork: Fork | None
    forked: int


def find_incarnations(root: Path, *, ledger: str, disk: Disk) -> list[Incarnation]:
    """The incarnations under `root`, oldest first. Half-made folders are removed.

    Raises:
        StateUnknown: a folder's meta.json does not read, or names another ledger.
    """
    found: list[Incarnation] = []
    for name in disk.list_directory(root):
        directory = root / name
        if name.endswith(_NEW):
            _remove_folder(directory, disk)
            continue
        if name.endswith(_DAMAGED) or not disk.exists(directory / _META):
            continue
        try:
            meta = read_meta(disk.read(directory / _META))
        except StateUnknown as error:
            raise StateUnknown(f"spool folder {name}: {error}") from error
        if meta.ledger != ledger:
            raise StateUnknown(f"spool folder {name} belongs to the ledger {meta.ledger!r}, not to {ledger!r}")
        found.append(
            Incarnation(
                directory=directory,
                stream=StreamId(meta.stream),
                created=meta.created,
                fork=meta.fork,
                forked=_forked_at(disk.list_directory(directory)),
            )
        )
    return sorted(found, key=lambda one: (one.created, one.stream))


def mint(
    root: Path,
    *,
    collector: str,
    ledger: str,
    disk: Disk,
    clock: Callable[[], int],
    random: Callable[[int], bytes],
    fork: Fork | None = None,
    incarnation: str = "",
) -> Incarnation:
    """Make a new incarnation; `incarnation` names it where the name is not random (an imported file's SHA-256)."""
    incarnation = incarnation or random(_INCARNATION_BYTES).hex()
    meta = Meta(v=1, ledger=ledger, stream=stream_id(collector, incarnation), created=format_time(clock()), fork=fork)
    making, made = root / f"{incarnation}{_NEW}", root / incarnation
    if disk.exists(making):
        _remove_folder(making, disk)
    disk.make_directory(making)
    disk.write_new(making / _META, msgspec.json.encode(meta))
    disk.sync_directory(making)
    disk.replace(making, made)
    disk.sync_directory(root)
    return Incarnation(directory=made, stream=StreamId(meta.stream), created=meta.created, fork=meta.fork, forked=0)


def mark_forked(incarnation: Incarnation, number: int, *, disk: Disk) -> Incarnation:
    """Say durably that another incarnation has taken this one's events from batch `number` on; returns it so marked."""
    # the number is in the name: a crash leaves the whole of it or nothing
    path = incarnation.directory / f"forked-{number}"
    if not disk.exists(path):
        disk.write_new(path, b"")
        disk.sync_directory(incarnation.directory)
    return replace(incarnation, forked=number)


def set_aside(incarnation: Incarnation, *, disk: Disk) -> Path:
    """Rename a damaged incarnation's folder, so that nothing writes to it and a person can look; returns where it is."""
    aside = incarnation.directory.with_name(incarnation.directory.name + _DAMAGED)
    disk.replace(incarnation.directory, aside)
    disk.sync_directory(aside.parent)
    return aside


def remove(incarnation: Incarnation, *, disk: Disk) -> None:
    """Remove an incarnation that the log holds whole."""
    doomed = incarnation.directory.with_name(incarnation.directory.name + _NEW)
    disk.replace(incarnation.directory, doomed)  # a crash from here on leaves a folder that the next start removes
    disk.sync_directory(doomed.parent)
    _remove_folder(doomed, disk)


def _forked_at(names: list[str]) -> int:
    """The number in the mark; 0 without one. A mark of before there were numbers keeps its folder for a person."""
    return max((int(found[1] or MAX_SAFE_INTEGER) for name in names if (found := _FORKED.fullmatch(name))), default=0)


def _remove_folder(directory: Path, disk: Disk) -> None:
    for name in disk.list_directory(directory):
        disk.remove(directory / name)
    disk.remove_directory(directory)
    disk.sync_directory(directory.parent)
