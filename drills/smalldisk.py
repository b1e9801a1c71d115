"""A disk of its own, small enough to be filled: a tmpfs. To mount one takes root, or a user's own mount namespace (`unshare -rm`)."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Self

__all__ = ["SmallDisk", "may_mount"]

_PIECE = b"\0" * 65_536


def may_mount() -> bool:
    """Whether this process can make one."""
    return os.getuid() == 0


class SmallDisk:
    """Mounted over a folder for the length of a block. What is in it is gone afterwards.

    Args:
        folder: made when it is not there.
        mebibytes: its size.
    """

    def __init__(self, folder: Path, *, mebibytes: int) -> None:
        self.folder = folder
        self.size_bytes = mebibytes * 1024**2

    def __enter__(self) -> Self:
        self.folder.mkdir(parents=True, exist_ok=True)
        options = f"size={self.size_bytes},mode=755"
        subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tally-drill", str(self.folder)], check=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        # lazily: what a killed process had open is let go of a moment later
        subprocess.run(["umount", "-l", str(self.folder)], check=True)

    @property
    def free_bytes(self) -> int:
        """What can still be written."""
        found = os.statvfs(self.folder)
        return found.f_bavail * found.f_frsize

    def fill(self, *, leave_bytes: int = 0) -> None:
        """Write a file until no more than so much is free; 0: until the disk takes not one byte more."""
        with (self.folder / "ballast").open("ab", buffering=0) as file:
            try:
                while (left := self.free_bytes - leave_bytes) > 0 or not leave_bytes:
                    file.write(_PIECE[: max(1, min(left, len(_PIECE)))])
            except OSError:
                if leave_bytes:
                    raise

    def free(self) -> None:
        """Remove that file."""
        (self.folder / "ballast").unlink()
