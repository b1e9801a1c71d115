"""The state: whatever was flushed, lost, damaged or ahead, opening it again gives what the log says."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collector.event import Facts, encode_facts, format_time
from correlator import state as state_module
from correlator.coldstate import ColdState, key_of
from correlator.entry import Entry, Kind, Previous, decode_entry, encode_entry
from correlator.errors import StateUnknown
from correlator.flow import Flow, FlowMatch, FlowStep
from correlator.merkle import leaf_hash
from correlator.progress import FlowTracker
from correlator.state import Head, State

FLOW = Flow(
    name="f",
    deadline_seconds=10,
    steps=(FlowStep(name="a", match=FlowMatch(name="a")), FlowStep(name="b", match=FlowMatch(name="b"), after=("a",))),
)


class Log:
    """Entries in memory, chained by trail."""

    def __init__(self) -> None:
        self.data: list[bytes] = []
        self._heads: dict[str, Previous] = {}
        self._positions: dict[str, int] = {}

    def add(self, trail: str, kind: Kind = "event", name: str = "", **detail: object) -> None:
        facts: dict[str, Any] = (
            {"facts": msgspec.Raw(encode_facts(Facts(digest="0" * 64, name=name)))} if kind == "event" else {}
        )
        position = self._positions.get(trail, -1) + 1
        data = encode_entry(
            Entry(
                v=1,
                trail=trail,
                position=position,
                previous=self._heads.get(trail),
                kind=kind,
                recorded=format_time(len(self.data) * 1_000_000_000),
                detail=detail,
                **facts,
            )
        )
        self._positions[trail] = position
        self._heads[trail] = Previous(leaf=len(self.data), hash=leaf_hash(data).hex())
        self.data.append(data)

    def entries(self, start: int, end: int) -> Sequence[bytes]:
        return self.data[start:end]

    def leaf_hash(self, index: int) -> bytes:
        return leaf_hash(self.data[index])

    def head(self, trail: str) -> Head:
        entries = [decode_entry(data) for data in self.data]
        leaves = [leaf for leaf, entry in enumerate(entries) if entry.trail == trail]
        links = sum(entries[leaf].kind == "link" for leaf in leaves)
        return Head(len(leaves) - 1, leaves[-1], self.leaf_hash(leaves[-1]), links)


def small_log() -> Log:
    log = Log()
    for number in range(40):
        log.add(f"transaction/{number % 7}", name="a" if number < 7 else "x")
        log.add(f"transaction/{number % 7}", "link", to=f"key/k/{number}")
        log.add(f"key/k/{number}", "link", to=f"transaction/{number % 7}")
    return log


def check(state: State, log: Log) -> None:
    assert state.leaves == len(log.data)
    assert state.recorded_ns == (len(log.data) - 1) * 1_000_000_000
    for trail in {decode_entry(data).trail for data in log.data}:
        assert state.head(trail) == log.head(trail)
    assert state.head("transaction/none") is None
    for number in range(40):
        assert state.linked(f"transaction/{number % 7}", f"key/k/{number}")
        assert state.linked(f"key/k/{number}", f"transaction/{number % 7}")
        assert not state.linked(f"transaction/{(number + 1) % 7}", f"key/k/{number}")
    for number in range(7):
        assert state.flows.progress_of(f"transaction/{number}", "f") is not None


def open_state(folder: Path, log: Log, size: int, **options: object) -> State:
    return State.open(folder, log, size, flows=lambda cold: FlowTracker(cold, [FLOW]), **options)  # type: ignore[arg-type]


@settings(max_examples=30)
@given(st.lists(st.integers(0, 120), max_size=4), st.booleans(), st.integers(1, 50))
def test_opened_at_any_size_closed_or_killed_it_is_what_the_log_says(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[int], clean: bool, hot: int
) -> None:
    folder = tmp_path_factory.mktemp("state")
    log = small_log()
    for size in [*sorted(sizes), len(log.data)]:
        state = open_state(folder, log, size, hot_trails=hot)
        if size == len(log.data):
            check(state, log)
        if clean:
            state.close()
        else:
            state.discard()
    state = open_state(folder, log, len(log.data), hot_trails=hot)
    check(state, log)
    state.close()


def test_after_a_clean_close_nothing_is_replayed(tmp_path: Path) -> None:
    log = small_log()
    open_state(tmp_path, log, len(log.data)).close()
    replayed: list[int] = []
    state = open_state(tmp_path, log, len(log.data), progress=lambda done, _: replayed.append(done))
    assert replayed == []
    check(state, log)
    state.close()


def test_ahead_of_the_log_of_another_log_or_of_other_settings_it_is_made_anew(tmp_path: Path) -> None:
    log = small_log()
    open_state(tmp_path, log, len(log.data)).close()
    shorter = Log()
    for number in range(3):
        shorter.add(f"transaction/{number}")
    state = open_state(tmp_path, shorter, 3)
    assert state.leaves == 3
    assert state.head("key/k/1") is None
    assert not state.linked("transaction/1", "key/k/1")
    state.close()
    other = Log()
    for number in range(5):
        other.add(f"trace/{number:032x}")
    state = open_state(tmp_path, other, 5)
    assert state.head("transaction/0") is None
    state.close()
    seen: list[int] = []
    open_state(tmp_path, other, 5, fingerprint="new", progress=lambda done, _: seen.append(done)).close()
    assert seen == [5]


@pytest.mark.parametrize("damage", ["truncate", "cut after its first pages", "scribble", "remove"])
def test_a_damaged_file_is_made_anew(tmp_path: Path, damage: str) -> None:
    log = small_log()
    open_state(tmp_path / "state", log, len(log.data)).close()
    file = tmp_path / "state" / "data.mdb"
    if damage == "truncate":
        file.write_bytes(file.read_bytes()[:100])
    elif damage == "cut after its first pages":
        file.write_bytes(file.read_bytes()[:8_192])
    elif damage == "scribble":
        file.write_bytes(b"\xff" * file.stat().st_size)
    else:
        file.unlink()
    state = open_state(tmp_path / "state", log, len(log.data))
    check(state, log)
    state.close()


def test_what_was_never_published_is_not_there_after_a_discard(tmp_path: Path) -> None:
    log = small_log()
    state = open_state(tmp_path, log, len(log.data))
    log.add("transaction/unpublished")
    state.replay(decode_entry(log.data[-1]), log.leaf_hash(len(log.data) - 1))
    assert state.head("transaction/unpublished") is not None
    state.discard()
    log.data.pop()
    state = open_state(tmp_path, log, len(log.data))
    assert state.head("transaction/unpublished") is None
    check(state, log)
    state.close()


def test_a_log_whose_positions_do_not_follow_is_refused(tmp_path: Path) -> None:
    log = small_log()
    del log.data[30]
    with pytest.raises(StateUnknown, match="position"):
        open_state(tmp_path, log, len(log.data))


def test_memory_stays_bounded_and_the_rest_is_found_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state_module, "FLUSH_LEAVES", 64)
    log = Log()
    for number in range(5_000):
        log.add(f"transaction/{number}")
    state = open_state(tmp_path, log, 0, hot_trails=64)
    for leaf, data in enumerate(log.data):
        state.replay(decode_entry(data), log.leaf_hash(leaf))
        if leaf % 50 == 49:
            state.commit(log.leaf_hash(leaf))
    assert len(state._heads.young) + len(state._heads._old) <= 4 * 64
    for number in range(0, 5_000, 97):
        assert state.head(f"transaction/{number}") == Head(0, number, log.leaf_hash(number), 0)
    state.close()


def test_deadlines_survive_a_restart_and_come_once(tmp_path: Path) -> None:
    log = Log()
    for number in range(20):
        log.add(f"transaction/{number}", name="a")  # recorded at `number` seconds, deadline 10 seconds later
    state = open_state(tmp_path, log, 10)
    assert [trail for trail, _ in state.flows.verdicts(9 * 10**9)] == []
    state.close()
    state = open_state(tmp_path, log, 20)
    first = dict(state.flows.verdicts(15 * 10**9))
    assert sorted(first) == sorted(f"transaction/{number}" for number in range(6))
    assert {v.verdict for v in first.values()} == {"incomplete"}
    assert {v.missing for v in first.values()} == {("b",)}
    assert dict(state.flows.verdicts(15 * 10**9)) == {}
    rest = dict(state.flows.verdicts(60 * 10**9))
    assert len(rest) == 14
    state.close()


def test_the_cold_store_gives_items_in_order(tmp_path: Path) -> None:
    cold = ColdState(tmp_path)
    cold.write([(b"b2", b"2"), (b"a", b"0")], [(b"b1", b"1"), (b"c", b"3")])
    assert list(cold.items(b"b")) == [(b"b1", b"1"), (b"b2", b"2")]
    assert cold.between(b"b", b"b1", 10) == [(b"b1", b"1")]
    assert cold.between(b"a", b"z", 2) == [(b"a", b"0"), (b"b1", b"1")]
    cold.write([], [(b"b1", b"4")], removed=[b"b1", b"c"])  # a timer that fires, and is set again to the same moment
    assert (cold.get(b"b1"), cold.get(b"c")) == (b"4", None)
    cold.write([], removed=[b"b1"])
    assert cold.get(b"b1") is None
    cold.close()


@pytest.mark.parametrize("count", [0, 1, 4_095, 4_096, 4_097, 20_000])
def test_which_heads_there_are_is_read_again_slice_by_slice(tmp_path: Path, count: int) -> None:
    heads = [(key_of(b"h", str(number)), b"%d" % number) for number in range(count)]
    cold = ColdState(tmp_path)
    cold.write(heads[: count // 2])
    cold.write(heads[count // 2 :], [(b"s", b"no head")])
    cold.close()
    cold = ColdState(tmp_path)
    assert [cold.get(key) for key, _ in heads] == [value for _, value in heads]
    assert list(cold.items(b"h")) == sorted(heads)
    assert sum(key_of(b"h", f"none {number}") in cold._known for number in range(1_000)) < 20, "it spares looks"
    cold.close()


@settings(max_examples=30)
@given(st.integers(0, 119), st.integers(1, 119))
def test_a_flush_that_a_crash_cut_off_does_no_harm(
    tmp_path_factory: pytest.TempPathFactory, flushed: int, more: int
) -> None:
    """Heads and links are on disk, streams, flows and the number of leaves are not."""
    folder = tmp_path_factory.mktemp("state")
    log = small_log()
    open_state(folder, log, flushed).close()
    state = open_state(folder, log, min(flushed + more, 120))
    state._cold.write([*state._heads.changed(), *state._links.changed()])
    state.discard()
    state = open_state(folder, log, len(log.data))
    check(state, log)
    state.close()


def test_a_head_that_the_disk_changed_is_noticed_and_the_state_made_anew(tmp_path: Path) -> None:
    log = small_log()
    open_state(tmp_path, log, len(log.data)).close()
    file = tmp_path / "data.mdb"
    head = log.head("transaction/3")
    raw = bytearray(file.read_bytes())
    at = raw.find(head.hash)
    while at >= 0:  # in old pages too
        raw[at] ^= 1
        at = raw.find(head.hash)
    file.write_bytes(raw)
    state = open_state(tmp_path, log, len(log.data))
    with pytest.raises(StateUnknown, match="made anew"):
        state.head("transaction/3")
    state.discard()
    state = open_state(tmp_path, log, len(log.data))
    check(state, log)
    state.close()
