"""Importing files: what the store has is what the accounts say, whatever happened to the imports before."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from hashlib import sha256
from itertools import accumulate, islice
from pathlib import Path

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from collector.deadletters import DeadLetters
from collector.disk import OsDisk
from collector.errors import Conflict, Malformed, Overloaded
from collector.event import Event, Origin
from collector.extract import Extractor, StitchSettings
from collector.fileaccount import BrokenOff
from collector.imports import Importer, Row
from collector.prepare import Preparer
from collector.protect import Protector
from collector.receive import Arrival
from collector.rejection import Rejection
from collector.retry import Breaker, RetryLimits
from collector.spool import SpoolLimits
from tests.support.memory_store import MemoryStore
from tests.support.shipper import LEDGER, START_NS


@contextmanager
def importing(
    root: Path,
    store: MemoryStore,
    *,
    journal_ids: int = 10_000,
    limits: SpoolLimits | None = None,
    correlate: Callable[[], bool] = lambda: False,
    sleep: Callable[[float], None] = lambda _: None,
    now_ns: int = START_NS,
) -> Iterator[Importer]:
    """An importer of its own, as each `tally import` has."""
    disk = OsDisk()
    protector = Protector(token_key=b"k" * 32)
    disk.make_directory(root)
    importer = Importer(
        root,
        ledger=LEDGER,
        store=store,
        key=Ed25519PrivateKey.from_private_bytes(b"\x05" * 32),
        preparer=Preparer(extractor=Extractor(StitchSettings()), protector=protector, clock=None),
        dead_letters=DeadLetters(
            root / "dead", disk=disk, protector=protector, clock=lambda: START_NS, total_bytes=1 << 20
        ),
        disk=disk,
        clock=lambda: now_ns,
        breaker=Breaker(RetryLimits(), uniform=min),
        journal_ids=journal_ids,
        limits=limits,
        correlate=correlate,
        sleep=sleep,
    )
    with closing(importer):
        yield importer


def rows(*bodies: str) -> list[Row]:
    return [Arrival(event=Event(body=body), source_id=sha256(body.encode()).digest()) for body in bodies]


def file_of(bodies: Sequence[str], *, at_a_time: int = 20) -> Iterator[list[Row]]:
    """As a file gives its rows: numbered, in groups; a text that begins with ! is a row that cannot be read."""
    whole: list[Row] = []
    for number, body in enumerate(bodies, 1):
        origin = Origin(receiver="import", file="a", row=number)
        source_id = sha256(body.encode()).digest()
        if body.startswith("!"):
            whole.append(Rejection(body.encode(), Malformed("bad", label="bad_json"), origin, source_id))
        else:
            whole.append(Arrival(event=Event(body=body, origin=origin), source_id=source_id))
    for start in range(0, len(whole), at_a_time):
        yield whole[start : start + at_a_time]


def taken_into_the_log(store: MemoryStore) -> None:
    """What a correlator tells the store when its log holds everything."""
    store.acknowledge({stream: max(numbered) for stream, numbered in store.batches.items()})


def named(body: str) -> str:
    return sha256(body.encode()).hexdigest()


def stored(store: MemoryStore) -> list[str]:
    """The bodies of all events in the store."""
    events = [
        batch.events[end - length : end]
        for numbered in store.batches.values()
        for batch in numbered.values()
        for end, length in zip(accumulate(batch.lengths), batch.lengths, strict=True)
    ]
    return sorted(msgspec.json.decode(event)["body"] for event in events)


BODIES = [f"row {at}" for at in range(1_500)]


def broken_off(bodies: Sequence[str], error: BaseException) -> Iterator[list[Row]]:
    for start in range(0, len(bodies), 1_000):
        yield rows(*bodies[start : start + 1_000])
    raise error


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError("the disk is gone")])
def test_rows_of_an_import_that_was_broken_off_are_in_the_store_before_they_are_duplicates(
    tmp_path: Path, error: BaseException
) -> None:
    store = MemoryStore()
    with pytest.raises((KeyboardInterrupt, BrokenOff)), importing(tmp_path, store) as importer:
        importer.run(named("a"), broken_off([*BODIES, *BODIES[:500]], error))
    with importing(tmp_path, store) as importer:
        account = importer.run(named("b"), [rows(*BODIES, "one more")])
    assert (account.rows, account.stored, account.duplicates) == (1_501, 1, 1_500)
    assert stored(store) == sorted([*BODIES, "one more"])


def test_the_files_behind_one_that_cannot_be_read_to_its_end_find_no_duplicates_of_what_is_not_stored(
    tmp_path: Path,
) -> None:
    store = MemoryStore()
    with importing(tmp_path, store) as importer:
        with pytest.raises(BrokenOff, match="gone") as raised:
            importer.run(named("a"), broken_off([*BODIES, *BODIES[:500]], OSError("gone")))
        account = raised.value.account
        assert (account.rows, account.stored, account.duplicates) == (2_000, 1_500, 500)
        assert stored(store) == sorted(BODIES)
        importer.run(named("b"), [rows(*BODIES)])
    assert stored(store) == sorted(BODIES)


def test_a_file_that_was_broken_off_goes_on_behind_its_rows(tmp_path: Path) -> None:
    store = MemoryStore()
    with pytest.raises(KeyboardInterrupt), importing(tmp_path, store) as importer:
        importer.run(named("a"), broken_off([*BODIES, *BODIES[:500]], KeyboardInterrupt()))
    with importing(tmp_path, store) as importer:
        importer.run(named("b"), [rows("another file")])
        account = importer.run(named("a"), [rows(*BODIES, "the rest")])
    assert (account.stored, account.duplicates, account.again) == (1, 1_500, False)
    assert stored(store) == sorted([*BODIES, "another file", "the rest"])


def test_no_import_begins_while_the_store_does_not_take_what_is_left_of_another(tmp_path: Path) -> None:
    store = MemoryStore()
    with pytest.raises(KeyboardInterrupt), importing(tmp_path, store) as importer:
        importer.run(named("a"), broken_off(BODIES[:500] * 2, KeyboardInterrupt()))
    store.down = "away"
    with pytest.raises(Overloaded), importing(tmp_path, store):
        pass
    store.down = ""
    with importing(tmp_path, store):
        assert stored(store) == sorted(BODIES[:500])


def test_a_group_of_rows_may_be_longer_than_a_frame(tmp_path: Path) -> None:
    bodies = [f"{at} " + "x" * 100_000 for at in range(700)]  # and a frame holds 32 MiB of events
    store = MemoryStore()
    with importing(tmp_path, store) as importer:
        account = importer.run(named("a"), [rows(*bodies)])
    assert (account.rows, account.stored) == (700, 700)
    assert stored(store) == sorted(bodies)


def test_marks_are_counted_of_rows_that_are_stored_or_were_and_of_no_others(tmp_path: Path) -> None:
    store = MemoryStore()

    def marked() -> list[Row]:
        found = rows("a", "b", "c", "x" * 2_000_000)  # the last one is too long to be taken
        for row in found:
            if isinstance(row, Arrival) and row.event.body != "a":
                row.event.marks.append("truncated")
        return found

    with importing(tmp_path, store) as importer:
        first, again = (importer.run(named("a"), [marked()]) for _ in range(2))
    assert (first.stored, first.dead_lettered, first.marks) == (3, 1, {"truncated": 2})
    assert (again.duplicates, again.dead_lettered, again.marks, again.again) == (3, 1, {"truncated": 2}, True)


def test_marks_are_counted_by_their_kind_also_those_that_the_intake_finds(tmp_path: Path) -> None:
    store = MemoryStore()
    bodies = ["4111 1111 1111 1111", "caf\udce9", "plain"]

    def odd() -> list[Row]:
        events = [Event(body=body, attributes={"other": body}) for body in bodies]
        return [Arrival(event=event, source_id=b"%d" % at) for at, event in enumerate(events)]

    with importing(tmp_path, store) as importer:
        first, again = (importer.run(named("a"), [odd()]) for _ in range(2))
    assert first.marks == again.marks == {"card": 1, "surrogate_replaced": 1}


def test_of_each_reason_the_first_row_is_told_and_no_card_number(tmp_path: Path) -> None:
    def refused() -> Iterator[list[Row]]:
        for label in ("bad_csv", "bad_json"):
            for row in (3, 4):
                error = Malformed("what is 4111 1111 1111 1111?", where="a", label=label)
                yield [Rejection(b"x", error, Origin(receiver="import", file="a.csv", row=row), label.encode())]

    with importing(tmp_path, MemoryStore()) as importer:
        first, again = (importer.run(named("a"), refused()) for _ in range(2))
    assert first.reasons == {"bad_csv": 2, "bad_json": 2}
    assert first.first == again.first
    assert first.first.keys() == first.reasons.keys()
    for told in first.first.values():
        assert told.startswith("a.csv row 3: what is [4111 11** **** 1111~card:")


SMALL = SpoolLimits(total_bytes=1 << 20, segment_bytes=1 << 17, reserve_bytes=1 << 12)
LONG = [f"{at} " + "x" * 10_000 for at in range(400)]  # four times as much as such a spool takes


def test_a_file_may_be_longer_than_its_spool(tmp_path: Path) -> None:
    store = MemoryStore()
    correlations = 0

    def correlate() -> bool:
        nonlocal correlations
        correlations += 1
        taken_into_the_log(store)
        return True

    with importing(tmp_path, store, limits=SMALL, correlate=correlate) as importer:
        account = importer.run(named("a"), file_of(LONG))
    assert (account.rows, account.stored) == (400, 400)
    assert stored(store) == sorted(LONG)
    assert 0 < correlations < 20


def test_a_file_that_is_longer_than_its_spool_waits_for_the_correlator_that_runs(tmp_path: Path) -> None:
    store = MemoryStore()
    asked = []

    def correlate() -> bool:
        asked.append(True)
        return False

    with importing(
        tmp_path, store, limits=SMALL, correlate=correlate, sleep=lambda _: taken_into_the_log(store)
    ) as importer:
        importer.run(named("a"), file_of(LONG))
    assert stored(store) == sorted(LONG)
    assert len(asked) == 1


def test_a_long_file_goes_on_behind_the_row_that_it_reached(tmp_path: Path) -> None:
    """Though the spool has let go of its first rows and the journal has forgotten them."""
    bodies = [*LONG[:30], "! broken", *LONG[30:], LONG[0], "! broken, too"]
    store = MemoryStore()
    with (
        pytest.raises(Overloaded, match="the spool is full"),
        importing(tmp_path, store, limits=SMALL, journal_ids=5) as importer,
    ):
        importer.run(named("a"), file_of(bodies))
    taken_into_the_log(store)

    def correlate() -> bool:
        taken_into_the_log(store)
        return True

    with importing(tmp_path, store, limits=SMALL, journal_ids=5, correlate=correlate) as importer:
        account = importer.run(named("a"), file_of(bodies))
    assert account.rows == 403 == account.stored + account.duplicates + account.dead_lettered
    assert account.dead_lettered == 2
    assert 0 < account.stored < 400
    assert set(stored(store)) == set(LONG)
    assert len(stored(store)) <= 401  # the last row but one is the first once more: the journal is very short


def until_killed(bodies: Sequence[str], groups: int) -> Iterator[list[Row]]:
    yield from islice(file_of(bodies), groups)
    raise KeyboardInterrupt


@pytest.mark.parametrize("journal_ids", [5, 10_000])
def test_of_an_import_that_was_broken_off_rows_that_were_refused_are_taken_and_no_row_twice(
    tmp_path: Path, journal_ids: int
) -> None:
    """What was stored is a duplicate though it cannot be read any more, and though the journal has forgotten it; so is its like beside it."""
    bodies = [f"row {at // 2}" if at in (20, 21, 90) else f"row {at} once" for at in range(100)]
    refused = {7, 33, 34}
    store = MemoryStore()
    first = [f"!{body}" if at in refused else body for at, body in enumerate(bodies)]
    for groups in (3, 4):  # and once more, so that the stream's events are in no order of rows
        with pytest.raises(KeyboardInterrupt), importing(tmp_path, store, journal_ids=journal_ids) as importer:
            importer.run(named("a"), until_killed(first if groups == 3 else bodies, groups))
    taken_into_the_log(store)
    last = [f"!{body}" if at in {3, 95} else body for at, body in enumerate(bodies)]
    with importing(tmp_path, store, journal_ids=journal_ids) as importer:
        account = importer.run(named("a"), file_of(last))
    assert (account.rows, account.stored, account.duplicates, account.dead_lettered) == (100, 19, 80, 1)
    assert account.reasons == {"bad_json": 1}
    assert stored(store) == sorted({body for at, body in enumerate(bodies) if at != 95})


def test_what_the_store_lost_of_a_file_comes_back_with_the_next_import(tmp_path: Path) -> None:
    store = MemoryStore()
    with importing(tmp_path, store) as importer:
        account = importer.run(named("file"), [rows("a")])
    batches = store.batches[account.stream]
    assert sorted(batches) == [1, 2]
    lost = batches.pop(1)
    with importing(tmp_path, store):  # no import runs long enough to find out what is missing, so all is sent again
        pass
    assert batches[1] == lost


def begun(root: Path, store: MemoryStore) -> None:
    """An import of the file "a" that got to its 1,000th row."""
    with pytest.raises(KeyboardInterrupt), importing(root, store) as importer:
        importer.run(named("a"), broken_off(BODIES[:1_000], KeyboardInterrupt()))


@pytest.mark.parametrize("logged", [False, True])
def test_a_file_whose_spool_is_gone_is_refused_and_the_others_are_not(tmp_path: Path, logged: bool) -> None:
    """As behind a restore: spools are not among what is brought back."""
    store = MemoryStore()
    begun(tmp_path / "one", store)
    if logged:
        taken_into_the_log(store)
    for at in (1, 2):
        with importing(tmp_path / "two", store, now_ns=START_NS + at) as importer:
            with pytest.raises(Conflict, match="the spool of that is not here any more"):
                importer.run(named("a"), [rows(*BODIES)])
            assert importer.run(named(f"b{at}"), [rows(f"other {at}")]).stored == 1
            assert importer.run(named("a, compressed"), [rows(*BODIES)]).rows == 1_500
    assert set(stored(store)) == {*BODIES, "other 1", "other 2"}


def test_of_two_that_import_one_file_at_once_one_is_told_and_loses_nothing_of_other_files(tmp_path: Path) -> None:
    store = MemoryStore()

    def meanwhile() -> Iterator[list[Row]]:
        begun(tmp_path / "one", store)
        yield from broken_off(BODIES, OSError("gone"))

    for again in (False, True):
        with importing(tmp_path / "two", store, now_ns=START_NS + 1) as importer:
            with pytest.raises(Conflict):
                importer.run(named("a"), [rows(*BODIES)] if again else meanwhile())
            assert importer.run(named("b"), [rows(*BODIES[1_000:], "b")]).rows == 501
    assert set(stored(store)) == {*BODIES, "b"}
    assert [path.name for path in (tmp_path / "two").glob("*.damaged")] == [named("a") + ".damaged"]


def test_an_import_that_meets_a_spool_of_which_the_store_has_other_batches_goes_on(tmp_path: Path) -> None:
    store = MemoryStore()

    def then_away() -> Iterator[list[Row]]:
        store.down = "away"
        yield rows(*BODIES)

    with importing(tmp_path / "two", store, now_ns=START_NS + 1) as importer, pytest.raises(Overloaded):
        importer.run(named("a"), then_away())
    store.down = ""
    begun(tmp_path / "one", store)
    with importing(tmp_path / "two", store, now_ns=START_NS + 1) as importer:
        assert importer.run(named("b"), [rows(*BODIES[1_000:])]).stored == 500
    assert stored(store) == sorted(BODIES)


REFUSED = ["row 0", "!row 1", "row 2", "!row 3"]


def corrected() -> Iterator[list[Row]]:
    return file_of([body.removeprefix("!") for body in REFUSED])


def test_rows_that_were_refused_come_in_when_the_file_is_imported_again(tmp_path: Path) -> None:
    store = MemoryStore()
    with importing(tmp_path, store) as importer:
        first = importer.run(named("a"), file_of(REFUSED), again=True)
        assert (first.stored, first.dead_lettered, first.number) == (2, 2, 1)
        plain = importer.run(named("a"), corrected())
        assert (plain.stored, plain.duplicates, plain.again) == (0, 4, True)
        more = importer.run(named("a"), corrected(), again=True)
        assert (more.rows, more.stored, more.duplicates, more.again, more.number) == (4, 2, 2, False, 2)
    assert stored(store) == [f"row {at}" for at in range(4)]
    taken_into_the_log(store)
    for number in (3, 4):
        with importing(tmp_path, store) as importer:
            none = importer.run(named("a"), corrected(), again=True)
            assert (none.stored, none.duplicates, none.number) == (0, 4, number)
            assert importer.run(named("a"), corrected()).again
    assert all(max(numbered.items())[1].signed.header.closed for numbered in store.batches.values())


@pytest.mark.parametrize("logged", [False, True])
def test_an_import_again_that_was_broken_off_goes_on_in_its_stream(tmp_path: Path, logged: bool) -> None:
    store = MemoryStore()
    bodies = [f"row {at}" for at in range(40)]

    def until_killed() -> Iterator[list[Row]]:
        yield next(file_of(bodies))
        raise KeyboardInterrupt

    with importing(tmp_path, store) as importer:
        importer.run(named("a"), file_of([f"!{body}" for body in bodies]))
    with pytest.raises(KeyboardInterrupt), importing(tmp_path, store) as importer:
        importer.run(named("a"), until_killed(), again=True)
    with importing(tmp_path, store) as importer:
        if logged:
            taken_into_the_log(store)
        assert importer.run(named("a"), file_of(bodies)).again
        account = importer.run(named("a"), file_of(bodies), again=True)
    assert (account.rows, account.stored, account.duplicates, account.number) == (40, 20, 20, 2)
    assert stored(store) == sorted(bodies)
    assert len(store.batches) == 2


def test_a_file_whose_spool_is_gone_can_be_imported_again(tmp_path: Path) -> None:
    store = MemoryStore()
    begun(tmp_path / "one", store)
    with importing(tmp_path / "one", store):  # sends what is in the spool
        pass
    with importing(tmp_path / "two", store, now_ns=START_NS + 1) as importer:
        with pytest.raises(Conflict, match="--again"):
            importer.run(named("a"), [rows(*BODIES)])
        account = importer.run(named("a"), [rows(*BODIES)], again=True)
    assert (account.stored, account.number) == (1_500, 2)
    assert set(stored(store)) == set(BODIES)
