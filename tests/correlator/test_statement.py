"""The joint statement: read as it was signed, and nothing else is."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from correlator.checkpoint import Checkpoint, open_checkpoint
from correlator.errors import VerificationError
from correlator.merkle import EMPTY_ROOT
from correlator.note import sign_note
from correlator.shards import MAX_SHARDS
from correlator.statement import MAGIC, Statement, is_statement, open_statement, sign_statement
from tests.support.correlating import SIGNER
from tests.support.shipper import LEDGER, key_of

RULES = "ab" * 32
ROOTS = [bytes([n]) * 32 for n in range(1, 8)]
STATEMENT = Statement.of(LEDGER, RULES, [(7, ROOTS[0]), (0, EMPTY_ROOT), (70_000, ROOTS[1])])
SIGNED = sign_statement(STATEMENT, SIGNER)


def test_what_is_signed_is_what_the_format_says() -> None:
    assert STATEMENT.text.decode().split("\n") == [
        "tallystick/shards/v1",
        "ledger.example/test",
        "ab" * 32,
        "3",
        "ledger.example/test/shard-1-of-3 7 AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=",
        "ledger.example/test/shard-2-of-3 0 47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=",
        "ledger.example/test/shard-3-of-3 70000 AgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgI=",
        "",
    ]


@given(
    st.lists(st.tuples(st.integers(1, 2**63 - 1), st.binary(min_size=32, max_size=32)), min_size=2, max_size=MAX_SHARDS)
)
def test_any_statement_round_trips(trees: list[tuple[int, bytes]]) -> None:
    statement = Statement.of(LEDGER, RULES, trees)
    assert Statement.parse(statement.text) == statement
    assert open_statement(sign_statement(statement, SIGNER), SIGNER.verifier) == statement


def test_every_flipped_bit_and_every_cut_is_refused() -> None:
    for at in range(len(SIGNED)):
        for bit in (1, 4, 128):
            with pytest.raises(VerificationError):
                open_statement(SIGNED[:at] + bytes([SIGNED[at] ^ bit]) + SIGNED[at + 1 :], SIGNER.verifier)
        with pytest.raises(VerificationError):
            open_statement(SIGNED[:at], SIGNER.verifier)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"/v1\n", b"/v2\n"),
        (b"\n3\n", b"\n03\n"),
        (b"\n3\n", b"\n2\n"),
        (b"\n3\n", b"\n99\n"),
        (b"\n3\n", b"\n65\n"),
        (b"shard-2-of-3", b"shard-1-of-3"),
        (b"shard-2-of-3", b"shard-2-of-4"),
        (b" 70000 ", b" 070000 "),
        (b" 70000 ", b" -1 "),
        (b" 70000 ", b"  70000 "),
        (b" 7 ", b" 0 "),
        (b"\nab", b"\nAB"),
        (b"\nab", b"\n"),
        (b"AgIC", b"AgI"),
        (b"shard-3-of-3 70000", b"shard-3-of-3"),
    ],
)
def test_a_wrong_text_is_refused_though_signed(old: bytes, new: bytes) -> None:
    text = STATEMENT.text.replace(old, new, 1)
    assert text != STATEMENT.text
    with pytest.raises(VerificationError):
        open_statement(sign_note(text, [SIGNER]), SIGNER.verifier)


def test_one_shard_is_no_statement() -> None:
    with pytest.raises(ValueError, match="not a statement"):
        sign_statement(Statement.of(LEDGER, RULES, [(1, ROOTS[0])]), SIGNER)
    broken = Statement(ledger=LEDGER, placement=RULES, trees=(STATEMENT.trees[2], STATEMENT.trees[0]))
    with pytest.raises(ValueError, match="not a statement"):
        sign_statement(broken, SIGNER)


def test_the_statement_of_another_ledger_or_key_is_refused() -> None:
    other = SIGNER.named("ledger.example/other")
    signed = sign_statement(Statement.empty("ledger.example/other", RULES, 2), other)
    with pytest.raises(VerificationError, match="not signed by"):
        open_statement(signed, SIGNER.verifier)
    with pytest.raises(VerificationError, match="of the ledger"):
        open_statement(sign_note(Statement.empty("ledger.example/other", RULES, 2).text, [SIGNER]), SIGNER.verifier)
    with pytest.raises(ValueError, match="signs no statement"):
        sign_statement(STATEMENT, other)
    stranger = type(SIGNER)(name=LEDGER, private_key=key_of(7))
    with pytest.raises(VerificationError, match="not signed by"):
        open_statement(sign_statement(STATEMENT, stranger), SIGNER.verifier)


def test_a_statement_is_no_checkpoint_and_no_checkpoint_a_statement() -> None:
    with pytest.raises(VerificationError):
        open_checkpoint(SIGNED, SIGNER.verifier)
    checkpoint = sign_note(Checkpoint(origin=MAGIC, size=3, root=ROOTS[0]).text, [SIGNER])
    with pytest.raises(VerificationError):
        open_statement(checkpoint, SIGNER.verifier)
    assert is_statement(SIGNED)
    assert not is_statement(b'{"v":1}\n')


def test_a_later_statement_follows_and_an_earlier_or_another_one_does_not() -> None:
    later = Statement.of(LEDGER, RULES, [(8, ROOTS[2]), (5, ROOTS[3]), (70_000, ROOTS[1])])
    later.check_follows(STATEMENT)
    STATEMENT.check_follows(STATEMENT)
    with pytest.raises(VerificationError, match="shard-1-of-3 was rolled back: 7 leaves, and 8 before"):
        STATEMENT.check_follows(later)
    forked = Statement.of(LEDGER, RULES, [(7, ROOTS[0]), (0, EMPTY_ROOT), (70_000, ROOTS[4])])
    with pytest.raises(VerificationError, match="shard-3-of-3 was forked"):
        forked.check_follows(STATEMENT)
    for tree in STATEMENT.trees:
        later.check_covers(tree)
    with pytest.raises(VerificationError, match="shard-3-of-3 was forked"):
        forked.check_covers(STATEMENT.trees[2])
    with pytest.raises(VerificationError, match="no tree of the log"):
        later.check_covers(Checkpoint(origin=LEDGER, size=0, root=EMPTY_ROOT))
    with pytest.raises(VerificationError, match="other rules"):
        Statement.of(LEDGER, "cd" * 32, [(tree.size, tree.root) for tree in STATEMENT.trees]).check_follows(STATEMENT)
    with pytest.raises(VerificationError, match="of 2 shards"):
        Statement.empty(LEDGER, RULES, 2).check_follows(STATEMENT)


@given(st.one_of(st.binary(max_size=300), st.binary(max_size=200).map(lambda tail: SIGNED[:60] + tail)))
def test_the_parser_raises_only_its_own_error(data: bytes) -> None:
    for read in (Statement.parse, lambda text: open_statement(text, SIGNER.verifier)):
        try:
            read(data)
        except VerificationError:
            continue


@given(st.lists(st.sampled_from([*STATEMENT.text.split(b"\n"), b"", b" ", b"x", b"2"]), max_size=8))
def test_any_mix_of_lines_is_read_or_refused(lines: list[bytes]) -> None:
    text = b"\n".join(lines)
    try:
        statement = Statement.parse(text)
    except VerificationError:
        return
    assert statement.text == text
