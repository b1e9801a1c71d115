"""Does this machine's clock go right? What the kernel says of it, and what the head of the log shows.

The proof rests on no clock. What goes by it: the times that events are given here, the month that a batch is stored under, and when
certificates and tokens expire.
"""

import ctypes
import sys
from dataclasses import dataclass

from deploy.examining import Chart

__all__ = ["KernelClock", "examine_clock", "judge_kernel", "judge_offset", "kernel_clock"]

_TIME_ERROR = 5  # the return value of adjtimex(2) when the clock is not synchronised
_STA_UNSYNC = 0x40
_WRONG_SECONDS = 60.0
_OFF_SECONDS = 1.0

_SYNC = "timedatectl set-ntp true    # or chrony, or ntpd"


class _Time(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("part", ctypes.c_long))


class _Timex(ctypes.Structure):
    """``struct timex`` of adjtimex(2), with room for what kernels add at its end."""

    _fields_ = (
        ("modes", ctypes.c_uint),
        ("offset", ctypes.c_long),
        ("frequency", ctypes.c_long),
        ("max_error", ctypes.c_long),
        ("estimated_error", ctypes.c_long),
        ("status", ctypes.c_int),
        ("constant", ctypes.c_long),
        ("precision", ctypes.c_long),
        ("tolerance", ctypes.c_long),
        ("time", _Time),
        ("rest", ctypes.c_long * 32),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelClock:
    """What the kernel says: whether somebody disciplines its clock, and by how much it may be wrong at most."""

    synchronised: bool
    max_error_seconds: float


def kernel_clock() -> KernelClock | None:
    """Ask the kernel, which anybody may (adjtimex(2) with no mode set changes nothing); None where it does not say."""
    if not sys.platform.startswith("linux"):
        return None
    told = _Timex()
    try:
        state = ctypes.CDLL(None, use_errno=True).adjtimex(ctypes.byref(told))
    except (OSError, AttributeError):
        return None
    if state < 0:  # a container's filter may forbid it
        return None
    synchronised = state != _TIME_ERROR and not told.status & _STA_UNSYNC
    return KernelClock(synchronised=synchronised, max_error_seconds=told.max_error / 1e6)


def examine_clock(*, head_written_ns: int | None, now_ns: int) -> Chart:
    """Look at the clock.

    Args:
        head_written_ns: when the head of the log was written, by its writer's clock; None: there is none.
        now_ns: this machine's time, read just after the head was.
    """
    chart = Chart("clock")
    judge_kernel(chart, kernel_clock())
    if head_written_ns is not None:
        ahead = (head_written_ns - now_ns) / 1e9
        if ahead > _OFF_SECONDS:
            chart.warn(
                "log's writer",
                f"the head of the log was written {ahead:,.1f} s from now: the writer's clock is ahead, or this one is behind",
                f"on both machines: {_SYNC}",
            )
        else:
            chart.ok("log's writer", "the head of the log is not from the future")
    return chart


def judge_kernel(chart: Chart, clock: KernelClock | None) -> None:
    """Is the clock synchronised?"""
    if clock is None:
        chart.unknown(
            "synchronised",
            "the kernel does not say whether its clock is synchronised",
            "timedatectl    # or: chronyc tracking",
        )
    elif clock.synchronised:
        chart.ok("synchronised", f"the kernel's clock is, to within {clock.max_error_seconds * 1e3:.0f} ms at most")
    else:
        chart.warn("synchronised", "nothing synchronises the kernel's clock, as far as it knows", _SYNC)


def judge_offset(chart: Chart, name: str, *, least_seconds: float, most_seconds: float) -> None:
    """Judge another machine's clock, which is ahead of ours by something from `least_seconds` to `most_seconds`; name says whose."""
    least_off = 0.0 if least_seconds <= 0 <= most_seconds else min(abs(least_seconds), abs(most_seconds))
    way = "ahead" if least_seconds > 0 else "behind"
    found = f"its clock is {least_off:,.1f} s {way} of this machine's"
    if least_off > _WRONG_SECONDS:
        chart.fail(name, found, f"on both machines: {_SYNC}")
    elif least_off > _OFF_SECONDS:
        chart.warn(name, found, f"on both machines: {_SYNC}")
    else:
        within = max(abs(least_seconds), abs(most_seconds))
        chart.ok(name, f"its clock is within {max(within, 0.001):.3f} s of this machine's")
