"""Death at every operation of the log's storage, of the state, of the index and of the store: opening again goes on as if nothing was.

The table: for each n, the n-th operation raises `Died` before it does anything, or after it did. Whatever was not written is
lost, the claim is dropped as the system does it, and the correlator is opened again on what is left.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from collector.batch import Batch, StreamId
from correlator import state as state_module
from correlator.flow import Flow, FlowMatch, FlowStep
from correlator.index import IndexedLeaf
from correlator.index.memory import MemoryIndex
from correlator.settings import CorrelatorSettings
from correlator.storage.memory import MemoryStorage
from tests.support.correlating import Correlating, stitched
from tests.support.memory_store import MemoryStore
from tests.support.shipper import TRACE, Shipper, pay


class Died(BaseException):
    """The process is no more."""


class Fate:
    """Counts operations, and ends the process at one of them, once."""

    def __init__(self, at: int, *, after: bool) -> None:
        self.at = at
        self.after = after
        self.count = 0

    def meet(self, operation: Callable[[], Any]) -> Any:
        self.count += 1
        doomed = self.count == self.at
        if doomed and not self.after:
            raise Died
        result = operation()
        if doomed:
            raise Died
        return result


class MortalStorage(MemoryStorage):
    """Each write meets its fate."""

    def __init__(self, fate: Fate) -> None:
        super().__init__()
        self._fate = fate

    def put_once(self, path: str, data: bytes) -> None:
        self._fate.meet(lambda: super(MortalStorage, self).put_once(path, data))

    def stage(self, name: str, data: bytes) -> None:
        self._fate.meet(lambda: super(MortalStorage, self).stage(name, data))

    def swap_head(self, old: bytes | None, new: bytes) -> None:
        self._fate.meet(lambda: super(MortalStorage, self).swap_head(old, new))

    def replace_checkpoint(self, signed: bytes, *, head: bytes) -> None:
        self._fate.meet(lambda: super(MortalStorage, self).replace_checkpoint(signed, head=head))


class MortalIndex(MemoryIndex):
    """Each write meets its fate."""

    def __init__(self, fate: Fate) -> None:
        super().__init__()
        self._fate = fate

    def apply(self, leaves: Sequence[IndexedLeaf]) -> None:
        self._fate.meet(lambda: super(MortalIndex, self).apply(leaves))


class MortalStore(MemoryStore):
    """Each word to the store meets its fate."""

    def __init__(self, fate: Fate) -> None:
        super().__init__()
        self._fate = fate

    def acknowledge(self, frontier: Mapping[StreamId, int], *, part: int = 1, parts: int = 1) -> None:
        self._fate.meet(lambda: super(MortalStore, self).acknowledge(frontier, part=part, parts=parts))


FLOW = Flow(
    name="f", steps=(FlowStep(name="a", match=FlowMatch(name="a")), FlowStep(name="b", match=FlowMatch(name="b")))
)


def batches() -> list[Batch]:
    one, other = Shipper(heartbeat_seconds=0), Shipper("ledger/0123456789abcdef", heartbeat_seconds=0)
    made = []
    for number in range(4):
        made.append(
            one.batch(pay("p1", event_name="a", trace_id=TRACE, body=number), pay(f"p{number}", event_name="b"))
        )
        made.append(other.batch(pay(keys={"order": "o1"}, trace_id=TRACE, body=number), pay(body=number)))
    late = made.pop(2)  # batch 2 of the first stream comes last
    return [*made, late]


def live(folder: Path, fate: Fate) -> tuple[Correlating, int]:
    """Ship, correlate and die; the world after its second life, and how often it died."""
    world = Correlating(folder=folder, store=MortalStore(fate), storage=MortalStorage(fate), index=MortalIndex(fate))
    world.settings = CorrelatorSettings(flows=(FLOW,), missing_poll_seconds=3_600, step_entries=8)
    deaths = 0
    for batch in batches():
        world.store.append(batch)
        for _ in range(3):
            try:
                world.run()
            except Died:
                deaths += 1
                world.kill()
                # the system drops the claim of a process that died while it opened
                claim = getattr(world.storage, "claimed_by", None)
                if claim is not None:
                    claim.release()
    world.run()
    return world, deaths


def check(world: Correlating, expected: dict[str, Any], verdicts: dict[str, str]) -> None:
    entries = world.entries()
    assert stitched(entries) == expected
    assert {e.trail: e.detail["verdict"] for e in entries if e.kind == "verdict"} == verdicts
    told = [(e.trail, str(e.detail)) for e in entries if e.kind in ("gap", "batch", "enrolment", "verdict")]
    assert len(told) == len(set(told)), "nothing is told twice"
    assert world.index.size() == len(entries)
    assert {world.store.acknowledged(stream) for stream in world.store.streams()} == {4}
    assert world.correlator is not None
    for trail in {entry.trail for entry in entries}:
        head = world.correlator._state.head(trail)
        assert head is not None
        assert head.leaf == max(leaf for leaf, entry in enumerate(entries) if entry.trail == trail)
        assert list(world.index.leaves(trail)) == [leaf for leaf, e in enumerate(entries) if e.trail == trail]


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("flush_leaves", [1, 131_072])
def test_death_at_every_operation(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    after: bool,
    flush_leaves: int,
) -> None:
    monkeypatch.setattr(state_module, "FLUSH_LEAVES", flush_leaves)
    immortal = Fate(-1, after=after)
    world, _ = live(tmp_path / "whole", immortal)
    expected = stitched(world.entries())
    verdicts = {e.trail: e.detail["verdict"] for e in world.entries() if e.kind == "verdict"}
    assert verdicts == {"transaction/p1": "complete"}
    check(world, expected, verdicts)
    operations = immortal.count
    world.close()
    assert operations > 40
    for at in range(1, operations + 1):
        world, deaths = live(tmp_path / str(at), Fate(at, after=after))
        assert deaths == 1
        check(world, expected, verdicts)
        world.close()
