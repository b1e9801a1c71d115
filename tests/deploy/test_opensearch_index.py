"""The whole command with store and trail index on a real OpenSearch: import, find, trail, check, reindex."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from collector.store.settings import StoreSettings
from correlator.index import TrailIndex, TrailQuery
from correlator.index.opensearch.documents import KeptTrail, trail_id
from correlator.index.rows import Row
from deploy.indexing import open_index, rebuild_index
from tests.servers.opensearch import Cluster

if TYPE_CHECKING:
    from tests.deploy.conftest import Cli, Workshop

pytestmark = [pytest.mark.opensearch, pytest.mark.timeout(1_200)]


@pytest.fixture
def workshop(workshop: Workshop, opensearch_settings: StoreSettings) -> Workshop:
    """The folder's workshop, with store and index on the shared node."""
    cluster = f"urls = {json.dumps(opensearch_settings.urls)}\nprefix = {json.dumps(opensearch_settings.prefix)}\n"
    workshop.file.write_text(f"{workshop.file.read_text()}[store]\n{cluster}[index]\n{cluster}")
    return workshop


@pytest.fixture
def imported(workshop: Workshop, cli: Cli, tmp_path: Path) -> Workshop:
    """Ninety events of seven payments, in the ledger."""
    file = tmp_path / "day.jsonl"
    with file.open("w") as lines:
        for at in range(90):
            event = {"time": f"2026-01-01T00:00:{at % 60:02d}Z", "event_name": "paid" if at % 2 else "received"}
            event |= {"service.name": "shop", "payment_id": f"p{at % 7}", "order_id": f"o{at % 3}", "message": f"{at}"}
            lines.write(json.dumps(event) + "\n")
    assert cli("import", str(file), "--json")[0] == 0
    workshop.correlate()
    return workshop


@pytest.fixture
def index(imported: Workshop) -> Iterator[TrailIndex]:
    with closing(open_index(imported.config, imported.places, read_only=True)) as opened:
        yield opened


def test_an_import_is_found_told_and_checked(imported: Workshop, cli: Cli) -> None:
    assert not imported.places.store.exists()
    assert not imported.places.index.exists(), "nothing is kept in SQLite"
    everything = json.loads(cli("find", "--json")[1])["trails"]
    assert {f"transaction/p{at}" for at in range(7)} <= {one["trail"] for one in everything}
    by_key = json.loads(cli("find", "--key", "order_id:o1", "--json")[1])["trails"]
    assert {one["trail"] for one in by_key} == {"key/order_id/o1", *(f"transaction/p{at}" for at in range(7))}
    story = json.loads(cli("trail", "p1", "--json")[1])
    assert story["proof"]["state"] == "verified"
    assert len(story["steps"]) == 13
    status = json.loads(cli("status", "--json")[1])
    assert status["problems"] == []
    assert status["ledger"]["index_lag_leaves"] == 0
    imported.correlate()  # what was read is on record, and takes up leaves of its own
    code, out, _ = cli("check")
    assert (code, "TRUE" in out) == (0, True), out


def test_reindex_makes_the_same_beside_the_old_one(
    imported: Workshop, cli: Cli, index: TrailIndex, opensearch: Cluster
) -> None:
    before = index.find(TrailQuery(), size=index.size(), limit=1_000)
    # broken off in the middle: the old one is whole
    rebuilding = rebuild_index(imported.config, imported.places, tell=print)
    assert rebuilding.__enter__().size() == 0
    stopped = KeyboardInterrupt()
    assert not rebuilding.__exit__(KeyboardInterrupt, stopped, None)
    assert index.find(TrailQuery(), size=index.size(), limit=1_000) == before
    prefix = imported.config.index.prefix
    assert sorted(opensearch.ask("GET", f"/{prefix}-trails*")) == [f"{prefix}-trails-00000{n}" for n in (1, 2)]
    code, out, err = cli("reindex")
    assert (code, "leaves indexed" in out) == (0, True), err
    assert f"{prefix}-trails on OpenSearch" in out
    assert list(opensearch.ask("GET", f"/{prefix}-trails*")) == [f"{prefix}-trails-000002"]
    assert index.find(TrailQuery(), size=index.size(), limit=1_000) == before
    assert cli("check")[0] == 0


def test_what_is_wrong_with_the_index_is_found_and_mended(
    imported: Workshop, cli: Cli, index: TrailIndex, opensearch: Cluster
) -> None:
    where = f"/{imported.config.index.prefix}-trails/_doc/{trail_id('transaction/p1')}"
    kept = opensearch.ask("GET", where)["_source"]
    damages = {
        "the index says otherwise of it than the log: status": {"status": "failed"},
        "the index says otherwise of it than the log: keys": {"keys": [], "texts": ["p1"]},
        "it cannot be read: the trail index is damaged": {"tenant": "acme"},
        "it cannot be read: the trail index is damaged (document": {"keys": kept["keys"] * 2},
    }
    for told, change in damages.items():
        opensearch.ask("PUT", where, kept | change)
        code, out, _ = cli("check")
        assert (code, told in out) == (1, True), out
    opensearch.ask("DELETE", where)
    code, out, _ = cli("check")
    assert (code, "the index does not know it" in out) == (1, True), out
    assert cli("reindex")[0] == 0
    assert cli("check")[0] == 0
    assert index.trail("transaction/p1").entries == kept["entries"]


def test_a_page_of_keys_that_is_missing_is_found(
    workshop: Workshop, cli: Cli, opensearch: Cluster, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    for module in ("correlator.index.rows", "deploy.checking.pages"):
        monkeypatch.setattr(f"{module}.KEYS_A_PAGE", 1)
    request.getfixturevalue("imported")
    assert cli("check")[0] == 0
    prefix = workshop.config.index.prefix
    trail = {"term": {"trail": "transaction/p1"}}
    pages = {"bool": {"filter": [trail], "must_not": [{"exists": {"field": "firstLeaf"}}]}}
    (page, *_) = opensearch.ask("POST", f"/{prefix}-trails/_search", {"query": pages})["hits"]["hits"]
    opensearch.ask("DELETE", f"/{prefix}-trails/_doc/{page['_id']}?refresh=true")
    code, out, _ = cli("check")
    assert (code, "transaction/p1" in out, "does not find it by all of its keys" in out) == (1, True, True), out


def test_what_the_index_has_too_much_is_found(
    workshop: Workshop, cli: Cli, opensearch: Cluster, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    """Documents that nobody of ours wrote: what a search finds by them, the log does not say."""
    for module in ("correlator.index.rows", "deploy.checking.pages"):
        monkeypatch.setattr(f"{module}.KEYS_A_PAGE", 1)
    workshop.file.write_text(workshop.file.read_text().replace("[index]\n", "[index]\nshards = 3\n"))
    request.getfixturevalue("imported")
    prefix = f"/{workshop.config.index.prefix}-trails"
    with closing(open_index(workshop.config, workshop.places, read_only=True)) as index:
        size = index.size()
    kept = opensearch.ask("GET", f"{prefix}/_doc/{trail_id('transaction/p1')}")["_source"]
    later = kept | {"trail": "transaction/p9", "texts": ["p9"], "keys": [], "firstLeaf": size + 7, "lastLeaf": size + 7}

    def page(trail: str, order: str) -> tuple[str, dict[str, Any]]:
        made = Row(trail=trail, first_leaf=0)
        made.full_pages = ([("order_id", order)],)
        id_, document = next(KeptTrail(made).pages())
        return id_, json.loads(document)

    row = trail_id("transaction/p1")
    unaccounted = "index: it holds a document that nothing in the log accounts for: "
    (by_key, key), (by_trail, other) = page("transaction/p1", "o9"), page("transaction/p9", "o1")
    cases: list[tuple[str, dict[str, Any], str]] = [
        (by_key, key, "index, transaction/p1: the index finds it by keys that it does not have"),
        (by_trail, other, "index, transaction/p9: the index finds it by keys, and the log does not know it"),
        ("copy", page("transaction/p1", "o1")[1], f"{unaccounted}'copy'"),
        (trail_id("transaction/p9"), later, "index, transaction/p9: the index knows it, and the log does not"),
        (f"{row}-leaves-0", {"leaves": [1] * 512}, f"{unaccounted}'{row}-leaves-0'"),
        ("mark-2", {"size": 3}, f"{unaccounted}'mark-2'"),
    ]
    for id_, document, told in cases:
        opensearch.ask("PUT", f"{prefix}/_doc/{id_}?refresh=true", document)
        if id_ == by_key:
            found = json.loads(cli("find", "--key", "order_id:o9", "--json")[1])["trails"]
            assert [one["trail"] for one in found] == ["transaction/p1"], "which is why it matters"
        code, out, _ = cli("check")
        assert (code, told in out) == (1, True), f"{id_}: {out}"
        opensearch.ask("DELETE", f"{prefix}/_doc/{id_}?refresh=true")
    # the same id once more, in another shard than the one in which it is looked for
    elsewhere = (f"{prefix}/_doc/{row}?refresh=true&routing={number}" for number in range(100))
    while opensearch.ask("PUT", where := next(elsewhere), kept)["result"] != "created":
        opensearch.ask("PUT", f"{prefix}/_doc/{row}?refresh=true", kept)
    code, out, _ = cli("check")
    assert (code, f"{unaccounted}'{row}'" in out) == (1, True), out
    opensearch.ask("DELETE", where)
    code, out, _ = cli("check")
    assert (code, "TRUE" in out) == (0, True), out


def test_an_index_that_is_gone_is_made_anew_by_the_correlator(
    imported: Workshop, cli: Cli, index: TrailIndex, opensearch: Cluster
) -> None:
    before = index.find(TrailQuery(), size=index.size(), limit=1_000)
    opensearch.ask("DELETE", f"/{imported.config.index.prefix}-trails-*")
    code, _, err = cli("find")
    assert code != 0
    assert "no trail index" in err
    imported.correlate()
    assert index.find(TrailQuery(), size=index.size(), limit=1_000) == before


def test_the_api_finds_what_services_send_while_everything_runs(workshop: Workshop, cli: Cli, tmp_path: Path) -> None:
    ports = "[collector.forward]\nport = 0\n[collector.http]\nport = 0\n[audit_api]\nport = 0\n"
    workshop.file.write_text(workshop.file.read_text() + ports)
    command = [sys.executable, "-m", "deploy.cli", "--config", str(workshop.file), "up", "--json"]
    with (tmp_path / "stderr").open("wb") as errors:
        up = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors)
    try:
        assert up.stdout is not None
        text = b""
        while not text.endswith(b"\n}\n"):
            line = up.stdout.readline()
            assert line, (tmp_path / "stderr").read_text()
            text += line
        urls = {one["name"].partition("/")[0]: one["addresses"].get("http") for one in json.loads(text)["ready"]}
        (collector,) = [url for name, url in urls.items() if name.startswith("collector")]
        (api,) = [url for name, url in urls.items() if "api" in name]
        token = cli("token", "add", "ann", "--role", "auditor")[1].strip()
        rows = [{"time": f"2026-01-01T00:00:0{at}Z", "payment_id": "live-1", "service.name": "shop"} for at in range(3)]
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        kind = {"content-type": "application/x-ndjson"}
        answer = httpx.post(f"{collector}/v1/events", content=lines, headers=kind, timeout=60)
        assert answer.status_code == 200, answer.text
        found: dict[str, int] = {}
        end = time.monotonic() + 90
        while found.get("transaction/live-1") != 3:
            assert time.monotonic() < end, found
            time.sleep(0.2)  # another process's progress: there is no event to wait for
            asked = {"params": {"service": "shop"}, "headers": {"authorization": f"Bearer {token}"}}
            answer = httpx.get(f"{api}/v1/trails", timeout=60, **asked)  # type: ignore[arg-type]
            assert answer.status_code == 200, answer.text
            found = {one["trail"]: one["entries"] for one in answer.json()["trails"]}
        code, _, told = cli("reindex")
        assert (code, "stop it first" in told) == (1, True), "the correlator is the index's writer"
    finally:
        up.send_signal(signal.SIGTERM)
        assert up.wait(60) == 0, (tmp_path / "stderr").read_text()
        assert up.stdout is not None
        up.stdout.close()
    assert cli("check")[0] == 0
