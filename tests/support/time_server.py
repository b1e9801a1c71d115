"""A time server on this machine: answers SNTP requests with a clock of its own, and as wrongly as it is told to."""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

HEADER = struct.Struct(">BBbbIII8s8s8s8s")


def ntp(unix_ns: int) -> bytes:
    """A time as NTP writes it, modulo its era."""
    seconds, rest = divmod(unix_ns, 1_000_000_000)
    return struct.pack(">II", (seconds + 2_208_988_800) % 2**32, (rest << 32) // 1_000_000_000)


def answer_to(
    request: bytes, now_ns: int, *, flags: int = 0x24, stratum: int = 2, distance: int = 2**16 // 1000
) -> bytes:
    """An answer of version 4; `distance` is the root dispersion in 2⁻¹⁶ s."""
    now = ntp(now_ns)
    return HEADER.pack(flags, stratum, 0, -20, 0, distance, 0x44454E59, now, request[40:48], now, now)


class TimeServer:
    """`port` is where it listens; `ahead_ns` is by how much its clock is ahead; `answer` may be replaced."""

    def __init__(self) -> None:
        self.ahead_ns = 0
        self.requests: list[bytes] = []
        self.answer: Callable[[bytes, int], bytes] = answer_to
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(("127.0.0.1", 0))
        self.port = int(self.socket.getsockname()[1])

    def serve(self) -> None:
        """Answer until an empty datagram comes."""
        while True:
            request, sender = self.socket.recvfrom(1_024)
            if not request:
                return
            self.requests.append(request)
            self.socket.sendto(self.answer(request, time.time_ns() + self.ahead_ns), sender)


@contextmanager
def time_server() -> Iterator[TimeServer]:
    """One that runs for the length of the block."""
    server = TimeServer()
    thread = threading.Thread(target=server.serve, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.socket.sendto(b"", ("127.0.0.1", server.port))
        thread.join(10)
        server.socket.close()
