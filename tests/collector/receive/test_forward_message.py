"""What Forward messages say, without sockets."""

import gzip
import struct
import sys
import tracemalloc
from collections.abc import Callable
from typing import Any

import msgpack
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from collector.errors import Malformed
from collector.event import decode_event, decode_facts
from collector.extract import Extractor, StitchSettings
from collector.prepare import Preparer
from collector.protect import Protector
from collector.receive.forward_group import Group, Limits
from collector.receive.forward_message import MessageReader
from tests.support.memory_intake import normalised

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

TIME = msgpack.ExtType(0, struct.pack(">II", 1_675_079_459, 971_622_667))
PREPARER = Preparer(
    extractor=Extractor(StitchSettings()), protector=Protector(token_key=b"k" * 32), clock=lambda: 1_700_000_000 * 10**9
)
TIME_TEXT = "2023-01-30T11:50:59.971622667Z"


def reader(**limits: int) -> MessageReader:
    return MessageReader(clock=lambda: 1_700_000_000_000_000_000, limits=Limits(**limits))


def read(*messages: Any, **limits: int) -> list[Group]:
    data = b"".join(message if isinstance(message, bytes) else msgpack.packb(message) for message in messages)
    return list(reader(**limits).groups(data))


def packed(*entries: Any) -> bytes:
    return b"".join(msgpack.packb(entry) for entry in entries)


ENTRIES = [[TIME, {"message": "a", "n": 1}], [1_675_079_460, {"message": "b", "n": 2}]]
MODES = {
    "Forward": ["shop.cart", ENTRIES, {"chunk": "c1", "size": 2}],
    "PackedForward": ["shop.cart", packed(*ENTRIES), {"chunk": "c1", "size": 2}],
    "CompressedPackedForward": [
        "shop.cart",
        gzip.compress(packed(*ENTRIES)),
        {"chunk": "c1", "size": 2, "compressed": "gzip"},
    ],
    "zstd": ["shop.cart", zstd.compress(packed(*ENTRIES)), {"chunk": "c1", "size": 2, "compressed": "zstd"}],
    "two zstd frames, the second of bytes for text": [
        "shop.cart",
        zstd.compress(packed(ENTRIES[0])) + zstd.compress(packed(ENTRIES[1])),
        {"chunk": "c1", "size": 2, "compressed": b"zstd"},
    ],
    "two gzip members": [
        "shop.cart",
        gzip.compress(packed(ENTRIES[0])) + gzip.compress(packed(ENTRIES[1])),
        {"chunk": "c1", "size": 2, "compressed": "gzip"},
    ],
}


@pytest.mark.parametrize("mode", MODES)
def test_each_mode_of_many_gives_the_same_group(mode: str) -> None:
    (group,) = read(MODES[mode])
    assert group.chunk == "c1"
    assert group.origin.tag == "shop.cart"
    assert group.refused == []
    assert [arrival.event.time for arrival in group.arrivals] == [TIME_TEXT, "2023-01-30T11:51:00.000000000Z"]
    assert [arrival.event.body for arrival in group.arrivals] == ["a", "b"]
    assert [arrival.event.attributes for arrival in group.arrivals] == [{"n": 1}, {"n": 2}]
    assert {arrival.event.service for arrival in group.arrivals} == {"shop"}
    assert {arrival.event.observed for arrival in group.arrivals} == {"2023-11-14T22:13:20.000000000Z"}


def test_text_from_before_binary_data_is_packed_forward_too() -> None:
    message = msgpack.packb(["t", packed(*ENTRIES), {"chunk": "c"}], use_bin_type=False)
    (group,) = read(message)
    assert [arrival.event.body for arrival in group.arrivals] == ["a", "b"]


def test_message_mode_with_a_chunk_is_a_group_of_its_own() -> None:
    first, second, third = read(
        ["t", TIME, {"message": "a"}], ["t", TIME, {"message": "b"}, {"chunk": "x"}], ["t", TIME, {"message": "c"}]
    )
    assert [len(group.arrivals) for group in (first, second, third)] == [1, 1, 1]
    assert (first.group_id, third.group_id) == (None, None)
    assert second.chunk == "x"
    assert second.group_id is not None


def test_messages_without_a_chunk_and_with_one_tag_are_joined_up_to_the_limit() -> None:
    groups = read(*[["t", 1, {"n": n}] for n in range(7)], ["u", 1, {"n": 7}], max_joined=5)
    assert [len(group.arrivals) for group in groups] == [5, 2, 1]
    assert [arrival.event.attributes["n"] for group in groups for arrival in group.arrivals] == list(range(8))


def test_what_is_refused_and_what_is_empty_counts_to_the_limit_too() -> None:
    assert [len(group.refused) for group in read(*[b"\x90"] * 7, max_joined=5)] == [5, 2]
    assert len(read(*[["t", []]] * 11, max_joined=5)) == 3


def test_another_protocol_s_request_is_one_letter_as_it_came() -> None:
    said, good = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", msgpack.packb(["t", 1, {"message": "good"}])
    groups = read(said, good, said + b"\xc0" + said, good)
    assert [raw for group in groups for raw, _ in group.refused] == [said, said, said]
    assert [arrival.event.body for group in groups for arrival in group.arrivals] == ["good", "good"]


def test_what_is_no_message_counts_to_the_limit_by_its_values() -> None:
    groups = read(b"x" * 40_000, max_joined=5)
    assert [[len(raw) for raw, _ in group.refused] for group in groups] == [[16_384], [16_384], [7_232]]


def test_the_group_id_is_of_tag_and_chunk() -> None:
    ids = {
        group.group_id
        for group in read(
            ["t", 1, {}, {"chunk": "ab"}],
            ["ta", 1, {}, {"chunk": "b"}],
            ["t", 2, {"other": 1}, {"chunk": "ab"}],
            ["t", 1, {}, {"chunk": b"ab"}],
        )
    }
    assert len(ids) == 2


@pytest.mark.parametrize(
    ("time", "text"),
    [
        (TIME, TIME_TEXT),
        (0, "1970-01-01T00:00:00.000000000Z"),
        (-1, "1969-12-31T23:59:59.000000000Z"),
        (1.5, "1970-01-01T00:00:01.500000000Z"),
    ],
)
def test_times(time: object, text: str) -> None:
    (group,) = read(["t", time, {}])
    assert group.arrivals[0].event.time == text
    assert group.arrivals[0].event.marks == []


@pytest.mark.parametrize("head", [b"\xd7\x00", b"\xc7\x08\x00"])
def test_an_event_time_may_be_an_ext_of_fixed_or_of_stated_length(head: bytes) -> None:
    (group,) = read(b"\x93\xa1t" + head + struct.pack(">II", 1_675_079_459, 971_622_667) + b"\x80")
    assert group.arrivals[0].event.time == TIME_TEXT


@pytest.mark.parametrize(
    "time",
    [
        msgpack.ExtType(0, b"\0" * 7),
        msgpack.ExtType(0, struct.pack(">II", 1, 1_000_000_000)),
        msgpack.ExtType(9, b"\0" * 8),
        2**63,
        float("nan"),
        float("inf"),
    ],
)
def test_a_time_that_is_none_is_kept_as_it_is_and_marked(time: object) -> None:
    (group,) = read(["t", time, {"message": "kept"}])
    (arrival,) = group.arrivals
    assert arrival.event.time == ""
    assert arrival.event.marks == ["time_unusable"]
    assert "fluent.time" in arrival.event.attributes
    assert arrival.event.body == "kept"


def test_one_bad_record_among_good_ones_is_alone_in_the_dead_letters() -> None:
    bad = msgpack.packb([TIME, ["no map"]])
    for blob in (
        msgpack.packb(["t", packed(ENTRIES[0]) + bad + packed(ENTRIES[1]), {"size": 3, "chunk": "c"}]),
        b"\x93\xa1t\x93" + packed(ENTRIES[0]) + bad + packed(ENTRIES[1]) + msgpack.packb({"size": 3, "chunk": "c"}),
    ):
        (group,) = read(blob)
        assert [arrival.event.body for arrival in group.arrivals] == ["a", "b"]
        ((raw, error),) = group.refused
        assert raw == bad
        assert str(error) == "record 2: the record is not a map"
        assert group.chunk == "c"


def test_a_packed_blob_that_is_cut_gives_its_whole_records_and_refuses_the_rest() -> None:
    blob = packed(*ENTRIES)
    (group,) = read(["t", blob[:-3], {"size": 2, "chunk": "c"}])
    assert [arrival.event.body for arrival in group.arrivals] == ["a"]
    assert [error.label for _, error in group.refused] == ["bad_msgpack", "size_mismatch"]
    assert group.refused[0][0] == blob[len(packed(ENTRIES[0])) : -3]


def test_a_wrong_size_is_put_on_record_and_the_records_are_kept() -> None:
    (group,) = read(["t", ENTRIES, {"size": 5}])
    assert len(group.arrivals) == 2
    assert [error.label for _, error in group.refused] == ["size_mismatch"]


def test_a_chunk_that_is_not_utf8_may_have_a_wrong_size() -> None:
    (group,) = read(["t", [[1, {"a": 1}]], {"chunk": b"\xff\xfe", "size": 7}])
    assert len(group.arrivals) == 1
    assert [error.label for _, error in group.refused] == ["size_mismatch"]
    assert group.chunk == "\udcff\udcfe"  # as its sender will be told


@pytest.mark.parametrize("depth", [800, 985, 990, 1_020])
def test_a_group_whose_header_is_nested_very_deeply_is_refused_with_its_chunk(depth: int) -> None:
    """Fluent Bit's groups: an entry whose time is -1 begins one, and its record is the header."""
    stamp = b"\x92\xd7\x00\xff\xff\xff\xff\0\0\0\0\x80"
    entry = b"\x92" + stamp + b"\x81\xa1a" + b"\x91" * depth + b"\x01"
    (group,) = read(b"\x93\xa1t" + msgpack.packb(entry) + msgpack.packb({"chunk": "c"}))
    assert (group.chunk, group.arrivals) == ("c", [])
    assert [error.label for _, error in group.refused] in (
        [],
        ["too_deep"],
    )  # how deep is too deep is the interpreter's


@pytest.mark.parametrize(
    ("parts", "label"),
    [
        ([b"\xa1t", b"\x01", b"\x81\xa1a\xd4\xff\0"], "bad_msgpack"),  # a time of one byte
        ([b"\xa1t", b"\x01", b"\x01"], "bad_record"),
        ([b"\xa1t", b"\xc0", b"\x80"], "bad_record"),
        ([b"\xa1t", b"\xaa2023-01-30", b"\x81\xa1a\x01"], "bad_record"),
        ([b"\x07", b"\x01", b"\x81\xa1a\x01"], "bad_message"),
        ([b"\x80", b"\x91\x92\x01\x80"], "bad_message"),
        ([b"\x07", b"\xc4\x03\x92\x01\x80"], "bad_message"),
    ],
)
def test_a_message_that_cannot_be_taken_is_kept_whole_and_its_chunk_acknowledged(
    parts: list[bytes], label: str
) -> None:
    """Without an ack its sender comes again with it, for ever."""
    message = bytes([0x91 + len(parts)]) + b"".join(parts) + msgpack.packb({"chunk": "c"})
    (group,) = read(message)
    assert (group.chunk, group.arrivals) == ("c", [])
    assert [(raw, error.label) for raw, error in group.refused] == [(message, label)]


def test_what_stands_where_the_option_is_expected_is_not_lost() -> None:
    """A time in text looks like packed records of before there was binary data."""
    message = msgpack.packb(["t", "2023-01-30T11:50:59Z", {"message": "paid"}])
    (group,) = read(message)
    assert [(raw, error.label) for raw, error in group.refused] == [(message, "bad_record")]
    (group,) = read(["t", b"\xc0" + packed(ENTRIES[0]) + b"\x07", {"chunk": "c"}])
    assert [arrival.event.body for arrival in group.arrivals] == ["a"]
    assert [raw for raw, _ in group.refused] == [b"\xc0", b"\x07"]
    (group,) = read(b"\x94\xa1t" + msgpack.packb(packed(*ENTRIES)) + b"\x81\xa1\xff\x01" + b"\xc0")
    assert [arrival.event.body for arrival in group.arrivals] == ["a", "b"]


def array(item: bytes, count: int) -> bytes:
    return b"\xdd" + count.to_bytes(4) + item * count


GOOD = b"\x92\x01\x81\xa1a\x02"
BOMB = b"\x92\x01\x81\xa1a" + array(b"\x90", 9 * 2**20)  # each empty list takes 64 bytes when it is decoded
SHORT_BOMB = b"\x92\x01\x81\xa1a" + array(b"\x80", 4 * 2**20)  # in a message no longer than honest ones
CHUNK = b"\x81\xa5chunk\xa1c"


@pytest.mark.parametrize("bomb", [BOMB, SHORT_BOMB], ids=["long", "short"])
@pytest.mark.parametrize("mode", ["packed", "gzip", "forward"])
def test_of_a_record_of_very_many_values_none_is_decoded_and_the_others_are_taken(mode: str, bomb: bytes) -> None:
    records = GOOD + bomb + GOOD
    message = b"\x93\xa1t" + (msgpack.packb(records) if mode == "packed" else b"\x93" + records) + CHUNK
    if mode == "gzip":
        message = msgpack.packb(["t", gzip.compress(records), {"compressed": "gzip", "chunk": "c"}])
    tracemalloc.start()
    try:
        (group,) = read(message)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak_bytes < 200 * 2**20
    assert group.chunk == "c"
    assert [arrival.event.attributes for arrival in group.arrivals] == [{"a": 2}, {"a": 2}]
    ((raw, error),) = group.refused
    assert (raw, error.label, str(error)) == (bomb, "too_large", "record 2: more than 1048576 values")


@pytest.mark.parametrize(
    ("message", "chunk"),
    [
        (b"\x94\xa1t" + BOMB[1:] + CHUNK, "c"),
        (b"\x94\xa1t\x92" + BOMB[1:] + b"\x80" + CHUNK, None),
        (b"\x94\xa1t\x01\x80" + BOMB[2:], None),
        (b"\x94" + BOMB[5:] + b"\x01\x80" + CHUNK, "c"),
    ],
    ids=["record", "metadata", "option", "tag"],
)
def test_wherever_in_a_message_very_many_values_stand_none_is_decoded(message: bytes, chunk: str | None) -> None:
    tracemalloc.start()
    try:
        (group,) = read(message)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak_bytes < 200 * 2**20
    assert (group.chunk, group.arrivals) == (chunk, [])
    assert group.refused


def test_characters_beyond_ascii_are_no_maps_and_lists() -> None:
    text = "оплата" * 2**18  # as many bytes as may begin one, and more
    (group,) = read(["t", packed((1, {"message": text})), {"chunk": "c"}])
    assert [arrival.event.body for arrival in group.arrivals] == [text]
    assert not group.refused


def test_a_long_message_of_records_with_many_values_is_taken_up_to_its_bound() -> None:
    record = b"\x92\x01\x81\xa1a" + array(b"\x90", 2**17)  # an empty list counts as four, and as the value that it is
    (group,) = read(["t", record * 70 + GOOD, {"chunk": "c"}])
    assert len(group.arrivals) == 6
    assert [raw for raw, _ in group.refused] == [record] * 64 + [GOOD]
    assert {error.label for _, error in group.refused} == {"too_large"}
    assert "more than 4194304 values" in str(group.refused[-1][1])


class Defective(MessageReader):
    """One that has a defect of ours in it."""

    def _packed(self, *_: object) -> Group:
        raise ZeroDivisionError


def test_a_message_on_which_our_own_reading_fails_is_a_dead_letter_and_its_chunk_is_acknowledged() -> None:
    message = msgpack.packb(["shop", packed([1, {"a": 1}]), {"chunk": "c"}])
    one = Defective(clock=lambda: 1_700_000_000_000_000_000)
    (group,) = one.groups(message)
    assert (group.origin.tag, group.chunk, group.arrivals) == ("shop", "c", [])
    ((raw, error),) = group.refused
    assert (raw, error.label, error.reason) == (message, "bad_message", "cannot be read: ZeroDivisionError")


def test_the_length_in_bytes_is_taken_for_a_size_too_as_npm_s_fluent_logger_says_it() -> None:
    blob = packed(*ENTRIES)
    squeezed = gzip.compress(blob)
    for message in (
        ["t", blob, {"size": len(blob), "compressed": "text"}],
        ["t", squeezed, {"size": len(squeezed), "compressed": "gzip"}],
    ):
        (group,) = read(message)
        assert (len(group.arrivals), group.refused) == (2, [])


def test_text_that_is_not_utf8_and_keys_that_are_no_text_are_kept() -> None:
    (group,) = read(b"\x93\xa1t\x01\x82\xa1a\xa2\xff\xfe\x05\x06")
    stored, _ = normalised(group.arrivals[0].event)
    assert stored.attributes == {"a": "\ufffd\ufffd", "5": 6}


def test_keys_that_are_binary_data_are_the_names_that_they_spell() -> None:
    record = {b"message": "m", b"transaction_id": "T", b"password": "hunter2", "in": {b"cvv": 672, b"\xff": 1}}
    (group,) = read(["t", 1, record], ["t", [[TIME, {b"a": 1, "a": 2}]]])
    made = PREPARER.prepare(group.arrivals)
    assert b"hunter2" not in made.events[0]
    assert b"672" not in made.events[0]
    assert decode_facts(made.facts[0]).transaction == "T"
    assert decode_event(made.events[0]).attributes["in"] == {"cvv": "***", "/w==": 1}
    assert [refused.error.label for refused in made.refused] == ["duplicate_key"]


def test_a_tag_that_is_not_utf8_is_made_text() -> None:
    (group,) = read(b"\x93\xa2t\xff\x01\x80")
    assert group.origin.tag == "t\ufffd"
    assert normalised(group.arrivals[0].event)[1] > 0


@pytest.mark.parametrize(("coding", "compress"), [("gzip", gzip.compress), ("zstd", zstd.compress)])
def test_a_zip_bomb_is_refused_and_its_chunk_can_be_acknowledged(
    coding: str, compress: Callable[[bytes], bytes]
) -> None:
    bomb = compress(b"\x92\x01\x80" * 1_000_000)
    (group,) = read(["t", bomb, {"compressed": coding, "chunk": "c"}], max_inflated_bytes=65_536)
    assert group.arrivals == []
    assert [error.label for _, error in group.refused] == ["too_large"]
    assert group.chunk == "c"


@pytest.mark.parametrize("coding", ["lz4", ["gzip"], {}, 1, None])
def test_a_coding_that_is_none_is_no_coding(coding: object) -> None:
    (group,) = read(["t", packed(*ENTRIES), {"compressed": coding}])
    assert (len(group.arrivals), group.refused) == (2, [])


@pytest.mark.parametrize("cut", [1, 12, -1, -8])
def test_gzip_that_is_damaged_is_refused(cut: int) -> None:
    blob = gzip.compress(packed(*ENTRIES))[:cut]
    (group,) = read(["t", blob, {"compressed": "gzip"}])
    assert [error.label for _, error in group.refused] == ["bad_gzip"]


def test_more_records_than_the_limit_are_refused() -> None:
    (group,) = read(["t", packed(*[[1, {}]] * 11), {"chunk": "c"}], max_records=10)
    assert [error.label for _, error in group.refused] == ["too_large"]


def test_heartbeats_are_nothing() -> None:
    assert read(b"\xc0", b"\xc0") == []
    assert [group.chunk for group in read(b"\xc0", ["t", 1, {}, {"chunk": "a"}], b"\xc0\xc0")] == ["a"]


def test_a_message_cut_anywhere_is_the_same_message() -> None:
    data = msgpack.packb(MODES["PackedForward"]) + msgpack.packb(["t", 1, {"message": "z"}, {"chunk": "q"}])
    whole = [group.arrivals for group in reader().groups(data)]
    for cut in range(1, len(data)):
        one = reader()
        groups = [*one.groups(data[:cut]), *one.groups(data[cut:])]
        assert [group.arrivals for group in groups] == whole
        assert one.framing.pending_bytes == 0


def test_a_message_beyond_the_limit_ends_the_connection() -> None:
    one = reader(max_message_bytes=1000)
    assert len(list(one.groups(msgpack.packb(["t", 1, {"a": "x" * 500}])))) == 1
    with pytest.raises(Malformed, match="more than 1000 bytes"):
        list(one.groups(msgpack.packb(["t", 1, {"a": "x" * 2000}])))


def test_lost_framing_gives_out_what_came_whole_before_it_and_names_the_place() -> None:
    good = msgpack.packb(["t", 1, {"message": "good"}])
    one = reader()
    groups = one.groups(good + b"\xc1garbage")
    assert [arrival.event.body for arrival in next(groups).arrivals] == ["good"]
    with pytest.raises(Malformed, match=rf"byte {len(good)} of the connection: not MessagePack"):
        next(groups)
    assert one.framing.take() == b"\xc1garbage"


def test_a_length_that_lies_takes_no_memory() -> None:
    """An array said to hold 2^32−1 elements is only waited for."""
    one = reader(max_message_bytes=4096)
    assert list(one.groups(b"\xdd\xff\xff\xff\xff" + b"\xdf\xff\xff\xff\xff" * 200)) == []
    with pytest.raises(Malformed):
        list(one.groups(b"\xdd\xff\xff\xff\xff" * 1000))


json_like = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.text(max_size=8)
    | st.binary(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4) | st.integers(0, 9), inner, max_size=4)
    ),
    max_leaves=12,
)


@settings(max_examples=300)
@given(st.binary(max_size=300))
def test_any_bytes_are_groups_or_malformed(data: bytes) -> None:
    one = reader(max_message_bytes=256)
    try:
        for group in one.groups(data):
            assert group.arrivals or group.refused or group.chunk is not None
    except Malformed:
        pass


@settings(max_examples=300)
@given(st.lists(json_like, max_size=4), st.sampled_from([b"", b"\xc1", b"\x93\xa1t"]))
def test_any_message_is_one_group_with_reasons(parts: list[Any], tail: bytes) -> None:
    one = reader()
    data = msgpack.packb(parts)
    groups = list(one.groups(data))
    assert len(groups) == 1
    if groups[0].refused and not groups[0].arrivals and isinstance(parts[:1], list):
        assert all(isinstance(error, Malformed) for _, error in groups[0].refused)
    try:
        list(one.groups(tail))
    except Malformed:
        assert tail == b"\xc1"


@settings(max_examples=200)
@given(
    st.lists(
        st.tuples(st.integers(0, 2**32 - 1), st.dictionaries(st.text(max_size=6), json_like, max_size=5)), max_size=5
    )
)
def test_good_records_are_all_taken_in_every_mode(entries: list[tuple[int, dict[Any, Any]]]) -> None:
    rows = [list(entry) for entry in entries]
    for message in (["t", rows, {"size": len(rows)}], ["t", packed(*rows), {"size": len(rows)}]):
        groups = read(message)
        assert sum(len(group.arrivals) for group in groups) == len(rows)
        assert [reason for group in groups for reason in group.refused] == []


known_names = st.sampled_from(
    ["message", "level", "trace_id", "span_id", "time", "service", "severity_number", "outcome"]
)
scalars = (
    st.sampled_from(["", "INFO", "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331", "success", "é", "x" * 300])
    | st.sampled_from([0, 9, 2**53 - 1, 2**53, -(2**53), 2**63, 1.0, -0.0, 0.5, 1e300, True, None, b"raw"])
    | st.just({"name": "shop"})
    | st.just(TIME)
)


@settings(max_examples=300)
@given(st.dictionaries(known_names | st.text(max_size=4), scalars, max_size=5))
@example({"n": 1.0, "message": "m"})
@example({"n": 2**53 - 1, "message": "m"})
def test_what_is_vouched_for_becomes_the_same_bytes_as_what_is_looked_at(record: dict[str, Any]) -> None:
    entry = [TIME, record]
    (vouched,) = read(["shop.cart", packed(entry), {"chunk": "c"}])
    (looked_at,) = read(["shop.cart", [entry], {"chunk": "c"}])
    assert not any(arrival.plain for arrival in looked_at.arrivals)
    made, expected = PREPARER.prepare(vouched.arrivals), PREPARER.prepare(looked_at.arrivals)
    assert (made.events, made.facts, made.source_ids) == (expected.events, expected.facts, expected.source_ids)
    assert len(made.refused) == len(expected.refused)


def test_records_of_plain_values_are_vouched_for() -> None:
    (group,) = read(["t", packed([TIME, {"message": "a", "n": 1, "ok": True, "none": None}]), {"chunk": "c"}])
    assert [arrival.plain for arrival in group.arrivals] == [True]
    (group,) = read(["t", packed([TIME, {"message": "a", "n": 2**53}]), {"chunk": "c"}])
    assert [arrival.plain for arrival in group.arrivals] == [False]
