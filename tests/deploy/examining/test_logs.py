"""The log: a real one in a folder, and one in object storage; with a head that is wrong in every way there is."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec
import pytest
from obstore.store import MemoryStore

from correlator.head import Head, decode_head, encode_head
from correlator.note import Signer
from correlator.storage import LogStorage
from correlator.storage.bucket import Bucket, ObstoreBucket
from correlator.storage.memory import MemoryStorage
from correlator.storage.objects import ObjectStorage
from deploy.examining import Chart
from deploy.examining.logs import examine_log, judge_head
from deploy.logstorage import log_storage
from tests.support.charts import only, outcomes, troubles
from tests.support.heedless_bucket import CreateOnly, Heedless
from tests.support.logs import SIGNER, grow, open_log

if TYPE_CHECKING:
    from tests.deploy.conftest import Workshop


def examined(workshop: Workshop, storage: LogStorage | None = None, *, write_probe: bool = False) -> Chart:
    opened: Callable[[], LogStorage] = (lambda: storage) if storage else lambda: log_storage(workshop.config)
    now = lambda: 1_767_225_600_000_000_000  # noqa: E731 - a clock
    return examine_log(workshop.config, workshop.places, opened=opened, now_ns=now, write_probe=write_probe)[0]


def test_a_log_that_was_closed_is_fine(ledger: Workshop) -> None:
    chart = examined(ledger)
    assert troubles(chart) == []
    assert [check.name for check in chart.checks] == ["storage", "head", "writer"]


def test_no_log_yet_is_fine(workshop: Workshop) -> None:
    assert troubles(examined(workshop)) == []


def head_of(workshop: Workshop) -> Head:
    return decode_head((workshop.places.log / "head").read_bytes())


@pytest.mark.parametrize(
    ("what", "name"),
    [
        ("garbage", "head"),
        ("another tree", "head"),
        ("a checkpoint that nobody signed", "key"),
        ("another key", "key"),
        ("no key", "key"),
        ("no head", "head"),
    ],
)
def test_a_head_that_is_wrong(ledger: Workshop, what: str, name: str) -> None:
    path, places = ledger.places.log / "head", ledger.places
    head = head_of(ledger)
    if what == "garbage":
        path.write_bytes(b"{}")
    elif what == "another tree":
        path.write_bytes(encode_head(msgspec.structs.replace(head, size=head.size + 1)))
    elif what == "a checkpoint that nobody signed":
        path.write_bytes(encode_head(msgspec.structs.replace(head, checkpoint=head.checkpoint.replace("test", "rest"))))
    elif what == "another key":
        places.log_vkey.write_text(Signer.generate("test.example/audit").verifier.vkey)
    elif what == "no key":
        places.log_vkey.unlink()
    else:
        path.unlink()
    check = only(examined(ledger))
    assert (check.name, check.outcome) == (name, "failed")


@pytest.mark.parametrize(
    ("writer", "age_seconds", "outcome"),
    [("", 1e6, "ok"), ("a@b:1", 2, "ok"), ("a@b:1", -5, "ok"), ("a@b:1", 11, "warning")],
)
def test_a_log_that_has_lost_its_writer(ledger: Workshop, writer: str, age_seconds: float, outcome: str) -> None:
    head = msgspec.structs.replace(head_of(ledger), writer=writer)
    chart = Chart("log")
    judge_head(chart, head, now_ns=head.written_ns + int(age_seconds * 1e9), take_over_seconds=10)
    assert outcomes(chart) == {"writer": outcome}
    troubles(chart)


def test_a_place_that_does_not_answer_is_told(workshop: Workshop) -> None:
    text = 'log = "s3://bucket/prefix"\nlog_endpoint = "http://127.0.0.1:1"\n'
    workshop.file.write_text(text + workshop.file.read_text())

    class Silent(MemoryStorage):
        def read_head(self) -> bytes | None:
            from correlator.errors import Overloaded

            raise Overloaded("object storage does not answer")

    check = only(examined(workshop, Silent()))
    assert (check.name, check.outcome) == ("storage", "failed")
    assert "s3://bucket/prefix" in check.found


def objects(bucket: Bucket | None = None) -> ObjectStorage:
    return ObjectStorage(bucket or ObstoreBucket(MemoryStore()))


def test_what_object_storage_can_do_only_a_write_shows(workshop: Workshop) -> None:
    bucket = ObstoreBucket(MemoryStore())
    chart = examined(workshop, objects(bucket))
    assert outcomes(chart)["conditional puts"] == "unknown"
    assert "--write-probe" in only(chart).mend[0]
    assert list(bucket.paths("")) == [], "nothing was written"
    assert outcomes(examined(workshop, objects(bucket), write_probe=True))["conditional puts"] == "ok"
    assert list(bucket.paths("")) == [], "and what was is removed"


@pytest.mark.parametrize("kind", [Heedless, CreateOnly])
def test_object_storage_that_ignores_conditions_is_found_out(workshop: Workshop, kind: type[Heedless]) -> None:
    bucket = kind()
    assert only(examined(workshop, objects(bucket), write_probe=True)).name == "conditional puts"
    assert list(bucket.paths("")) == []


def test_a_log_that_was_written_there_shows_it_as_well(workshop: Workshop) -> None:
    storage = objects()
    with open_log(storage) as log:
        grow(log, [3])
    workshop.places.make()
    workshop.places.log_vkey.write_text(SIGNER.verifier.vkey)
    chart = examined(workshop, storage)
    assert outcomes(chart)["conditional puts"] == "ok", chart.checks
