"""The batches of a random walk: one to three streams whose events name each other's transactions, keys and traces in every way."""

from __future__ import annotations

import random
from collections.abc import Sequence

from collector.batch import Batch
from collector.event import Access, Event
from correlator.flow import Flow, FlowMatch, FlowStep
from tests.support.shipper import Shipper, pay

NAMES = ("a", "b", "c", "undo c", "x", "noise")


def step(name: str, **fields: object) -> FlowStep:
    """A step that the events of its name are."""
    return FlowStep(name=name.replace(" ", "_"), match=FlowMatch(name=name), **fields)  # type: ignore[arg-type]


PATIENT = Flow(name="patient", deadline_seconds=0, steps=(step("a"), step("b", after=("a",))))
HASTY = Flow(
    name="hasty",
    deadline_seconds=100,
    steps=(
        step("a"),
        step("c", after=("a",), compensated_by="undo_c", repeat=True),
        step("undo c", role="compensation"),
        step("x", role="failure"),
    ),
)
LONGER = Flow(name="hasty", deadline_seconds=100, steps=(*HASTY.steps, step("b", optional=True, after=("c",))))
OF_ORDERS = Flow(name="orders", trail="order", deadline_seconds=50, steps=(step("b"), step("c", after=("b",))))
FLOWS = (PATIENT, HASTY, OF_ORDERS)


def some_event(dice: random.Random, name: str, *, recorder: bool) -> Event:
    """An event that may belong to anything: facts that contradict each other (two payments in one trace, or of one order) included."""
    if recorder and dice.random() < 0.5:
        who = dice.choice(("ann", "bob"))
        return pay("p1", access=Access(principal=who, action="read", trail="transaction/p1"), body=name)
    keys = {key: dice.choice(("1", "2")) for key in ("order", "user") if dice.random() < 0.3}
    return pay(
        dice.choice(("", "", "p1", "p2", "p3", "p4", name)),
        trace_id=dice.choice(("", *(f"{number:032x}" for number in range(1, 6)))),
        keys=keys,
        tenant=dice.choice(("", "", "", "t")),
        event_name=dice.choice(NAMES),
        service=dice.choice(("gateway", "ledger")),
        body=name,
    )


def some_batch(dice: random.Random, shipper: Shipper, *, closed: bool = False) -> Batch:
    """The next batch of a stream; of no events, as a heartbeat is, or of a few."""
    recorder = shipper.stream.startswith("api/")
    count = dice.choice((0, 1, 2, 4, 7, 16))
    events = [some_event(dice, f"{shipper.stream} {shipper.sequence + at}", recorder=recorder) for at in range(count)]
    found = {key: dice.choice(("rule 1", "rule 2")) for key in ("transaction", "order") if dice.random() < 0.5}
    return shipper.batch(*events, found=found, closed=closed)


def some_shippers(dice: random.Random) -> list[Shipper]:
    """One to three streams; the last may be a recorder's of ours."""
    names = (
        "gateway/0123456789abcdef",
        "ledger/0123456789abcdef",
        dice.choice(("api", "gateway")) + "/fedcba9876543210",
    )
    return [Shipper(name) for name in names[: dice.randint(1, 3)]]


def delivery(dice: random.Random, *, each: int, late: float = 0.1) -> Sequence[Batch]:
    """All batches of some streams in the order in which the store gets them, the last of each stream with its end.

    Streams overtake each other, and one batch in `1 / late` comes behind others of its own stream.
    """
    shippers = some_shippers(dice)
    left = {shipper.stream: each for shipper in shippers}
    order: list[tuple[float, Batch]] = []
    while any(left.values()):
        shipper = dice.choice([one for one in shippers if left[one.stream]])
        left[shipper.stream] -= 1
        batch = some_batch(dice, shipper, closed=not left[shipper.stream])
        order.append((len(order) + (dice.randint(2, 12) + 0.5 if dice.random() < late else 0), batch))
    return [batch for _, batch in sorted(order, key=lambda one: one[0])]
