"""A collector that ships to another one: nothing acknowledged is lost, nothing is there twice, and an event stays what it was."""

from __future__ import annotations

import asyncio
import gzip
import json
import tracemalloc
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import msgpack
import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from collector.batch import Batch, EventRef, StreamId, open_header
from collector.errors import Overloaded, StateUnknown
from collector.event import Event, Origin, Scope, Span, decode_event, encode_event
from collector.pipeline import Pipeline, PipelineLimits
from collector.receive import Arrival
from collector.receive.forward_group import Group as Received
from collector.receive.forward_message import MessageReader
from collector.receive.json_lines import arrival_of_line
from collector.relay import Relay, _chunks, relays
from collector.settings import CollectorSettings, ForwardSettings, HttpSettings, RelaySettings, ShipSettings
from collector.ship import BatchLimits
from collector.sidecar import run_sidecar
from collector.spool import Group, Spooled, SpoolLimits
from tests.servers.certificates import Authority
from tests.support.faulty_disk import Crashed, Fate, FaultyDisk
from tests.support.memory_intake import MemoryIntake
from tests.support.memory_store import MemoryStore

ROOT = Path("spool")
KEY = Ed25519PrivateKey.from_private_bytes(b"k" * 32)
NOW_NS = 1_700_000_000_000_000_000


class Upstream:
    """An upstream without sockets: what is sent is read by our own reader, into an intake that tells re-sends.

    Attributes:
        crash_at, after: it dies in its n-th chunk, before the upstream has it or after: the ack is lost.
        chunks: each chunk's id, as often as it was sent.
    """

    def __init__(self) -> None:
        self.intake = MemoryIntake()
        self.chunks: list[str] = []
        self.crash_at: int | None = None
        self.after = False
        self.down = False

    def send_packed(
        self, tag: str, packed: bytes, *, count: int, chunk: str, option: Mapping[str, Any] | None = None
    ) -> None:
        if self.down:
            raise Overloaded("down")
        self.chunks.append(chunk)
        dying = len(self.chunks) == self.crash_at
        if dying and not self.after:
            raise Crashed("before the upstream has it")
        message = msgpack.packb([tag, packed, {"chunk": chunk, "size": count, **(option or {})}])
        (group,) = read(message)
        assert group.refused == []
        asyncio.run(self.intake.accept(group.arrivals, group_id=group.group_id))
        if dying:
            self.crash_at = None
            raise Crashed("after the upstream has it")

    def close(self) -> None: ...


def read(message: bytes) -> list[Received]:
    return list(MessageReader(clock=lambda: NOW_NS, service="upstream's own").groups(message))


# ------------------------------------------------------------------------------------------------------ the crash table
GROUPS = 5
LIMITS = PipelineLimits(
    spool=SpoolLimits(segment_bytes=400, reserve_bytes=500),
    batch=BatchLimits(events=4, heartbeat_seconds=0),
    journal_ids=1_000,
)


class Ids:
    """Ids in memory, and those that a flush made durable: only they live through a crash."""

    def __init__(self, durable: set[bytes]) -> None:
        self.durable = durable
        self.recent: set[bytes] = set()

    def known(self, source_ids: Iterable[bytes]) -> set[bytes]:
        return {one for one in source_ids if one and (one in self.recent or one in self.durable)}

    def add(self, source_ids: Iterable[bytes]) -> None:
        self.recent.update(one for one in source_ids if one)

    def flush(self) -> None:
        self.durable |= self.recent

    def flush_soon(self) -> None:
        self.flush()

    def forget(self) -> None:
        self.durable.clear()
        self.recent.clear()


class World:
    """What outlives a process of the edge: its disk, its journal, the upstream, and what senders were told."""

    def __init__(self, disk: FaultyDisk) -> None:
        self.disk = disk
        self.upstream = Upstream()
        self.durable_ids: set[bytes] = set()
        self.acknowledged: set[int] = set()
        self.lives = 0
        self.clock_ns = NOW_NS

    def clock(self) -> int:
        self.clock_ns += 1_000_000_000
        return self.clock_ns

    def pipeline(self) -> Pipeline:
        self.lives += 1
        return Pipeline(
            ROOT,
            collector="edge",
            ledger="test/ledger",
            store=Relay(self.upstream, root=ROOT, disk=self.disk, tag="edge"),
            key=KEY,
            limits=LIMITS,
            disk=self.disk,
            journal=Ids(self.durable_ids),
            clock=self.clock,
            random_bytes=lambda count: bytes([self.lives]) * count,
        )


def send(world: World, pipeline: Pipeline, number: int) -> None:
    def done(outcome: Spooled | Exception) -> None:
        assert isinstance(outcome, Spooled), outcome
        world.acknowledged.add(number)

    events = [b'{"body":"%d.%d"}' % (number, at) for at in range(3)]
    facts = [b'{"digest":"%d.%d"}' % (number, at) for at in range(3)]
    pipeline.append(Group(group_id=b"g%d" % number, source_ids=[b""] * 3, events=events, facts=facts), done)


def ship(pipeline: Pipeline) -> None:
    while pipeline.ship_once():
        pipeline.release_once()


def work(world: World) -> None:
    pipeline = world.pipeline()
    for number in range(GROUPS):
        send(world, pipeline, number)
        pipeline.commit_once()
        if number in (1, 3):
            ship(pipeline)
    ship(pipeline)
    assert pipeline.drained() or pipeline.ship_once()
    pipeline.stop(drain_seconds=0.0)


def recover(world: World) -> None:
    """The next process: every sender that has heard nothing sends again, and all of it is shipped."""
    pipeline = world.pipeline()
    for number in range(GROUPS):
        if number not in world.acknowledged:
            send(world, pipeline, number)
    pipeline.commit_once()
    ship(pipeline)
    assert pipeline.state().damaged == ()
    assert pipeline.waiting_events() == 0
    pipeline.stop(drain_seconds=0.0)
    assert world.acknowledged == set(range(GROUPS))
    bodies = [event.body for event in world.upstream.intake.events]
    assert sorted(bodies) == sorted(f"{number}.{at}" for number in range(GROUPS) for at in range(3))


def changes_of_a_whole_life() -> int:
    world = World(FaultyDisk())
    work(world)
    recover(world)
    return len(world.disk.changes)


@pytest.mark.parametrize("fate", [Fate.LOST, Fate.KEPT])  # bytes torn and reordered are tests/collector/test_crash.py's
def test_a_crash_at_any_change_of_the_disk_loses_nothing_and_doubles_nothing(fate: Fate) -> None:
    for crash_at in range(1, changes_of_a_whole_life() + 1):
        for after in (False, True):
            world = World(FaultyDisk(crash_at=crash_at, after=after))
            try:
                work(world)
            except Crashed:
                pass
            world.disk = world.disk.after_crash(fate)
            recover(world)


@pytest.mark.parametrize("after", [False, True])
def test_a_crash_around_any_ack_of_the_upstream_loses_nothing_and_doubles_nothing(after: bool) -> None:
    again = 0
    for crash_at in range(1, 20):
        world = World(FaultyDisk())
        world.upstream.crash_at, world.upstream.after = crash_at, after
        try:
            work(world)
        except Crashed:
            pass
        else:
            continue  # there are fewer chunks
        world.disk = world.disk.after_crash(Fate.LOST)
        recover(world)
        again += len(world.upstream.chunks) - len(set(world.upstream.chunks))
    assert again > 2  # the same chunks were sent again, under the same ids


def test_what_the_upstream_has_is_let_go_of_and_what_it_has_not_is_kept() -> None:
    world = World(FaultyDisk())
    pipeline = world.pipeline()
    for number in range(GROUPS):
        send(world, pipeline, number)
        pipeline.commit_once()
    world.upstream.down = True
    with pytest.raises(Overloaded):
        pipeline.ship_once()
    pipeline.release_once()
    full = pipeline.state()
    assert (full.waiting_events, full.acknowledged_number) == (15, 0)
    world.upstream.down = False
    ship(pipeline)
    empty = pipeline.state()
    assert empty.waiting_events == 0
    assert empty.acknowledged_number == empty.shipped_number > 0
    assert empty.spool_bytes < full.spool_bytes
    pipeline.stop(drain_seconds=0.0)


def test_a_frontier_that_does_not_read_stops_it() -> None:
    disk = FaultyDisk()
    Relay(Upstream(), root=ROOT, disk=disk, tag="edge")
    disk.write_new(ROOT / "upstream" / "frontier.json", b'{"edge/1":5}')
    with pytest.raises(StateUnknown, match="cannot be read"):
        Relay(Upstream(), root=ROOT, disk=disk, tag="edge")


# ------------------------------------------------------------------------------------------------- an event on its way
WHOLE = Event(
    time="2026-01-01T10:00:00.000000001Z",
    observed="2026-01-01T10:00:01.000000000Z",
    severity_number=9,
    severity_text="INFO",
    event_name="paid",
    body={"big": 1e300, "small": 2**53 - 1, "text": "é"},
    attributes={"n": 1, "deep": {"list": [1.5, None, True]}},
    resource={"service.name": "payments"},
    scope=Scope(name="lib", version="1", attributes={"a": 1}),
    trace_id="0af7651916cd43dd8448eb211c80319c",
    span_id="b7ad6b7169203331",
    trace_flags=1,
    span=Span(name="POST /pay", kind="SERVER", end="2026-01-01T10:00:02.000000000Z", events=[{"name": "e"}]),
    transaction="pay-1",
    tenant="t",
    keys={"order": "o-1"},
    actor="ann",
    outcome="success",
    origin=Origin(receiver="otlp", peer="certificate:x"),
    marks=["card_masked"],
)


def entry_of(data: bytes, name: str = "edge/0/1") -> bytes:
    return msgspec.msgpack.encode([0, {"event": name, "bytes": data}])


def arrived(event: Event) -> Arrival:
    """The event as the upstream takes it, with its id."""
    data, _ = encode_event(event, exact=True)
    entry = entry_of(data, "edge/0123456789abcdef/7")
    (group,) = read(msgpack.packb(["edge", entry, {"chunk": "c", "size": 1, "tallystick": "canonical"}]))
    assert group.refused == []
    (arrival,) = group.arrivals
    return arrival


def through(event: Event) -> Event:
    """The event as the upstream takes it."""
    return arrived(event).event


def test_an_event_stays_what_it_was_and_says_how_it_came() -> None:
    taken = through(WHOLE)
    relay = {
        "event": "edge/0123456789abcdef/7",
        "observed": WHOLE.observed,
        "origin": {"receiver": "otlp", "peer": "certificate:x"},
        "marks": ["card_masked"],
    }
    expected = msgspec.structs.replace(
        WHOLE,
        observed="2023-11-14T22:13:20.000000000Z",
        origin=Origin(receiver="forward", tag="edge"),
        marks=[],
        attributes={**WHOLE.attributes, "relay": relay},
    )
    assert taken == expected
    assert isinstance(taken.body["big"], float)


def test_a_span_keeps_its_id_on_every_hop() -> None:
    """So that one that comes by two ways, as it is and relayed, is recognised."""
    assert WHOLE.span is not None
    line = {"time": WHOLE.time, "trace_id": WHOLE.trace_id, "span_id": WHOLE.span_id, "span": WHOLE.span}
    first = arrival_of_line(msgspec.json.encode(line), origin=Origin())
    second = arrived(first.event)
    assert (first.source_id, arrived(second.event).source_id) == (second.source_id,) * 2
    client = msgspec.structs.replace(WHOLE, span=msgspec.structs.replace(WHOLE.span, kind="CLIENT"))
    assert arrived(client).source_id != second.source_id


def test_a_second_hop_keeps_the_first() -> None:
    first = through(WHOLE)
    second = through(first)
    before = second.attributes["relay"].pop("before")
    assert before == first.attributes["relay"]
    assert second.attributes["relay"]["origin"] == {"receiver": "forward", "tag": "edge"}


def test_an_event_without_a_service_gets_none_from_the_upstream() -> None:
    assert through(Event(body="x")).service == ""


def batch_of(*bodies: str) -> Batch:
    events = [encode_event(Event(body=body), exact=False)[0] for body in bodies]
    store = MemoryStore()
    disk = FaultyDisk()
    pipeline = Pipeline(
        ROOT, collector="edge", ledger="l", store=store, key=KEY, limits=LIMITS, disk=disk, journal=Ids(set())
    )
    facts = [b"{}" for _ in events]
    pipeline.append(Group(group_id=b"g", source_ids=[b""] * len(events), events=events, facts=facts), lambda _: None)
    pipeline.commit_once()
    pipeline.ship_once()
    (batches,) = store.batches.values()
    return batches[1]


def test_a_long_batch_is_several_chunks_always_the_same() -> None:
    batch = batch_of("a" * 2_000_000, "b" * 2_000_000, "c" * 2_000_000, "d")
    chunks = _chunks(batch)
    assert [count for _, count in chunks] == [2, 2]
    assert chunks == _chunks(batch)
    header = open_header(batch.signed.data, batch.signed.signature)
    upstream = Upstream()
    Relay(upstream, root=ROOT, disk=FaultyDisk(), tag="edge").append(batch)
    assert upstream.chunks == [f"{header.digest}/canonical/0", f"{header.digest}/canonical/1"]
    assert len(upstream.intake.events) == 4


@pytest.mark.parametrize(
    "entry",
    [
        [0, {"event": "edge/0/1", "bytes": data}]
        for data in (
            b'{"trace_id":"short"}',
            b'{"time":"noon"}',
            b'{"unknown":1}',
            b'{"scope":{"name":"lib","unknown":1}}',
            b'{"span":{"unknown":1},"span_id":"aaaaaaaaaaaaaaaa","trace_id":"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"}',
            b'{"incident":{"id":"0","state":"opened","cause":"gap"}}',
            b'{"marks":"none"}',
            b'{"origin":[]}',
            b"[]",
            b'{"body":1e999}',
            b'{"body":"\xff"}',
            b'{"body":12345678901234567890123}',  # not as RFC 8785 writes it
            b'{"body":[9007199254740993]}',
            b'{"body":' + b"[" * 10_000 + b"]" * 10_000 + b"}",
            b"",
        )
    ]
    + [[0, {"event": "edge/0/1"}], [0, {"event": 1, "bytes": b"{}"}], [0, {"body": 1}], [0, b"{}"], [b"{}"]],
    ids=str,
)
def test_what_is_no_event_is_refused_alone(entry: Any) -> None:
    packed = msgpack.packb(entry) + entry_of(b'{"body":"good"}')
    (group,) = read(msgpack.packb(["edge", packed, {"chunk": "c", "tallystick": "canonical"}]))
    assert [arrival.event.body for arrival in group.arrivals] == ["good"]
    ((raw, error),) = group.refused
    assert raw == msgpack.packb(entry)
    assert error.label in {"bad_event", "bad_number", "bad_time"}
    assert "record 1" in str(error)


def test_of_a_chunk_of_very_many_values_none_is_decoded_behind_its_bound_and_the_others_are_taken() -> None:
    bomb = b'{"body":[' + b"[]," * (2**20 - 1) + b"[]]}"  # each empty list takes 64 bytes when it is decoded
    long = b'{"body":[' + b"[]," * (3 * 2**20) + b"[]]}"
    packed = entry_of(long) + entry_of(bomb) * 6 + entry_of(b'{"body":"good"}')
    option = {"chunk": "c", "tallystick": "canonical", "compressed": "gzip"}
    message = msgpack.packb(["edge", gzip.compress(packed, 1), option])
    tracemalloc.start()
    try:
        (group,) = read(message)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak_bytes < 300 * 2**20
    assert [len(arrival.event.body) for arrival in group.arrivals] == [2**20, len("good")]
    assert [raw for raw, _ in group.refused] == [entry_of(long)] + [entry_of(bomb)] * 5
    assert {error.label for _, error in group.refused} == {"too_large"}
    assert str(group.refused[0][1]) == "record 1: an event of more than 8388608 bytes"
    assert str(group.refused[1][1]) == "record 3: in a message of more than 4194304 values: this is behind"


def test_a_number_is_a_double_however_large_and_an_integer_however_long() -> None:
    taken = through(Event(body=[1e20, -(2.0**60), 2**53 - 1, "12345678901234567890"]))
    assert taken.body == [1e20, -(2.0**60), 2**53 - 1, "12345678901234567890"]
    assert [type(value) for value in taken.body] == [float, float, int, str]


def test_a_large_number_changes_nothing_about_how_its_event_is_read() -> None:
    # the proof of the canonical form took seconds for a few kilobytes of gzip, and of other events it was never asked
    for number, read_as in ((b"1", 1), (b"100000000000000000000", 1e20)):
        packed = entry_of(b'{ "body": [%b, "9007199254740993"] }' % number)
        (group,) = read(msgpack.packb(["edge", packed, {"tallystick": "canonical"}]))
        assert [arrival.event.body for arrival in group.arrivals] == [[read_as, "9007199254740993"]]


def test_flags_have_all_the_bits_that_sdks_set() -> None:
    # bits 8 and 9: whether the parent is remote is known, and is so
    sent = Event(trace_id="a" * 32, span_id="b" * 16, trace_flags=0x301, span=Span(name="charge"))
    assert through(sent).trace_flags == 0x301


def test_what_stood_in_the_attribute_is_kept_whatever_it_was() -> None:
    for before in ("", None, 0, "mine", {"a": 1}):
        assert through(Event(attributes={"relay": before})).attributes["relay"]["before"] == before


fields = st.sampled_from([field.name for field in msgspec.structs.fields(Event)] + ["x"])
values = st.recursive(
    st.none() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=80)
@given(
    st.lists(st.dictionaries(fields, values, max_size=4).map(json.dumps) | st.text(max_size=9), min_size=1, max_size=3),
    st.binary(max_size=5),
)
def test_whatever_is_called_an_event_is_one_or_is_refused(records: list[str], tail: bytes) -> None:
    packed = b"".join(entry_of(record.encode("utf-8", "surrogatepass")) for record in records)
    for data in (packed, packed + tail):
        (group,) = read(msgpack.packb(["t", data, {"chunk": "c", "tallystick": "canonical"}]))
        assert group.arrivals or group.refused
        if data == packed:
            assert len(group.arrivals) + len(group.refused) == len(records)


# --------------------------------------------------------------------------------------------------- two real sidecars
async def sidecar(
    settings: CollectorSettings, root: Path, store: Any, stopped: asyncio.Event
) -> tuple[asyncio.Task[bool], Mapping[str, str]]:
    ready: asyncio.Future[Mapping[str, str]] = asyncio.get_running_loop().create_future()
    task = asyncio.create_task(
        run_sidecar(
            settings,
            root=root,
            ledger="test/ledger",
            store=store,
            signing_key=KEY,
            token_key=b"t" * 32,
            stopped=stopped,
            ready=ready.set_result,
        )
    )
    return task, await ready


def test_two_sidecars_in_a_chain(tmp_path: Path) -> None:
    from collector.relay import open_relay
    from tests.support.forwarding import Sender

    authority = Authority(tmp_path / "tls")
    central_files, edge_files = authority.issue("central"), authority.issue("edge")
    (tmp_path / "key").write_text("a key of the edge\n")
    (tmp_path / "password").write_text("a password\n")
    quick = ShipSettings(heartbeat_seconds=0)

    async def life() -> MemoryStore:
        store, stop_upstream, stop_edge = MemoryStore(), asyncio.Event(), asyncio.Event()
        upstream_settings = CollectorSettings(
            name="central",
            speakers={"shop": ("certificate:edge",)},
            forward=ForwardSettings(
                port=0,
                tls_certificate=str(central_files[0]),
                tls_key=str(central_files[1]),
                tls_client_ca=str(authority.ca),
                client_key_files={"edge": str(tmp_path / "key")},
                password_files={"ann": str(tmp_path / "password")},
            ),
            http=HttpSettings(port=-1),
            ship=quick,
        )
        upstream, addresses = await sidecar(upstream_settings, tmp_path / "central", store, stop_upstream)
        port = int(addresses["forward"].rpartition(":")[2])
        relay = RelaySettings(
            host="127.0.0.1",
            port=port,
            tls_ca=str(authority.ca),
            tls_certificate=str(edge_files[0]),
            tls_key=str(edge_files[1]),
            shared_key_file=str(tmp_path / "key"),
            user="ann",
            password_file=str(tmp_path / "password"),
        )
        edge_settings = CollectorSettings(
            name="edge", ack="store", forward=ForwardSettings(port=0), http=HttpSettings(port=-1), ship=quick
        )
        destination = open_relay(relay, name="edge", root=tmp_path / "edge")
        edge, addresses = await sidecar(edge_settings, tmp_path / "edge", destination, stop_edge)
        host, _, edge_port = addresses["forward"].rpartition(":")
        sender = Sender(*await asyncio.open_connection(host, int(edge_port)))
        record = {"message": "card 4111 1111 1111 1111", "level": "info", "transaction_id": "pay-1"}
        sender.say(["shop", [[1_700_000_000, {**record, "n": n}] for n in range(20)], {"chunk": "c1"}])
        assert await sender.hear() == {"ack": "c1"}  # ack = "store": the upstream has it
        sender.writer.close()
        stop_edge.set()
        assert await edge
        destination.close()
        stop_upstream.set()
        assert await upstream
        return store

    store = asyncio.run(asyncio.wait_for(life(), 30))
    (stream,) = store.batches
    assert stream.startswith("central/")
    events = [
        decode_event(data) for data in store.events([EventRef(stream=StreamId(stream), sequence=n) for n in range(20)])
    ]
    assert [event.attributes["n"] for event in events] == list(range(20))
    event = events[7]
    assert (event.service, event.transaction, event.severity_number) == ("shop", "pay-1", 9)
    assert event.origin == Origin(receiver="forward", tag="edge", peer="certificate:edge")
    assert "4111 11** **** 1111" in event.body
    relay = event.attributes["relay"]
    assert relay["event"].startswith("edge/")
    assert relay["event"].endswith("/7")
    assert relay["marks"] == ["card:body"]
    assert relays(tmp_path / "edge")
    assert not relays(tmp_path / "central")
