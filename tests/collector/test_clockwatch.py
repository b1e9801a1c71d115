"""How far the clock is off: between two measurements, after a step, when nobody answers; in every header and on the metrics."""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path

import httpx
import msgspec
import pytest

from collector.batch import Clock
from collector.clockwatch import ClockWatch
from collector.kernelclock import KernelClock
from collector.settings import ClockSettings
from tests.support.running_sidecar import SETTINGS, Running
from tests.support.time_server import time_server

SECOND = 1_000_000_000


class Machine:
    """A machine's clocks, a kernel, and a time server that says what it is told to."""

    def __init__(self) -> None:
        self.wall_ns = 1_767_225_600 * SECOND
        self.monotonic = 7 * SECOND
        self.suspended_ns = 0
        self.told: Clock | Exception = Clock(offset_ns=3_000, uncertainty_ns=1_000)
        self.kernel: KernelClock | None = None

    def passes(self, seconds: int) -> None:
        self.wall_ns += seconds * SECOND
        self.monotonic += seconds * SECOND

    def sleeps(self, seconds: int) -> None:
        self.passes(seconds)
        self.suspended_ns += seconds * SECOND

    def ask(self, server: str, port: int, **_: object) -> Clock:
        assert (server, port) == ("time.example", 123)
        if isinstance(self.told, Exception):
            raise self.told
        return self.told

    def watch(self, settings: ClockSettings) -> ClockWatch:
        return ClockWatch(
            settings,
            clock=lambda: self.wall_ns,
            monotonic_ns=lambda: self.monotonic,
            awake_ns=lambda: self.monotonic - self.suspended_ns,
            ask=self.ask,
            kernel=lambda: self.kernel,
        )


def test_a_measurement_ages_and_a_step_shows_at_once(caplog: pytest.LogCaptureFixture) -> None:
    machine = Machine()
    watch = machine.watch(ClockSettings(server="time.example", interval_seconds=100))
    assert watch.measured() is None
    watch.measure()
    assert watch.measured() == machine.told
    machine.passes(100)
    assert watch.measured() == Clock(offset_ns=3_000, uncertainty_ns=1_000 + 1_500_000)  # 15 ppm of 100 s
    machine.wall_ns += 2 * SECOND
    assert watch.measured() == Clock(offset_ns=3_000 + 2 * SECOND, uncertainty_ns=1_501_000)
    machine.told = OSError("no answer")
    watch.measure()
    watch.measure()
    assert watch.measured() is not None, "what was known stays known for a while"
    assert caplog.text.count("the clock is not measured: time.example: no answer") == 1
    machine.passes(1_000)
    assert watch.measured() is None
    machine.told = Clock(offset_ns=-90 * SECOND, uncertainty_ns=1)
    watch.measure()
    assert "this machine's clock is 90 s behind that of time.example" in caplog.text


def test_after_a_suspend_nothing_is_known_until_the_server_is_asked_again() -> None:
    machine = Machine()
    watch = machine.watch(ClockSettings(server="time.example"))
    watch.measure()
    machine.sleeps(30)
    assert watch.measured() is None
    watch.measure()
    assert watch.measured() == machine.told


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs CLOCK_BOOTTIME")
def test_a_suspend_is_no_step_of_the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine()
    awake_ns, boot_ns = machine.monotonic, machine.monotonic

    def since_boot(clock: int) -> int:
        assert clock == time.CLOCK_BOOTTIME
        return boot_ns

    monkeypatch.setattr(time, "clock_gettime_ns", since_boot)
    watch = ClockWatch(
        ClockSettings(server="time.example"), clock=lambda: machine.wall_ns, awake_ns=lambda: awake_ns, ask=machine.ask
    )
    watch.measure()
    assert watch.measured() == machine.told
    machine.wall_ns += SECOND // 2  # too short to be noticed, and still no step
    boot_ns += SECOND // 2
    assert watch.measured() == Clock(offset_ns=3_000, uncertainty_ns=1_000 + 7_500)
    machine.wall_ns += 3_600 * SECOND
    boot_ns += 3_600 * SECOND
    assert watch.measured() is None


def test_without_a_server_the_kernels_word_counts_if_somebody_synchronises_its_clock() -> None:
    machine = Machine()
    watch = machine.watch(ClockSettings())
    assert watch.measured() is None
    machine.kernel = KernelClock(synchronised=False, max_error_seconds=16.0)
    assert watch.measured() is None
    machine.kernel = KernelClock(synchronised=True, max_error_seconds=0.25, ahead_seconds=-0.5)
    assert watch.measured() == Clock(offset_ns=-SECOND // 2, uncertainty_ns=SECOND // 4)


def test_a_clock_of_1970_is_told_in_a_number_that_every_reader_takes() -> None:
    machine = Machine()
    machine.told = Clock(offset_ns=-machine.wall_ns, uncertainty_ns=1)
    watch = machine.watch(ClockSettings(server="time.example"))
    watch.measure()
    assert watch.measured() == Clock(offset_ns=1 - 2**53, uncertainty_ns=1)


def test_every_batch_says_it_and_so_do_the_metrics(tmp_path: Path) -> None:
    async def life(port: int) -> tuple[Running, str]:
        settings = msgspec.structs.replace(SETTINGS, clock=ClockSettings(server="127.0.0.1", port=port))
        sidecar = Running(tmp_path / "spool", settings=settings)
        address = (await sidecar.ready)["http"]
        async with asyncio.timeout(20), httpx.AsyncClient() as client:
            shown = "offset_seconds NaN"
            while "tally_collector_clock_offset_seconds NaN" in shown or shown == "offset_seconds NaN":
                shown = (await client.get(f"http://{address}/metrics")).text
        assert (await sidecar.post('{"message":"paid"}\n')).status_code == 200
        sidecar.stopped.set()
        assert await sidecar.task
        return sidecar, shown

    with time_server() as server:
        server.ahead_ns = 40 * SECOND
        sidecar, shown = asyncio.run(life(server.port))
    (offset,) = (line for line in shown.splitlines() if line.startswith("tally_collector_clock_offset_seconds "))
    assert float(offset.split()[1]) == pytest.approx(-40.0, abs=1.0)
    (batches,) = sidecar.store.batches.values()
    headers = [batch.signed.header for batch in batches.values()]
    assert any(header.count for header in headers)
    for header in headers:
        if not header.count:
            continue  # one without events may have been signed before the server had answered
        clock = header.clock
        assert clock is not None
        assert clock.offset_ns / SECOND == pytest.approx(-40.0, abs=1.0)
        assert clock.uncertainty_ns < SECOND
