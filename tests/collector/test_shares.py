"""Shares of the spool: what a flood leaves, to whom, and that it is given back."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collector.errors import Overloaded, TooLarge
from collector.group import Group
from collector.sender import OURSELVES, Sender
from collector.spool import Spool, SpoolLimits
from tests.collector.test_spool import Ids, Told
from tests.support.faulty_disk import FaultyDisk

LIMITS = SpoolLimits(total_bytes=100_000, shared_bytes=20_000, ways=2, segment_bytes=10_000)
FLOOD, QUIET, OTLP = Sender("forward", 1), Sender("forward", 2), Sender("http", 1)


def opened(disk: FaultyDisk | None = None, limits: SpoolLimits = LIMITS) -> Spool:
    return Spool(Path("spool"), disk=disk or FaultyDisk(), journal=Ids(), limits=limits)


def put(spool: Spool, sender: Sender, size_bytes: int = 500, *, group_id: bytes = b"") -> Told:
    told = Told()
    group = Group(
        group_id=group_id, source_ids=[b""], events=[b"e" * (size_bytes - 10)], facts=[b"f" * 10], sender=sender
    )
    spool.append(group, told)
    spool.commit_pending()
    return told


def fill(spool: Spool, *senders: Sender, size_bytes: int = 500) -> None:
    """All of them send until each is told to wait."""
    left = list(senders)
    while left:
        for sender in list(left):
            try:
                put(spool, sender, size_bytes)
            except Overloaded:
                left.remove(sender)


def test_a_flood_leaves_the_other_ways_in_their_part_and_quiet_connections_of_its_own_way_room() -> None:
    spool = opened()
    fill(spool, FLOOD)
    assert 79_000 <= spool.size_bytes <= 80_500, "all but what is shared out"
    with pytest.raises(Overloaded, match="the rest is for who holds less"):
        put(spool, FLOOD)
    for sender in (QUIET, OTLP, QUIET):
        assert put(spool, sender).stored == 1
    assert spool.refusals.now, "the flood is still refused, whoever else is taken from"
    fill(spool, OTLP)
    assert 4_500 <= spool.shares.held_bytes("http") <= 5_500, "one connection has half of its way's part of 10,000"
    fill(spool, *(Sender("http", at) for at in range(2, 20)))
    assert spool.shares.held_bytes("http") >= 9_000
    assert put(spool, QUIET).stored == 1, "the part of one way is not the other's"


def test_a_flood_of_many_connections_takes_its_own_part_and_no_other() -> None:
    spool = opened()
    fill(spool, *(Sender("forward", at) for at in range(64)))
    assert spool.shares.held_bytes("forward") <= 90_000
    fill(spool, *(Sender("http", at) for at in range(64)))
    assert spool.shares.held_bytes("http") >= 9_000
    assert spool.size_bytes + 500 <= LIMITS.total_bytes + 64 * 64, "frames have a few bytes of their own"


def test_while_there_is_room_nobody_is_held_back_and_what_is_shipped_is_given_back() -> None:
    spool = opened()
    fill(spool, FLOOD)
    spool.release(spool.next_sequence - 1)
    assert spool.shares.held_bytes("forward") < 20_000
    assert put(spool, FLOOD).stored == 1
    assert spool.refusals.now == "", "everybody is taken from"
    fill(spool, FLOOD, QUIET, OTLP)
    put(spool, OURSELVES)
    spool.release(spool.next_sequence - 1)
    spool.limits = SpoolLimits(total_bytes=1, segment_bytes=10_000)
    assert spool.shares.held_bytes("forward") + spool.shares.held_bytes("http") <= 10_500, "the last segment's"


def test_re_sends_count_once_and_what_could_not_be_written_not_at_all() -> None:
    journal = Ids()
    spool = Spool(Path("spool"), disk=FaultyDisk(), journal=journal, limits=LIMITS)
    for _ in range(3):
        put(spool, FLOOD, group_id=b"same")
    assert spool.shares.held_bytes("forward") == 500
    journal.fails = True
    assert isinstance(put(spool, FLOOD).outcome, Overloaded)
    assert spool.shares.held_bytes("forward") == 500


def test_of_a_re_send_under_another_name_only_the_name_counts() -> None:
    spool = opened()
    for at in range(5):  # a window of Beats has a name of its connection
        group = Group(
            group_id=b"window %d" % at, source_ids=[b"event"], events=[b"e" * 490], facts=[b"f" * 10], sender=FLOOD
        )
        spool.append(group, Told())
        spool.commit_pending()
    assert spool.shares.held_bytes("forward") <= spool.size_bytes < 1_000


def test_what_was_there_at_the_start_is_nobodys_and_the_rest_is_shared() -> None:
    disk = FaultyDisk()
    spool = opened(disk)
    fill(spool, FLOOD)
    spool.close()
    again = opened(disk)
    assert again.shares.held_bytes("forward") == 0
    fill(again, FLOOD)
    assert put(again, OTLP).stored == 1


def test_a_group_longer_than_what_anybody_may_fill_is_too_large_and_one_of_just_that_size_is_taken() -> None:
    spool = opened()
    with pytest.raises(TooLarge, match=r"80001 bytes .* the 80000 that"):
        put(spool, FLOOD, 80_001)
    assert put(spool, FLOOD, 80_000).stored == 1


@given(
    st.lists(
        st.tuples(st.integers(0, 2), st.integers(0, 5), st.integers(20, 9_000), st.booleans()), min_size=1, max_size=200
    )
)
def test_no_order_of_senders_takes_away_the_part_of_a_way_that_has_sent_nothing(
    story: list[tuple[int, int, int, bool]],
) -> None:
    ways = ("forward", "beats", "syslog")
    limits = SpoolLimits(total_bytes=100_000, shared_bytes=40_000, ways=4, segment_bytes=10_000)
    spool = opened(limits=limits)
    for way, connection, size_bytes, ships in story:
        try:
            put(spool, Sender(ways[way], connection), size_bytes)
        except Overloaded:
            if ships:
                spool.release(spool.next_sequence)
    assert put(spool, Sender("http", 1), 4_500).stored == 1
