"""The correlator's metrics as a scraper sees them: right numbers, and no label that comes from outside."""

from pathlib import Path

import pytest
from prometheus_client import generate_latest

from correlator.errors import Overloaded
from correlator.storage.memory import MemoryStorage
from tests.support.correlating import Correlating
from tests.support.memory_store import MemoryStore
from tests.support.shipper import Shipper, pay


def test_metrics_tell_what_was_published(tmp_path: Path) -> None:
    world = Correlating(folder=tmp_path)
    correlator = world.open()
    shipper = Shipper()
    world.store.append(shipper.batch(pay("p1"), pay("p2")))
    lost = shipper.batch(pay("p3"))
    world.store.append(shipper.batch(pay("p4")))
    world.run()
    text = generate_latest(correlator.metrics.registry).decode()
    for line in (
        'tally_correlator_entries_total{kind="event"} 3.0',
        'tally_correlator_entries_total{kind="batch"} 2.0',
        'tally_correlator_entries_total{kind="gap"} 1.0',
        'tally_correlator_gaps_total{reason="first_late"} 0.0',
        'tally_correlator_gaps_total{reason="missing"} 1.0',
        "tally_correlator_log_leaves 7.0",
        "tally_correlator_index_lag_leaves 0.0",
        "tally_correlator_head_age_seconds 0.0",
        "tally_correlator_publish_seconds_count 1.0",
        'tally_correlator_streams{state="open"} 1.0',
        "tally_correlator_missing_batches 1.0",
    ):
        assert line in text.splitlines(), line
    assert shipper.stream not in text
    assert lost.signed.digest not in text
    world.close()


class Bucket(MemoryStorage):
    """A log's storage that may be away."""

    down = False

    def stage(self, name: str, data: bytes) -> None:
        if self.down:
            raise Overloaded("the bucket does not answer")
        super().stage(name, data)


@pytest.mark.parametrize("away", ["log", "store"])
def test_the_newest_entry_ages_while_steps_fail(tmp_path: Path, away: str) -> None:
    """That is when TallyCheckpointLate has to fire: an age that only a successful step tells would stand still."""
    storage, store, shipper = Bucket(), MemoryStore(), Shipper()
    world = Correlating(folder=tmp_path, storage=storage, store=store)
    store.append(shipper.batch(pay("p1")))
    world.run()
    store.append(shipper.batch(pay("p2")))
    storage.down, store.down = away == "log", "away" if away == "store" else ""
    correlator = world.correlator
    assert correlator is not None

    def age() -> float | None:
        return correlator.metrics.registry.get_sample_value("tally_correlator_head_age_seconds")

    for minutes in (10, 20):
        world.now_ns += 600_000_000_000
        with pytest.raises(Overloaded):
            correlator.step()
        assert age() == minutes * 60
    storage.down, store.down = False, ""
    world.now_ns += 1_000_000_000
    assert age() == 1_201, "and between two steps"
    correlator.step()
    assert age() == (601 if away == "log" else 0), "of a chain that waited, the time at which it was made"
    world.close()


def test_a_writer_that_begins_tells_how_old_its_log_is(tmp_path: Path) -> None:
    world = Correlating(folder=tmp_path)
    world.store.append(Shipper().batch(pay("p1")))
    world.run()
    world.close()
    world.now_ns += 90_000_000_000
    registry = world.open().metrics.registry
    assert registry.get_sample_value("tally_correlator_head_age_seconds") == 90
    world.close()
