"""Proofs of one entry, as files: round trips, offline checks, and every way to spell or change them."""

import base64

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from correlator import merkle
from correlator.checkpoint import Checkpoint, sign
from correlator.errors import VerificationError
from correlator.frontier import Frontier
from correlator.note import Signer
from correlator.proof import EntryProof, read_consistency
from correlator.tiles import HashTile, TileHashReader

SIGNER = Signer(name="ledger.example/payments", private_key=Ed25519PrivateKey.from_private_bytes(bytes(range(32))))
ENTRIES = [b"entry %d" % at for at in range(700)]
FRONTIER, TILES = Frontier().extend(merkle.leaf_hashes(ENTRIES))
STORED = {tile.path: data for tile, data in TILES}
SIGNED = sign(Checkpoint(origin=SIGNER.name, size=700, root=FRONTIER.root), SIGNER)
READ = TileHashReader(size=700, root=FRONTIER.root, fetch=lambda tile: HashTile(tile, STORED[tile.path]))


def proof_of(index: int, extra: bytes | None = None) -> EntryProof:
    hashes = tuple(merkle.inclusion_proof(index, 700, READ))
    return EntryProof(index=index, hashes=hashes, checkpoint=SIGNED, extra=extra)


@pytest.mark.parametrize("extra", [None, b"", b"\x00out of band"])
@pytest.mark.parametrize("index", [0, 300, 699])
def test_a_proof_goes_through_text_and_verifies(index: int, extra: bytes | None) -> None:
    proof = EntryProof.parse(proof_of(index, extra).encode())
    assert proof == proof_of(index, extra)
    assert proof.verify(ENTRIES[index], SIGNER.verifier).size == 700
    with pytest.raises(VerificationError, match="does not lead to the root"):
        proof.verify(ENTRIES[index - 1], SIGNER.verifier)
    with pytest.raises(VerificationError, match="not signed by"):
        proof.verify(ENTRIES[index], Signer.generate(SIGNER.name).verifier)
    with pytest.raises(VerificationError, match="log"):
        proof.verify(ENTRIES[index], SIGNER.verifier, origin="another.example")


def test_the_text_is_as_specified() -> None:
    lines = proof_of(300, b"abc").encode().decode().split("\n")
    assert lines[:3] == ["c2sp.org/tlog-proof@v1", "extra YWJj", "index 300"]
    assert [base64.b64decode(line) for line in lines[3 : lines.index("")]] == list(proof_of(300).hashes)
    assert "\n".join(lines[lines.index("") + 1 :]).encode() == SIGNED


def test_every_flipped_bit_is_refused() -> None:
    text = proof_of(300).encode()
    for at in range(len(text)):
        for bit in range(8):
            changed = text[:at] + bytes([text[at] ^ 1 << bit]) + text[at + 1 :]
            with pytest.raises(VerificationError):
                EntryProof.parse(changed).verify(ENTRIES[300], SIGNER.verifier)


def test_every_cut_and_any_tail_is_refused() -> None:
    text = proof_of(300).encode()
    for changed in [*(text[:end] for end in range(len(text))), text + b"\n", text + b"x", b"\n" + text]:
        with pytest.raises(VerificationError):
            EntryProof.parse(changed).verify(ENTRIES[300], SIGNER.verifier)


@pytest.mark.parametrize(
    "head",
    [
        "c2sp.org/tlog-proof@v2\nindex 0",
        "c2sp.org/tlog-proof@v1",
        "c2sp.org/tlog-proof@v1\nindex",
        "c2sp.org/tlog-proof@v1\nindex 00",
        "c2sp.org/tlog-proof@v1\nindex -1",
        "c2sp.org/tlog-proof@v1\nindex 9223372036854775808",
        "c2sp.org/tlog-proof@v1\nextra YWJj",
        "c2sp.org/tlog-proof@v1\nextra YWJ\nindex 0",
        "c2sp.org/tlog-proof@v1\nindex 0\nextra YWJj",
        "c2sp.org/tlog-proof@v1\nextra YWJj\nextra YWJj\nindex 0",
        "c2sp.org/tlog-proof@v1\nindex 0\nYWJj",
        "c2sp.org/tlog-proof@v1\nindex 0\n" + "\n".join([base64.b64encode(bytes(32)).decode()] * 64),
        "c2sp.org/tlog-proof@v1\r\nindex 0",
        "c2sp.org/tlog-proof@v1\nindex ٣",
    ],
)
def test_a_malformed_proof_is_refused(head: str) -> None:
    with pytest.raises(VerificationError):
        EntryProof.parse(head.encode() + b"\n\n" + SIGNED)


def test_a_proof_of_unbounded_size_is_not_read() -> None:
    with pytest.raises(VerificationError, match="at most"):
        EntryProof.parse(b"a" * 2_000_001)


PIECES = [
    b"c2sp.org/tlog-proof@v1\n",
    b"index 3\n",
    b"extra YWJj\n",
    b"\n",
    base64.b64encode(bytes(32)) + b"\n",
    SIGNED,
]


@given(st.binary() | st.lists(st.sampled_from(PIECES) | st.binary(max_size=4), max_size=10).map(b"".join))
def test_the_parser_raises_only_its_own_error(text: bytes) -> None:
    try:
        assert EntryProof.parse(text).encode() == text
    except VerificationError:
        pass


@pytest.mark.parametrize(
    "text", [b"", b"[]", b"{}", b'{"proof":"AA=="}', b'{"proof":["A"]}', b'{"proof":[1]}', b" " * 9_999_999]
)
def test_a_consistency_proof_that_is_none_is_refused(text: bytes) -> None:
    with pytest.raises(VerificationError, match="consistency proof"):
        read_consistency(text)


@given(st.binary() | st.text().map(str.encode))
def test_the_parser_of_consistency_proofs_raises_only_its_own_error(text: bytes) -> None:
    try:
        read_consistency(text)
    except VerificationError:
        pass
