"""The keys on disk, each made on first use, each secret in a file of mode 0600.

keys/log.key               signs the log; one line as golang.org/x/mod/sumdb/note writes it
keys/log.vkey              its public half, for those who verify (C2SP signed-note, "Verifier keys")
keys/collector-<name>.key  signs a collector's batches: the Ed25519 seed in hexadecimal
keys/cards.key             makes the tokens of card numbers; shared by all collectors, so that tokens join
"""

import contextlib
import fcntl
import os
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from collector.protect.keys import load_or_create_token_key
from correlator.errors import VerificationError
from correlator.note import Signer, Verifier
from correlator.storage import LogStorage
from deploy.config import ConfigError
from deploy.places import Places
from deploy.session import say

__all__ = [
    "collector_key",
    "log_signer",
    "log_verifier",
    "read_signer",
    "read_verifier",
    "tell_of_key",
    "token_key",
    "write_key_pair",
]

MAX_KEY_FILE_BYTES = 4_096


def collector_key(places: Places, name: str) -> Ed25519PrivateKey:
    """The key that signs this collector's batches, made on first use; raises `KeyFileError`, OSError."""
    places.make()
    # 32 unpredictable bytes are what an Ed25519 private key is (RFC 8032 section 5.1.5)
    return Ed25519PrivateKey.from_private_bytes(load_or_create_token_key(places.keys / f"collector-{name}.key"))


def token_key(places: Places) -> bytes:
    """The key of the card numbers' tokens, made on first use; raises `KeyFileError`, OSError."""
    places.make()
    return load_or_create_token_key(places.keys / "cards.key")


def log_signer(places: Places, *, ledger: str, storage: LogStorage | None = None) -> tuple[Signer, bool]:
    """The log's key, made on first use; and whether it was made now, which is to be said aloud.

    Args:
        places: where the key is kept.
        ledger: the ledger's name.
        storage: where the log lies, when not only in its folder: no key is made for a log that another one has signed.

    Raises:
        ConfigError: the key file cannot be read, is readable by others, or signs for another ledger.
        Overloaded, StateUnknown: there is no key yet, and the storage does not tell whether there is a log.
    """
    path = places.log_key
    made = False
    if not path.exists():
        has_log = (places.log.exists() and any(places.log.iterdir())) or (
            storage is not None and storage.read_head() is not None
        )
        if has_log and not path.exists():  # another shard's correlator may have made both meanwhile, the key first
            raise ConfigError(f"{path} is missing, and there is a log: only its own key can go on signing it")
        places.make()
        with contextlib.suppress(FileExistsError):  # another process of ours was faster
            write_key_pair(Signer.generate(ledger), path, places.log_vkey)
            made = True
    return read_signer(places, ledger=ledger), made


def read_signer(places: Places, *, ledger: str) -> Signer:
    """The log's key as it is there.

    Raises:
        ConfigError: the key file cannot be read, is readable by others, or signs for another ledger.
    """
    path = places.log_key
    try:
        mode = path.stat().st_mode
        if mode & 0o077:
            raise ConfigError(f"{path} can be read by others (mode {mode & 0o777:04o}): chmod 600 {path}")
        signer = Signer.parse(path.read_text(encoding="ascii").strip())
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: {error}") from error
    except VerificationError as error:
        raise ConfigError(f"{path}: {error}") from error
    if signer.name != ledger:
        raise ConfigError(
            f"{path} signs for the ledger {signer.name!r}, and the configuration says ledger = {ledger!r}"
        )
    return signer


def tell_of_key(signer: Signer, made: bool, places: Places) -> None:
    """Say on stderr that a key was made, and what to do with it; nothing if it was there."""
    if made:
        say(f"made the key that signs the log: {places.log_key} (keep it secret, and a copy of it safe)")
        say(f"its public half is for those who verify: {signer.verifier.vkey}")


def log_verifier(places: Places) -> Verifier:
    """The log's own public key; raises `ConfigError` if there is none yet or it cannot be read."""
    if not places.log_vkey.exists():
        raise ConfigError(f"there is no ledger in {places.root} yet: `tally up` or `tally import` make one")
    return read_verifier(str(places.log_vkey))


def read_verifier(text: str) -> Verifier:
    """A verifier key, given as the key itself or as the name of a file that holds it; raises `ConfigError`."""
    path = Path(text)
    if "+" not in text or path.is_file():
        try:
            with path.open("rb") as stream:
                text = stream.read(MAX_KEY_FILE_BYTES).decode("utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"the key {text}: {getattr(error, 'strerror', None) or error}") from error
    if text.startswith("PRIVATE+KEY+"):
        raise ConfigError("this is the log's private key, which belongs to the log alone: give its .vkey")
    try:
        return Verifier.parse(text)
    except VerificationError as error:
        raise ConfigError(f"the key: {error}") from error


def write_key_pair(signer: Signer, key: Path, vkey: Path) -> None:
    """Write a key pair, durably; raises FileExistsError rather than replace a key.

    The public half goes first: a crash in between leaves a vkey that signs nothing and is replaced, never a log whose key nobody
    was given. One process at a time: of two that start together, one's public half could come to stand beside the other's key.
    """
    folder = os.open(key.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)  # let go of with the descriptor
        if key.exists():
            raise FileExistsError(f"{key} is there")
        _write(vkey, signer.verifier.vkey, mode=0o644, replace=True)
        _write(key, signer.skey, mode=0o600, replace=False)
    finally:
        os.close(folder)


def _write(path: Path, text: str, *, mode: int, replace: bool) -> None:
    """One line into a file that appears whole or not at all."""
    scratch = path.with_name(f"{path.name}.{os.getpid()}.new")
    fd = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
    try:
        os.write(fd, text.encode() + b"\n")
        os.fsync(fd)
    finally:
        os.close(fd)
    try:
        if replace:
            scratch.replace(path)
        else:
            os.link(scratch, path)  # unlike rename, refuses to replace
    finally:
        scratch.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
