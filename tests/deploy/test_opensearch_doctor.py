"""`tally doctor` on a real OpenSearch: templates, mappings, blocks, disks; and, secured, who may what."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from collector.store.opensearch.store import OpenSearchStore
from collector.store.settings import StoreSettings
from correlator.index.opensearch.index import OpenSearchIndex
from correlator.index.settings import IndexSettings
from deploy.config import Config, parse
from deploy.examining import Check
from deploy.examining.whole import Patient, examine
from tests.servers.certificates import Authority
from tests.servers.opensearch import Cluster
from tests.support.charts import outcomes, troubles
from tests.support.shipper import Shipper, pay

if TYPE_CHECKING:
    from tests.deploy.conftest import Cli, Workshop

pytestmark = [pytest.mark.opensearch, pytest.mark.timeout(1_200)]

SUBJECTS = ("OpenSearch", "store", "index")
NOW = dt.datetime.now(dt.UTC)


def checks_of(config: Config, **more: Any) -> list[Check]:
    """What is told of OpenSearch and what is there."""
    patient = Patient(config=config, source=None, **more)
    return [check for chart in examine(patient) if chart.subject in SUBJECTS for check in chart.checks]


@pytest.fixture
def config(opensearch_settings: StoreSettings, opensearch_index: IndexSettings, tmp_path: Path) -> Config:
    plain = parse("", source="", folder=tmp_path)
    return msgspec.structs.replace(plain, store=opensearch_settings, index=opensearch_index)


def fill(config: Config) -> str:
    """A batch of this month and an index of trails; the month's index of events."""
    with closing(OpenSearchStore(config.store)) as store:
        store.append(Shipper().batch(pay("T-1"), created=f"{NOW:%Y-%m-%dT%H:%M:%S}.000000000Z"))
    OpenSearchIndex(config.index, hub_links=20).close()
    return f"{config.store.prefix}-events-{NOW:%Y.%m}"


def wrong(config: Config, subject: str = "store") -> list[Check]:
    """The troubles of a subject, but that this server has no security plugin."""
    found = [check for check in checks_of(config) if check.name != "rights"]
    return [check for check in troubles(found) if check.subject == subject]


def test_templates(workshop: Workshop, cli: Cli, config: Config, opensearch: Cluster) -> None:
    prefix = config.store.prefix
    (missing,) = wrong(config)
    assert (missing.name, missing.outcome) == ("templates", "failed")
    store = f"[store]\nurls = {json.dumps(config.store.urls)}\nprefix = {json.dumps(prefix)}\n"
    workshop.file.write_text(workshop.file.read_text() + store)
    templates = json.loads(cli("config", "--templates")[1])  # what the hint runs
    for name, body in templates.items():
        opensearch.ask("PUT", f"/_index_template/{name}", body)
    try:
        assert wrong(config) == [], "as the server gives them back, they are ours"
        body = templates[f"{prefix}-events"]
        del body["template"]["settings"]["index.append_only.enabled"]
        opensearch.ask("PUT", f"/_index_template/{prefix}-events", body)
        (changed,) = wrong(config)
        assert "append_only.enabled is missing" in changed.found
        opensearch.ask("DELETE", f"/_index_template/{prefix}-events")
        assert [check.outcome for check in wrong(config)] == ["failed"]
        rival = {"index_patterns": [f"{prefix}-*"], "priority": 900}
        opensearch.ask("PUT", f"/_index_template/{prefix}-rival", rival)
        assert [check.outcome for check in wrong(config)] == ["failed", "warning"]
        opensearch.ask("PUT", "/_cluster/settings", {"transient": {"action.auto_create_index": f"-{prefix}-*,+*"}})
        assert [check.outcome for check in wrong(config)] == ["warning"], "no index comes by itself"
    finally:
        opensearch.ask("PUT", "/_cluster/settings", {"transient": {"action.auto_create_index": None}})
        opensearch.ask("DELETE", f"/_index_template/{prefix}-*")


def test_indexes(config: Config, opensearch: Cluster) -> None:
    events = fill(config)
    trails = f"{config.index.prefix}-trails"

    def told(subject: str) -> dict[str, str]:
        return {check.found: check.mend[-1] for check in wrong(config, subject) if check.name != "templates"}

    assert told("store") == told("index") == told("OpenSearch") == {}
    opensearch.ask("PUT", f"/{events}/_mapping", {"properties": {"mood": {"type": "keyword"}}})
    opensearch.ask("PUT", f"/{events}/_settings", {"index.translog.durability": "async"})
    # what the server sets when a disk passes its flood stage
    opensearch.ask("PUT", f"/{events}/_settings", {"index.blocks.read_only_allow_delete": True})
    opensearch.ask("PUT", f"/{trails}/_settings", {"index.blocks.write": True})
    found = told("store")
    assert len(found) == 3
    assert any("mood" in one for one in found)
    flood = next(mend for one, mend in found.items() if "read_only_allow_delete" in one)
    assert flood.startswith("curl -u ADMIN -X PUT")
    (only_trails,) = told("index")
    assert "index.blocks.write" in only_trails
    opensearch.ask("PUT", f"/{events}/_settings", {"index.blocks.read_only_allow_delete": None})
    opensearch.ask("PUT", f"/{events}/_settings", {"index.translog.durability": "request"})
    opensearch.ask("PUT", f"/{trails}/_settings", {"index.blocks.write": None})
    assert ["mood" in one for one in told("store")] == [True]
    assert told("index") == {}
    opensearch.ask("DELETE", f"/{config.store.prefix}-batches")
    assert any("is gone" in one for one in told("store"))


def test_an_index_of_ours_that_came_by_itself_is_told(config: Config, opensearch: Cluster) -> None:
    fill(config)
    events = f"{config.store.prefix}-events-2031.05"
    opensearch.ask("PUT", f"/{events}/_create/1", {"body": "x"})
    found = [check.found for check in wrong(config) if check.name == "indexes"]
    assert any(f"{events}: not append-only" in one for one in found)
    assert any("takes up new fields" in one for one in found)


def test_a_disk_beyond_its_watermark_and_copies_that_cannot_be(config: Config, opensearch: Cluster) -> None:
    assert outcomes(checks_of(config))["disk"] == "ok"
    disk = "cluster.routing.allocation.disk"
    # free bytes: the disk of any machine is below the first, and of one that runs tests above the others
    marks = {"low": "1000000gb", "high": "2mb", "flood_stage": "1mb"}
    settings: dict[str, Any] = {f"{disk}.watermark.{name}": mark for name, mark in marks.items()}
    settings |= {f"{disk}.threshold_enabled": True, "cluster.max_shards_per_node": 1}
    opensearch.ask("PUT", "/_cluster/settings", {"transient": settings})
    try:
        found = {check.name: check for check in checks_of(config)}
        assert found["disk"].outcome == "warning"
        assert "low (1000000gb)" in found["disk"].found
        assert found["shards"].outcome == "failed"
    finally:
        opensearch.ask("PUT", "/_cluster/settings", {"transient": dict.fromkeys(settings)})
    assert outcomes(checks_of(config))["shards"] == "ok"
    (clock,) = [check for check in checks_of(config) if check.name.startswith("clock of ")]
    assert clock.outcome == "ok"
    fill(msgspec.structs.replace(config, store=msgspec.structs.replace(config.store, replicas=1)))
    assert outcomes(checks_of(config))["health"] == "warning", "a second copy has no second node"


def test_a_server_without_security_is_told(config: Config) -> None:
    fill(config)
    assert outcomes([check for check in checks_of(config) if check.subject == "store"])["rights"] == "warning"


# ---------------------------------------------------------------------------------------------------------- secured


def config_as(cluster: Cluster, folder: Path, user: str, *, password: str = "", ca: Path | None = None) -> Config:
    assert cluster.security is not None
    file = folder / f"{user}.password"
    file.write_text((password or cluster.security.passwords[user]) + "\n")
    file.chmod(0o600)
    where: dict[str, Any] = {
        "urls": list(cluster.urls),
        "ca_file": str(ca or cluster.security.authority.ca),
        "user": user,
        "password_file": str(file),
    }
    plain = parse("", source="", folder=folder)
    return msgspec.structs.replace(plain, store=StoreSettings(**where), index=IndexSettings(**where))


@pytest.fixture
def secured(opensearch_secured: Cluster, tmp_path: Path) -> Iterator[Cluster]:
    """The shared secured node with a store and an index, under the prefix that its roles are for."""
    fill(config_as(opensearch_secured, tmp_path, "admin"))
    yield opensearch_secured
    opensearch_secured.ask("DELETE", "/tally-*")


def test_who_may_what(secured: Cluster, tmp_path: Path) -> None:
    def rights(user: str) -> dict[str, Check]:
        found = checks_of(config_as(secured, tmp_path, user))
        return {check.subject: check for check in found if check.name == "rights"}

    def stands() -> tuple[int, list[str]]:
        secured.ask("POST", "/tally-*/_refresh")
        return secured.ask("GET", "/tally-*/_count")["count"], list(secured.ask("GET", "/tally-*"))

    before = stands()
    for user, able in (
        ("collector", "adds batches"),
        ("correlator", "reads, says what the log holds"),
        ("api", "adds batches, reads"),
    ):
        store = rights(user)["store"]
        assert store.outcome == "ok", store
        assert f"{able}; and may not update, delete, change mappings, change settings, drop indexes" in store.found
    assert rights("correlator")["index"].outcome == rights("api")["index"].outcome == "ok"
    assert rights("stranger")["store"].outcome == rights("collector")["index"].outcome == "failed"
    admin = rights("admin")["store"]
    assert (admin.outcome, "may also update, delete" in admin.found) == ("warning", True)
    assert stands() == before, "asking changed nothing"


def test_what_a_process_may_not_ask_another_user_may(secured: Cluster, tmp_path: Path) -> None:
    config = config_as(secured, tmp_path, "api")
    (untold,) = [check for check in checks_of(config) if check.outcome == "unknown"]
    for permission in ("cluster:monitor/main", "cluster:monitor/health", "indices:admin/index_template/get"):
        assert permission in untold.found
    config_as(secured, tmp_path, "doctor")  # makes the password's file
    found = checks_of(config, user="doctor", password_file=tmp_path / "doctor.password")
    assert [check for check in found if check.outcome == "unknown"] == []
    assert {"version", "health", "disk", "shards", "indexes", "index", "templates", "rights"} <= {
        check.name for check in found
    }


def test_a_wrong_password_and_an_unknown_authority(secured: Cluster, tmp_path: Path) -> None:
    found = checks_of(config_as(secured, tmp_path, "collector", password="another"))
    (check,) = [check for check in found if check.outcome == "failed"]
    assert "does not know collector" in check.found
    assert "another" not in str(found)
    other = Authority(tmp_path / "other")
    (check,) = checks_of(config_as(secured, tmp_path, "collector", ca=other.ca))
    assert (check.outcome, "is not trusted" in check.found) == ("failed", True)
