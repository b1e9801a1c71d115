"""The data folder: a real one is looked at; what a test machine does not have, a network disk and a slow one, is judged."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploy.config import parse
from deploy.examining import Chart
from deploy.examining.folder import Mount, examine_folder, judge_mount, judge_room, judge_syncs, mount_of
from deploy.places import Places
from tests.support.charts import outcomes

MIB = 1024**2


def examined(data: Path, text: str = "") -> Chart:
    config = parse(f'data = "{data}"\n{text}', source="", folder=Path("/"))
    return examine_folder(config, Places(data))


def test_a_folder_of_ours_is_fine_and_stays_as_it_is(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir(mode=0o700)
    before = data.stat().st_mtime_ns
    chart = examined(data, "[collector.spool]\nmax_bytes = 1\ndead_letters_max_bytes = 1\n")
    found = outcomes(chart)
    assert found["folder"] == "ok"
    assert {found[name] for name in ("room", "sync", "file system")} <= {"ok", "warning"}, chart.checks
    assert list(data.iterdir()) == []
    assert before <= data.stat().st_mtime_ns  # a file without a name leaves none; its folder may show a later time


def test_a_folder_that_is_not_there_yet_is_made_later(tmp_path: Path) -> None:
    chart = examined(tmp_path / "a" / "b")
    assert outcomes(chart)["folder"] == "ok"
    assert not (tmp_path / "a").exists()


def test_a_file_in_its_place_is_told(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("")
    assert outcomes(examined(tmp_path / "data")) == {"folder": "failed"}


def test_one_that_is_open_to_others_is_told(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    data.chmod(0o755)
    (check,) = [check for check in examined(data).checks if check.name == "folder"]
    assert (check.outcome, check.mend) == ("warning", (f"chmod 700 {data}",))


def test_spools_that_outgrow_the_disk_are_told(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir(mode=0o700)
    chart = examined(data, f"[collector.spool]\nmax_bytes = {10**18}\n")
    assert outcomes(chart)["room"] in {"warning", "failed"}


@pytest.mark.parametrize(
    ("free", "need", "outcome"),
    [(10 * MIB, 0, "failed"), (100 * MIB, 101 * MIB, "warning"), (100 * MIB, 100 * MIB, "ok")],
)
def test_room(free: int, need: int, outcome: str) -> None:
    chart = Chart("x")
    judge_room(chart, free_bytes=free, need_bytes=need, folder=Path("/d"))
    assert outcomes(chart) == {"room": outcome}


@pytest.mark.parametrize(
    ("seconds", "in_memory", "outcome"),
    [
        ([0.001, 0.002, 9.0], False, "ok"),  # one slow one is chance
        ([0.2, 0.3, 0.001], False, "warning"),
        ([1e-6, 2e-6, 1e-6], False, "warning"),
        ([1e-6, 2e-6, 1e-6], True, "ok"),
    ],
)
def test_syncs(seconds: list[float], in_memory: bool, outcome: str) -> None:
    chart = Chart("x")
    judge_syncs(chart, seconds, in_memory=in_memory)
    assert outcomes(chart) == {"sync": outcome}


@pytest.mark.parametrize(
    "kind", ["nfs", "nfs4", "cifs", "smb3", "9p", "fuse.sshfs", "fuse.glusterfs", "tmpfs", "overlay"]
)
def test_a_disk_that_is_none_is_told(kind: str) -> None:
    chart = Chart("x")
    judge_mount(chart, Mount(point="/data", kind=kind, options=("rw",)))
    assert outcomes(chart) == {"file system": "warning"}


@pytest.mark.parametrize("kind", ["ext4", "xfs", "btrfs", "zfs", "f2fs", "fuseblk"])
def test_a_disk_is_fine_unless_its_barriers_are_off(kind: str) -> None:
    chart = Chart("x")
    judge_mount(chart, Mount(point="/data", kind=kind, options=("rw", "relatime")))
    assert outcomes(chart) == {"file system": "ok"}
    judge_mount(chart, Mount(point="/data", kind=kind, options=("rw", "nobarrier")))
    assert outcomes(chart) == {"file system": "warning"}


TABLE = r"""22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw,errors=remount-ro
36 22 0:30 / /srv rw,relatime - nfs4 server:/srv rw,vers=4.2
37 36 0:31 / /srv/with\040space rw - xfs /dev/vdb rw,nobarrier
38 22 0:32 / /srv rw - tmpfs tmpfs rw
this is no line of it
"""


def test_the_mount_of_a_path_is_the_deepest_and_the_last() -> None:
    def at(path: str) -> tuple[str, str] | None:
        mount = mount_of(Path(path), TABLE)
        return (mount.point, mount.kind) if mount else None

    assert at("/opt/a") == ("/", "ext4")
    assert at("/srvother") == ("/", "ext4")
    assert at("/srv/data") == ("/srv", "tmpfs"), "mounted over the first"
    assert at("/srv/with space/data") == ("/srv/with space", "xfs")
    assert mount_of(Path("/x"), "") is None
    deep = mount_of(Path("/srv/with space"), TABLE)
    assert deep is not None
    assert "nobarrier" in deep.options


@given(st.text(alphabet=st.sampled_from("ab/ -\\0714\n,"), max_size=60))
def test_any_table_is_read(text: str) -> None:
    mount_of(Path("/a/b"), text)
