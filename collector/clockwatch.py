"""How far this sidecar's clock is off, as far as that is known: what every batch header says, and the metrics.

From a time server, where one is configured, asked every so often; else by the kernel's word, which costs no network: whoever disciplines
the clock (chronyd, ntpd, systemd-timesyncd) tells the kernel how far off it may be. Where nobody does, nothing is measured, and nothing is said.

Between two answers the clock's rate may be wrong by 15 ppm (RFC 5905, PHI): the uncertainty grows by that. A step of the clock shows against the
monotonic clock, which is disciplined by the same rate, and moves the offset by as much. It is one that goes on while the machine is suspended, as
the wall clock does: else a suspend would look like a step. How well both were set when the machine woke is not known, so nothing is until the next answer.
"""

import logging
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from collector.batch import Clock
from collector.errors import Malformed
from collector.kernelclock import KernelClock, kernel_clock
from collector.settings import ClockSettings
from collector.sntp import ask_time

__all__ = ["ClockWatch"]

_log = logging.getLogger("tally.collector")

_DRIFT_PPM = 15
_STALE_INTERVALS = 10
_OFF_SECONDS = 1.0
_AWAKE_NS = 1_000_000_000
"""Two clocks that are read one after the other differ by a little: less than this is no suspend."""

_MOST_NS = 2**53 - 1  # 104 days


@dataclass(frozen=True, slots=True, kw_only=True)
class _Measured:
    clock: Clock
    monotonic_ns: int
    ahead_of_monotonic_ns: int
    suspended_ns: int


def _since_boot_ns() -> int:
    """Nanoseconds that never go back, those while the machine was suspended included where the system counts them (Linux)."""
    if not sys.platform.startswith("linux"):
        return time.monotonic_ns()
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


class ClockWatch:
    """See the module. `measured` may be called in any thread.

    Args:
        settings: whom to ask, and how often.
        clock: Unix time in nanoseconds.
        monotonic_ns: nanoseconds that never go back, a suspend of the machine included; `awake_ns`: without it.
        ask: asks a time server; as `collector.sntp.ask_time`.
        kernel: asks the kernel.
    """

    def __init__(
        self,
        settings: ClockSettings,
        *,
        clock: Callable[[], int] = time.time_ns,
        monotonic_ns: Callable[[], int] = _since_boot_ns,
        awake_ns: Callable[[], int] = time.monotonic_ns,
        ask: Callable[..., Clock] = ask_time,
        kernel: Callable[[], KernelClock | None] = kernel_clock,
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._monotonic_ns = monotonic_ns
        self._awake_ns = awake_ns
        self._ask = ask
        self._kernel = kernel
        self._last: _Measured | None = None
        self._said = ""
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def measured(self) -> Clock | None:
        """How far the clock is ahead (negative: behind) just now, with its uncertainty; None where that is not known."""
        known = self._by_server() if self._settings.server else self._by_kernel()
        if known is None:
            return None
        # a machine without a battery starts in 1970: such an offset is no whole number to every reader of JSON
        return Clock(
            offset_ns=max(-_MOST_NS, min(known.offset_ns, _MOST_NS)), uncertainty_ns=min(known.uncertainty_ns, _MOST_NS)
        )

    def start(self) -> None:
        """Ask the time server again and again, in a thread of its own; nothing where there is none."""
        if self._settings.server:
            self._thread = threading.Thread(target=self._for_ever, name="clock", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """Ask no more."""
        self._stopping.set()
        self._thread = None  # it may be waiting for an answer: nobody waits for it

    def measure(self) -> None:
        """Ask the time server once; what it answers is known from now on. What is wrong is said in the log, once until it changes."""
        server = self._settings.server
        try:
            found = self._ask(server, self._settings.port, clock=self._clock)
        except (OSError, Malformed) as error:
            self._say(f"the clock is not measured: {server}: {error}")
            return
        now_ns = self._monotonic_ns()
        self._last = _Measured(
            clock=found,
            monotonic_ns=now_ns,
            ahead_of_monotonic_ns=self._clock() - now_ns,
            suspended_ns=now_ns - self._awake_ns(),
        )
        off_seconds = found.offset_ns / 1e9
        if abs(off_seconds) - found.uncertainty_ns / 1e9 > _OFF_SECONDS:
            way = "ahead of" if off_seconds > 0 else "behind"
            # to the second: each measurement differs a little, and is no news
            self._say(f"this machine's clock is {abs(off_seconds):.0f} s {way} that of {server}")
        else:
            self._say("")

    def _for_ever(self) -> None:
        while not self._stopping.is_set():
            self.measure()
            self._stopping.wait(self._settings.interval_seconds)

    def _by_server(self) -> Clock | None:
        last = self._last
        if last is None:
            return None
        now_ns = self._monotonic_ns()
        if now_ns - self._awake_ns() - last.suspended_ns > _AWAKE_NS:
            return None
        age_ns = now_ns - last.monotonic_ns
        if age_ns > _STALE_INTERVALS * self._settings.interval_seconds * 1_000_000_000:
            return None
        stepped_ns = self._clock() - now_ns - last.ahead_of_monotonic_ns
        return Clock(
            offset_ns=last.clock.offset_ns + stepped_ns,
            uncertainty_ns=last.clock.uncertainty_ns + age_ns * _DRIFT_PPM // 1_000_000,
        )

    def _by_kernel(self) -> Clock | None:
        told = self._kernel()
        if told is None or not told.synchronised:
            return None
        return Clock(offset_ns=int(told.ahead_seconds * 1e9), uncertainty_ns=int(told.max_error_seconds * 1e9))

    def _say(self, what: str) -> None:
        if what and what != self._said:
            _log.warning("%s", what)
        elif not what and self._said:
            _log.info("the clock is measured by %s again, and not far off", self._settings.server)
        self._said = what
