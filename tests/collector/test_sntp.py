"""A time server is asked, and what it may answer wrongly is refused."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Callable
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collector.errors import Malformed
from collector.sntp import ask_time, parse_answer
from tests.support.time_server import answer_to, ntp, time_server

NOW_NS = 1_767_225_600_123_456_789
NONCE = b"\x80nonce\x00\xff"
REQUEST = b"\x23".ljust(40, b"\0") + NONCE


@pytest.mark.parametrize("ahead_ns", [0, 5_000_000_000, -90_000_000_000])
def test_the_offset_is_that_of_our_clock_from_the_servers(ahead_ns: int) -> None:
    with time_server() as server:
        server.ahead_ns = ahead_ns
        found = ask_time("127.0.0.1", server.port)
    assert abs(found.offset_ns + ahead_ns) <= found.uncertainty_ns < 1_000_000_000
    assert found.uncertainty_ns >= 900_000, "never more certain than the server, whose root dispersion is 1 ms"
    assert len(server.requests) == 3
    for request in server.requests:  # nothing of this machine is in them
        assert (len(request), request[0], request[1:40]) == (48, 0x23, bytes(39))
    assert len({request[40:] for request in server.requests}) == 3


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (lambda _request, _now: b"too short", "48 bytes"),
        (lambda request, _now: request, "no time server"),
        (lambda _request, now: answer_to(bytes(48), now), "another question"),
        (partial(answer_to, stratum=0), "refuses: DENY"),
        (partial(answer_to, stratum=16), "not synchronised itself"),
        (partial(answer_to, flags=0xE4), "not synchronised itself"),
        (partial(answer_to, distance=20 * 2**16), "not synchronised itself"),
    ],
)
def test_what_is_no_good_answer_is_refused(answer: Callable[[bytes, int], bytes], said: str) -> None:
    with time_server() as server:
        server.answer = answer
        with pytest.raises(Malformed, match=said):
            ask_time("127.0.0.1", server.port)


def test_a_server_that_does_not_answer_is_an_error_in_time() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as deaf:
        deaf.bind(("127.0.0.1", 0))
        began = time.monotonic()
        with pytest.raises(TimeoutError):
            ask_time("127.0.0.1", deaf.getsockname()[1], timeout_seconds=0.05)
        assert time.monotonic() - began < 5.0


@pytest.mark.parametrize("host", ["ntp..example.org", "n" * 64 + ".example.org"])
def test_what_is_no_name_of_a_host_is_an_error_like_any_other(host: str) -> None:
    with pytest.raises(OSError, match="no name of a host"):
        ask_time(host, 123)


@given(
    st.integers(min_value=0, max_value=4_000_000_000_000_000_000),
    st.integers(min_value=-30_000_000_000_000_000, max_value=30_000_000_000_000_000),
)
def test_times_of_every_era_are_read(now_ns: int, away_ns: int) -> None:
    near_ns = now_ns + away_ns  # by a year either way; an era has 136
    assert abs(parse_answer(answer_to(REQUEST, now_ns), NONCE, near_ns=near_ns).sent_ns - now_ns) <= 1


def test_2036_is_an_era_further() -> None:
    assert ntp(2_085_978_496_000_000_000) == bytes(8), "7 February 2036, 06:28:16 UTC"
    assert (
        parse_answer(answer_to(REQUEST, 2_085_978_497_000_000_000), NONCE, near_ns=NOW_NS).sent_ns
        == 2_085_978_497_000_000_000
    )


@given(st.binary(max_size=80), st.booleans())
def test_nothing_but_malformed_is_raised(data: bytes, ours: bool) -> None:
    if ours and len(data) >= 48:
        data = data[:24] + NONCE + data[32:]
    with contextlib.suppress(Malformed):
        parse_answer(data, NONCE, near_ns=NOW_NS)
