"""A disk of its own, small enough to be filled: a tmpfs.

To mount one takes root. Who is not root runs in a user and mount namespace of their own (`in_namespace`; user_namespaces(7),
mount_namespaces(7)), in which small disks are mounted before anything else starts, and nobody outside sees them.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

__all__ = ["SmallDisk", "in_namespace", "may_mount"]

_MOUNTED = "TALLY_SMALL_DISKS"
"""Names the folder under which `in_namespace` has mounted them."""

_MOUNT = "tally-drill"
_PIECE = b"\0" * 65_536

# as the namespace's root it mounts, and goes on as the user who began, because OpenSearch refuses to be root
_SCRIPT = f"""
set -e
while [ "$1" != -- ]; do mount -t tmpfs -o "size=$2,mode=755" {_MOUNT} "$1"; shift 2; done
shift; user=$1; group=$2; shift 2
exec unshare --user --map-user="$user" --map-group="$group" "$@"
"""


def may_mount() -> bool:
    """Whether this process can have small disks."""
    return os.getuid() == 0 or _MOUNTED in os.environ


def in_namespace(folder: Path, disks: Mapping[str, int], command: list[str]) -> int | None:
    """Run a command in namespaces with small disks, for who is not root; its exit code, or None where there are no such namespaces.

    Args:
        folder: an empty one, where they are mounted.
        disks: their names with their sizes in MiB.
        command: what to run.
    """
    namespace = ["unshare", "--user", "--map-root-user", "--mount"]
    if not sys.platform.startswith("linux") or shutil.which("unshare") is None:
        return None
    if subprocess.run([*namespace, "true"], check=False, capture_output=True).returncode:
        return None
    places: list[str] = []
    for name, mebibytes in disks.items():
        (folder / name).mkdir()
        places += [str(folder / name), f"{mebibytes}m"]
    whom = [str(os.getuid()), str(os.getgid())]
    whole = [*namespace, "sh", "-c", _SCRIPT, "sh", *places, "--", *whom, *command]
    return subprocess.run(whole, check=False, env=os.environ | {_MOUNTED: str(folder)}).returncode


class SmallDisk:
    """Mounted over a folder for the length of a block. What is in it is gone afterwards.

    Args:
        folder: made when it is not there; its name is the disk's.
        mebibytes: its size.
    """

    def __init__(self, folder: Path, *, mebibytes: int) -> None:
        self.folder = folder
        self.size_bytes = mebibytes * 1024**2
        self._mounts = _MOUNTED not in os.environ

    def __enter__(self) -> Self:
        if not self._mounts:
            self.folder.parent.mkdir(parents=True, exist_ok=True)
            self.folder.symlink_to(Path(os.environ[_MOUNTED], self.folder.name))
            return self
        self.folder.mkdir(parents=True, exist_ok=True)
        options = f"size={self.size_bytes},mode=755"
        subprocess.run(["mount", "-t", "tmpfs", "-o", options, _MOUNT, str(self.folder)], check=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._mounts:
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
