"""Who runs, and where they listen: one small file for each running process in the data folder's ``run/``.

A process writes its file when it is ready and removes it when it stops; after a crash the file stays, and its process id
says that it is stale. Nothing but people, `tally status` and the demo relies on these files.
"""

import os
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import msgspec

__all__ = ["Running", "announce", "is_alive", "own_version", "retire", "running"]


class Running(msgspec.Struct, frozen=True, kw_only=True):
    """A process: its name (``collector-<name>``, ``correlator``, ``correlator-<name>``, ``api``), process id, and addresses by their use.

    An address is a URL for HTTP (``http``) and ``host:port`` or a socket's path for the others (``forward``, ``forward_unix``, ``grpc``).
    `role` is what a correlator is at: ``writer`` or ``standby``. `version` is the program's; empty where it is not known.
    """

    name: str
    pid: int
    addresses: dict[str, str] = {}
    role: str = ""
    version: str = ""


def own_version() -> str:
    """This program's version; empty when it runs from a tree that is not installed."""
    try:
        return version("tallystick")
    except PackageNotFoundError:
        return ""


def announce(folder: Path, name: str, addresses: Mapping[str, str], *, role: str = "") -> Running:
    """Write this process's file, whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    process = Running(name=name, pid=os.getpid(), addresses=dict(addresses), role=role, version=own_version())
    path = folder / f"{name}.json"
    scratch = path.with_suffix(".new")
    scratch.write_bytes(msgspec.json.encode(process) + b"\n")
    scratch.replace(path)
    return process


def retire(folder: Path, process: Running) -> None:
    """Remove the file that `announce` wrote, unless another process has taken its place."""
    path = folder / f"{process.name}.json"
    found = _read(path)
    if found is not None and found.pid == process.pid:
        path.unlink(missing_ok=True)


def running(folder: Path) -> list[Running]:
    """The processes that announced themselves and are alive, by name."""
    found = (_read(path) for path in sorted(folder.glob("*.json")))
    return [process for process in found if process is not None and is_alive(process.pid)]


def is_alive(pid: int) -> bool:
    """Whether a process has this id (it may be another one by now, when the announced one died long ago)."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return pid > 0


def _read(path: Path) -> Running | None:
    try:
        return msgspec.json.decode(path.read_bytes(), type=Running)
    except (OSError, msgspec.DecodeError):
        return None  # gone or half written by something else: then nobody runs here that we know of
