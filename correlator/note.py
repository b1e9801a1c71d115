"""Signed notes: a short text and the Ed25519 signatures under it, as C2SP ``signed-note`` writes them. Pure.

    <text, ends with a newline>
    <empty line>
    — <key name> base64(key ID ‖ signature)

A *vkey* is a public key as text, ``<name>+<key ID, 8 hex digits>+base64(<signature type> ‖ <32-byte key>)``; an *skey*
is the private one, as ``golang.org/x/mod/sumdb/note`` writes it: ``PRIVATE+KEY+<name>+<key ID>+base64(0x01 ‖ <seed>)``.
Two signature types are known: plain Ed25519 (0x01) and witness cosignatures with their time (0x04, ``cosignature/v1``).

Specifications: https://c2sp.org/signed-note, https://c2sp.org/tlog-cosignature
"""

import base64
import binascii
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from correlator.errors import VerificationError

__all__ = ["Note", "Signature", "Signer", "Verifier", "decode_base64", "is_key_name", "open_note", "sign_note"]

ED25519 = 0x01
COSIGNATURE_V1 = 0x04

MAX_NOTE_BYTES = 1_000_000
MAX_SIGNATURES = 100

_DASH = "— "
_KEY_ID = re.compile(r"[0-9a-f]{8}")
_CONTROL = re.compile(rb"[\x00-\x09\x0b-\x1f]")


def decode_base64(text: str, what: str) -> bytes:
    """Standard base64 (RFC 4648 section 4), with padding, in its one canonical spelling.

    Raises:
        VerificationError: it is not; the message starts with ``what``.
    """
    try:
        raw = binascii.a2b_base64(text.encode("ascii"), strict_mode=True)
    except ValueError as error:  # binascii.Error and UnicodeEncodeError are ValueErrors
        raise VerificationError(f"{what} is not base64") from error
    if base64.b64encode(raw).decode("ascii") != text:  # spare bits that are not zero would make a second spelling
        raise VerificationError(f"{what} is not canonical base64")
    return raw


def is_key_name(name: str) -> bool:
    """Whether a key, and so a log, can be called so."""
    return bool(name) and "+" not in name and name.isprintable() and not any(char.isspace() for char in name)


def _key_id(name: str, algorithm: int, public_key: bytes) -> bytes:
    """The first 4 bytes of SHA-256(name ‖ 0x0A ‖ signature type ‖ public key)."""
    return sha256(name.encode() + b"\n" + bytes([algorithm]) + public_key).digest()[:4]


def _split_key(text: str, what: str) -> tuple[str, bytes, int, bytes]:
    """The name, key ID, signature type and 32 key bytes of a vkey, or of an skey without its prefix."""
    name, _, rest = text.partition("+")
    key_id, _, encoded = rest.partition("+")
    if not is_key_name(name) or not _KEY_ID.fullmatch(key_id):
        raise VerificationError(f"{what} is not <name>+<8 hex digits>+<base64>")
    raw = decode_base64(encoded, f"the key material of {what} {name}")
    if len(raw) != 33:
        raise VerificationError(f"the key material of {what} {name} has {len(raw)} bytes, not 1 + 32")
    return name, bytes.fromhex(key_id), raw[0], raw[1:]


@dataclass(frozen=True, slots=True, kw_only=True)
class Verifier:
    """A public key, and the name it signs under. ``algorithm`` is 0x01 (Ed25519) or 0x04 (cosignature/v1)."""

    name: str
    public_key: bytes = field(repr=False)
    algorithm: int = ED25519

    def __post_init__(self) -> None:
        """Refuse what no note could name.

        Raises:
            VerificationError: the name, the type or the key's length is not one that a vkey can hold.
        """
        if not is_key_name(self.name):
            raise VerificationError(f"{self.name!r} is no key name: it must not be empty or hold spaces or '+'")
        if self.algorithm not in (ED25519, COSIGNATURE_V1):
            raise VerificationError(
                f"key {self.name} has signature type {self.algorithm:#04x}; known are 0x01 and 0x04"
            )
        if len(self.public_key) != 32:
            raise VerificationError(f"key {self.name} has {len(self.public_key)} bytes, an Ed25519 key has 32")

    @classmethod
    def parse(cls, vkey: str) -> "Verifier":
        """Read a vkey.

        Raises:
            VerificationError: malformed, of an unknown signature type, or its key ID is not that of its key.
        """
        name, key_id, algorithm, public_key = _split_key(vkey, "verifier key")
        verifier = cls(name=name, public_key=public_key, algorithm=algorithm)
        if verifier.key_id != key_id:
            raise VerificationError(
                f"verifier key {name} states key ID {key_id.hex()}, its key has {verifier.key_id.hex()}"
            )
        return verifier

    @property
    def key_id(self) -> bytes:
        """The 4 bytes that, with the name, say in a note which key signed."""
        return _key_id(self.name, self.algorithm, self.public_key)

    @property
    def vkey(self) -> str:
        """The text that `parse` reads."""
        encoded = base64.b64encode(bytes([self.algorithm]) + self.public_key).decode("ascii")
        return f"{self.name}+{self.key_id.hex()}+{encoded}"

    @property
    def fingerprint(self) -> str:
        """``SHA256:<hex>`` over the 32 key bytes: for a person to compare."""
        return "SHA256:" + sha256(self.public_key).hexdigest()

    def named(self, name: str) -> "Verifier":
        """The same key under another name, which gives it another key ID; raises as the constructor."""
        return replace(self, name=name)

    def verify(self, text: bytes, signature: bytes) -> int | None:
        """Check a signature over a note's text; gives the POSIX seconds that a cosignature states, else None.

        Raises:
            VerificationError: the signature is not this key's over this text.
        """
        seconds = None
        if self.algorithm == COSIGNATURE_V1:
            seconds = int.from_bytes(signature[:8], "big")
            if len(signature) != 72 or seconds >= 1 << 63:
                raise VerificationError(f"the cosignature of {self.name} is not a time and an Ed25519 signature")
            signature = signature[8:]
            text = f"cosignature/v1\ntime {seconds}\n".encode() + text
        try:
            Ed25519PublicKey.from_public_bytes(self.public_key).verify(signature, text)
        except (InvalidSignature, ValueError) as error:
            raise VerificationError(f"the signature of {self.name} (key {self.key_id.hex()}) is false") from error
        return seconds


class Signer:
    """An Ed25519 private key, and the name it signs under. Says nothing of the key in its ``repr``."""

    __slots__ = ("_private_key", "verifier")

    def __init__(self, *, name: str, private_key: Ed25519PrivateKey) -> None:
        self._private_key = private_key
        self.verifier = Verifier(name=name, public_key=private_key.public_key().public_bytes_raw())

    def __repr__(self) -> str:
        return f"Signer(name={self.name!r}, key_id={self.verifier.key_id.hex()!r})"

    @classmethod
    def generate(cls, name: str) -> "Signer":
        """A new key, from the system's randomness."""
        return cls(name=name, private_key=Ed25519PrivateKey.generate())

    @classmethod
    def parse(cls, skey: str) -> "Signer":
        """Read an skey.

        Raises:
            VerificationError: malformed; the message holds no key material.
        """
        prefix = "PRIVATE+KEY+"
        if not skey.startswith(prefix):
            raise VerificationError("a private key starts with PRIVATE+KEY+")
        name, key_id, algorithm, seed = _split_key(skey[len(prefix) :], "private key")
        if algorithm != ED25519:
            raise VerificationError(f"private key {name} has signature type {algorithm:#04x}; known is 0x01")
        signer = cls(name=name, private_key=Ed25519PrivateKey.from_private_bytes(seed))
        if signer.verifier.key_id != key_id:
            raise VerificationError(f"private key {name} states a key ID that is not its own")
        return signer

    @property
    def name(self) -> str:
        """The key name."""
        return self.verifier.name

    def named(self, name: str) -> "Signer":
        """The same key under another name, which gives it another key ID; raises `VerificationError` as `Verifier`."""
        return Signer(name=name, private_key=self._private_key)

    @property
    def skey(self) -> str:
        """The private key as text: a secret, for a file of mode 0600."""
        encoded = base64.b64encode(bytes([ED25519]) + self._private_key.private_bytes_raw()).decode("ascii")
        return f"PRIVATE+KEY+{self.name}+{self.verifier.key_id.hex()}+{encoded}"

    def sign(self, text: bytes) -> bytes:
        """The 64-byte Ed25519 signature (RFC 8032) over ``text``: the same text gives the same signature."""
        return self._private_key.sign(text)


@dataclass(frozen=True, slots=True, kw_only=True)
class Signature:
    """One signature line that a known key has made. ``seconds`` is a cosignature's stated POSIX time, else None."""

    name: str
    key_id: bytes
    seconds: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """A note that at least one known key has signed: its text (ends with a newline), and those keys' signatures."""

    text: bytes
    signatures: tuple[Signature, ...]


def sign_note(text: bytes, signers: Sequence[Signer]) -> bytes:
    """The signed note over ``text``, one line for each signer.

    Raises:
        ValueError: the text does not end with a newline, holds control characters or is not UTF-8, or nobody signs.
    """
    if not signers or not text.endswith(b"\n") or _CONTROL.search(text):
        raise ValueError("a note is UTF-8 text that ends with a newline, without control characters, and signed")
    text.decode("utf-8")
    lines = [
        f"{_DASH}{signer.name} {base64.b64encode(signer.verifier.key_id + signer.sign(text)).decode('ascii')}\n"
        for signer in signers
    ]
    return text + b"\n" + "".join(lines).encode()


def _signature_lines(message: bytes) -> tuple[bytes, list[tuple[str, bytes]]]:
    """The text of a note, and of each signature line the name and the raw bytes (key ID ‖ signature)."""
    if len(message) > MAX_NOTE_BYTES:
        raise VerificationError(f"the note has {len(message)} bytes, at most {MAX_NOTE_BYTES} are read")
    if (control := _CONTROL.search(message)) is not None:
        raise VerificationError(f"the note holds a control character at byte {control.start()}")
    try:
        message.decode("utf-8")
    except UnicodeDecodeError as error:
        raise VerificationError(f"the note is not UTF-8 at byte {error.start}") from error
    end = message.rfind(b"\n\n")
    if end < 0 or not message.endswith(b"\n") or end + 2 == len(message):
        raise VerificationError("the note has no signature lines after an empty line, or does not end with a newline")
    lines = message[end + 2 : -1].decode("utf-8").split("\n")
    if len(lines) > MAX_SIGNATURES:
        raise VerificationError(f"the note has {len(lines)} signatures, at most {MAX_SIGNATURES} are read")
    found = []
    for number, line in enumerate(lines, 1):
        name, _, encoded = line.removeprefix(_DASH).partition(" ")
        if not line.startswith(_DASH) or not is_key_name(name):
            raise VerificationError(f"signature line {number} of the note is not '— <name> <base64>'")
        raw = decode_base64(encoded, f"signature line {number} of the note")
        if len(raw) < 5:
            raise VerificationError(f"signature line {number} of the note is too short for a key ID and a signature")
        found.append((name, raw))
    return message[: end + 1], found


def open_note(message: bytes, verifiers: Sequence[Verifier]) -> Note:
    """Read a signed note and check each signature of a known key; those of unknown keys are ignored, as C2SP demands.

    Raises:
        VerificationError: malformed, a known key's signature is false, or no known key has signed.
    """
    text, lines = _signature_lines(message)
    known = {(verifier.name, verifier.key_id): verifier for verifier in verifiers}
    signatures = []
    for name, raw in lines:
        verifier = known.get((name, raw[:4]))
        if verifier is not None:
            seconds = verifier.verify(text, raw[4:])
            signatures.append(Signature(name=name, key_id=raw[:4], seconds=seconds))
    if not signatures:
        wanted = ", ".join(f"{name} (key {key_id.hex()})" for name, key_id in known)
        signed = ", ".join(f"{name} (key {raw[:4].hex()})" for name, raw in lines)
        raise VerificationError(f"the note is not signed by {wanted or 'any known key'}, but by {signed}")
    return Note(text=text, signatures=tuple(signatures))
