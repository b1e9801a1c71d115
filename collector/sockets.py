"""Listening sockets that outlive who listens on them: so that another listener takes over without a moment in which nobody does.

Who listens gets a duplicate (dup(2)) of a socket that is kept here; its backlog is the kernel's and common to all duplicates. While
a way in is changed, the new one listens before the old one ends, and no connection is refused in between.
"""

import contextlib
import errno
import os
import socket
import stat
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["Held", "Sockets"]

_BACKLOG = 1_024

_Key = tuple[str, str, int | str]


@dataclass(slots=True, kw_only=True)
class _Kept:
    sockets: list[socket.socket]
    use: str = ""
    path: Path | None = None
    inode: tuple[int, int] = (0, 0)
    holders: int = 0


@dataclass(slots=True, kw_only=True, eq=False)
class Held:
    """A way in's hold on an address; `sockets` are its own, one for each address that the host's name has."""

    sockets: list[socket.socket]
    _of: "Sockets"
    _key: _Key
    _released: bool = field(default=False, init=False)

    @property
    def port(self) -> int:
        """The port, which the system may have chosen; 0 of a unix socket."""
        name = self.sockets[0].getsockname()
        return int(name[1]) if isinstance(name, tuple) else 0

    def release(self) -> None:
        """Hold it no more; with the last hold the address is free, as soon as who listens has closed its own."""
        if not self._released:
            self._released = True
            self._of._release(self._key)  # noqa: SLF001 - the two are one


class Sockets:
    """The addresses that are listened on. For one event loop."""

    def __init__(self) -> None:
        self._kept: dict[_Key, _Kept] = {}

    def tcp(self, host: str, port: int, *, use: str) -> Held:
        """Listen on a TCP port (0: the system chooses one for this use, and who asks again for it gets the same).

        Raises OSError: it cannot be had, or has another use here: connections would go to whichever of the two wakes first.
        """
        key = ("tcp", host, port or use)
        return self._hold(key, lambda: _Kept(sockets=_bound(host, port, socket.SOCK_STREAM), use=use), use)

    def udp(self, host: str, port: int, *, use: str) -> Held:
        """Take datagrams. Arguments and errors as `tcp`."""
        key = ("udp", host, port or use)
        return self._hold(key, lambda: _Kept(sockets=_bound(host, port, socket.SOCK_DGRAM), use=use), use)

    def unix(self, path: Path, *, mode: int = 0o660) -> Held:
        """Listen on a unix socket; one left there by a process that died is replaced. The last release removes it.

        Raises OSError: it cannot be had, or somebody listens there.
        """

        def made() -> _Kept:
            _clear(path)
            unix = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                unix.bind(os.fspath(path))
                inode = _inode(path)
                path.chmod(mode)
                unix.listen(_BACKLOG)
            except OSError:
                unix.close()
                raise
            return _Kept(sockets=[unix], path=path, inode=inode)

        return self._hold(("unix", str(path), ""), made, "")

    def _hold(self, key: _Key, made: Callable[[], _Kept], use: str) -> Held:
        kept = self._kept.get(key)
        if kept is None:
            kept = self._kept[key] = made()
        elif kept.use != use:
            _, host, port = key
            where = (
                f"{os.strerror(errno.EADDRINUSE)} (on {host}, port {port}: by {kept.use}, and {use} is to listen there)"
            )
            raise OSError(errno.EADDRINUSE, where)
        kept.holders += 1
        return Held(sockets=[one.dup() for one in kept.sockets], _of=self, _key=key)

    def _release(self, key: _Key) -> None:
        kept = self._kept[key]
        kept.holders -= 1
        if kept.holders:
            return
        del self._kept[key]
        for one in kept.sockets:
            one.close()
        if kept.path is not None:
            with contextlib.suppress(FileNotFoundError):
                if _inode(kept.path) == kept.inode:  # else somebody has put another one there
                    kept.path.unlink()


def _inode(path: Path) -> tuple[int, int]:
    found = path.lstat()
    return found.st_dev, found.st_ino


def _clear(path: Path) -> None:
    """Remove a socket on which nobody listens. Raises OSError: somebody does, or it cannot be told."""
    with contextlib.suppress(FileNotFoundError), socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asking:
        if not stat.S_ISSOCK(path.stat().st_mode):
            return
        asking.setblocking(False)  # noqa: FBT003 - as the standard library has it
        try:
            asking.connect(os.fspath(path))
        except ConnectionRefusedError:
            path.unlink()
            return
        except BlockingIOError:
            pass  # its backlog is full
        raise OSError(errno.EADDRINUSE, f"{os.strerror(errno.EADDRINUSE)} (somebody listens on {path})")


def _bound(host: str, port: int, kind: socket.SocketKind) -> list[socket.socket]:
    """A socket for each address of the host, as asyncio binds them; raises OSError."""
    found: list[socket.socket] = []
    try:
        known = socket.getaddrinfo(host or None, port, type=kind, flags=socket.AI_PASSIVE)
    except (socket.gaierror, UnicodeError) as error:  # the second: a name with an empty or too long part
        code, what = (
            (error.errno, error.strerror) if isinstance(error, OSError) else (socket.EAI_NONAME, "No host name")
        )
        raise socket.gaierror(code, f"{what} (while attempting to listen on {host}, port {port})") from error
    try:
        for family, _, _, _, address in dict.fromkeys(known):
            one = socket.socket(family, kind)
            found.append(one)
            if kind is socket.SOCK_STREAM:
                one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                # accepted sockets inherit it; without it an answer in two parts waits for the reader's delayed ack
                one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if family is socket.AF_INET6:
                one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            one.setblocking(False)  # noqa: FBT003 - as the standard library has it
            chosen = found[0].getsockname()[1] if len(found) > 1 and not port else address[1]
            try:
                one.bind((address[0], chosen, *address[2:]))
            except OSError as error:
                where = f"{error.strerror} (while attempting to listen on {address[0]!s}, port {chosen!s})"
                raise OSError(error.errno, where) from error
            if kind is socket.SOCK_STREAM:
                one.listen(_BACKLOG)
    except OSError:
        for one in found:
            one.close()
        raise
    return found
