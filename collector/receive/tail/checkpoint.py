"""The tail's checkpoint on disk: one file, replaced as a whole.

What a crash means: before the rename is durable, the one before is found, and files are read again from where it says; what they give
is recognised by its source ids. A checkpoint is never behind what it must be ahead of, because a file's identity and a forced
cut are written before anything that depends on them is handed on.
"""

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from collector.disk import Disk
from collector.errors import Malformed, StateUnknown
from collector.receive.tail.position import MAX_CHECKPOINT_BYTES, Remembered, decode_checkpoint, encode_checkpoint

__all__ = ["Checkpoint"]

_NAME, _NEW = "positions", "positions.new"


class Checkpoint:
    """The file `positions` in a folder of its own. Not thread-safe; its owner holds the spool's lock.

    Attributes:
        files: what was last written, or found.
        begun: labels of the configuration's entries that have been used before.

    Raises:
        StateUnknown: it does not read back. It is left where it is: without it, files would be read again from their beginning,
            and whether that is wanted only a person can say.
    """

    def __init__(self, directory: Path, *, disk: Disk) -> None:
        self._directory = directory
        self._disk = disk
        self.files: tuple[Remembered, ...] = ()
        self.begun: tuple[str, ...] = ()
        disk.make_directory(directory)
        path = directory / _NAME
        if not disk.exists(path):
            return
        try:
            if disk.size(path) > MAX_CHECKPOINT_BYTES:
                raise Malformed("too long to be one", label="bad_checkpoint")
            self.files, self.begun = decode_checkpoint(disk.read(path))
        except Malformed as error:
            raise StateUnknown(
                f"{path}: {error}; without it the files are read again from their beginning: remove it if that is wanted"
            ) from error

    def save(self, files: Sequence[Remembered], begun: Sequence[str]) -> None:
        """Write it; durable on return. Raises OSError: then the one before, or this one, is found later."""
        kept, labels = tuple(files), tuple(begun)
        new = self._directory / _NEW
        with suppress(FileNotFoundError):
            self._disk.remove(new)  # a crash, or a full disk, left it
        self._disk.write_new(new, encode_checkpoint(kept, labels))
        self._disk.replace(new, self._directory / _NAME)
        self._disk.sync_directory(self._directory)
        self.files, self.begun = kept, labels
