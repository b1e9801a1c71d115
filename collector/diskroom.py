"""What a spool may still write to its disk: all but what is kept free for shipping what it holds."""

from pathlib import Path

from collector.disk import Disk
from collector.refusals import Refusals

__all__ = ["DiskRoom"]

_UNASKED_BYTES = 1024**2


class DiskRoom:
    """Asks the disk what it has left, and not for each write: that would be a part of what a single message costs.

    A sixteenth of what may be written, at most 1 MiB, is written before the next look; so near the bound each write is preceded by one.

    Args:
        disk: asked.
        directory: the spool's folder.
        keep_free_bytes: what is to be left; may be changed.
        refusals: told of what is refused.
    """

    def __init__(self, disk: Disk, directory: Path, keep_free_bytes: int, refusals: Refusals) -> None:
        self._disk = disk
        self._directory = directory
        self.keep_free_bytes = keep_free_bytes
        self._refusals = refusals
        self._unasked_bytes = 0

    def take(self, size_bytes: int) -> None:
        """So much is about to be written. Raises `Overloaded`: too little would be left."""
        if size_bytes > self._unasked_bytes:
            spare = self._disk.free_bytes(self._directory) - size_bytes - self.keep_free_bytes
            if spare < 0:
                left = max(0, spare + self.keep_free_bytes)
                raise self._refusals.refuse(f"the spool's disk is full but for {left >> 20} MiB, kept for shipping")
            self._unasked_bytes = size_bytes + min(_UNASKED_BYTES, spare // 16)
        self._unasked_bytes -= size_bytes
