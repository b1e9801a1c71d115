"""What the kernel says of its clock: adjtimex(2), which anybody may ask."""

import ctypes
import sys
from dataclasses import dataclass

__all__ = ["KernelClock", "kernel_clock"]

_TIME_ERROR = 5  # the return value when the clock is not synchronised
_STA_UNSYNC = 0x40
_STA_NANO = 0x2000  # `offset` is in nanoseconds, not microseconds


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
    """What the kernel says.

    Attributes:
        synchronised: whether somebody disciplines its clock.
        max_error_seconds: by how much it may be wrong at most, as who disciplines it has said; it grows by 500 ppm until the next word.
        ahead_seconds: what is left of the last correction; positive: the clock is still ahead.
    """

    synchronised: bool
    max_error_seconds: float
    ahead_seconds: float = 0.0


def kernel_clock() -> KernelClock | None:
    """Ask the kernel (adjtimex(2) with no mode set changes nothing); None where it does not say."""
    if not sys.platform.startswith("linux"):
        return None
    told = _Timex()
    try:
        state = ctypes.CDLL(None, use_errno=True).adjtimex(ctypes.byref(told))
    except (OSError, AttributeError):
        return None
    if state < 0:  # a container's filter may forbid it
        return None
    return KernelClock(
        synchronised=state != _TIME_ERROR and not told.status & _STA_UNSYNC,
        max_error_seconds=told.max_error / 1e6,
        # what is to be added to the clock yet (ntp_adjtime: "remaining phase adjustment")
        ahead_seconds=-told.offset / (1e9 if told.status & _STA_NANO else 1e6) + 0.0,
    )
