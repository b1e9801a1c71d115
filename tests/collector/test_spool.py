"""The spool: limits, full and failing disks, damage, duplicates, reading back, and many senders at once."""

from __future__ import annotations

import errno
import random
import threading
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collector.disk import OsDisk
from collector.errors import Overloaded, StateUnknown
from collector.frame import MAGIC, write_frame
from collector.group import MAX_GROUP_EVENTS, MAX_ID_BYTES
from collector.segments import segment_path
from collector.spool import Cursor, Done, Group, Spool, Spooled, SpoolLimits
from tests.support.faulty_disk import Fate, FaultyDisk

ROOT = Path("spool")
SMALL = SpoolLimits(segment_bytes=200)


class Ids:
    """A journal that forgets nothing, and can be told to fail."""

    def __init__(self) -> None:
        self.ids: set[bytes] = set()
        self.fails = False
        self.flushes = True

    def known(self, source_ids: Iterable[bytes]) -> set[bytes]:
        if self.fails:
            raise Overloaded("the journal does not answer")
        return {one for one in source_ids if one in self.ids}

    def add(self, source_ids: Iterable[bytes]) -> None:
        self.ids.update(one for one in source_ids if one)

    def flush(self) -> None:
        if self.fails or not self.flushes:
            raise Overloaded("the journal does not answer")

    def flush_soon(self) -> None:
        with suppress(Overloaded):
            self.flush()

    def forget(self) -> None:
        self.ids.clear()


class Told:
    """Keeps what a group's sender was told; asserts that it was told once."""

    def __init__(self) -> None:
        self.outcome: Spooled | Exception | None = None
        self.event = threading.Event()

    def __call__(self, outcome: Spooled | Exception) -> None:
        assert self.outcome is None
        self.outcome = outcome
        self.event.set()

    @property
    def stored(self) -> int:
        assert isinstance(self.outcome, Spooled), self.outcome
        return self.outcome.stored


def group(name: str, *, count: int = 2, ids: Iterable[bytes] = (), group_id: bytes = b"") -> Group:
    ids = list(ids) or [b""] * count
    return Group(
        group_id=group_id,
        source_ids=ids,
        events=[f'{{"body":"{name}.{at}"}}'.encode() for at in range(len(ids))],
        facts=[f'{{"digest":"{name}.{at}"}}'.encode() for at in range(len(ids))],
    )


def opened(disk: FaultyDisk, *, journal: Ids | None = None, limits: SpoolLimits | None = None) -> Spool:
    return Spool(ROOT, disk=disk, journal=journal or Ids(), limits=limits)


def put(spool: Spool, *groups: Group) -> list[Told]:
    """The groups in one commit, or a few if they are long."""
    told = [Told() for _ in groups]
    for one, done in zip(groups, told, strict=True):
        spool.append(one, done)
    while spool.commit_pending():
        pass
    assert all(done.outcome is not None for done in told)
    return told


def events(spool: Spool) -> list[bytes]:
    found: list[bytes] = []
    cursor = spool.start
    while True:
        frames, cursor = spool.frames(cursor, events=3, limit_bytes=300)
        if not frames:
            return found
        for frame in frames:
            assert frame.first == len(found)
            at = 0
            for length in frame.event_lengths:
                found.append(frame.events[at : at + length])
                at += length


def test_nobody_is_told_before_the_sync() -> None:
    disk = FaultyDisk()
    spool = opened(disk)
    changes: list[str] = []
    spool.append(group("a"), lambda _: changes.extend(disk.changes))
    assert spool.next_sequence == 0
    spool.commit_pending()
    assert changes[-2:] == ["write", "sync"]


def test_what_was_told_is_there_after_a_restart() -> None:
    disk = FaultyDisk()
    spool = opened(disk, limits=SMALL)
    for at in range(9):
        (told,) = put(spool, group(str(at)))
        assert told.outcome == Spooled(first=2 * at, stored=2, duplicates=0)
    kept = events(spool)
    assert len(kept) == 18
    spool.close()
    assert len([name for name in disk.list_directory(ROOT) if name.endswith(".seg")]) > 2
    again = opened(disk)
    assert (again.next_sequence, again.torn_bytes) == (18, 0)
    assert events(again) == kept


# -- torn ends and damage


def three_commits() -> tuple[FaultyDisk, Path, list[int], list[bytes]]:
    """A segment of three commits, where each ends, and its events."""
    disk = FaultyDisk()
    spool = opened(disk)
    ends = []
    for at in range(3):
        put(spool, group(str(at), group_id=b"g%d" % at))
        ends.append(spool.size_bytes)
    return disk, segment_path(ROOT, 0), ends, events(spool)


def test_an_end_torn_at_any_byte_is_cut_to_whole_frames() -> None:
    _, path, ends, kept = three_commits()
    for size in range(ends[-1] + 1):
        for zeros in (0, 300):  # what was reserved, and not written
            disk, *_ = three_commits()
            disk.truncate(path, size)
            written = disk.read(path)
            disk.append_to(path).write(bytes(zeros))
            spool = opened(disk)
            whole = sum(end <= size for end in ends)
            assert spool.torn_bytes == len(written[[0, *ends][whole] :].rstrip(b"\0"))
            assert events(spool) == kept[: 2 * whole]
            put(spool, group("next"))
            assert events(opened(disk)) == [*kept[: 2 * whole], b'{"body":"next.0"}', b'{"body":"next.1"}']


def test_no_sender_can_write_a_frame_into_another() -> None:
    """Else one that names a later sequence as durable would make damage of a torn end."""
    none: dict[str, Sequence[bytes]] = {"source_ids": [], "events": [], "facts": []}
    whole = write_frame(first=10**9, durable=10**9, group_id=b"", **none)
    over_two = write_frame(first=10**9, durable=int.from_bytes(b"\1\1\1\1span", "little"), group_id=b"", **none)
    assert over_two[24:29] == b"span\0"
    ids = [b"log\0" + whole, b"span\0" + over_two[:24], b"span\0" + over_two[29:], b"log\0other"]
    disk = FaultyDisk()
    put(opened(disk), group("first"))
    kept = opened(disk).size_bytes
    told, again = put(opened(disk), group("second", ids=ids), group("second", ids=ids))
    assert (told.stored, again.stored) == (4, 0)
    path = segment_path(ROOT, 0)
    assert disk.read(path).count(MAGIC) == 2
    assert put(opened(disk), group("second", ids=ids))[0].stored == 0  # recognised after a restart, too
    disk.truncate(path, disk.size(path) - 1)
    assert opened(disk).size_bytes == kept


def test_zeros_behind_a_segment_that_was_closed_are_no_damage() -> None:
    disk = FaultyDisk()
    spool = opened(disk, limits=SMALL)
    for name in "abcdef":
        put(spool, group(name))
    kept = events(spool)
    for segment in range(0, spool.next_sequence, 2):
        path = segment_path(ROOT, segment)
        if disk.exists(path):
            disk.append_to(path).write(bytes(70))  # its length was cut, but a crash forgot that
    again = opened(disk, limits=SMALL)
    assert (events(again), again.torn_bytes) == (kept, 0)
    assert again.size_bytes == sum(map(disk.size, disk.files(ROOT)))  # and they take no more room


def test_what_became_zeros_is_damage_where_something_follows() -> None:
    disk = FaultyDisk()
    spool = opened(disk, limits=SMALL)
    for name in "abcdef":
        put(spool, group(name))
    first = segment_path(ROOT, 0)
    size = disk.size(first)
    disk.truncate(first, 0)
    disk.append_to(first).write(bytes(size))
    with pytest.raises(StateUnknown, match="are missing before it"):
        opened(disk, limits=SMALL)


def test_a_bit_flipped_anywhere_is_damage_or_cuts_the_last_commit_alone() -> None:
    _, path, ends, kept = three_commits()
    for offset in range(ends[-1]):
        disk, *_ = three_commits()
        disk.flip(path, offset, bit=offset % 8)
        if offset < ends[1]:
            with pytest.raises(
                StateUnknown, match=f"{path.name}: damaged at byte {0 if offset < ends[0] else ends[0]}"
            ):
                opened(disk)
        else:  # nothing behind it says that it was durable: it looks as what a crash leaves
            assert events(opened(disk)) == kept[:4]


def test_a_bit_flipped_before_the_last_commit_is_damage_whatever_was_committed_together() -> None:
    def written() -> tuple[FaultyDisk, int]:
        """A disk, and where its last commit begins."""
        disk = FaultyDisk()
        spool = opened(disk)
        put(spool, group("a", ids=[b"a"]), group("b", ids=[b"b"]), group("c"))
        put(spool, group("b", ids=[b"b"], group_id=b"g"))  # of which nothing is new
        put(spool, group("d"), group("e"))
        last = spool.size_bytes
        put(spool, group("f"), group("g"))
        return disk, last

    _, last = written()
    path = segment_path(ROOT, 0)
    for offset in range(last):
        disk, *_ = written()
        disk.flip(path, offset, bit=offset % 8)
        with pytest.raises(StateUnknown, match=f"{path.name}: damaged at byte"):
            opened(disk)


def test_damage_in_any_but_the_last_segment_is_never_cut() -> None:
    disk = FaultyDisk()
    spool = opened(disk, limits=SMALL)
    for at in range(4):
        put(spool, group(str(at)))
    first = segment_path(ROOT, 0)
    disk.truncate(first, disk.size(first) - 1)
    with pytest.raises(StateUnknown, match="damaged"):
        opened(disk)


def test_a_missing_segment_is_named_by_its_sequences() -> None:
    disk = FaultyDisk()
    spool = opened(disk, limits=SMALL)
    for at in range(9):
        put(spool, group(str(at)))
    names = [name for name in disk.list_directory(ROOT) if name.endswith(".seg")]
    disk.remove(ROOT / names[1])
    with pytest.raises(StateUnknown, match=f"sequences {int(names[1][:-4])} to {int(names[2][:-4]) - 1} are missing"):
        opened(disk)


def test_a_file_that_is_no_segment_is_told() -> None:
    disk = FaultyDisk()
    opened(disk)
    disk.write_new(ROOT / "notes.seg", b"")
    with pytest.raises(StateUnknown, match=r"notes\.seg"):
        opened(disk)


def test_damage_after_opening_is_found_when_it_is_read() -> None:
    disk, path, ends, _ = three_commits()
    spool = opened(disk)
    disk.flip(path, ends[0] + 20)
    with pytest.raises(StateUnknown, match=f"damaged at byte {ends[0]}"):
        events(spool)
    with pytest.raises(StateUnknown, match="damaged at byte"):
        spool.seek(5)


# -- limits and failing disks


def test_a_full_queue_is_overload_until_it_is_written() -> None:
    spool = opened(FaultyDisk(), limits=SpoolLimits(queued_bytes=100))
    spool.append(group("a"), Told())
    with pytest.raises(Overloaded):
        spool.append(group("b"), Told())
    spool.commit_pending()
    assert put(spool, group("b"))[0].stored == 2


def test_a_group_larger_than_the_queue_is_taken_when_it_is_alone() -> None:
    spool = opened(FaultyDisk(), limits=SpoolLimits(queued_bytes=10))
    assert put(spool, group("a"))[0].stored == 2


def test_a_full_spool_is_overload_until_segments_are_released() -> None:
    spool = opened(FaultyDisk(), limits=SpoolLimits(total_bytes=500, segment_bytes=100))
    while spool.size_bytes < 480:
        put(spool, group("a"))
    with pytest.raises(Overloaded, match="full"):
        put(spool, group("b"))
    spool.release(spool.next_sequence)
    assert put(spool, group("again"))[0].stored == 2


def test_a_disk_that_is_full_in_the_middle_of_a_write_takes_more_later() -> None:
    disk = FaultyDisk()
    journal = Ids()
    spool = opened(disk, journal=journal)
    put(spool, group("a", group_id=b"a"))
    for room in (0, 1, 30, 100):
        disk.room_bytes = room
        (told,) = put(spool, group("b", group_id=b"b"))
        assert isinstance(told.outcome, Overloaded)
        assert spool.next_sequence == 2
        disk.room_bytes = None
        assert disk.size(segment_path(ROOT, 0)) == spool.size_bytes
    assert put(spool, group("b", group_id=b"b"))[0].stored == 2  # not taken for a re-send of what failed
    assert len(events(spool)) == len(events(opened(disk))) == 4


def test_a_torn_write_that_cannot_be_cut_off_ends_the_spool() -> None:
    disk = FaultyDisk()
    spool = opened(disk)
    put(spool, group("a"))
    disk.room_bytes, disk.failing["truncate"] = 10, OSError(errno.EIO, "I/O error")
    (told,) = put(spool, group("b"))
    assert isinstance(told.outcome, StateUnknown)
    disk.room_bytes, disk.failing = None, {}
    with pytest.raises(StateUnknown):
        spool.append(group("b"), Told())
    assert len(events(opened(disk))) == 2


@pytest.mark.parametrize("failing", ["sync", "sync_directory"])
def test_after_a_failed_sync_nothing_is_taken_for_ever(failing: str) -> None:
    disk = FaultyDisk()
    spool = opened(disk)
    if failing == "sync":
        put(spool, group("a"))
    disk.failing[failing] = OSError(errno.EIO, "I/O error")
    (told,) = put(spool, group("b"))
    assert isinstance(told.outcome, StateUnknown)
    disk.failing.clear()
    with pytest.raises(StateUnknown):
        spool.append(group("c"), Told())
    assert spool.next_sequence == (2 if failing == "sync" else 0)


@pytest.mark.parametrize("cut_off", [True, False], ids=["cut off", "not cut off"])
@pytest.mark.parametrize("failing", ["sync", "sync_directory"])
@pytest.mark.parametrize("more", [0, 1, 9])
def test_what_is_told_after_a_failed_sync_and_a_restart_outlives_a_power_cut(
    failing: str, *, cut_off: bool, more: int
) -> None:
    # what the sync left out reads well until then, and a second sync of it says that all is there
    disk = FaultyDisk()
    spool = opened(disk, limits=SMALL)
    if failing == "sync":
        put(spool, group("a", ids=[b"a"]))
    disk.failing = {failing: OSError(errno.EIO, "I/O error")}
    if not cut_off:
        disk.failing["truncate"] = disk.failing[failing]
    (told,) = put(spool, group("b", ids=[b"b"]))
    assert isinstance(told.outcome, StateUnknown)
    disk.failing.clear()
    again = opened(disk, limits=SMALL)
    told_now = put(again, group("b", ids=[b"b"]), *[group("c", ids=[b"%d" % at]) for at in range(more)])
    assert all(isinstance(one.outcome, Spooled) for one in told_now)
    expected = events(again)
    assert len(expected) == 1 + (failing == "sync") + more
    for _ in range(2):
        disk = disk.after_crash(Fate.LOST)
        assert events(opened(disk, limits=SMALL)) == expected


def test_a_restart_that_cannot_sync_what_it_found_leaves_it_to_the_next_one() -> None:
    disk = FaultyDisk()
    put(opened(disk), group("a", ids=[b"a"]))
    for failing in ("sync", "sync_directory"):
        disk.failing = {failing: OSError(errno.EIO, "I/O error")}
        with pytest.raises(OSError, match="I/O"):
            opened(disk)
        disk.failing = {}
    assert put(opened(disk), group("a", ids=[b"a"]))[0].stored == 0
    disk = disk.after_crash(Fate.LOST)
    assert len(events(opened(disk))) == 1
    assert disk.list_directory(ROOT) == [segment_path(ROOT, 0).name]


def test_a_group_queued_while_a_sync_fails_is_not_written_behind_it() -> None:
    # its bytes would stand behind others of unknown fate, and recovery would cut off both
    disk = FaultyDisk()
    spool = opened(disk)
    put(spool, group("a"))
    disk.failing["sync"] = OSError(errno.EIO, "I/O error")
    put(spool, group("b"))
    disk.failing.clear()
    late = Told()
    spool._queue.put(group("late"), late, 10)  # by an append before the failure was known
    spool.commit_pending()
    assert isinstance(late.outcome, StateUnknown)


def test_a_segment_that_cannot_be_made_is_overload_until_it_can() -> None:
    disk = FaultyDisk()
    spool = opened(disk, limits=SMALL)
    while spool.size_bytes < 200:
        put(spool, group("a"))
    before = spool.next_sequence
    disk.failing["create"] = OSError(errno.ENOSPC, "No space left on device")
    (told,) = put(spool, group("b"))
    assert isinstance(told.outcome, Overloaded)
    disk.failing.clear()
    assert put(spool, group("b"))[0].outcome == Spooled(first=before, stored=2, duplicates=0)
    assert len(events(opened(disk))) == before + 2


def test_a_journal_that_does_not_answer_is_overload_not_silence() -> None:
    journal = Ids()
    spool = opened(FaultyDisk(), journal=journal)
    journal.fails = True
    (told,) = put(spool, group("a"))
    assert isinstance(told.outcome, Overloaded)
    journal.fails = False
    assert put(spool, group("a"))[0].stored == 2


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (group("a", group_id=b"x" * (MAX_ID_BYTES + 1)), "an id"),
        (group("a", ids=[b"", b"x" * (MAX_ID_BYTES + 1)]), "an id"),
        (Group(source_ids=[b""], events=[b"{}", b"{}"], facts=[b"{}", b"{}"]), "side by side"),
        (Group(source_ids=[b"", b""], events=[b"{}", b"{}"], facts=[b"{}"]), "side by side"),
        (group("a", count=MAX_GROUP_EVENTS + 1), "events"),
        (Group(source_ids=[b""], events=[b" " * 33_554_432], facts=[b"{}"]), "bytes"),
    ],
    ids=["group id", "source id", "ids", "facts", "events", "bytes"],
)
def test_a_group_that_no_frame_can_hold_is_refused_before_it_is_queued(bad: Group, reason: str) -> None:
    spool = opened(FaultyDisk())
    with pytest.raises(ValueError, match=reason):
        spool.append(bad, Told())
    assert spool.commit_pending() == 0
    longest = group("a", ids=[b"x" * MAX_ID_BYTES], group_id=b"y" * MAX_ID_BYTES)
    assert put(spool, longest)[0].stored == 1


# -- duplicates


def test_a_group_seen_before_is_all_duplicates_even_in_the_same_commit() -> None:
    spool = opened(FaultyDisk())
    first, second = put(spool, group("a", group_id=b"g"), group("a", group_id=b"g"))
    assert (first.stored, second.outcome) == (2, Spooled(first=2, stored=0, duplicates=2))
    assert put(spool, group("a", group_id=b"g"))[0].stored == 0
    assert len(events(spool)) == 2


def test_an_event_seen_before_is_left_out_of_its_group() -> None:
    spool = opened(FaultyDisk())
    told = put(
        spool,
        group("a", ids=[b"1", b"1", b"", b""]),  # twice in a group
        group("b", ids=[b"1", b"2"]),  # in the same commit
    )
    assert [done.outcome for done in told] == [
        Spooled(first=0, stored=3, duplicates=1),
        Spooled(first=3, stored=1, duplicates=1),
    ]
    (later,) = put(spool, group("c", ids=[b"3", b"2"]))
    assert later.outcome == Spooled(first=4, stored=1, duplicates=1)
    assert events(spool) == [b'{"body":"%s"}' % name for name in (b"a.0", b"a.2", b"a.3", b"b.1", b"c.0")]


def test_ids_are_found_again_in_the_segments_after_a_restart() -> None:
    disk = FaultyDisk()
    put(opened(disk), group("a", ids=[b"1", b""], group_id=b"g"))
    spool = opened(disk)
    told = put(spool, group("a", count=2, group_id=b"g"), group("b", ids=[b"1", b"2"]))
    assert [done.stored for done in told] == [0, 1]


def test_a_new_group_of_old_events_is_remembered_without_any() -> None:
    disk = FaultyDisk()
    spool = opened(disk, limits=SMALL)
    put(spool, group("a", ids=[b"1"]))
    for at in range(20):  # more than a segment of frames without events
        assert put(spool, group("a", ids=[b"1"], group_id=b"g%d" % at))[0].outcome == Spooled(
            first=1, stored=0, duplicates=1
        )
    assert put(spool, group("b", ids=[b"2"]))[0].stored == 1
    again = opened(disk, limits=SMALL)
    assert events(again) == [b'{"body":"a.0"}', b'{"body":"b.0"}']
    assert put(again, group("b", ids=[b"5"], group_id=b"g7"))[0].stored == 0


def test_a_spool_that_begins_with_a_group_without_events() -> None:
    disk = FaultyDisk()
    journal = Ids()
    journal.add([b"1"])
    spool = opened(disk, journal=journal, limits=SpoolLimits(segment_bytes=50))
    for at in range(4):
        put(spool, group("a", ids=[b"1"], group_id=b"g%d" % at))
    put(spool, group("b", ids=[b"2"]))
    assert events(opened(disk)) == [b'{"body":"b.0"}']


# -- reading back


@settings(max_examples=40)
@given(st.lists(st.integers(0, 4), min_size=1, max_size=12), st.integers(50, 400), st.integers(1, 5))
def test_every_sequence_is_found_by_seeking(counts: list[int], segment_bytes: int, limit: int) -> None:
    spool = opened(FaultyDisk(), limits=SpoolLimits(segment_bytes=segment_bytes))
    for at, count in enumerate(counts):
        put(spool, group(str(at), ids=[b""] * count, group_id=b"g%d" % at) if count else empty(at))
    total = sum(counts)
    for sequence in range(total):
        frames, _ = spool.frames(spool.seek(sequence), events=limit, limit_bytes=10**6)
        assert frames[0].first <= sequence < frames[0].first + frames[0].count
    frames, _ = spool.frames(spool.seek(total), events=limit, limit_bytes=10**6)
    assert not any(frame.count for frame in frames)


def empty(at: int) -> Group:
    return Group(group_id=b"g%d" % at, source_ids=[], events=[], facts=[])


def test_a_cursor_at_the_end_sees_what_is_written_later() -> None:
    spool = opened(FaultyDisk(), limits=SMALL)
    cursor = spool.seek(0)
    assert spool.frames(cursor, events=9, limit_bytes=9) == ([], cursor)
    for at in range(6):
        put(spool, group(str(at)))
        frames, cursor = spool.frames(cursor, events=9, limit_bytes=9999)
        assert [frame.first for frame in frames] == [2 * at]


def test_a_frame_longer_than_one_read_comes_whole() -> None:
    spool = opened(FaultyDisk())
    large = Group(source_ids=[b""], events=[b"x" * 3_000_000], facts=[b"{}"])
    put(spool, group("a"), large, group("b"))
    frames, _ = spool.frames(spool.start, events=100, limit_bytes=10**8)
    assert [len(frame.events) for frame in frames] == [28, 3_000_000, 28]


def test_released_segments_are_gone_and_the_one_being_written_stays() -> None:
    disk = FaultyDisk()
    spool = opened(disk, limits=SMALL)
    for at in range(9):
        put(spool, group(str(at)))
    segments = sorted(int(name[:-4]) for name in disk.list_directory(ROOT))
    spool.release(segments[1] - 1)
    assert spool.start == Cursor(segment=0, offset=0)
    spool.release(segments[2])
    assert spool.start == Cursor(segment=segments[2], offset=0)
    with pytest.raises(StateUnknown, match="gone"):
        spool.seek(0)
    spool.release(10**9)
    assert disk.list_directory(ROOT) == [segment_path(ROOT, segments[-1]).name]
    assert put(spool, group("next"))[0].outcome == Spooled(first=18, stored=2, duplicates=0)
    assert opened(disk).next_sequence == 20


def test_segments_stay_while_their_ids_are_not_durable() -> None:
    disk = FaultyDisk()
    journal = Ids()
    spool = opened(disk, journal=journal, limits=SMALL)
    for at in range(9):
        put(spool, group(str(at)))
    before = disk.list_directory(ROOT)
    journal.fails = True
    with pytest.raises(Overloaded):
        spool.release(18)
    assert disk.list_directory(ROOT) == before


def test_a_release_that_failed_in_the_middle_is_tried_again() -> None:
    disk = FaultyDisk()
    spool = opened(disk, limits=SMALL)
    for at in range(9):
        put(spool, group(str(at)))
    disk.failing["sync_directory"] = OSError(errno.EIO, "I/O error")
    with pytest.raises(OSError, match="I/O"):
        spool.release(18)
    disk.failing.clear()
    spool.release(18)
    assert len(disk.list_directory(ROOT)) == 1


# -- threads


def test_many_senders_share_commits_and_each_is_told_once(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool", disk=OsDisk(), journal=Ids(), limits=SpoolLimits(segment_bytes=20_000))
    spool.start_committing()
    told: dict[str, Told] = {}

    def send(sender: int) -> None:
        for at in range(40):
            done = told[f"{sender}/{at}"] = Told()
            spool.append(group(f"{sender}/{at}", group_id=b"%d %d" % (sender, at % 30)), done)
            if random.random() < 0.3:
                assert done.event.wait(20)

    threads = [threading.Thread(target=send, args=(sender,)) for sender in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    spool.close()
    assert all(done.event.is_set() for done in told.values())
    stored = {name for name, done in told.items() if done.stored}
    assert len(stored) == 8 * 30
    again = Spool(tmp_path / "spool", disk=OsDisk(), journal=Ids())
    assert sorted(events(again)) == sorted(f'{{"body":"{name}.{at}"}}'.encode() for name in stored for at in range(2))
    again.close()


def test_closing_commits_what_is_queued_and_then_takes_no_more() -> None:
    spool = opened(FaultyDisk())
    told = Told()
    spool.append(group("a"), told)
    spool.close()
    assert told.stored == 2
    with pytest.raises(Overloaded, match="closing"):
        spool.append(group("b"), Told())
    spool.close()


def test_a_sender_that_cannot_be_told_does_not_keep_the_others_from_hearing() -> None:
    def broken(_: Spooled | Exception) -> None:
        raise RuntimeError("the connection is gone")

    spool = opened(FaultyDisk())
    told = Told()
    spool.append(group("a"), broken)
    spool.append(group("b"), told)
    spool.start_committing()
    assert told.event.wait(20)
    after = Told()
    spool.append(group("c"), after)
    assert after.event.wait(20)
    spool.close()


def test_the_thread_outlives_an_event_loop_that_is_gone() -> None:
    def deliver(_: Sequence[tuple[Done, Spooled | Exception]]) -> None:
        raise RuntimeError("Event loop is closed")

    spool = Spool(ROOT, disk=FaultyDisk(), journal=Ids(), deliver=deliver)
    spool.start_committing()
    for name in ("a", "b"):
        spool.append(group(name), Told())
    spool.close()
    assert spool.next_sequence == 4


def test_a_defect_in_a_commit_is_told_and_ends_the_spool() -> None:
    class Broken(Ids):
        def known(self, source_ids: Iterable[bytes]) -> set[bytes]:
            raise RuntimeError(f"a defect with {source_ids}")

    spool = opened(FaultyDisk(), journal=Broken())
    (told,) = put(spool, group("a"))
    assert isinstance(told.outcome, StateUnknown)
    with pytest.raises(StateUnknown):
        spool.append(group("b"), Told())


def test_a_spool_that_is_full_with_its_only_segment_lets_go_of_it_when_nobody_needs_it_any_more() -> None:
    disk = FaultyDisk()
    spool = opened(disk, limits=SpoolLimits(total_bytes=500))
    while spool.size_bytes < 480:
        put(spool, group("a"))
    kept = spool.next_sequence
    spool.release(kept)
    assert spool.size_bytes >= 480, "nobody is refused yet, so what is written goes on"
    for _ in range(2):
        with pytest.raises(Overloaded, match="the spool is full"):
            put(spool, group("b"))
        spool.release(kept - 1)
        assert spool.size_bytes >= 480, "its last event is still needed"
    spool.release(kept)
    assert spool.size_bytes == 0
    assert put(spool, group("again"))[0].stored == 2
    assert spool.refusals.now == ""
    again = opened(disk)
    assert again.next_sequence == kept + 2, "sequences go on behind what was let go of"
    assert again.start == Cursor(segment=kept, offset=0)


def test_what_is_kept_for_shipping_is_not_given_to_events() -> None:
    disk = FaultyDisk()
    spool = opened(disk, limits=SpoolLimits(keep_free_bytes=5_000_000))
    disk.free = 5_001_000  # near the bound it is asked each time
    put(spool, group("a"))
    disk.free = 5_000_001
    (told,) = put(spool, group("b"))
    assert isinstance(told.outcome, Overloaded)
    assert "full but for 4 MiB" in str(told.outcome)
    assert spool.refusals.now == str(told.outcome)
    assert spool.next_sequence == 2
    disk.free = 5_001_000
    assert put(spool, group("b"))[0].stored == 2
    assert spool.refusals.now == ""


def test_a_spool_opens_on_a_disk_without_room_for_another_file() -> None:
    disk = FaultyDisk()
    put(opened(disk), group("a", ids=[b"a"]))
    disk.append_to(segment_path(ROOT, 0)).write(b"torn")
    disk.failing["write"] = OSError(errno.ENOSPC, "No space left on device")
    again = opened(disk)
    assert put(again, group("a", ids=[b"a"]))[0].stored == 0
    assert disk.list_directory(ROOT) == [segment_path(ROOT, 0).name]
    assert disk.size(segment_path(ROOT, 0)) == again.size_bytes


def test_a_spool_on_a_full_disk_opens_and_still_recognises_what_is_sent_again() -> None:
    disk = FaultyDisk()
    spool = opened(disk, limits=SMALL)
    for at in range(9):
        put(spool, group("a", ids=[b"%d" % at]))
    spool.close()
    assert len(disk.files(ROOT)) > 2
    journal = Ids()
    journal.flushes = False
    again = opened(disk, journal=journal, limits=SMALL)
    assert again.next_sequence == 9
    assert put(again, group("a", ids=[b"0"]))[0].stored == 0
    with pytest.raises(Overloaded):
        again.release(9)
    assert len(events(again)) == 9, "the ids are nowhere else"
    journal.flushes = True
    again.release(9)
    assert len(disk.files(ROOT)) == 1
