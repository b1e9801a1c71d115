"""What the detector's thread does from round to round."""

from __future__ import annotations

import threading
from collections import deque
from pathlib import Path
from typing import Any, cast

from alerting.detect.cursor import Cursor
from alerting.detect.metrics import DetectorMetrics
from collector.errors import Overloaded
from deploy.detecting import Pulse, _Work


class AwayLog:
    """A follower whose log does not answer, with one freeze that waits."""

    def __init__(self) -> None:
        self.to_freeze: deque[str] = deque(["payment"])
        self.waiting: deque[str] = deque()

    def step(self) -> int:
        raise Overloaded("the log is away", retry_after_seconds=0.01)

    def positions(self) -> dict[str, Any]:
        return {}


class Asked:
    """Whoever is asked to freeze, or told: takes all, and ends the story."""

    def __init__(self, stop: threading.Event) -> None:
        self.got: list[str] = []
        self._stop = stop

    def ask(self, waiting: deque[str]) -> int:
        self.got += waiting
        waiting.clear()
        self._stop.set()
        return len(self.got)

    def tell(self, waiting: deque[str]) -> int:
        return len(waiting)


def test_what_waits_to_be_frozen_is_asked_for_while_the_log_is_away(tmp_path: Path) -> None:
    stop = threading.Event()
    threading.Timer(10.0, stop.set).start()
    asked, metrics = Asked(stop), DetectorMetrics()
    follower = AwayLog()
    work = _Work(
        cast("Any", follower),
        cast("Any", asked),
        cast("Any", asked),
        metrics,
        cursor=Cursor(tmp_path / "detector.json"),
        pulse=Pulse(),
        poll_seconds=0.01,
    )
    work.run(stop)
    assert asked.got == ["payment"]
    assert not work.ready()
    assert metrics.registry.get_sample_value("tally_detector_failures_total") == 1
