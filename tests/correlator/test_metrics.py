"""The correlator's metrics as a scraper sees them: right numbers, and no label that comes from outside."""

from pathlib import Path

from prometheus_client import generate_latest

from tests.support.correlating import Correlating
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
