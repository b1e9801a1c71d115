"""What is made of the library's account of itself."""

from __future__ import annotations

import pytest

from collector.receive.pulsar.librarylog import library_log

BEFORE = "2026-11-27 16:22:45.752 ERROR [140421051184832] "


def test_the_first_error_is_kept_without_what_changes_from_trial_to_trial() -> None:
    log = library_log()
    log.forget()
    refused = "Failed to establish connection: Connection refused"
    log.take([f"{BEFORE}ClientConnection:485 | [<none> -> pulsar://127.0.0.1:1] {refused}\n".encode()])
    log.take([f"{BEFORE}ClientImpl:636 | Error -- TimeOut\n".encode(), b"\xff no line of a log\n", b"\n"])
    assert log.cause() == refused
    log.forget()
    log.take([f"{BEFORE}MultiTopicsConsumerImpl:154 | Unable to create Consumer - [made up 1] Error\n".encode()])
    assert log.cause() == ""
    log.take([f"{BEFORE}ClientImpl:636 | Error -- TimeOut\n".encode()])
    assert log.cause() == "Error -- TimeOut"


def test_a_message_that_is_let_go_of_is_an_error_of_ours(caplog: pytest.LogCaptureFixture) -> None:
    why = "Failed to decompress message with 1000 at  1:1"
    who = "[persistent://public/default/orders, tallystick, 0]"
    library_log().take(
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
