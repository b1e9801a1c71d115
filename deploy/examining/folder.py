"""Is the data folder fit for what is promised of it: ours, on a local disk, with room, and synced when we are told so?

Judging is apart from looking (`judge_mount`, `judge_room`, `judge_syncs`), because a test has no network file system at hand.
"""

import os
import re
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from deploy.config import Config
from deploy.examining import Chart
from deploy.examining.settings import collectors_of
from deploy.places import Places
from deploy.wording import size_in_words

__all__ = ["Mount", "bytes_below", "examine_folder", "judge_mount", "judge_room", "judge_syncs", "mount_of"]

_NETWORK = re.compile(
    r"nfs\d?|cifs|smb\w*|9p|afs|ceph|lustre|gpfs|ocfs2|gfs2|beegfs|fuse\.(sshfs|s3fs|glusterfs|rclone|gcsfuse|ceph\S*)"
)
_IN_MEMORY = ("tmpfs", "ramfs")
_UNSAFE_OPTIONS = ("nobarrier", "barrier=0")

_SYNCS = 7
_BLOCK_BYTES = 4_096
_NO_SYNC_SECONDS = 5e-6
"""No disk writes in less: what answers faster has not been asked."""
_SLOW_SYNC_SECONDS = 0.05
_LEAST_ROOM_BYTES = 64 * 1024**2
_MOUNTS = Path("/proc/self/mountinfo")


@dataclass(frozen=True, slots=True, kw_only=True)
class Mount:
    """Where a path lies: the mount point, the file system's type as Linux names it, and the options of mount and super block."""

    point: str
    kind: str
    options: tuple[str, ...]


def examine_folder(config: Config, places: Places) -> Chart:
    """Look at the data folder. What is written to try its disk has no name, and is gone when the file is closed."""
    chart = Chart("data folder")
    folder = places.root
    if not folder.is_dir():
        if folder.exists():
            chart.fail("folder", f"{folder} is not a folder", f"mv {folder} {folder}.old    # or set `data`")
            return chart
        folder = next(parent for parent in folder.parents if parent.is_dir())
        if not os.access(folder, os.W_OK | os.X_OK):
            chart.fail(
                "folder", f"{places.root} cannot be made: {folder} is not writable", f"install -d -m 700 {places.root}"
            )
            return chart
        chart.ok("folder", f"{places.root} is made at the first start")
    else:
        _ours(chart, folder)
    _file_system(chart, folder)
    _room(chart, config, places, folder)
    _syncs(chart, folder)
    return chart


def _ours(chart: Chart, folder: Path) -> None:
    about = folder.stat()
    mode = about.st_mode & 0o777
    if not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
        chart.fail(
            "folder",
            f"{folder} is not ours to write (owner {about.st_uid}, mode {mode:04o}; we are user {os.geteuid()})",
            f"run as user {about.st_uid}, or: chown -R {os.geteuid()} {folder}",
        )
    elif mode & 0o077:
        chart.warn("folder", f"{folder} is open to others (mode {mode:04o})", f"chmod 700 {folder}")
    elif about.st_uid != os.geteuid():
        chart.warn(
            "folder",
            f"{folder} belongs to user {about.st_uid}, and this is user {os.geteuid()}: what is made here now, the others cannot write",
            f"run as user {about.st_uid}",
        )
    else:
        chart.ok("folder", f"{folder} is ours, and nobody else's")


def mount_of(path: Path, table: str) -> Mount | None:
    """The mount that `path` lies on, out of the text of /proc/self/mountinfo (proc(5)); None when nothing in it covers it."""
    found: Mount | None = None
    for line in table.splitlines():
        before, dash, after = line.partition(" - ")
        fields, rest = before.split(), after.split()
        if not dash or len(fields) < 6 or len(rest) < 1:
            continue
        point = re.sub(r"\\([0-7]{3})", lambda code: chr(int(code[1], 8)), fields[4])
        covers = path == Path(point) or Path(point) in path.parents
        # of two on one point the later one is seen
        if covers and (found is None or len(point) >= len(found.point)):
            options = (*fields[5].split(","), *(rest[2].split(",") if len(rest) > 2 else ()))
            found = Mount(point=point, kind=rest[0], options=options)
    return found


def _file_system(chart: Chart, folder: Path) -> None:
    try:
        mount = mount_of(folder.resolve(), _MOUNTS.read_text(encoding="utf-8", errors="replace"))
    except OSError as error:
        chart.unknown("file system", f"{_MOUNTS} cannot be read: {error.strerror}")
        return
    if mount is None:
        chart.unknown("file system", f"{_MOUNTS} does not say what {folder} lies on")
    else:
        judge_mount(chart, mount)


def judge_mount(chart: Chart, mount: Mount) -> None:
    """Is it a local disk that keeps what it has synced?"""
    unsafe = [option for option in mount.options if option in _UNSAFE_OPTIONS]
    if _NETWORK.fullmatch(mount.kind):
        chart.warn(
            "file system",
            f"{mount.point} is a network file system ({mount.kind}): locks and syncs are the server's, and may not hold",
            'data = "…"    # a folder on a disk of this machine',
        )
    elif mount.kind in _IN_MEMORY:
        chart.warn(
            "file system",
            f"{mount.point} is memory ({mount.kind}): nothing outlives this machine's next start",
            'data = "…"    # a folder on a disk',
        )
    elif mount.kind == "overlay":
        chart.warn(
            "file system",
            f"{mount.point} is a container's own layer (overlay): what is stored goes when the container is removed",
            'data = "…"    # a folder on a volume',
        )
    elif unsafe:
        chart.warn(
            "file system",
            f"{mount.point} is mounted with {', '.join(unsafe)}: a power cut may take what was acknowledged",
            f"mount -o remount,barrier=1 {mount.point}    # and mend /etc/fstab",
        )
    else:
        chart.ok("file system", f"{mount.kind} at {mount.point}")


def _room(chart: Chart, config: Config, places: Places, folder: Path) -> None:
    need = 0
    for settings in collectors_of(config).values():
        limit = settings.spool.max_bytes + settings.spool.dead_letters_max_bytes
        need += max(limit - bytes_below(places.spool(settings.name)), 0)
    about = os.statvfs(folder)
    judge_room(chart, free_bytes=about.f_bavail * about.f_frsize, need_bytes=need, folder=folder)
    if about.f_files and about.f_favail < 1_000:
        chart.warn(
            "file names", f"only {about.f_favail:,} more files can be made there", "remove files, or move `data`"
        )


def judge_room(chart: Chart, *, free_bytes: int, need_bytes: int, folder: Path) -> None:
    """Do spools and dead letters, grown to their bounds by `need_bytes` more, have room?"""
    free, need = size_in_words(free_bytes), size_in_words(need_bytes)
    if free_bytes < _LEAST_ROOM_BYTES:
        chart.fail("room", f"{free} free: nothing more can be taken in", f"make room on the disk of {folder}")
    elif free_bytes < need_bytes:
        chart.warn(
            "room",
            f"{free} free, and spools may take {need} more: the disk is full before senders are told to wait",
            f"make room on the disk of {folder}, or lower spool.max_bytes ([collector.spool] or a sidecar's own)",
        )
    else:
        chart.ok("room", f"{free} free; spools may take {need} of it")


def bytes_below(folder: Path) -> int:
    """Of all files below the folder; those that come or go meanwhile may count or not."""
    total = 0
    for path in folder.rglob("*") if folder.is_dir() else ():
        try:
            total += path.stat().st_size if path.is_file() else 0
        except OSError:
            continue  # gone meanwhile
    return total


def _syncs(chart: Chart, folder: Path) -> None:
    taken: list[float] = []
    try:
        # without a name from the beginning where the file system can do that (O_TMPFILE), else from at once
        with tempfile.TemporaryFile(dir=folder, buffering=0) as file:
            for _ in range(_SYNCS):
                file.write(bytes(_BLOCK_BYTES))
                began = time.perf_counter()
                os.fdatasync(file.fileno())
                taken.append(time.perf_counter() - began)
    except OSError as error:
        chart.fail(
            "sync", f"the disk of {folder} takes no synced write: {error.strerror}", "room? permissions? a quota?"
        )
        return
    judge_syncs(chart, taken, in_memory=_is_in_memory(folder))


def _is_in_memory(folder: Path) -> bool:
    try:
        mount = mount_of(folder.resolve(), _MOUNTS.read_text(encoding="utf-8", errors="replace"))
    except OSError:
        return False
    return mount is not None and mount.kind in _IN_MEMORY


def judge_syncs(chart: Chart, seconds: Sequence[float], *, in_memory: bool) -> None:
    """Are syncs real, and how long is an acknowledgement for it? `seconds`: what each of some took."""
    usual = statistics.median(seconds)
    if in_memory:
        chart.ok("sync", "there is nothing to sync in memory")
    elif usual < _NO_SYNC_SECONDS:
        chart.warn(
            "sync",
            f"a sync returns after {usual * 1e6:.1f} µs, in which no disk writes: what is acknowledged may not outlive a power cut",
            "is fsync turned off (libeatmydata, a virtual machine's cache mode)?",
        )
    elif usual > _SLOW_SYNC_SECONDS:
        chart.warn(
            "sync",
            f"a sync takes {usual * 1e3:.0f} ms, and every acknowledgement waits for one",
            'data = "…"    # a folder on a faster disk, or one with a protected write cache',
        )
    else:
        chart.ok("sync", f"{usual * 1e3:.2g} ms each")
