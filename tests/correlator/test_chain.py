"""The template that writes an event's entry gives the bytes of the encoder; what cannot be read back is not made."""

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collector.errors import Malformed
from collector.event import Access, Event, Facts, decode_facts, encode_facts
from correlator.chain import MAX_FACTS_BYTES, Chain, read_facts
from correlator.entry import MAX_ENTRY_BYTES, decode_entry, encode_entry
from correlator.errors import VerificationError
from correlator.index import TrailQuery
from correlator.index.memory import MemoryIndex
from correlator.merkle import leaf_hash
from correlator.state import State
from correlator.stitch import Stitcher
from tests.support.shipper import START_NS, TRACE, Shipper, pay


class NoLog:
    """A log without entries."""

    def entries(self, start: int, end: int) -> list[bytes]:
        raise AssertionError(start, end)

    def leaf_hash(self, index: int) -> bytes:
        raise AssertionError(index)


text = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
events = st.builds(
    Event,
    transaction=text,
    tenant=st.sampled_from(["", "acme/ü"]),
    trace_id=st.sampled_from(["", TRACE, "bad"]),
    keys=st.dictionaries(st.sampled_from(["order", "user"]), text),
    actor=text,
    access=st.none() | st.builds(Access, principal=text, action=text),
    body=st.integers(),
)


@given(
    groups=st.lists(st.lists(events, max_size=5), min_size=1, max_size=4),
    found=st.dictionaries(st.sampled_from(["transaction", "order", "user"]), text),
    steps=st.lists(st.integers(-5, 5), min_size=4, max_size=4),
    recorder=st.booleans(),
)
def test_every_entry_is_the_encoders_and_chained(
    tmp_path_factory: pytest.TempPathFactory,
    groups: list[list[Event]],
    found: dict[str, str],
    steps: list[int],
    recorder: bool,
) -> None:
    state = State.open(tmp_path_factory.mktemp("state"), NoLog(), 0)
    shipper = Shipper()
    data: list[bytes] = []
    now_ns = START_NS
    for group, step in zip(groups, steps, strict=False):
        now_ns += step
        chain = Chain(state, Stitcher(["order"]), now_ns)
        if not data:
            role = "recorder" if recorder else "collector"
            chain.add_enrolment(stream=shipper.stream, key=shipper.public, how="configured", role=role)
        signed = shipper.batch(*group, found=found).signed
        chain.add_batch(signed, *read_facts(signed))
        data += chain.entries
        assert [leaf_hash(one) for one in chain.entries] == chain.hashes
        assert chain.events == len(group)
        for one, indexed in zip(chain.entries, chain.indexed, strict=True):
            assert encode_entry(indexed.entry) == one
            again = decode_entry(one)
            assert (again.trail, again.position, again.previous) == (
                indexed.entry.trail,
                indexed.entry.position,
                indexed.entry.previous,
            )
            assert bytes(again.facts) == bytes(indexed.entry.facts)
            if indexed.facts is not None:
                assert encode_facts(indexed.facts) == bytes(again.facts)
    heads = {leaf_hash(one).hex(): at for at, one in enumerate(data)}
    for one in data:
        previous = decode_entry(one).previous
        assert previous is None or heads[previous.hash] == previous.leaf
    state.discard()


def test_an_entry_in_a_trail_that_cannot_be_is_refused_before_it_is_made(tmp_path: Path) -> None:
    state = State.open(tmp_path, NoLog(), 0)
    chain = Chain(state, Stitcher(), START_NS)
    with pytest.raises(VerificationError, match="not the id of a stream"):
        chain.add("stream/shoP/0123456789abcdef", "gap", {"reason": "bad_signature"})
    assert (chain.entries, state.leaves) == ([], 0)
    state.discard()


def test_the_longest_facts_still_make_an_entry(tmp_path: Path) -> None:
    state = State.open(tmp_path / "state", NoLog(), 0)
    shipper = Shipper()
    room = MAX_FACTS_BYTES - len(
        encode_facts(Facts(digest="0" * 64, service="gateway", transaction="x" * 500, keys={"k": ""}))
    )
    for over in (0, 1):
        # two traces of one position each: the longest trail id with the longest previous
        event = pay("x" * 500, keys={"k": "\u0001" * ((room + over * 6) // 6)})
        signed = shipper.batch(event, event).signed
        if over:
            with pytest.raises(Malformed, match="facts of event 2 have"):
                read_facts(signed)
        else:
            chain = Chain(state, Stitcher(), START_NS)
            chain.add_batch(signed, *read_facts(signed))
            assert max(map(len, chain.entries)) <= MAX_ENTRY_BYTES
    state.discard()


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"name"', '"keys":{"\uffee":"1","\U0001f600":"2"},"name"'),
        ('"name"', '"found":{"\uffee":"1","\U0001f600":"2"},"name"'),
        ('"digest"', '"access":{"action":"read","head":9007199254740993,"principal":"ann"},"digest"'),
    ],
)
def test_facts_of_which_no_entry_could_be_read_back_are_refused(old: str, new: str) -> None:
    signed = Shipper().batch(Event(event_name="paid", body=1)).signed
    changed = replace(signed, facts=signed.facts.replace(old.encode(), new.encode(), 1))
    assert changed.facts != signed.facts
    with pytest.raises(Malformed, match="facts of event 0 are not in canonical form"):
        read_facts(changed)


@given(
    group=st.lists(events, min_size=1, max_size=3),
    at=st.integers(min_value=0),
    cut=st.integers(0, 3),
    put=st.sampled_from(
        [b"", b" ", b"\n", b"\n\n", b"\x00", b"\xff", b"{}", b'{"digest":"0"}\n', b'"a":1,', b"[" * 1_100]
    ),
)
def test_facts_are_judged_alike_all_at_once_and_line_by_line(group: list[Event], at: int, cut: int, put: bytes) -> None:
    signed = Shipper().batch(*group).signed
    at %= len(signed.facts)
    changed = replace(signed, facts=signed.facts[:at] + put + signed.facts[at + cut :])
    try:
        expected: list[Facts] | None = [decode_facts(line) for line in changed.facts_lines()]
    except Malformed:
        expected = None
    if expected is None or [encode_facts(one) for one in expected] != changed.facts_lines():
        with pytest.raises(Malformed, match="facts of "):
            read_facts(changed)
    else:
        lines, decoded = read_facts(changed)
        assert list(lines) == changed.facts_lines()
        assert list(decoded) == expected


@given(groups=st.lists(st.lists(events, max_size=6), min_size=1, max_size=3), taken=st.integers(1, 4))
def test_an_index_takes_runs_of_events_as_it_takes_each_leaf(
    tmp_path_factory: pytest.TempPathFactory, groups: list[list[Event]], taken: int
) -> None:
    state = State.open(tmp_path_factory.mktemp("state"), NoLog(), 0)
    shipper = Shipper()
    by_runs, by_leaf = MemoryIndex(), MemoryIndex()
    for number, group in enumerate(groups):
        chain = Chain(state, Stitcher(["order"]), START_NS + number)
        for part in (group[:taken], group[taken:]):
            signed = shipper.batch(*(event for event in part for _ in range(2))).signed
            chain.add_batch(signed, *read_facts(signed))
        leaves = list(chain.indexed)
        assert [chain.indexed[at] for at in (0, -1)] == [leaves[0], leaves[-1]]
        assert chain.indexed[1:] == leaves[1:]
        by_runs.apply(chain.indexed)
        by_leaf.apply(leaves)
        found = by_runs.find(TrailQuery(), size=state.leaves, limit=1_000)
        assert found == by_leaf.find(TrailQuery(), size=state.leaves, limit=1_000)
        for trail in found.trails:
            assert by_runs.leaves(trail.trail) == by_leaf.leaves(trail.trail)
    state.discard()
