"""The log in object storage when requests fail, land late, lose their reply, or another writer comes in between."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable

import pytest
from obstore.store import MemoryStore

from correlator import log as log_module
from correlator.checkpoint import open_checkpoint
from correlator.errors import Conflict, NotFound, Overloaded, StateUnknown
from correlator.head import decode_head
from correlator.storage import CHECKPOINT
from correlator.storage.bucket import ABSENT, Bucket, ObstoreBucket, Refused, bucket_at
from correlator.storage.objects import ObjectStorage
from tests.support import log_story
from tests.support.faulty_bucket import Crashed, Fault, FaultyBucket
from tests.support.heedless_bucket import CreateOnly, Heedless
from tests.support.logs import SIGNER, grow, open_log

TILE = "tile/0/000"


@pytest.fixture(autouse=True)
def small_settles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_module, "MAX_STAGINGS", 2)


def memory() -> Bucket:
    return ObstoreBucket(MemoryStore())


# -------------------------------------------------------------------------------------------------------------- crash table


def told(bucket: FaultyBucket, published: list[int]) -> bool:
    """Live the story; whether it came to its end without an error."""
    try:
        log_story.story(lambda: ObjectStorage(bucket), published)
    except (Crashed, Overloaded, StateUnknown):
        return False
    return True


def changes_of_the_story() -> list[str]:
    bucket = FaultyBucket(memory())
    assert told(bucket, [])
    return bucket.changes


@pytest.mark.parametrize("fault", [fault for fault in Fault if fault is not Fault.LATE])
def test_every_change_of_the_bucket_fails_in_every_way(fault: Fault) -> None:
    changes = changes_of_the_story()
    assert len(changes) > 60
    for at in range(1, len(changes) + 1):
        bucket = FaultyBucket(memory(), at=at, fault=fault)
        published: list[int] = []
        whole = told(bucket, published)
        bucket.at = 0
        log_story.assert_recovers(lambda: ObjectStorage(bucket), published, f"change {at} ({changes[at - 1]}), {fault}")  # noqa: B023  (called at once)
        change = changes[at - 1]
        if fault is Fault.SENT_AGAIN:
            assert whole, f"a reply that was lost is no conflict: {change}"
        if fault is Fault.LOST_REPLY and not change.startswith(("delete", "put probe")):
            assert whole, f"what was written was written: {change}"


@pytest.mark.parametrize("late_after", [1, 2, 5, 12, 30, 1_000_000])
def test_what_lands_late_does_not_harm(late_after: int) -> None:
    changes = changes_of_the_story()
    for at in range(1, len(changes) + 1):
        bucket = FaultyBucket(memory(), at=at, fault=Fault.LATE, late_after=late_after)
        published: list[int] = []
        told(bucket, published)
        what = f"change {at} ({changes[at - 1]}) lands {late_after} requests later"
        try:
            log = open_log(ObjectStorage(bucket))  # in the middle of which it may land
        except Conflict:
            assert "put head" in what
            log = open_log(ObjectStorage(bucket))
        assert log.size >= max(published, default=0), what
        size = log.size + 7
        grow(log, [size])
        log.close()
        bucket.land()
        open_log(ObjectStorage(bucket)).close()  # clears up a staging that came last
        assert log_story.findings(ObjectStorage(bucket)) == [], what
        with open_log(ObjectStorage(bucket)) as log:
            assert log.size == size, what
        assert ObjectStorage(bucket).stages() == [], what


@pytest.mark.parametrize("fault", [Fault.CRASH_BEFORE, Fault.CRASH_AFTER, Fault.LOST_REPLY, Fault.FAILED])
def test_a_recovery_that_fails_is_recovered_from(fault: Fault) -> None:
    for at in range(1, len(changes_of_the_story()) + 1, 4):
        bucket = FaultyBucket(memory(), at=at, fault=Fault.CRASH_AFTER)
        published: list[int] = []
        told(bucket, published)
        for second in range(1, 16, 2):
            bucket.at, bucket.fault = len(bucket.changes) + second, fault
            told(bucket, published)
        bucket.at = 0
        log_story.assert_recovers(lambda: ObjectStorage(bucket), published, f"crash {at}, then {fault} each time")  # noqa: B023  (called at once)


# -------------------------------------------------------------------------------------------------------------- two writers


def checkpoint_sizes(bucket: FaultyBucket) -> list[int]:
    return [open_checkpoint(signed, SIGNER.verifier).size for signed in bucket.checkpoints]


class Paused:
    """A thread that stops before its request number `at`, until it is let go."""

    def __init__(self, bucket: FaultyBucket, at: int, work: Callable[[], None]) -> None:
        self.stopped_before = ""
        self.error: BaseException | None = None
        self._requests = 0
        self._at = at
        self._reached, self._go = threading.Event(), threading.Event()
        bucket.before = self._before
        self._thread = threading.Thread(target=self._run, args=(work,))
        self._thread.start()
        assert self._reached.wait(30)

    def _before(self, request: str) -> None:
        self._requests += 1
        if self._requests == self._at:
            self.stopped_before = request
            self._reached.set()
            assert self._go.wait(30)

    def _run(self, work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as error:  # noqa: BLE001  (told to the test)
            self.error = error
        finally:
            self._reached.set()

    def finish(self) -> None:
        self._go.set()
        self._thread.join(30)
        assert not self._thread.is_alive()


def interleaved(deposed_stops_at: int, successor_stops_at: int) -> tuple[str, str]:
    """D publishes 20 leaves and is stopped before a request; N takes over, publishes 40, and is stopped in turn while D goes on.

    Gives the requests before which they were stopped; empty for who has fewer requests.
    """
    shared = memory()
    mine, theirs = FaultyBucket(shared), FaultyBucket(shared)
    mine.checkpoints = theirs.checkpoints
    first = open_log(ObjectStorage(mine), "D")
    grow(first, [10])
    deposed = Paused(mine, deposed_stops_at, lambda: grow(first, [20]))
    sizes: list[int] = []

    def take_over() -> None:
        log = open_log(ObjectStorage(theirs), "N", take_over=True)
        sizes.append(log.size)
        grow(log, [40])
        sizes.append(log.size)

    successor = Paused(theirs, successor_stops_at, take_over)
    deposed.finish()
    successor.finish()
    what = f"D before {deposed.stopped_before!r}, N before {successor.stopped_before!r}"
    seen = checkpoint_sizes(theirs)
    assert seen == sorted(seen), f"the checkpoint went back: {seen}; {what}"
    storage = ObjectStorage(shared)
    raw = storage.read_head()
    assert raw is not None
    head = decode_head(raw)
    if successor.error is None:
        assert (head.writer, head.size) == ("N", 40), what
        assert sizes[0] in (10, 20), what
        assert open_checkpoint(storage.get(CHECKPOINT), SIGNER.verifier).size == 40, what
        if deposed.error is None:  # all of it was done before N came: then it counts
            assert sizes[0] == 20, what
    else:
        assert isinstance(successor.error, Conflict | StateUnknown), what
        assert head.writer == "D", f"{what}: {successor.error!r}"
    if deposed.error is not None:
        assert isinstance(deposed.error, StateUnknown), what
    open_log(storage).close()
    assert log_story.findings(storage) == [], what
    return deposed.stopped_before, successor.stopped_before


def test_a_deposed_writer_harms_nothing_wherever_it_and_its_successor_are_stopped() -> None:
    stopped_at = set()
    both = ("?", "?")
    for deposed_stops_at in range(1, 40):
        for successor_stops_at in range(1, 60):
            both = interleaved(deposed_stops_at, successor_stops_at)
            stopped_at.add(both)
            if both[1] == "":  # it has fewer requests: it was not stopped at all
                break
        if both == ("", ""):
            break
    assert {
        ("get head", "put checkpoint"),
        ("put checkpoint", "put head"),
        ("put checkpoint", "put checkpoint"),
    } <= stopped_at
    assert ("", "") in stopped_at, "every request of both was tried"


MINIO = os.environ.get("TALLY_S3_SERVER") == "minio"


@pytest.fixture(params=["memory", *([pytest.param("minio", marks=pytest.mark.objectstore)] if MINIO else [])])
def atomic(request: pytest.FixtureRequest) -> Bucket:
    """A bucket whose conditional put is one step: moto's server has none, so only `make test-minio` tries a real server."""
    if request.param == "memory":
        return memory()
    url: str = request.getfixturevalue("s3_url")
    endpoint: str = request.getfixturevalue("s3").endpoint
    return bucket_at(url, endpoint=endpoint)


def test_of_many_that_swap_at_once_one_wins(atomic: Bucket) -> None:
    shared = atomic
    ObjectStorage(shared).swap_head(None, b"0")
    for turn in range(20):
        old, barrier = b"%d" % turn, threading.Barrier(8)
        won: list[bytes] = []

        def swap(
            number: int,
            old: bytes = old,
            turn: int = turn,
            barrier: threading.Barrier = barrier,
            won: list[bytes] = won,
        ) -> None:
            storage = ObjectStorage(shared)
            storage.read_head()
            storage._probed = True
            barrier.wait()
            try:
                storage.swap_head(old, b"%d/%d" % (turn + 1, number))
            except Conflict:
                return
            won.append(b"%d/%d" % (turn + 1, number))

        threads = [threading.Thread(target=swap, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert won == [ObjectStorage(shared).read_head()], f"{len(won)} have won"
        ObjectStorage(shared).swap_head(won[0], b"%d" % (turn + 1))


# ------------------------------------------------------------------------------------------------------------- what is told


@pytest.mark.parametrize("kind", [Heedless, CreateOnly])
def test_a_server_that_ignores_conditions_is_refused_before_the_first_swap(kind: type[Heedless]) -> None:
    storage = ObjectStorage(kind())
    with pytest.raises(StateUnknown, match="ignores the conditions"):
        open_log(storage)
    assert storage.read_head() is None


def test_a_swap_whose_outcome_is_open_is_neither_done_nor_refused() -> None:
    bucket = FaultyBucket(memory())
    storage = ObjectStorage(bucket)
    storage.swap_head(None, b"1")
    bucket.at, bucket.fault = len(bucket.changes) + 1, Fault.LATE
    with pytest.raises(StateUnknown, match="or be written yet"):
        storage.swap_head(b"1", b"2")
    assert storage.read_head() == b"1"
    bucket.land()
    assert storage.read_head() == b"2"


def test_a_staging_that_was_not_answered_may_be_tried_again() -> None:
    bucket = FaultyBucket(memory(), at=1)
    with pytest.raises(Overloaded, match="not staged"):
        ObjectStorage(bucket).stage("1-aa.1", b"x")
    ObjectStorage(bucket).stage("1-aa.1", b"x")
    assert ObjectStorage(bucket).read_stage("1-aa.1") == b"x"


def test_a_name_that_leads_elsewhere_is_refused() -> None:
    for name in ("", "../head", "a/b", ".x"):
        with pytest.raises(ValueError, match="not the name of a staging"):
            ObjectStorage(memory()).stage(name, b"x")


def test_a_server_that_is_not_there_is_no_absence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    storage = ObjectStorage(bucket_at("s3://ledger/log", endpoint="http://127.0.0.1:1"))
    with pytest.raises(Overloaded, match="does not answer"):
        storage.read_head()
    with pytest.raises(Overloaded, match="does not answer"):
        storage.get(TILE)
    with pytest.raises(StateUnknown):
        storage.put_once(TILE, b"x")


def test_a_url_that_the_driver_does_not_know_is_told() -> None:
    with pytest.raises(StateUnknown, match="ftp"):
        bucket_at("ftp://ledger/log")


@pytest.mark.objectstore
def test_a_bucket_that_is_not_there_is_no_empty_one(s3_url: str, s3: object) -> None:
    endpoint: str = s3.endpoint  # type: ignore[attr-defined]  # the fixture's
    storage = ObjectStorage(bucket_at("s3://no-such-bucket/log", endpoint=endpoint))
    for attempt in (
        storage.read_head,
        lambda: storage.get(TILE),
        lambda: list(storage.paths()),
        lambda: storage.put_once(TILE, b"x"),
    ):
        with pytest.raises(StateUnknown):
            attempt()
    with pytest.raises(NotFound):
        ObjectStorage(bucket_at(s3_url, endpoint=endpoint)).get(TILE)


@pytest.mark.objectstore
def test_a_real_server_honours_the_conditions(s3_url: str, s3: object) -> None:
    bucket = bucket_at(s3_url, endpoint=s3.endpoint)  # type: ignore[attr-defined]  # the fixture's
    first = bucket.put("x", b"1", over=ABSENT)
    with pytest.raises(Refused):
        bucket.put("x", b"2", over=ABSENT)
    second = bucket.put("x", b"2", over=first)
    with pytest.raises(Refused):
        bucket.put("x", b"3", over=first)
    assert bucket.get("x").version == second
    bucket.delete("x")
    bucket.delete("x")
    with pytest.raises(Refused):
        bucket.put("x", b"3", over=second)


def test_a_head_names_one_staging_at_most_so_that_taking_over_is_short() -> None:
    bucket = FaultyBucket(memory())
    log = open_log(ObjectStorage(bucket))
    for size in range(100, 2_000, 100):
        grow(log, [size])
        raw = ObjectStorage(bucket).read_head()
        assert raw is not None
        assert len(decode_head(raw).stagings) == 1
        assert len(ObjectStorage(bucket).stages()) == 1
    requests: list[str] = []
    bucket.before = requests.append
    open_log(ObjectStorage(bucket), take_over=True)
    assert len(requests) < 35, requests
