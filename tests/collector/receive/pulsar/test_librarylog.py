"""What is made of the library's account of itself."""

from __future__ import annotations

import pytest

from collector.receive.pulsar.librarylog import LibraryLog

BEFORE = "2026-11-27 16:22:45.752 ERROR [140421051184832] "


def test_the_last_error_is_kept_without_what_changes_from_trial_to_trial() -> None:
    log = LibraryLog()
    refused = "Failed to establish connection: Connection refused"
    log.read([f"{BEFORE}ClientConnection:485 | [<none> -> pulsar://127.0.0.1:1] {refused}\n".encode()])
    assert log.said == refused
    log.read([f"{BEFORE}ClientImpl:636 | Error -- TimeOut\n".encode(), b"\xff no line of a log\n", b"\n"])
    assert log.said == "Error -- TimeOut"


def test_a_message_that_is_let_go_of_is_an_error_of_ours(caplog: pytest.LogCaptureFixture) -> None:
    why = "Failed to decompress message with 1000 at  1:1"
    who = "[persistent://public/default/orders, tallystick, 0]"
    log = LibraryLog()
    log.read(
        [
            f"{BEFORE}ConsumerImpl:918 | {who} {why}\n".encode(),
            f"{BEFORE}ConsumerImpl:930 | {who} Discarding corrupted message at 1:1\n".encode(),
        ]
    )
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        (
            "ERROR",
            f"pulsar: the client lets go of a message that it cannot read: {who} Discarding corrupted message at 1:1: {why}",
        )
    ]
