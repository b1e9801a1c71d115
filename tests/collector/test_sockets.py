"""Listening sockets that outlive who listens: nobody is refused while one takes over, and the last one frees the address."""

from __future__ import annotations

import socket
import stat
from pathlib import Path

import pytest

from collector.sockets import Held, Sockets


def connects(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
    except ConnectionRefusedError:
        return False
    return True


def let_go(held: Held) -> None:
    for one in held.sockets:
        one.close()
    held.release()


def test_an_address_is_listened_on_until_the_last_lets_go() -> None:
    sockets = Sockets()
    first = sockets.tcp("127.0.0.1", 0, use="http")
    again = sockets.tcp("127.0.0.1", 0, use="http")
    other = sockets.tcp("127.0.0.1", 0, use="beats")
    assert first.port == again.port != other.port
    waiting = socket.create_connection(("127.0.0.1", first.port))  # in the backlog, which is common to both
    let_go(first)
    first.release()  # a second time is none
    assert connects(again.port)
    taken, _ = again.sockets[0].accept()
    taken.sendall(b"taken over")
    assert waiting.recv(100) == b"taken over"
    waiting.close()
    taken.close()
    port = again.port
    let_go(again)
    assert not connects(port)
    let_go(other)


def test_a_port_that_is_taken_is_told_with_its_address_and_leaves_nothing() -> None:
    sockets = Sockets()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(
            OSError, match=rf"Address already in use \(while attempting to listen on 127.0.0.1, port {port}"
        ):
            sockets.tcp("127.0.0.1", port, use="http")
    held = sockets.tcp("127.0.0.1", port, use="http")
    assert connects(port)
    let_go(held)
    assert not connects(port)


def test_datagrams_are_taken_by_whoever_holds_the_port() -> None:
    sockets = Sockets()
    first, again = (sockets.udp("127.0.0.1", 0, use="syslog") for _ in range(2))
    assert first.port == again.port
    let_go(first)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.sendto(b"hello", ("127.0.0.1", again.port))
    again.sockets[0].settimeout(10)
    assert again.sockets[0].recv(100) == b"hello"
    let_go(again)


def test_a_unix_socket_replaces_what_a_dead_process_left_and_is_removed_in_the_end(tmp_path: Path) -> None:
    path = tmp_path / "forward.sock"
    left = socket.socket(socket.AF_UNIX)
    left.bind(str(path))
    left.close()
    sockets = Sockets()
    first, again = (sockets.unix(path) for _ in range(2))
    assert (stat.S_IMODE(path.stat().st_mode), first.port) == (0o660, 0)
    let_go(first)
    with socket.socket(socket.AF_UNIX) as sender:
        sender.connect(str(path))
    let_go(again)
    assert not path.exists()
    path.write_text("somebody's file")
    with pytest.raises(OSError, match="Address already in use"):
        sockets.unix(path)
    assert path.read_text() == "somebody's file"


def test_a_unix_socket_on_which_somebody_lives_is_not_taken(tmp_path: Path) -> None:
    path = tmp_path / "forward.sock"
    first = Sockets().unix(path)
    for _ in range(2):
        with pytest.raises(OSError, match=r"somebody listens on .*forward\.sock"):
            Sockets().unix(path)
    with socket.socket(socket.AF_UNIX) as sender:
        sender.connect(str(path))
    path.unlink()  # by hand, or by another program
    second = Sockets().unix(path)
    let_go(first)
    with socket.socket(socket.AF_UNIX) as sender:
        sender.connect(str(path))  # the end of the first one has not taken it away
    let_go(second)
    assert not path.exists()


def test_a_port_has_one_use() -> None:
    sockets = Sockets()
    held = sockets.tcp("127.0.0.1", 0, use="forward")
    fixed = sockets.tcp("127.0.0.1", free_port(), use="forward")
    with pytest.raises(OSError, match="by forward, and http is to listen there"):
        sockets.tcp("127.0.0.1", fixed.port, use="http")
    let_go(sockets.udp("127.0.0.1", fixed.port, use="syslog"))  # datagrams do not meet connections
    let_go(sockets.tcp("127.0.0.1", fixed.port, use="forward"))
    port = fixed.port
    let_go(fixed)
    let_go(sockets.tcp("127.0.0.1", port, use="http"))
    let_go(held)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port
