"""Backup, restore and a node's upgrade, typed as docs/operating.md has them, against a real OpenSearch."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.deploy.conftest import EVENTS, event
from tests.servers.opensearch import Cluster
from tests.support.manual import blocks, typed
from tests.support.need import need

if TYPE_CHECKING:
    from tests.deploy.conftest import Cli, Workshop

pytestmark = [pytest.mark.opensearch, pytest.mark.timeout(1_200)]

LATER = [event("received", "late", second=7), event("paid", "late", second=8)]
UNLOGGED = [event("received", "fresh", second=9)]


@pytest.fixture
def repository() -> Iterator[Path]:
    """A folder that the server may write, whoever it runs as."""
    folder = Path(tempfile.mkdtemp(prefix="tally-snapshots-"))
    folder.chmod(0o777)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def cluster(repository: Path) -> Iterator[Cluster]:
    need(shutil.which("curl"), "curl, which the manual's commands use")
    with Cluster(settings={"path.repo": str(repository)}) as own:
        yield own


def findings(cli: Cli) -> list[str]:
    return [f"{one['where']}: {one['problem']}" for one in json.loads(cli("check", "--json")[1])["findings"]]


def test_what_the_manual_says_brings_everything_back(
    workshop: Workshop, cli: Cli, cluster: Cluster, repo_root: Path, tmp_path: Path
) -> None:
    page = repo_root / "docs" / "operating.md"
    prepare, *backup = blocks(page, "Back up")
    assert prepare.startswith("export OPENSEARCH=")
    restore, check = blocks(page, "Restore")
    before, after = blocks(page, "OpenSearch, node by node")
    there = {"OPENSEARCH": cluster.url, "BACKUP": str(tmp_path / "backup"), "DAY": "2026-01-31"}
    folder = workshop.folder
    workshop.file.write_text(f"{workshop.file.read_text()}[store]\nurls = {json.dumps(list(cluster.urls))}\n")

    def run(block: str) -> str:
        return typed(block, folder=folder, **there)

    workshop.collect(EVENTS)
    workshop.correlate()
    assert cli("token", "add", "ann", "--role", "auditor")[0] == 0
    assert [run(block) for block in backup][-1].count("SUCCESS") == 2

    # everything is lost: the store, the data folder, the spools in it
    cluster.ask("DELETE", "/tally-*")
    shutil.rmtree(workshop.places.root)
    assert run(restore).count('"failed":0') == 2
    workshop.correlate()
    assert "TRUE" in run(check)
    assert json.loads(cli("trail", "p1", "--json")[1])["proof"]["state"] == "verified"
    assert "ann" in cli("token", "list")[1]

    # and ingest goes on; a node is upgraded meanwhile
    run(before)
    cluster.nodes[0].stop()
    cluster.nodes[0].start()
    cluster.wait()
    assert "green" in run(after)
    workshop.collect(LATER)
    workshop.correlate()
    assert findings(cli) == []

    # the store alone is lost, and put back to where it was: older than the log
    shutil.rmtree(workshop.places.spool("collector"))  # that sidecar has let go of what the log covers
    workshop.collect(UNLOGGED, close_stream=False)  # this one has not: the log does not have it yet
    log = workshop.places.root / "log.newest"
    workshop.places.log.rename(log)
    run(restore)
    shutil.rmtree(workshop.places.log)
    log.rename(workshop.places.log)
    lost = findings(cli)
    assert any("it is in the log, and the store has lost it (events 0 to 1)" in one for one in lost), lost
    workshop.collect([event("paid", "fresh", second=10)], close_stream=False)  # started again, it sends what is missing
    workshop.correlate()
    story = json.loads(cli("trail", "fresh", "--json")[1])
    assert story["proof"]["state"] == "verified"
    assert [step["name"] for step in story["steps"]] == ["received", "paid"]
    assert json.loads(cli("trail", "late", "--json")[1])["proof"]["state"] == "false"
    still = findings(cli)
    assert still
    assert all("it is in the log, and the store has lost it" in one or "late" in one for one in still), still
