"""Who writes the joint statement: any shard's correlator, in any order, and never a smaller tree."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from correlator.derived import placement_of
from correlator.errors import Conflict, Overloaded, VerificationError
from correlator.log import AuditLog
from correlator.note import Signer
from correlator.settings import CorrelatorSettings
from correlator.shards import Shard
from correlator.statement import Statement, open_statement, sign_statement
from correlator.statementwriter import StatementWriter
from correlator.storage import LogStorage
from correlator.storage.memory import MemoryStorage
from tests.support.correlating import SIGNER
from tests.support.shipper import LEDGER, START_NS, key_of

COUNT = 3
RULES = placement_of(CorrelatorSettings())


class Root:
    """A ledger's root and its shards' logs, in memory."""

    def __init__(self, count: int = COUNT) -> None:
        self.root = MemoryStorage()
        self.pauses: list[float] = []
        self.logs: dict[Shard, LogStorage] = {
            Shard(number=number, count=count): MemoryStorage() for number in range(1, count + 1)
        }

    def writer(self) -> StatementWriter:
        return StatementWriter(self.root, self.logs, SIGNER, placement=RULES, pause=self.pauses.append)

    def append(self, number: int, *entries: bytes) -> None:
        """One shard's correlator publishes, and ends."""
        shard = Shard(number=number, count=len(self.logs))
        signer = SIGNER.named(shard.origin(LEDGER))
        log = AuditLog.open(self.logs[shard], signer, clock=lambda: START_NS, writer_id="test")
        log.append(list(entries))
        log.publish()
        log.close()

    def standing(self) -> Statement:
        raw = self.root.read_head()
        assert raw is not None
        return open_statement(raw, SIGNER.verifier)

    def sizes(self) -> list[int]:
        return [tree.size for tree in self.standing().trees]


def test_it_begins_with_no_leaves_and_follows_what_is_published() -> None:
    world = Root()
    writer = world.writer()
    assert writer.begin() == Statement.empty(LEDGER, RULES, COUNT)
    assert not writer.look(), "nothing was published"
    world.append(2, b"a", b"b")
    assert writer.look()
    assert world.sizes() == [0, 2, 0]
    assert not writer.look(), "the same again is not written"
    world.append(2, b"c")
    world.append(3, b"d")
    other = world.writer()  # of another process, which knows nothing of the first
    assert other.begin() == world.standing()
    assert other.look()
    assert world.sizes() == [0, 3, 1]
    assert not writer.look()


def test_every_number_of_shards_but_the_first_is_refused() -> None:
    world = Root()
    world.writer().begin()
    other = Root(2)
    other.root = world.root
    with pytest.raises(Conflict, match="cut into 3 shards, not 2"):
        other.writer().begin()
    whole = Root()
    AuditLog.open(whole.root, SIGNER, clock=lambda: START_NS, writer_id="test").close()
    with pytest.raises(Conflict, match="not cut"):
        whole.writer().begin()
    with pytest.raises(VerificationError, match="head is malformed"):
        AuditLog.open(world.root, SIGNER, clock=lambda: START_NS, writer_id="test")


def test_another_key_does_not_go_on_with_it() -> None:
    """As a machine would that was started without a copy of the ledger's key, and made one of its own."""
    world = Root()
    world.writer().begin()
    stranger = Signer(name=LEDGER, private_key=key_of(7))
    with pytest.raises(VerificationError, match="not signed by"):
        StatementWriter(world.root, world.logs, stranger, placement=RULES).begin()


@pytest.mark.parametrize(
    "rules", [CorrelatorSettings(key_order=("order_id",)), CorrelatorSettings(recorders=("api", "other"))]
)
def test_shards_that_place_by_other_rules_do_not_begin(rules: CorrelatorSettings) -> None:
    """Else one would leave an event to another, which has left it to the first."""
    world = Root()
    world.writer().begin()
    with pytest.raises(Conflict, match="key_order or"):
        StatementWriter(world.root, world.logs, SIGNER, placement=placement_of(rules)).begin()
    same = CorrelatorSettings(recorders=("api",), hub_links=7, step_entries=5)
    StatementWriter(world.root, world.logs, SIGNER, placement=placement_of(same)).begin()


def test_a_statement_that_is_gone_is_not_begun_anew() -> None:
    world = Root()
    world.writer().begin()
    world.append(1, b"a")
    world.root = MemoryStorage()
    with pytest.raises(VerificationError, match="gone"):
        world.writer().begin()
    with pytest.raises(VerificationError, match="gone"):
        world.writer().look()


def test_a_statement_that_was_changed_is_not_built_upon() -> None:
    world = Root()
    world.writer().begin()
    raw = world.root.read_head()
    assert raw is not None
    world.root.swap_head(raw, raw.replace(b" 0 ", b" 9 ", 1))
    with pytest.raises(VerificationError):
        world.writer().begin()
    with pytest.raises(VerificationError):
        world.writer().look()


def rolled_back(world: Root) -> None:
    world.logs[Shard(number=1, count=COUNT)] = MemoryStorage()
    world.append(1, b"a")


def forked(world: Root) -> None:
    world.logs[Shard(number=1, count=COUNT)] = MemoryStorage()
    world.append(1, b"a", b"B", b"c")


def lost(world: Root) -> None:
    world.logs[Shard(number=1, count=COUNT)] = MemoryStorage()


@pytest.mark.parametrize(("harm", "said"), [(rolled_back, "rolled back"), (forked, "forked"), (lost, "no checkpoint")])
def test_a_log_that_does_not_go_on_keeps_its_old_tree_and_the_others_go_on(
    harm: Callable[[Root], None], said: str, caplog: pytest.LogCaptureFixture
) -> None:
    world = Root()
    world.writer().begin()
    world.append(1, b"a", b"b")
    world.writer().look()
    tree = world.standing().trees[0]
    harm(world)
    world.append(3, b"d")
    writer = world.writer()
    assert writer.look()
    assert world.standing().trees[0] == tree
    assert world.sizes() == [2, 0, 1]
    assert said in str(caplog.records[-1].__dict__["reason"])
    assert writer.metrics.registry.get_sample_value("tally_correlator_statement_refused_shards") == 1
    told = len(caplog.records)
    assert not writer.look()
    assert len(caplog.records) == told, "it is told once"


class Slow(MemoryStorage):
    """A root at which somebody else is always a moment faster."""

    def __init__(self) -> None:
        super().__init__()
        self.first: Callable[[], object] = lambda: None

    def swap_head(self, old: bytes | None, new: bytes) -> None:
        first, self.first = self.first, lambda: None
        first()
        super().swap_head(old, new)


def test_of_two_at_once_one_is_refused_and_covers_the_rest_later() -> None:
    world = Root()
    slow = world.root = Slow()
    one, two = world.writer(), world.writer()
    slow.first = two.begin
    assert one.begin() == Statement.empty(LEDGER, RULES, COUNT)
    world.append(1, b"a")

    def faster() -> None:
        world.append(2, b"b")
        two.look()

    slow.first = faster
    with pytest.raises(Conflict):
        one.look()
    assert world.sizes() == [1, 1, 0]
    world.append(3, b"c")
    one.look_quietly()
    assert world.sizes() == [1, 1, 1]


class Busy(MemoryStorage):
    """A root whose lock another process holds for the next so many swaps."""

    busy = 0

    def swap_head(self, old: bytes | None, new: bytes) -> None:
        if self.busy:
            self.busy -= 1
            raise Overloaded("another process is swapping the head", retry_after_seconds=0.1)
        super().swap_head(old, new)


def test_several_that_start_or_look_at_once_wait_for_their_turn() -> None:
    world = Root()
    busy = world.root = Busy()
    busy.busy = 3
    assert world.writer().begin() == Statement.empty(LEDGER, RULES, COUNT)
    assert len(world.pauses) == 3
    world.append(1, b"a")
    busy.busy = 3
    writer = world.writer()
    writer.look_quietly()
    assert world.sizes() == [1, 0, 0]
    assert writer.metrics.registry.get_sample_value("tally_correlator_statement_failures_total") == 0
    busy.busy = 1_000
    world.append(2, b"b")
    writer.look_quietly()
    assert writer.metrics.registry.get_sample_value("tally_correlator_statement_failures_total") == 1
    fresh = Root()
    stuck = fresh.root = Busy()
    stuck.busy = 1_000
    with pytest.raises(Overloaded):
        fresh.writer().begin()


class Down(MemoryStorage):
    """A root that does not answer while `down`."""

    down = False

    def read_head(self) -> bytes | None:
        if self.down:
            raise Overloaded("the disk is full")
        return super().read_head()


def test_it_goes_on_through_what_fails_and_covers_everything_in_the_end() -> None:
    world = Root()
    down = world.root = Down()
    writer = world.writer()
    writer.begin()
    world.append(1, b"a")
    down.down = True
    writer.look_quietly()
    down.down = False
    assert writer.metrics.registry.get_sample_value("tally_correlator_statement_failures_total") == 1
    assert world.sizes() == [0, 0, 0]
    stop = threading.Event()
    stop.set()
    writer.run(stop, every_seconds=3_600)
    assert world.sizes() == [1, 0, 0]


def test_an_old_statement_put_back_is_caught_up_with() -> None:
    """It is signed, so only who remembers a newer one sees it; what is written after it is true all the same."""
    world = Root()
    world.writer().begin()
    world.append(1, b"a", b"b")
    world.writer().look()
    newer, raw = world.standing(), world.root.read_head()
    assert raw is not None
    world.root.swap_head(raw, sign_statement(Statement.empty(LEDGER, RULES, COUNT), SIGNER))
    with pytest.raises(VerificationError, match="rolled back"):
        world.standing().check_follows(newer)
    world.writer().look()
    world.standing().check_follows(newer)
