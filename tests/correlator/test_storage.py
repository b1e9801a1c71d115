"""One contract for every storage of the log."""

import errno
from collections.abc import Callable
from pathlib import Path

import pytest
from obstore.store import MemoryStore

from collector.disk import OsDisk
from correlator.errors import Conflict, NotFound, Overloaded, StateUnknown
from correlator.storage import CHECKPOINT, LogStorage
from correlator.storage.bucket import ObstoreBucket, bucket_at
from correlator.storage.file import FileStorage
from correlator.storage.memory import MemoryStorage
from correlator.storage.objects import ObjectStorage
from tests.support.faulty_disk import FaultyDisk

Reopen = Callable[[], LogStorage]


@pytest.fixture(params=["memory", "file", "faulty disk", "objects", pytest.param("s3", marks=pytest.mark.objectstore)])
def reopen(request: pytest.FixtureRequest, tmp_path: Path) -> Reopen:
    """Gives the same storage each time it is called, as another process would open it."""
    if request.param == "file":
        return lambda: FileStorage(tmp_path / "log")
    if request.param == "faulty disk":
        disk = FaultyDisk()
        return lambda: FileStorage(Path("log"), disk)
    if request.param == "objects":
        store = MemoryStore()
        return lambda: ObjectStorage(ObstoreBucket(store))
    if request.param == "s3":
        url: str = request.getfixturevalue("s3_url")
        endpoint: str = request.getfixturevalue("s3").endpoint
        return lambda: ObjectStorage(bucket_at(url, endpoint=endpoint))
    storage = MemoryStorage()
    return lambda: storage


@pytest.fixture
def storage(reopen: Reopen) -> LogStorage:
    return reopen()


TILE = "tile/0/x001/234"


def test_nothing_is_there_at_first(storage: LogStorage) -> None:
    assert storage.read_head() is None
    assert list(storage.paths()) == []
    assert list(storage.stages()) == []
    for path in (CHECKPOINT, TILE):
        with pytest.raises(NotFound):
            storage.get(path)
    with pytest.raises(NotFound):
        storage.read_stage("1-aa.1")
    storage.drop_stage("1-aa.1")
    storage.drop_partials(TILE)
    storage.sync()


def test_an_object_is_put_once(storage: LogStorage, reopen: Reopen) -> None:
    storage.put_once(TILE, b"hashes")
    storage.put_once(TILE, b"hashes")
    with pytest.raises(StateUnknown, match=TILE):
        storage.put_once(TILE, b"others")
    with pytest.raises(StateUnknown, match=TILE):
        reopen().put_once(TILE, b"hashes and more")
    storage.sync()
    assert reopen().get(TILE) == b"hashes"


def test_restore_mends_only_what_a_power_cut_can_tear(storage: LogStorage) -> None:
    for number, torn in enumerate([b"", b"ha", b"\0\0\0\0\0\0", b"ha\0\0es", b"hashes"]):
        storage.put_once(f"tile/0/00{number}", torn)
        storage.restore(f"tile/0/00{number}", b"hashes")
        assert storage.get(f"tile/0/00{number}") == b"hashes"
    for number, other in enumerate([b"hashex", b"hashes\0", b"x"]):
        storage.put_once(f"tile/1/00{number}", other)
        with pytest.raises(StateUnknown, match=f"tile/1/00{number}"):
            storage.restore(f"tile/1/00{number}", b"hashes")
        assert storage.get(f"tile/1/00{number}") == other
    storage.restore("tile/2/000", b"new")
    assert storage.get("tile/2/000") == b"new"


def test_all_paths_are_listed(storage: LogStorage) -> None:
    paths = [
        "tile/0/000",
        "tile/0/x001/000",
        "tile/0/001.p/7",
        "tile/0/001.p/200",
        "tile/entries/000",
        "tile/1/000.p/1",
    ]
    for path in paths:
        storage.put_once(path, path.encode())
    assert sorted(storage.paths()) == sorted(paths)
    assert all(storage.get(path) == path.encode() for path in paths)


def test_superseded_partials_are_dropped_and_nothing_else(storage: LogStorage) -> None:
    keep = [TILE, "tile/0/x001/235.p/1", "tile/1/x001/234.p/1", "tile/0/x001/23"]
    for path in [TILE, f"{TILE}.p/1", f"{TILE}.p/255", *keep[1:3]]:
        storage.put_once(path, b"x")
    storage.drop_partials(TILE)
    assert sorted(storage.paths()) == sorted(keep[:3])
    storage.sync()


@pytest.mark.parametrize(
    "path", ["", "..", "../head", "tile/../../x", "/etc/passwd", "tile/0/000/../001", "head", "tile"]
)
def test_a_path_leads_to_nothing_else_than_a_published_object(storage: LogStorage, path: str) -> None:
    storage.swap_head(None, b"head")
    with pytest.raises(NotFound):
        storage.get(path)
    with pytest.raises(ValueError, match="not the path of a tile"):
        storage.put_once(path, b"x")


def test_the_checkpoint_is_not_put_once(storage: LogStorage) -> None:
    with pytest.raises(ValueError, match="not the path of a tile"):
        storage.put_once(CHECKPOINT, b"x")


def test_the_head_is_compared_and_swapped(storage: LogStorage, reopen: Reopen) -> None:
    with pytest.raises(Conflict):
        storage.swap_head(b"not there", b"1")
    assert storage.read_head() is None
    storage.swap_head(None, b"1")
    with pytest.raises(Conflict):
        reopen().swap_head(None, b"2")
    with pytest.raises(Conflict):
        storage.swap_head(b"0", b"2")
    assert reopen().read_head() == b"1"
    reopen().swap_head(b"1", b"2")
    storage.swap_head(b"1", b"2")  # the same swap again, after an answer that got lost
    assert storage.read_head() == b"2"


def test_a_head_is_swapped_for_itself_while_it_stands(storage: LogStorage, reopen: Reopen) -> None:
    storage.swap_head(None, b"one")
    storage.swap_head(b"one", b"one")
    assert reopen().read_head() == b"one"
    reopen().swap_head(b"one", b"two")
    with pytest.raises(Conflict):
        storage.swap_head(b"one", b"one")
    assert reopen().read_head() == b"two"


def test_a_checkpoint_is_replaced_only_under_its_head(storage: LogStorage) -> None:
    with pytest.raises(Conflict):
        storage.replace_checkpoint(b"0", head=b"1")
    storage.swap_head(None, b"1")
    storage.replace_checkpoint(b"a", head=b"1")
    storage.replace_checkpoint(b"b", head=b"1")
    storage.swap_head(b"1", b"2")
    with pytest.raises(Conflict):
        storage.replace_checkpoint(b"c", head=b"1")
    assert storage.get(CHECKPOINT) == b"b"


def test_stagings_come_and_go(storage: LogStorage, reopen: Reopen) -> None:
    storage.stage("2-bb.1", b"two")
    storage.stage("1-aa.1", b"one")
    storage.stage("1-aa.1", b"one again")
    assert list(reopen().stages()) == ["1-aa.1", "2-bb.1"]
    assert reopen().read_stage("1-aa.1") == b"one again"
    storage.drop_stage("1-aa.1")
    assert list(storage.stages()) == ["2-bb.1"]


def test_one_claim_at_a_time_where_claims_exclude(storage: LogStorage, reopen: Reopen) -> None:
    claim = storage.claim()
    if not storage.claim_excludes:
        reopen().claim().release()
        claim.release()
        return
    with pytest.raises(Conflict):
        reopen().claim()
    claim.release()
    claim.release()
    reopen().claim().release()


def test_a_swap_in_another_process_is_waited_for_by_the_caller(tmp_path: Path) -> None:
    storage = FileStorage(tmp_path)
    storage.swap_head(None, b"1")
    lock = storage._disk.lock(tmp_path / "head.lock")
    assert lock is not None
    with pytest.raises(Overloaded):
        storage.swap_head(b"1", b"2")
    lock.release()
    storage.swap_head(b"1", b"2")


def test_files_are_private_and_claiming_empties_the_temporary_folder(tmp_path: Path) -> None:
    storage = FileStorage(tmp_path / "log")
    storage.put_once(TILE, b"x")
    assert (tmp_path / "log" / TILE).stat().st_mode & 0o077 == 0
    (tmp_path / "log" / "tmp" / "0").write_bytes(b"of a dead writer")
    FileStorage(tmp_path / "log").put_once("tile/0/000", b"y")
    storage.claim().release()
    assert list((tmp_path / "log" / "tmp").iterdir()) == []


def test_what_a_full_disk_took_half_of_is_removed() -> None:
    disk = FaultyDisk()
    storage = FileStorage(Path("log"), disk)
    disk.failing["write"] = OSError(errno.ENOSPC, "No space left on device")
    for _ in range(3):
        with pytest.raises(Overloaded):
            storage.put_once("tile/0/000", b"x")
    assert disk.list_directory(Path("log/tmp")) == []
    del disk.failing["write"]
    storage.put_once("tile/0/000", b"x")
    assert storage.get("tile/0/000") == b"x"


def test_partials_that_are_dropped_while_all_is_listed_are_no_object(tmp_path: Path) -> None:
    class WriterBeside(OsDisk):
        """Between two looks of a reader the writer completes a tile."""

        def list_directory(self, path: Path) -> list[str]:
            names = super().list_directory(path)
            if path.name == "0":
                writer.drop_partials(tile)
            return names

    tile = "tile/0/000"
    writer = FileStorage(tmp_path / "log")
    for path in (tile, f"{tile}.p/5"):
        writer.put_once(path, b"x")
    reader = FileStorage(tmp_path / "log", WriterBeside())
    assert list(reader.paths()) == [tile]


def test_a_failing_disk_is_no_absence(tmp_path: Path) -> None:
    storage = FileStorage(tmp_path)
    storage.put_once("tile/0/000.p/1", b"x")
    (tmp_path / "head").mkdir()
    with pytest.raises(StateUnknown, match="head"):
        storage.read_head()
    with pytest.raises(NotFound):
        storage.get("tile/0/000")
