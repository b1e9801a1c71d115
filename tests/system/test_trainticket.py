"""A day of TrainTicket, imported whole: the account, the trails whatever the order of files, the story of an order, the hub.

The expected numbers are the data set's own (its README) or counted here from the raw files, never from our program.
"""

from __future__ import annotations

import csv
import gzip
import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pytest

from collector.importer.mapping import load_mappings
from collector.store.settings import StoreSettings
from correlator.entry import Entry, decode_entry
from correlator.index.sqlite import SqliteIndex
from correlator.reader import LogReader
from correlator.storage.file import FileStorage
from correlator.story import story
from deploy.checking.whole import check_everything
from deploy.config import Config, load
from deploy.importing import Total, correlate, import_files, open_importer
from deploy.keys import log_verifier
from deploy.places import Places

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

LOG_ROWS, SPANS = 94_703, 179_170
DUPLICATES = 565 + 1_014
ACCOUNT_ID = "4d2a46c7-71cb-4cf1-b5bb-b68406d9da6f"  # what getAccount logs as an orderId
ORDER = re.compile(r"[oO]rder ?[iI]d\W{0,8}([0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12})")
OPERATION = re.compile(r"SpanID: [0-9a-f]* \[(\w+)\]")


@dataclass
class Imported:
    config: Config
    places: Places
    first: Total
    entries: list[Entry]


def configuration(repo_root: Path, folder: Path, **keys: object) -> Config:
    config, _ = load(repo_root / "examples" / "import" / "trainticket.tally.toml", environ={}, folder=repo_root)
    rules = tuple(msgspec.structs.replace(rule, **keys) for rule in config.collector.stitch.keys)
    stitch = msgspec.structs.replace(config.collector.stitch, keys=rules)
    collector = msgspec.structs.replace(config.collector, stitch=stitch)
    return msgspec.structs.replace(config, data=str(folder), collector=collector)


def take(repo_root: Path, config: Config, files: Sequence[Path]) -> Total:
    mappings = load_mappings(repo_root / "examples" / "import" / "trainticket.toml")
    places = Places(Path(config.data))
    with open_importer(config, places) as importer:
        done = import_files(importer, files, mappings)
    assert [file.problem for file in done.files if file.problem] == []
    assert correlate(config, places, expected_events=done.total.stored)
    return done.total


def read(config: Config) -> list[Entry]:
    places = Places(Path(config.data))
    reader = LogReader(FileStorage(places.log), log_verifier(places))
    return [decode_entry(data) for data in reader.entries(0, reader.tree().size)]


@pytest.fixture(scope="module")
def files(data_dir: Path) -> list[Path]:
    folder = data_dir / "trainticket"
    return sorted(folder.glob("log/*.csv.gz")) + sorted(folder.glob("trace/*.csv.gz"))


@pytest.fixture(scope="module")
def whole(repo_root: Path, files: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Imported:
    config = configuration(repo_root, tmp_path_factory.mktemp("whole"))
    total = take(repo_root, config, files)
    return Imported(config, Places(Path(config.data)), total, read(config))


@pytest.fixture(scope="module")
def traces_of_orders(files: list[Path]) -> dict[str, set[str]]:
    """Order → traces whose log rows name it, counted from the raw files; getAccount's account left out."""
    csv.field_size_limit(1 << 20)
    found: dict[str, set[str]] = defaultdict(set)
    for path in files:
        if path.parent.name != "log":
            continue
        with gzip.open(path, "rt", encoding="utf-8", newline="") as lines:
            for row in csv.DictReader(lines):
                operation = OPERATION.search(row["Log"])
                order = ORDER.search(row["Log"])
                if order and not (operation and operation.group(1) == "getAccount"):
                    found[order.group(1)].add(row["TraceID"])
    return found


def test_the_account_balances_exactly(whole: Imported) -> None:
    total = whole.first
    assert total.rows == LOG_ROWS + SPANS
    assert (total.stored, total.duplicates, total.dead_lettered) == (LOG_ROWS + SPANS - DUPLICATES, DUPLICATES, 0)
    assert total.marks["truncated"] == 1_756
    assert total.marks["time_implausible"] == 79


def test_every_row_is_in_one_trail_and_check_agrees(whole: Imported) -> None:
    events = [(entry.stream, entry.sequence) for entry in whole.entries if entry.kind == "event"]
    assert len(events) == len(set(events)) == whole.first.stored
    findings, account = check_everything(whole.config, log_verifier(whole.places), since=None)
    assert (findings, account.events) == ([], whole.first.stored)


@pytest.mark.long
def test_importing_again_in_another_order_adds_nothing(repo_root: Path, files: list[Path], whole: Imported) -> None:
    again = take(repo_root, whole.config, files[::-1])
    assert (again.rows, again.stored, again.duplicates) == (LOG_ROWS + SPANS, 0, LOG_ROWS + SPANS)
    assert len(read(whole.config)) == len(whole.entries)


def trails(entries: Sequence[Entry]) -> dict[str, Counter[bytes]]:
    """Trail → what is in it: of events the facts without the digest (which covers the file's name and row), of links where to."""
    found: dict[str, Counter[bytes]] = defaultdict(Counter)
    for entry in entries:
        if entry.kind == "event":
            facts = msgspec.json.decode(entry.facts)
            del facts["digest"]
            found[entry.trail][entry.why.encode() + msgspec.json.encode(facts, order="sorted")] += 1
        elif entry.kind == "link":
            found[entry.trail][b"link " + entry.detail["to"].encode()] += 1
    return dict(found)


@pytest.mark.long
def test_any_order_of_files_gives_the_same_trails(
    repo_root: Path, files: list[Path], whole: Imported, tmp_path: Path
) -> None:
    config = configuration(repo_root, tmp_path)
    shuffled = files[1::2][::-1] + files[::2]  # spans before logs, later before earlier
    total = take(repo_root, config, shuffled)
    assert (total.stored, total.duplicates) == (whole.first.stored, whole.first.duplicates)
    assert trails(read(config)) == trails(whole.entries)


def test_an_order_is_one_story_over_its_traces(whole: Imported, traces_of_orders: dict[str, set[str]]) -> None:
    links: dict[str, dict[str, str]] = defaultdict(dict)
    for entry in whole.entries:
        if entry.kind == "link" and entry.trail.startswith("key/order_id/"):
            links[entry.trail.rpartition("/")[2]][entry.detail["to"]] = entry.why
    assert {order: set(told) for order, told in links.items()} == {
        order: {f"trace/{trace}" for trace in traces} for order, traces in traces_of_orders.items()
    }
    assert all(why for told in links.values() for why in told.values())
    assert (
        sum(len(traces) > 1 for traces in traces_of_orders.values()) == 191 - 1
    )  # the data set counts getAccount's, too
    index = SqliteIndex(whole.places.index, read_only=True)
    try:
        order, traces = max(traces_of_orders.items(), key=lambda item: len(item[1]))
        told = story(f"key/order_id/{order}", index.trail, index.is_hub)
        assert set(told.traces) == {f"trace/{trace}" for trace in traces}
        assert told.hubs == ()
    finally:
        index.close()


def test_an_undeclared_meaning_shows_as_a_hub_and_merges_nothing(
    repo_root: Path, files: list[Path], tmp_path: Path
) -> None:
    config = configuration(repo_root, tmp_path, except_operations=())
    take(repo_root, config, [path for path in files if path.parent.name == "log"])
    index = SqliteIndex(Places(tmp_path).index, hub_links=config.correlator.hub_links, read_only=True)
    try:
        hub = index.trail(f"key/order_id/{ACCOUNT_ID}")
        assert hub.hub
        assert len(hub.links) == 78
        assert story(hub.trail, index.trail, index.is_hub).traces == ()
        for trace in hub.links[:10]:
            told = story(trace, index.trail, index.is_hub)
            assert told.hubs == (hub.trail,)
            assert not set(hub.links) & {*told.traces, *(one.trail for one in told.related)}
    finally:
        index.close()


@pytest.mark.opensearch
@pytest.mark.long
@pytest.mark.timeout(2_400)
def test_the_same_account_with_the_store_on_opensearch(
    repo_root: Path, files: list[Path], whole: Imported, tmp_path: Path, opensearch_settings: StoreSettings
) -> None:
    settings = msgspec.structs.replace(opensearch_settings, timeout_seconds=120.0)
    config = msgspec.structs.replace(configuration(repo_root, tmp_path), store=settings)
    total = take(repo_root, config, files)
    assert total == whole.first
    assert not Places(tmp_path).store.exists()
    assert trails(read(config)) == trails(whole.entries)
    findings, account = check_everything(config, log_verifier(Places(tmp_path)), since=None)
    assert (findings, account.events) == ([], total.stored)
