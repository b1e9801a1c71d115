"""OpenSearch taken away, refusing and full, under load, in short; `make drills DRILL_ARGS=opensearch` does it for minutes."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from drills.installation import until
from drills.outage import outage_drill
from drills.owndisk import own_disk_drill
from drills.pressure import FULL, PRESSURE_SETTINGS, may_make, pressure_drill
from drills.smalldisk import SmallDisk, may_mount
from drills.story import AGE, BREAKER, GIVEN_UP, REFUSED, REFUSING
from tests.servers.opensearch import Cluster
from tests.support.drilled import holds
from tests.support.need import need

pytestmark = [pytest.mark.opensearch, pytest.mark.timeout(1_200)]


@pytest.fixture(scope="module")
def disk() -> Iterator[SmallDisk]:
    need(may_mount(), "needs root, to mount a small disk that can be filled")
    with tempfile.TemporaryDirectory(prefix="tally-drill-") as name:
        folder = Path(name)
        folder.chmod(0o755)  # the server runs as somebody else, whom pytest's own folders keep out
        with SmallDisk(folder / "server", mebibytes=384) as disk:
            yield disk


@pytest.fixture(scope="module")
def cluster(disk: SmallDisk) -> Iterator[Cluster]:
    """One node, with its data on the small disk."""
    with Cluster(data=disk.folder, settings=PRESSURE_SETTINGS) as cluster:
        yield cluster


def test_a_server_that_is_killed_and_comes_back(tmp_path: Path, cluster: Cluster) -> None:
    outcome = outage_drill(
        tmp_path / "drill",
        cluster,
        how="killed",
        prefix="killed",
        events=300,
        down_seconds=3.0,
        spool_bytes=500_000,
    )
    holds(outcome, at_least=600)
    down = outcome.phase("the server is killed")
    assert outcome.senders.refusals["503"] > 0
    assert outcome.senders.refusals["no ack"] > 0, "Forward"
    assert outcome.senders.retry_after_seconds == {5}
    assert set(outcome.senders.reasons) >= {"the spool is full: shipping does not keep up"}
    assert any("cannot be reached" in line for line in down.told)
    assert any("no events are taken: the spool is full" in line for line in down.told)
    assert "cannot be reached" in down.status
    assert "no events are taken: the spool is full" in down.status
    assert down.most[AGE] > 2.0
    assert (down.most[BREAKER], down.most[REFUSING]) == (1.0, 1.0)
    assert down.most[REFUSED] > 0
    assert down.most[GIVEN_UP] > 0


@pytest.mark.long
def test_a_server_that_refuses_and_one_whose_disk_is_full(tmp_path: Path, cluster: Cluster, disk: SmallDisk) -> None:
    outcome = pressure_drill(
        tmp_path / "drill", cluster, disk, prefix="pressure", events=100, hold_seconds=0.0, pause_seconds=0.3
    )
    holds(outcome, at_least=500)
    for name, said in (
        ("it has too much to do", "has too much to do: rejected_execution_exception"),
        ("an administrator blocks", "lets nothing be written: index"),
        ("its disk is beyond", "flood-stage watermark"),
        ("its disk is full", ""),
    ):
        pressed = outcome.phase(name)
        assert any(said in line for line in pressed.told), name
        assert "the oldest for" in pressed.status, name
        assert pressed.most[AGE] > 0.0, name
    full = " ".join(outcome.phase("its disk is full").told)
    assert any(said in full for said in FULL)


@pytest.mark.long
def test_the_disk_of_a_spool_is_full(tmp_path: Path, cluster: Cluster) -> None:
    until("indexes can be made", lambda: may_make(cluster))  # whatever became of the drill before
    outcome = own_disk_drill(tmp_path / "drill", cluster, prefix="own", events=300, mebibytes=5)
    holds(outcome, at_least=900)
    for name in ("the server is stopped", "somebody else"):
        full = outcome.phase(name)
        assert any("no events are taken: the spool's disk is full but for" in line for line in full.told), name
        assert "no events are taken: the spool's disk is full but for" in full.status, name
        assert full.most[REFUSING] == 1.0, name
    assert outcome.senders.refusals["503"] > 0
