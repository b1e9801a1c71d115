"""Where the log lies: immutable objects under their C2SP paths, stagings, and one head that is compared and swapped.

`LogStorage` is the seam; `correlator.storage.file`, `correlator.storage.objects` and `correlator.storage.memory` stand behind
it, under one contract suite. The only strong operations are `stage` and `swap_head`, durable on return. What is published (`put_once`) may be
lost by a power cut until the next `sync`: the writer keeps the staging of it until then, and restores from that.
"""

import re
from collections.abc import Iterator, Sequence
from typing import Protocol

__all__ = ["CHECKPOINT", "Claim", "LogStorage", "check_stage_name", "check_tile_path", "is_torn"]

CHECKPOINT = "checkpoint"
"""The path of the signed checkpoint, the one published object that is replaced."""

_STAGE = re.compile(r"[0-9a-zA-Z][0-9a-zA-Z._-]{0,199}", re.ASCII)
_TILE_PATH = re.compile(r"tile/[a-z0-9]{1,20}(/x[0-9]{3})*/[0-9]{3}(\.p/[0-9]{1,3})?", re.ASCII)


def check_tile_path(path: str) -> None:
    """Refuse what is not the path of a tile or bundle, for all storages alike: a path may come from a URL.

    Raises:
        ValueError: it is not; it would lead elsewhere.
    """
    if _TILE_PATH.fullmatch(path) is None:
        raise ValueError(f"{path[:100]!r} is not the path of a tile")


def check_stage_name(name: str) -> None:
    """Refuse what is not the name of a staging, for all storages alike.

    Raises:
        ValueError: it is not; it might lead elsewhere.
    """
    if _STAGE.fullmatch(name) is None:
        raise ValueError(f"{name[:200]!r} is not the name of a staging")


def is_torn(found: bytes, data: bytes) -> bool:
    """Whether a power cut can have left ``found`` of ``data``: cut short, or some bytes still zero."""
    return len(found) <= len(data) and all(left in {right, 0} for left, right in zip(found, data, strict=False))


class Claim(Protocol):
    """The right to write, held until `release` or the end of the process."""

    def release(self) -> None:
        """Give it up."""


class LogStorage(Protocol):
    """One log's objects, stagings and head. Paths are those of C2SP ``tlog-tiles``, relative to the log's prefix.

    Every method may raise `Overloaded` (no room, too many open files: nothing was done) and `StateUnknown` (the storage
    failed in a way that leaves open what was done).

    Attributes:
        claim_excludes: whether `claim` keeps other processes out, and is let go of by the system when its holder dies. Where it
            does not, only the head tells whether a writer lives (`correlator.standby`).
        put_is_durable: whether `put_once` and `restore` are durable on return, so that `sync` has nothing to do, and a staging is
            needed no longer than until its objects are put.
    """

    claim_excludes: bool
    put_is_durable: bool

    # Published objects ------------------------------------------------------------------------------------------------

    def put_once(self, path: str, data: bytes) -> None:
        """Create an object whole; it is there with the same bytes: fine, and it stays as durable as it is. Durable only after `sync`.

        Raises:
            StateUnknown: it is there with other bytes; it was not changed.
            ValueError: ``path`` is not one of a tile or bundle.
        """

    def restore(self, path: str, data: bytes) -> None:
        """`put_once` for recovery: an object that a power cut left torn (short, or zeros for some bytes) is replaced.

        Where puts are not durable it is written anew also when it is there with the same bytes: that they can be read does not
        mean that a `sync` which failed has left them on the disk, nor that another one would bring them there.

        Raises:
            StateUnknown: it is there with bytes that no tear can explain; it was not changed.
        """

    def get(self, path: str) -> bytes:
        """The object's bytes.

        Raises:
            NotFound: there is none, or ``path`` is not a path of a published object.
        """

    def paths(self) -> Iterator[str]:
        """The paths of all objects under ``tile/``, in no particular order."""

    def drop_partials(self, path: str) -> None:
        """Remove the partial tiles or bundles that the full one at ``path`` has superseded; fine if there are none."""

    def sync(self) -> None:
        """Make durable, in one go, all objects that this instance was given (found there, put or restored).

        Raises:
            StateUnknown: not all are; another `sync` may succeed and change nothing, only `restore` helps.
            Overloaded: not all are, and another `sync` may make them so.
        """

    def replace_checkpoint(self, signed: bytes, *, head: bytes) -> None:
        """Replace the object `CHECKPOINT` atomically, provided that the head still is ``head``.

        Raises:
            Conflict: the head is another; the checkpoint was not changed.
        """

    # Stagings ---------------------------------------------------------------------------------------------------------

    def stage(self, name: str, data: bytes) -> None:
        """Write a staging whole (over one of that name); durable on return."""

    def read_stage(self, name: str) -> bytes:
        """The staging's bytes.

        Raises:
            NotFound: there is none.
        """

    def stages(self) -> Sequence[str]:
        """The names of all stagings, sorted."""

    def drop_stage(self, name: str) -> None:
        """Remove a staging; fine if there is none."""

    # The head ---------------------------------------------------------------------------------------------------------

    def read_head(self) -> bytes | None:
        """The head's bytes, or None before the first `swap_head`."""

    def swap_head(self, old: bytes | None, new: bytes) -> None:
        """Replace the head, provided that it is ``old``; durable on return. Fine if it is ``new`` already.

        With ``old`` and ``new`` alike it makes durable what is there, whatever became of who swapped it.

        Raises:
            Conflict: the head is neither; it was not changed.
        """

    def claim(self) -> Claim:
        """Take the right to write this log: a convenience that keeps two writers from disturbing each other.

        The log's safety does not rest on it, but on `swap_head`. Where it does not exclude (`claim_excludes`) it is always given.

        Raises:
            Conflict: another process holds it.
        """
