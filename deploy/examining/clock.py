"""Does this machine's clock go right? What the kernel says of it, and what the head of the log shows.

The proof rests on no clock. What goes by it: the times that events are given here, the month that a batch is stored under, and when
certificates and tokens expire.
"""

from collections.abc import Iterable

from collector.errors import Malformed
from collector.kernelclock import KernelClock, kernel_clock
from collector.sntp import ask_time
from deploy.examining import Chart

__all__ = ["examine_clock", "judge_kernel", "judge_offset", "judge_server"]

_WRONG_SECONDS = 60.0
_OFF_SECONDS = 1.0

_SYNC = "timedatectl set-ntp true    # or chrony, or ntpd"


def examine_clock(*, head_written_ns: int | None, now_ns: int, servers: Iterable[tuple[str, int]] = ()) -> Chart:
    """Look at the clock.

    Args:
        servers: hosts and ports of the time servers that sidecars here measure their clock by.
        head_written_ns: when the head of the log was written, by its writer's clock; None: there is none.
        now_ns: this machine's time, read just after the head was.
    """
    chart = Chart("clock")
    judge_kernel(chart, kernel_clock())
    for host, port in dict.fromkeys(servers):
        judge_server(chart, host, port)
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


def judge_server(chart: Chart, host: str, port: int) -> None:
    """Ask a time server by which sidecars measure their clock, and judge ours by it."""
    name = f"time server {host}"
    try:
        found = ask_time(host, port)
    except (OSError, Malformed) as error:
        chart.warn(
            name,
            f"it cannot be asked, so batches do not say how far the clock is off: {error}",
            "[collector.clock] server",
        )
        return
    low, high = found.offset_ns - found.uncertainty_ns, found.offset_ns + found.uncertainty_ns
    judge_offset(chart, name, least_seconds=-high / 1e9, most_seconds=-low / 1e9)  # its clock, as seen from ours


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
