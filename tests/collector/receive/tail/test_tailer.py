"""Files followed through everything that becomes of them: every line once, across rotations, crashes and pressure."""

from __future__ import annotations

import asyncio
import errno
import gzip
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from collector.errors import StateUnknown
from collector.receive import Arrival, Receipt
from collector.receive.tail.settings import MultilineSettings, TailSettings
from collector.receive.turns import LoopTime, Turns
from collector.sender import OURSELVES, Sender
from tests.support.faulty_disk import Crashed, FaultyDisk
from tests.support.memory_intake import MemoryIntake
from tests.support.tailing import Tailing, copytruncate, write


@pytest.fixture
def tail(tmp_path: Path) -> Tailing:
    return Tailing(tmp_path, service="shop")


def test_lines_are_events_with_service_and_place(tail: Tailing) -> None:
    log = tail.logs / "app.log"
    write(log, "one\r\n\ntwo\nthr")
    tail.look()
    first, second = tail.intake.events
    assert (first.body, second.body) == ("one", "two")
    assert first.resource == {"service.name": "shop"}
    assert second.origin is not None
    assert (second.origin.receiver, second.origin.file, second.origin.offset) == ("tail", str(log), 6)
    tail.look(lambda: write(log, "ee\n"))
    assert tail.bodies == ["one", "two", "three"]


def test_objects_are_records_and_other_lines_text(tail: Tailing) -> None:
    write(tail.logs / "app.log", 'plain\n{"msg":"paid","service":"pay","level":"warn"}\n{not json\n')
    tail.look()
    assert tail.bodies == ["plain", "paid", "{not json"]
    assert tail.intake.events[1].resource == {"service.name": "pay"}
    assert tail.intake.events[1].severity_number == 13


def test_many_short_lines_leave_turns_of_the_loop_to_others(tmp_path: Path) -> None:
    class Watched(MemoryIntake):
        """Notes how many turns others have had by each call, and of how many events it was."""

        others = 0

        def __init__(self) -> None:
            super().__init__()
            self.calls: list[tuple[int, int]] = []

        async def accept(self, arrivals: Sequence[Arrival], **how: Any) -> Receipt:
            self.calls.append((self.others, len(arrivals)))
            return await super().accept(arrivals, **how)

    tail = Tailing(tmp_path, service="shop")
    tail.intake = intake = Watched()
    tail.turns = Turns(LoopTime(turn_seconds=0.0))  # each turn of the loop has had its time after one portion
    write(tail.logs / "app.log", "x\n" * 7_000)

    async def story() -> None:
        async def turns() -> None:
            while True:
                intake.others += 1
                await asyncio.sleep(0)

        other = asyncio.create_task(turns())
        with tail.life() as go:
            await go()
        other.cancel()

    asyncio.run(story())
    assert [count for _, count in intake.calls] == [2_048, 2_048, 2_048, 856]
    assert (
        max(Counter(others for others, _ in intake.calls).values()) <= 2
    )  # who is woken works in the turn that begins with it


def test_a_restart_goes_on_where_it_was(tail: Tailing) -> None:
    log = tail.logs / "app.log"
    write(log, "1\n2\n")
    tail.look()
    write(log, "3\n")
    tail.look()
    assert tail.bodies == ["1", "2", "3"]


def test_renamed_in_and_out_of_sight(tmp_path: Path) -> None:
    tail = Tailing(tmp_path, release_seconds=5)
    log = tail.logs / "app.log"
    write(log, "1\n2\n")

    def rotate() -> None:
        write(log, "3\n")
        log.rename(tail.logs / "app.log.1")
        write(tail.logs / "app.log.1", "4\n")  # the service has it open still
        write(log, "5\n")

    tail.look(rotate, lambda: write(tail.logs / "app.log.1", "6\n"), lambda: write(log, "7\n"))
    assert sorted(tail.bodies) == list("1234567")


def test_a_neighbour_that_cannot_be_read_now_is_looked_at_again(tail: Tailing, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> bytes:
        raise OSError(errno.EIO, "Input/output error")

    log = tail.logs / "app.log"
    write(log, "1\n2\n")
    tail.look()
    log.rename(tail.logs / "app.log.1")
    write(tail.logs / "app.log.1", "3\n")

    async def story() -> None:
        with tail.life() as go:
            with monkeypatch.context() as patch:
                patch.setattr(os, "pread", fails)
                await go()
            assert tail.bodies == ["1", "2"]
            await go()

    asyncio.run(story())
    assert tail.bodies == ["1", "2", "3"]


@pytest.mark.parametrize("reads", [0, 1, 2])
def test_a_new_file_that_cannot_be_read_now_is_not_kept_open(
    tail: Tailing, monkeypatch: pytest.MonkeyPatch, reads: int
) -> None:
    """It is looked at again with each step: a descriptor for each is soon all that there are."""
    pread = os.pread

    async def story() -> None:
        with tail.life() as go:
            await go()
            write(tail.logs / "app.log", "1\n2\n")
            before = len(os.listdir("/proc/self/fd"))
            with monkeypatch.context() as patch:
                for _ in range(5):
                    left = iter(range(reads))

                    def fails(*place: int, left: Iterator[int] = left) -> bytes:
                        if next(left, None) is None:
                            raise OSError(errno.EIO, "Input/output error")
                        return pread(*place)

                    patch.setattr(os, "pread", fails)
                    await go()
            assert len(os.listdir("/proc/self/fd")) <= before
            assert not tail.bodies
            await go()

    asyncio.run(story())
    assert tail.bodies == ["1", "2"]


def test_rotated_while_nobody_looked(tail: Tailing) -> None:
    log = tail.logs / "app.log"
    write(log, "1\n")
    tail.look()
    write(log, "2\n")
    log.rename(tail.logs / "app.log.1")
    write(log, "3\n")
    tail.look()
    assert sorted(tail.bodies) == ["1", "2", "3"]


def test_deleted_and_compressed_after_the_rename_is_read_to_its_end(tmp_path: Path) -> None:
    tail = Tailing(tmp_path, release_seconds=3)
    tail.entries = (TailSettings(paths=(f"{tail.logs}/app.log*",), release_seconds=3),)
    log, old = tail.logs / "app.log", tail.logs / "app.log.1"
    write(log, "1\n")

    def rotate() -> None:
        write(log, "2\nunended")
        log.rename(old)
        (tail.logs / "app.log.1.gz").write_bytes(gzip.compress(old.read_bytes()))
        old.unlink()
        write(log, "3\n")

    tail.look(rotate, lambda: None, lambda: None, lambda: None)
    assert sorted(tail.bodies) == ["1", "2", "3", "unended"]
    (event,) = [event for event in tail.intake.events if event.body == "unended"]
    assert event.marks == ["unterminated"]


@pytest.mark.parametrize("pattern", ["app.log", "app.log*"])
@pytest.mark.parametrize("down", [False, True], ids=["running", "down"])
def test_copytruncate_loses_and_doubles_nothing_that_the_copy_has(tmp_path: Path, pattern: str, down: bool) -> None:
    tail = Tailing(tmp_path)
    tail.entries = (TailSettings(paths=(f"{tail.logs}/{pattern}",)),)
    log, copy = tail.logs / "app.log", tail.logs / "app.log.1"
    write(log, "".join(f"line {at} of the first file\n" for at in range(100)))

    def rotate() -> None:
        write(log, "not read before the copy\n")
        copytruncate(log, copy)
        write(log, "after\n")

    if down:
        tail.look()
        rotate()
        tail.look()
    else:
        tail.look(rotate)
    tail.look(lambda: write(log, "later\n"))
    expected = [
        *(f"line {at} of the first file" for at in range(100)),
        "not read before the copy",
        "after",
        "later",
    ]
    assert Counter(tail.bodies) == Counter(expected)


def test_a_copy_is_not_read_before_and_after_the_original_is_emptied(tmp_path: Path) -> None:
    tail = Tailing(tmp_path)
    tail.entries = (TailSettings(paths=(f"{tail.logs}/app.log*",)),)
    log, copy = tail.logs / "app.log", tail.logs / "app.log.1"
    text = "".join(f"line {at} of the first file\n" for at in range(200))
    write(log, text)
    tail.look(
        lambda: write(copy, text[:10]),  # the copy in the making
        lambda: write(copy, text[10:3_000]),
        lambda: write(copy, text[3_000:]),
        lambda: write(log, "written behind the copy\n"),
        lambda: log.write_text("new\n"),
        lambda: copy.rename(tail.logs / "app.log.2"),
        lambda: write(log, "newer\n"),
    )
    tail.look()
    expected = [*text.splitlines(), "written behind the copy", "new", "newer"]
    assert Counter(tail.bodies) == Counter(expected)


def test_a_copy_that_is_shorter_than_what_was_read_is_not_read_again(tmp_path: Path) -> None:
    """Also where only time had ended an event: read from its beginning the copy would give another one."""
    tail = Tailing(tmp_path, multiline=MultilineSettings(indented=True, timeout_seconds=1))
    tail.entries = (
        TailSettings(paths=(f"{tail.logs}/app.log*",), multiline=MultilineSettings(indented=True, timeout_seconds=1)),
    )
    log, copy = tail.logs / "app.log", tail.logs / "app.log.1"
    write(log, "error\n")
    tail.look(
        list,
        lambda: write(log, "  at a\n"),
        list,
        lambda: write(copy, log.read_bytes()),
        lambda: write(log, "behind the copy\n"),
        lambda: log.write_text("new\n"),
        *[list] * 3,
    )
    tail.look(list, list)
    assert tail.bodies == ["error", "  at a", "behind the copy", "new"]


def test_a_file_is_itself_before_it_is_anothers_copy(tmp_path: Path) -> None:
    tail = Tailing(tmp_path)
    tail.entries = (TailSettings(paths=(f"{tail.logs}/app.log*",)),)
    log = tail.logs / "app.log"
    write(log, "welcome\n")
    tail.look()
    write(log, "first\n")
    log.rename(tail.logs / "app.log.2")
    write(tail.logs / "app.log.1", "welcome\nsecond\n")
    tail.look()
    told = [(event.body, Path(event.origin.file).name) for event in tail.intake.events if event.origin]
    assert sorted(told) == [
        ("first", "app.log.2"),
        ("second", "app.log.1"),
        ("welcome", "app.log"),
        ("welcome", "app.log.1"),
    ]


def test_a_file_with_the_same_banner_is_another_file(tmp_path: Path) -> None:
    tail = Tailing(tmp_path)
    tail.entries = (TailSettings(paths=(f"{tail.logs}/app*",)),)
    banner = "welcome to the shop\n" * 100
    write(tail.logs / "app.log", banner + "first\n")
    tail.look(lambda: write(tail.logs / "app-2.log", banner + "second, longer\n"))
    assert Counter(tail.bodies) == Counter({"welcome to the shop": 200, "first": 1, "second, longer": 1})


def test_an_inode_used_again_is_a_new_file(tail: Tailing) -> None:
    log = tail.logs / "app.log"
    write(log, "old 1\nold 2\n")
    tail.look()
    inode = log.stat().st_ino
    # truncating and filling it further than before is the same to the tail as an inode that the file system gives away again
    with log.open("r+b") as file:
        file.truncate(0)
        file.write(b"new 1\nnew 2\nnew 3\n")
    assert log.stat().st_ino == inode
    tail.look()
    assert tail.bodies == ["old 1", "old 2", "new 1", "new 2", "new 3"]


def test_a_hole_in_front_of_a_line_is_passed_over_and_said(tail: Tailing) -> None:
    log = tail.logs / "app.log"
    with log.open("wb") as writer:  # without O_APPEND: after a truncation it goes on where it was
        writer.write(b"before\n")
        writer.flush()

        def empty_and_go_on() -> None:
            os.truncate(log, 0)
            writer.write(b"after\n")
            writer.flush()

        tail.look(empty_and_go_on, lambda: None)
    assert tail.bodies == ["before", "after"]
    assert tail.intake.events[1].marks == ["hole_skipped"]


def test_start_at_the_end_is_for_files_that_were_there_first(tmp_path: Path) -> None:
    tail = Tailing(tmp_path, start="end")
    log = tail.logs / "app.log"
    write(log, "long ago\nbeg")
    tail.look(lambda: write(log, "un\n"), lambda: write(tail.logs / "new.log", "new\n"))
    write(tail.logs / "newer.log", "newer\n")
    tail.look()
    assert tail.bodies == ["begun", "new", "newer"]


def test_a_long_line_is_a_dead_letter_and_the_rest_goes_on(tmp_path: Path) -> None:
    tail = Tailing(tmp_path, max_line_bytes=1_024)
    write(tail.logs / "app.log", b"short\n" + b"x" * 600_000 + b"\nnext\n")
    tail.look()
    assert tail.bodies == ["short", "next"]
    ((raw, error, origin),) = tail.intake.dead
    assert (len(raw), error.label, error.where) == (1_024, "too_large", "byte 6")
    assert "600000 bytes" in error.reason
    assert origin.receiver == "tail"


def test_bytes_that_are_no_text_are_kept_and_marked(tail: Tailing) -> None:
    write(tail.logs / "app.log", b"caf\xe9\n")
    tail.look()
    (event,) = tail.intake.events
    assert event.body == "caf�"  # the real intake marks it
    assert event.attributes["log.record.original"] == "Y2Fm6Q=="  # base64


def test_json_that_is_none_is_a_dead_letter_once(tmp_path: Path) -> None:
    tail = Tailing(tmp_path, format="json", disk=None)
    write(tail.logs / "app.log", '{"msg":"good"}\nbad\n')
    tail.look()
    (tail.root / "positions").unlink()  # whoever removes it reads everything again, under new names
    tail.look()
    assert tail.bodies == ["good", "good"]
    assert [error.label for _, error, _ in tail.intake.dead] == ["bad_json", "bad_json"]


def test_a_stack_trace_is_one_event_and_time_ends_the_last(tmp_path: Path) -> None:
    tail = Tailing(tmp_path, multiline=MultilineSettings(indented=True, timeout_seconds=5))
    log = tail.logs / "app.log"
    write(log, "error\n  at a\n  at b\nfine\n")
    tail.look(lambda: None, lambda: write(log, " late\n"), *[lambda: None] * 3)
    assert tail.bodies == ["error\n  at a\n  at b", "fine\n late"]


class DyingIntake(MemoryIntake):
    """Dies behind its n-th acceptance, which is durable."""

    dies_in = 0

    async def accept(
        self,
        arrivals: Sequence[Arrival],
        *,
        group_id: bytes | None = None,
        heard: bool = True,
        sender: Sender = OURSELVES,
    ) -> Receipt:
        receipt = await super().accept(arrivals, group_id=group_id, heard=heard, sender=sender)
        self.dies_in -= 1
        if self.dies_in == 0:
            raise Crashed("behind the ack")
        return receipt


@pytest.mark.parametrize("end", ["  at b\nfine\n", "fine\n"])
def test_a_message_that_time_has_ended_is_ended_there_for_ever(tmp_path: Path, end: str) -> None:
    """The crash comes between the event and its position; meanwhile the file grows by lines that would have belonged to it."""
    tail = Tailing(tmp_path, multiline=MultilineSettings(indented=True, timeout_seconds=1))
    tail.intake = intake = DyingIntake()
    log = tail.logs / "app.log"
    write(log, "error\n  at a\n")
    intake.dies_in = 1
    with pytest.raises(Crashed):
        tail.look(list)
    assert tail.bodies == ["error\n  at a"]
    write(log, end)
    tail.look(list)
    assert tail.bodies == ["error\n  at a", *end.splitlines()]


def test_a_file_that_was_let_go_without_a_line_end_is_ended_there_for_ever(tmp_path: Path) -> None:
    tail = Tailing(tmp_path, release_seconds=1)
    tail.intake = intake = DyingIntake()
    log, old = tail.logs / "app.log", tail.logs / "old"
    write(log, "one\ntw")
    intake.dies_in = 2
    with pytest.raises(Crashed):
        tail.look(lambda: log.rename(old), list, list)
    assert tail.bodies == ["one", "tw"]
    write(old, "o\nthree\n")
    tail.look()
    assert tail.bodies == ["one", "tw", "o", "three"]


def test_nothing_is_handed_on_before_its_file_is_in_the_checkpoint(tmp_path: Path) -> None:
    disk = FaultyDisk()
    tail = Tailing(tmp_path, disk=disk, root=Path("tail"))
    write(tail.logs / "app.log", "1\n")
    disk.failing["write"] = OSError(errno.ENOSPC, "No space left on device")

    def mend() -> None:
        assert tail.bodies == []
        disk.failing.clear()

    tail.look(mend)
    assert tail.bodies == ["1"]


def test_pressure_stops_the_reading_and_nothing_else(tail: Tailing) -> None:
    log = tail.logs / "app.log"
    write(log, "1\n")
    tail.intake.overloaded = 3
    tail.intake.retry_after_seconds = 1.0

    def rotate_away() -> None:
        write(log, "2\n")
        log.rename(tail.logs / "elsewhere")
        write(log, "3\n")

    tail.look(rotate_away, (tail.logs / "elsewhere").unlink, *[lambda: None] * 5)
    assert sorted(tail.bodies) == ["1", "2", "3"]
    assert tail.intake.overloaded == 0


def test_files_are_open_in_bounds_and_all_get_their_turn(tmp_path: Path) -> None:
    tail = Tailing(tmp_path, max_open_files=2, name="many")
    for number in range(9):
        write(tail.logs / f"{number}.log", f"{number}\n")
    tail.look(*[lambda: None] * 9)
    assert sorted(tail.bodies) == [str(number) for number in range(9)]
    assert tail.reports["many"] == (0, 2, 0)

    def write_more() -> None:
        for number in range(9):
            write(tail.logs / f"{number}.log", f"{number} more\n")

    tail.look(write_more, *[lambda: None] * 9)
    assert len(tail.bodies) == 18


def test_a_busy_file_does_not_keep_another_from_its_turn(tail: Tailing) -> None:
    write(tail.logs / "a.log", b"x" * 99 + b"\n")
    write(tail.logs / "busy.log", (b"y" * 99 + b"\n") * 20_000)
    write(tail.logs / "z.log", b"z\n")
    tail.look()
    places = [at for at, body in enumerate(tail.bodies) if body == "z"]
    assert len(tail.bodies) == 20_002
    assert places[0] < 10_000


def test_what_is_behind_is_reported_by_entry(tail: Tailing) -> None:
    log = tail.logs / "app.log"
    write(log, "1\n" * 50)
    tail.intake.overloaded = 1_000
    tail.look()
    assert tail.reports == {f"{tail.logs}/*.log": (100, 1, 0)}


def test_a_position_file_that_does_not_read_back_stops_the_tail(tail: Tailing) -> None:
    write(tail.logs / "app.log", "1\n")
    tail.look()
    path = tail.root / "positions"
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(StateUnknown, match="read again from their beginning"):
        tail.look()


def test_it_runs_by_itself_until_it_is_stopped(tmp_path: Path) -> None:
    tail = Tailing(tmp_path, poll_seconds=0.01)
    write(tail.logs / "app.log", "1\n")

    async def story() -> None:
        tailer = tail.tailer()
        tail.clock.monotonic = asyncio.get_running_loop().time  # type: ignore[method-assign]
        tailer._monotonic = tail.clock.monotonic
        running = asyncio.create_task(tailer.run())
        async with asyncio.timeout(10):
            await tail.intake.called.wait()
            write(tail.logs / "app.log", "2\n")
            while len(tail.bodies) < 2:
                tail.intake.called.clear()
                await tail.intake.called.wait()
                await asyncio.sleep(0)
            tailer.stop()
            await running

    asyncio.run(story())
    tail.look()
    assert tail.bodies == ["1", "2"]


def test_a_file_of_two_entries_is_the_firsts(tmp_path: Path) -> None:
    tail = Tailing(tmp_path)
    tail.entries = (
        TailSettings(paths=(f"{tail.logs}/pay*.log",), service_pattern=r"/(?P<service>\w+)-\d+\.log$"),
        TailSettings(paths=(f"{tail.logs}/*",), exclude=(f"{tail.logs}/*.tmp",), service="rest"),
    )
    write(tail.logs / "payments-1.log", "1\n")
    write(tail.logs / "other", "2\n")
    write(tail.logs / "x.tmp", "3\n")
    tail.look()
    assert {(event.body, event.service) for event in tail.intake.events} == {("1", "payments"), ("2", "rest")}


def test_a_name_that_is_no_text_is_a_name(tail: Tailing) -> None:
    log = Path(os.fsdecode(os.fsencode(tail.logs) + b"/caf\xe9.log"))
    write(log, "1\n")
    tail.look()
    write(log, "2\n")
    tail.look()
    assert tail.bodies == ["1", "2"]


def test_positions_are_forgotten_a_week_after_the_file_was_there(tail: Tailing) -> None:
    log = tail.logs / "app.log"
    write(log, "1\n")
    tail.look(log.unlink, lambda: None, seconds=40.0)
    assert b'"offset":2' in (tail.root / "positions").read_bytes()
    tail.clock.seconds += 8 * 86_400
    tail.look()
    assert b'"files":[]' in (tail.root / "positions").read_bytes()
