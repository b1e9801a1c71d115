"""Any order of files and streams gives the same trails: the same events in each, the same links between them."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from collector.deadletters import DeadLetters
from collector.disk import OsDisk
from collector.event import Event
from collector.extract import Extractor, KeyRule, StitchSettings
from collector.imports import Importer
from collector.prepare import Preparer
from collector.protect import Protector
from collector.receive import Arrival
from collector.retry import Breaker, RetryLimits
from correlator.settings import CorrelatorSettings
from tests.support.correlating import Correlating, stitched
from tests.support.shipper import LEDGER, START_NS, Shipper, pay

TRACES = [f"{number:032x}" for number in range(1, 4)]
RULES = StitchSettings(
    transaction=("attributes.payment_id",),
    keys=(KeyRule(name="order_id", fields=("attributes.order_id",)), KeyRule(name="user", fields=("attributes.user",))),
)

rows = st.lists(
    st.fixed_dictionaries(
        {"trace": st.sampled_from(["", *TRACES])},
        optional={
            "payment_id": st.sampled_from(["p1", "p2"]),
            "order_id": st.sampled_from(["o1", "o2"]),
            "user": st.sampled_from(["ann", "bob"]),
        },
    ),
    min_size=1,
    max_size=5,
)


def event_of(row: dict[str, str], body: str) -> Event:
    attributes = {name: value for name, value in row.items() if name != "trace"}
    return Event(body=body, attributes=attributes, trace_id=row["trace"], resource={"service.name": "shop"})


def imported(world: Correlating, files: Sequence[list[Event]]) -> None:
    """Import these files, one after the other, as `tally import` does."""
    disk = OsDisk()
    protector = Protector(token_key=b"k" * 32)
    root = world.folder / "import"
    disk.make_directory(root)
    importer = Importer(
        root,
        ledger=LEDGER,
        store=world.store,
        key=Ed25519PrivateKey.from_private_bytes(b"\x05" * 32),
        preparer=Preparer(extractor=Extractor(RULES), protector=protector, clock=None),
        dead_letters=DeadLetters(
            root / "dead", disk=disk, protector=protector, clock=lambda: START_NS, total_bytes=1 << 20
        ),
        disk=disk,
        clock=lambda: START_NS,
        breaker=Breaker(RetryLimits(), uniform=min),
        journal_ids=10_000,
    )
    try:
        for events in files:
            names = [str(event.body).encode() for event in events]
            rows = [
                Arrival(event=event, source_id=sha256(name).digest()) for event, name in zip(events, names, strict=True)
            ]
            importer.run(sha256(b"\n".join(names)).hexdigest(), [rows])
    finally:
        importer.close()


@given(data=st.data())
@settings(max_examples=12)
def test_any_order_of_files_and_streams_gives_the_same_trails(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    files = [
        [event_of(row, f"file {number} row {at}") for at, row in enumerate(content)]
        for number, content in enumerate(data.draw(st.lists(rows, min_size=2, max_size=4)))
    ]
    lives = [
        Shipper(f"s{number}/0123456789abcdef").batch(
            *(
                pay(row.get("payment_id", ""), trace_id=row["trace"], body=f"{number} {at}")
                for at, row in enumerate(live)
            )
        )
        for number, live in enumerate(data.draw(st.lists(rows, max_size=2)))
    ]
    results = []
    for _ in range(2):
        world = Correlating(folder=tmp_path_factory.mktemp("order"))
        world.settings = CorrelatorSettings(
            missing_poll_seconds=3_600, step_entries=data.draw(st.sampled_from([1, 5, 8_192])), key_order=("order_id",)
        )
        order = data.draw(st.permutations(range(len(files))))
        cut = data.draw(st.integers(0, len(files)))
        imported(world, [files[at] for at in order[:cut]])
        if data.draw(st.booleans()):
            world.run()
        for batch in data.draw(st.permutations(lives)):
            world.store.append(batch)
        imported(world, [files[at] for at in order[cut:]])
        world.run()
        results.append(stitched(world.entries()))
        world.close()
    assert results[0] == results[1]
    assert sum(len(events) for events, _ in results[0].values()) == sum(map(len, files)) + sum(
        batch.signed.header.count for batch in lives
    )


def test_the_same_file_twice_adds_nothing(tmp_path: Path) -> None:
    world = Correlating(folder=tmp_path)
    events = [event_of({"trace": TRACES[0], "payment_id": "p1"}, f"row {at}") for at in range(5)]
    imported(world, [events])
    world.run()
    before = world.entries()
    imported(world, [events])
    assert world.run() == 0
    assert world.entries() == before
    world.close()
