"""Asks a time server how far this machine's clock is off: a client of SNTP, RFC 5905 sections 7.3, 8 and 14.

The request holds nothing of this machine: its transmit timestamp is random, and shows that the answer is to it (as
draft-ietf-ntp-data-minimization recommends, and Chrony does).
"""

import os
import socket
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass

from collector.batch import Clock
from collector.errors import Malformed

__all__ = ["Answer", "ask_time", "parse_answer"]

_HEADER = struct.Struct(">BBbbIII8s8s8s8s")
_SINCE_1900 = 2_208_988_800  # seconds from the NTP epoch to 1970
_ERA_SECONDS = 2**32
_MAX_DISTANCE_SECONDS = 16.0  # RFC 5905, MAXDISP


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a time server said: when it received and answered, in Unix nanoseconds, and its own uncertainty."""

    received_ns: int
    sent_ns: int
    uncertainty_ns: int


def ask_time(
    host: str, port: int, *, clock: Callable[[], int] = time.time_ns, samples: int = 3, timeout_seconds: float = 2.0
) -> Clock:
    """How far the clock is ahead of the server's (negative: behind), and the uncertainty: half of the way there and back, and the server's own.

    Asks `samples` times and takes the answer that took least. A few milliseconds to seconds; blocks.

    Raises:
        OSError: no answer in time, or no such host.
        Malformed: what answers is no time server, or one that is not synchronised itself.
    """
    found: list[Clock] = []
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)[0]
    except UnicodeError as error:  # an empty label, or one that is too long
        raise OSError(f"no name of a host: {error}") from error
    with socket.socket(family, kind, protocol) as asking:
        asking.settimeout(timeout_seconds)
        asking.connect(address)  # so that datagrams of others are not heard
        for _ in range(samples):
            nonce = os.urandom(8)
            asked_ns = clock()
            asking.send(_HEADER.pack(0x23, 0, 0, 0, 0, 0, 0, b"", b"", b"", nonce))  # version 4, mode 3: a client
            data = asking.recv(1_024)
            heard_ns = clock()
            answer = parse_answer(data, nonce, near_ns=heard_ns)
            way_ns = max(0, (heard_ns - asked_ns) - (answer.sent_ns - answer.received_ns))
            behind_ns = ((answer.received_ns - asked_ns) + (answer.sent_ns - heard_ns)) // 2
            found.append(Clock(offset_ns=-behind_ns, uncertainty_ns=way_ns // 2 + answer.uncertainty_ns))
    return min(found, key=lambda one: one.uncertainty_ns)


def parse_answer(data: bytes, nonce: bytes, *, near_ns: int) -> Answer:
    """Read an answer to the request with this transmit timestamp; `near_ns`: about now, which says the era (one ends in 2036).

    Raises:
        Malformed: see `ask_time`.
    """
    if len(data) < _HEADER.size:
        raise Malformed("an answer of a time server has 48 bytes or more", label="bad_ntp")
    flags, stratum, _, precision, delay, dispersion, reference, _, origin, received, sent = _HEADER.unpack_from(data)
    if flags & 7 != 4 or not 1 <= flags >> 3 & 7 <= 4:  # its mode: a server
        raise Malformed("what answers is no time server", label="bad_ntp")
    if origin != nonce:
        raise Malformed("an answer to another question", label="bad_ntp")
    if stratum == 0:
        code = reference.to_bytes(4, "big").decode("ascii", "backslashreplace")
        raise Malformed(f"the time server refuses: {code}", label="bad_ntp")
    distance_seconds = delay / 2**17 + dispersion / 2**16  # half of the way to its reference, and the rest
    if flags >> 6 == 3 or stratum > 15 or distance_seconds >= _MAX_DISTANCE_SECONDS or not any(sent):
        raise Malformed("the time server is not synchronised itself", label="bad_ntp")
    uncertainty_ns = int(distance_seconds * 1e9) + int(2.0 ** max(-32, min(precision, 0)) * 1e9)
    return Answer(
        received_ns=_unix_ns(received, near_ns), sent_ns=_unix_ns(sent, near_ns), uncertainty_ns=uncertainty_ns
    )


def _unix_ns(stamp: bytes, near_ns: int) -> int:
    """An NTP timestamp (32 bits of seconds, 32 bits of fractions) in the era in which it is nearest."""
    seconds, fraction = struct.unpack(">II", stamp)
    unix_seconds = seconds - _SINCE_1900
    eras = round((near_ns // 1_000_000_000 - unix_seconds) / _ERA_SECONDS)
    return int((unix_seconds + eras * _ERA_SECONDS) * 1_000_000_000 + (fraction * 1_000_000_000 >> 32))
