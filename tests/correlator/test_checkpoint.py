"""Signed notes and checkpoints: published examples, round trips, and every way to spell them wrong."""

import base64
from collections.abc import Callable

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from correlator.checkpoint import MAX_SIZE, Checkpoint, cosignatures, open_checkpoint, sign
from correlator.errors import VerificationError
from correlator.merkle import EMPTY_ROOT
from correlator.note import COSIGNATURE_V1, MAX_SIGNATURES, Signer, Verifier, open_note, sign_note

# The example in the documentation of golang.org/x/mod/sumdb/note.
GO_SKEY = "PRIVATE+KEY+PeterNeumann+c74f20a3+AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz"
GO_VKEY = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
GO_NOTE = (
    "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n\n"
    "— PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n"
)

SIGNER = Signer(name="ledger.example/payments", private_key=Ed25519PrivateKey.from_private_bytes(bytes(range(32))))
OTHER = Signer(name="ledger.example/other", private_key=Ed25519PrivateKey.from_private_bytes(bytes(32)))
CHECKPOINT = Checkpoint(origin=SIGNER.name, size=20852163, root=bytes(range(32)))
SIGNED = sign(CHECKPOINT, SIGNER)


def witness(name: str, seed: bytes) -> tuple[Verifier, Callable[[bytes, int], bytes]]:
    """A witness's key, and its signature line under a checkpoint's text at a time."""
    key = Ed25519PrivateKey.from_private_bytes(seed)
    verifier = Verifier(name=name, public_key=key.public_key().public_bytes_raw(), algorithm=COSIGNATURE_V1)

    def cosign(text: bytes, seconds: int) -> bytes:
        signature = key.sign(b"cosignature/v1\ntime %d\n" % seconds + text)
        raw = verifier.key_id + seconds.to_bytes(8, "big") + signature
        return f"— {name} {base64.b64encode(raw).decode()}\n".encode()

    return verifier, cosign


# --------------------------------------------------------------------------------------------------------------- notes


def test_the_go_librarys_example_opens_and_is_made_again_byte_for_byte() -> None:
    verifier = Verifier.parse(GO_VKEY)
    note = open_note(GO_NOTE.encode(), [verifier])
    assert note.text.endswith(b"your problem is.\n")
    assert [(one.name, one.key_id.hex(), one.seconds) for one in note.signatures] == [
        ("PeterNeumann", "c74f20a3", None)
    ]
    signer = Signer.parse(GO_SKEY)
    assert (signer.verifier.vkey, signer.skey) == (GO_VKEY, GO_SKEY)
    assert sign_note(note.text, [signer]) == GO_NOTE.encode()


def test_keys_go_through_text_and_stay_out_of_repr() -> None:
    signer = Signer.generate("a.example/log")
    assert Signer.parse(signer.skey).verifier == signer.verifier
    assert Verifier.parse(signer.verifier.vkey) == signer.verifier
    assert signer.skey.split("+", 4)[4] not in repr(signer)  # base64, which may hold a plus sign itself
    assert signer.verifier.fingerprint.startswith("SHA256:")


@pytest.mark.parametrize(
    "vkey",
    [
        "",
        "PeterNeumann",
        "PeterNeumann+c74f20a3",
        "+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW",
        "Peter Neumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW",
        "PeterNeumann+C74F20A3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW",
        "PeterNeumann+c74f20a4+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW",
        "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TX",
        "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10T",
        "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy",
        "PeterNeumann+c74f20a3+Ahpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW",
        "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW\n",
    ],
)
def test_a_wrong_vkey_is_refused(vkey: str) -> None:
    with pytest.raises(VerificationError):
        Verifier.parse(vkey)
    with pytest.raises(VerificationError):
        Signer.parse("PRIVATE+KEY+" + vkey)


@pytest.mark.parametrize("name", ["", "a b", "a+b", "a\u00a0b", "a\u2003b", "a\nb", "a\x00"])
def test_a_name_that_no_note_could_hold_is_refused(name: str) -> None:
    with pytest.raises(VerificationError):
        Signer.generate(name)


@pytest.mark.parametrize("text", [b"", b"no newline", b"tab\there\n", b"\xff\n", b"cr\r\n"])
def test_only_note_text_is_signed(text: bytes) -> None:
    with pytest.raises(ValueError, match=r"note|utf-8"):
        sign_note(text, [SIGNER])


def test_a_note_nobody_signs_is_refused() -> None:
    with pytest.raises(ValueError, match="signed"):
        sign_note(b"text\n", [])


def test_unknown_signatures_are_ignored_known_ones_must_hold() -> None:
    note = sign_note(CHECKPOINT.text, [OTHER, SIGNER])
    assert [one.name for one in open_note(note, [SIGNER.verifier]).signatures] == [SIGNER.name]
    assert [one.name for one in open_note(note, [SIGNER.verifier, OTHER.verifier]).signatures] == [
        OTHER.name,
        SIGNER.name,
    ]
    with pytest.raises(VerificationError, match=r"not signed by nobody\.example"):
        open_note(note, [Signer.generate("nobody.example").verifier])
    lines = note.split(b"\n")
    false = b"\n".join([*lines[:-2], lines[-2][:-8] + b"AAAAAAA=", b""])
    assert false != note
    with pytest.raises(VerificationError, match="false"):
        open_note(false, [SIGNER.verifier, OTHER.verifier])
    assert open_note(false, [OTHER.verifier]).signatures  # to this reader the false one is of an unknown key


def test_the_same_name_under_another_key_is_unknown() -> None:
    impostor = Signer.generate(SIGNER.name)
    with pytest.raises(VerificationError, match="not signed by"):
        open_checkpoint(sign(CHECKPOINT, impostor), SIGNER.verifier)


def test_limits() -> None:
    line = SIGNED.splitlines(keepends=True)[-1]
    open_note(CHECKPOINT.text + b"\n" + line * MAX_SIGNATURES, [SIGNER.verifier])
    with pytest.raises(VerificationError, match="101 signatures"):
        open_note(CHECKPOINT.text + b"\n" + line * (MAX_SIGNATURES + 1), [SIGNER.verifier])
    with pytest.raises(VerificationError, match="at most"):
        open_note(b"a" * 1_000_001, [SIGNER.verifier])


# --------------------------------------------------------------------------------------------------------- checkpoints


def test_a_checkpoint_is_read_as_it_was_signed() -> None:
    assert SIGNED.startswith(b"ledger.example/payments\n20852163\nAAECAwQF")
    assert open_checkpoint(SIGNED, SIGNER.verifier) == CHECKPOINT
    extended = Checkpoint(origin=SIGNER.name, size=1, root=bytes(32), extensions=("é", "b c"))
    assert open_checkpoint(sign(extended, SIGNER), SIGNER.verifier) == extended


def test_every_flipped_bit_is_refused() -> None:
    for at in range(len(SIGNED)):
        for bit in range(8):
            changed = SIGNED[:at] + bytes([SIGNED[at] ^ 1 << bit]) + SIGNED[at + 1 :]
            with pytest.raises(VerificationError):
                open_checkpoint(changed, SIGNER.verifier)


def test_every_cut_and_any_tail_is_refused() -> None:
    for end in range(len(SIGNED)):
        with pytest.raises(VerificationError):
            open_checkpoint(SIGNED[:end], SIGNER.verifier)
    for tail in (b"\n", b" ", b"x", b"\x00", b"\n\n", "— a b\n".encode()):
        with pytest.raises(VerificationError):
            open_checkpoint(SIGNED + tail, SIGNER.verifier)


def test_the_checkpoint_of_another_log_under_the_same_key_is_refused() -> None:
    foreign = sign_note(Checkpoint(origin="elsewhere", size=0, root=EMPTY_ROOT).text, [SIGNER])
    with pytest.raises(VerificationError, match="elsewhere"):
        open_checkpoint(foreign, SIGNER.verifier)
    assert open_checkpoint(foreign, SIGNER.verifier, origin="elsewhere").size == 0


ROOT = base64.b64encode(bytes(range(32))).decode()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\n",
        "a\n1\n",
        f"a\n1\n{ROOT}",
        f"\n1\n{ROOT}\n",
        f"a\n\n{ROOT}\n",
        f"a\n01\n{ROOT}\n",
        f"a\n+1\n{ROOT}\n",
        f"a\n-1\n{ROOT}\n",
        f"a\n1 \n{ROOT}\n",
        f"a\n1_0\n{ROOT}\n",
        f"a\n\u0661\n{ROOT}\n",
        f"a\n{MAX_SIZE + 1}\n{ROOT}\n",
        f"a\n{'9' * 5000}\n{ROOT}\n",
        f"a\n0\n{ROOT}\n",
        f"a\n1\n{ROOT[:-1]}\n",
        f"a\n1\n{ROOT[:-2]}9=\n",
        f"a\n1\n{ROOT[:-4]}\n",
        f"a\n1\n {ROOT}\n",
        f"a\n1\n{ROOT}\n\n",
        f"a\n1\n{ROOT}\nx\n\ny\n",
    ],
)
def test_a_wrong_checkpoint_text_is_refused(text: str) -> None:
    with pytest.raises(VerificationError):
        Checkpoint.parse(text.encode())


@pytest.mark.parametrize(
    "checkpoint",
    [
        Checkpoint(origin=OTHER.name, size=1, root=bytes(32)),
        Checkpoint(origin=SIGNER.name, size=-1, root=bytes(32)),
        Checkpoint(origin=SIGNER.name, size=1, root=bytes(31)),
        Checkpoint(origin=SIGNER.name, size=0, root=bytes(32)),
        Checkpoint(origin=SIGNER.name, size=1, root=bytes(32), extensions=("",)),
        Checkpoint(origin=SIGNER.name, size=1, root=bytes(32), extensions=("a\nb",)),
    ],
)
def test_nothing_else_than_a_checkpoint_is_signed(checkpoint: Checkpoint) -> None:
    with pytest.raises(ValueError, match="checkpoint"):
        sign(checkpoint, SIGNER)


def test_witness_cosignatures_state_their_time() -> None:
    first, cosign_first = witness("witness.example/w1", b"1" * 32)
    second, cosign_second = witness("witness.example/w2", b"2" * 32)
    both = SIGNED + cosign_first(CHECKPOINT.text, 1679315147) + cosign_second(CHECKPOINT.text, 0)
    assert open_checkpoint(both, SIGNER.verifier) == CHECKPOINT
    assert [(one.name, one.seconds) for one in cosignatures(both, [first, second])] == [
        ("witness.example/w1", 1679315147),
        ("witness.example/w2", 0),
    ]
    assert Verifier.parse(first.vkey) == first
    with pytest.raises(VerificationError, match="not signed by"):
        cosignatures(SIGNED, [first])
    other_text = Checkpoint(origin=SIGNER.name, size=1, root=bytes(32)).text
    with pytest.raises(VerificationError, match="false"):
        cosignatures(SIGNED + cosign_first(other_text, 1679315147), [first])
    with pytest.raises(VerificationError, match="not a time"):
        cosignatures(SIGNED + cosign_first(CHECKPOINT.text, 1 << 63), [first])


# ---------------------------------------------------------------------------------------------------------------- fuzz

LIKE_A_NOTE = st.lists(
    st.sampled_from(
        [b"\n", b"\n\n", "— ".encode(), b" ", b"0", b"12", ROOT.encode(), SIGNED, SIGNED[:90], b"a.example"]
    )
    | st.binary(max_size=8),
    max_size=12,
).map(b"".join)


@given(LIKE_A_NOTE | st.binary())
def test_parsers_raise_only_their_own_error(data: bytes) -> None:
    text = data.decode("utf-8", "surrogateescape")
    for parse in (
        lambda: Checkpoint.parse(data),
        lambda: open_checkpoint(data, SIGNER.verifier),
        lambda: Verifier.parse(text),
        lambda: Signer.parse("PRIVATE+KEY+" + text),
    ):
        try:
            parse()
        except VerificationError:
            pass


@given(
    size=st.integers(1, MAX_SIZE),
    root=st.binary(min_size=32, max_size=32),
    extensions=st.lists(st.text(st.characters(exclude_categories=["Cc", "Cs"]), min_size=1, max_size=20), max_size=3),
)
def test_any_checkpoint_round_trips(size: int, root: bytes, extensions: list[str]) -> None:
    checkpoint = Checkpoint(origin=SIGNER.name, size=size, root=root, extensions=tuple(extensions))
    assert open_checkpoint(sign(checkpoint, SIGNER), SIGNER.verifier) == checkpoint
