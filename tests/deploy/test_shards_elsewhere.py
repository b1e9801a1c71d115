"""A ledger that is cut into shards with its logs in object storage, and with store and indexes on OpenSearch."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

import pytest

from collector.store.settings import StoreSettings
from correlator.statement import open_statement
from correlator.storage.bucket import bucket_at
from deploy.importing import correlate
from deploy.keys import log_verifier
from deploy.logstorage import log_storage
from deploy.sharding import shards_of
from deploy.writing import finish, open_correlator
from tests.support.retiring import is_told_everywhere, retire, two_months
from tests.support.s3_server import S3Server

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.deploy.conftest import Cli, Workshop

TAKEN_IN = "TRUE: all holds in "


def cut(workshop: Workshop, where: str = "", tables: str = "") -> None:
    """Three shards, with these lines before and these tables after the rest."""
    workshop.file.write_text(f"{where}{workshop.file.read_text()}[correlator]\nshards = 3\n{tables}")


def take_in(workshop: Workshop, cli: Cli, name: str, payments: range) -> None:
    """Import a file of two events of each payment, in a trace of its own."""
    file = workshop.folder / name
    with file.open("w") as lines:
        for number in payments:
            for step in ("received", "paid"):
                event = {"time": "2026-01-01T00:00:00Z", "event_name": step, "service.name": "shop", "message": name}
                event |= {"payment_id": f"p{number}", "order_id": f"o{number % 3}", "trace_id": f"{number + 1:032x}"}
                lines.write(json.dumps(event) + "\n")
    assert cli("import", str(file), "--json")[0] == 0
    assert correlate(workshop.config, workshop.places, expected_events=0)


@pytest.mark.objectstore
def test_shards_in_object_storage(
    workshop: Workshop, cli: Cli, s3: S3Server, s3_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    cut(workshop, f'log = "{s3_url}"\nlog_endpoint = "{s3.endpoint}"\n')
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3.endpoint)
    take_in(workshop, cli, "one.jsonl", range(12))
    before = workshop.folder / "statement"
    before.write_bytes(log_storage(workshop.config).read_head() or b"")
    take_in(workshop, cli, "two.jsonl", range(6, 18))
    raw = log_storage(workshop.config).read_head()
    assert raw is not None
    open_statement(raw, log_verifier(workshop.places)).check_follows(
        open_statement(before.read_bytes(), log_verifier(workshop.places))
    )
    assert not workshop.places.log.exists()
    code, out, _ = cli("check", "--since", str(before))
    assert (code, out.startswith(TAKEN_IN)) == (0, True), out
    code, out, _ = cli("verify", s3_url, "--key", str(workshop.places.log_vkey), "--since", str(before))
    assert (code, out.startswith("TRUE: the joint statement holds")) == (0, True), out
    code, out, _ = cli("trail", "p7")
    assert (code, "verified" in out) == (0, True), out
    bucket = bucket_at(f"{s3_url}/shard-2-of-3", endpoint=s3.endpoint)
    path = next(path for path in bucket.paths("tile") if path.startswith("tile/entries/"))
    bucket.put(path, bucket.get(path).data.replace(b"shop", b"ship", 1))
    code, out, _ = cli("check")
    assert (code, f"FALSE: log shard-2-of-3/{path}" in out) == (1, True), out


@pytest.mark.opensearch
@pytest.mark.timeout(1_200)
def test_shards_on_opensearch(workshop: Workshop, cli: Cli, opensearch_settings: StoreSettings) -> None:
    cluster = f"urls = {json.dumps(opensearch_settings.urls)}\nprefix = {json.dumps(opensearch_settings.prefix)}\n"
    cut(workshop, tables=f"[store]\n{cluster}[index]\n{cluster}")
    take_in(workshop, cli, "one.jsonl", range(12))
    assert not workshop.places.store.exists()
    assert list(workshop.places.root.glob("index*")) == [], "nothing is kept in SQLite"
    code, out, _ = cli("check")
    assert (code, out.startswith(TAKEN_IN)) == (0, True), out
    found = json.loads(cli("find", "--kind", "transaction", "--json")[1])
    assert sorted(one["trail"] for one in found["trails"]) == sorted(f"transaction/p{number}" for number in range(12))
    status = json.loads(cli("status", "--json")[1])
    assert status["problems"] == []
    assert {line["logged_batch"] > 0 for line in status["streams"] if line["status"] == "ok"} == {True}
    assert cli("reindex")[0] == 0
    code, out, _ = cli("trail", "p7")
    assert (code, "verified" in out) == (0, True), out
    code, out, _ = cli("check")
    assert (code, out.startswith(TAKEN_IN)) == (0, True), out


@pytest.mark.opensearch
@pytest.mark.timeout(1_200)
def test_a_month_of_shards_on_opensearch_is_retired(
    workshop: Workshop, cli: Cli, opensearch_settings: StoreSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster = f"urls = {json.dumps(opensearch_settings.urls)}\nprefix = {json.dumps(opensearch_settings.prefix)}\n"
    cut(workshop, tables=f"[store]\n{cluster}[index]\n{cluster}")

    def correlate_each(_: Workshop, *, clock: Callable[[], int] = time.time_ns) -> None:
        for shard in shards_of(workshop.config):
            with open_correlator(workshop.config, workshop.places, shard=shard, clock=clock) as correlator:
                assert finish(correlator, within_seconds=60.0)

    monkeypatch.setattr(type(workshop), "correlate", correlate_each)
    two_months(workshop)
    retire(workshop, cli)
    is_told_everywhere(workshop, cli, workshop.folder, bundled=2)  # its trace stands in another log
    assert len(json.loads(cli("trail", "ledger/retirements", "--json")[1])["steps"]) == 1
