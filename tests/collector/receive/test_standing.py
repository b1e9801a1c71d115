"""What a broker's standing says to the log, each thing once, and to the metrics, each time."""

from __future__ import annotations

import pytest

from collector.receive.standing import BrokerStanding


def test_each_change_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    reports: list[tuple[str, str, int, int]] = []
    standing = BrokerStanding("kafka", "orders", lambda *told: reports.append(told))
    standing.connected()
    for reason in ("refused", "refused", "no such topic"):
        standing.away(reason)
    standing.connected()
    for _ in range(3):
        standing.waits("the spool is full")
    standing.taken(7)
    standing.taken(8)
    standing.waits("the spool is full")
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        ("WARNING", "kafka orders: nothing is read: refused"),
        ("WARNING", "kafka orders: nothing is read: no such topic"),
        ("INFO", "kafka orders: the broker answers again"),
        ("WARNING", "kafka orders: messages wait: the spool is full"),
        ("INFO", "kafka orders: messages are taken again"),
        ("WARNING", "kafka orders: messages wait: the spool is full"),
    ]
    assert [told[2:] for told in reports] == [(0, 0), (1, 0), (0, 0), (0, 0), (0, 0), (1, 0), (1, 7), (1, 8)]
    assert {told[:2] for told in reports} == {("kafka", "orders")}
