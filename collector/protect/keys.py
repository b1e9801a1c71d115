"""The token key on disk: 32 random bytes in a file that only its owner may read.

Whoever has the key can test card numbers against tokens, so it is a secret like a password; whoever loses it can no
longer join new events to old ones. Collectors whose tokens shall join are given the same key.
"""

import binascii
import os
import stat
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from collector.errors import TallyError

__all__ = ["TOKEN_KEY_BYTES", "KeyFileError", "load_or_create_token_key", "load_token_key"]

TOKEN_KEY_BYTES = 32


class KeyFileError(TallyError):
    """The key file cannot be trusted or read; the message names the file and what to do, never its content."""


def load_or_create_token_key(path: Path, *, random_bytes: Callable[[int], bytes] = os.urandom) -> bytes:
    """The token key in the file at `path`, which is made if there is none: hexadecimal, one line, mode 0600.

    Durable on return, and only ever there as a whole: of processes that start at once, all return the same key.
    `random_bytes(n)` gives n unpredictable bytes.

    Raises:
        KeyFileError: the file is not a regular file, may be read by others, or holds no key.
        OSError: the folder is missing, or the disk refuses.
    """
    with suppress(FileNotFoundError):
        return load_token_key(path)
    # Written under another name and linked, since a process that dies halfway must not leave half a key under this one.
    draft = path.with_name(f"{path.name}.{random_bytes(8).hex()}.new")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(random_bytes(TOKEN_KEY_BYTES).hex().encode("ascii") + b"\n")
            file.flush()
            os.fsync(file.fileno())
        with suppress(FileExistsError):  # another process was first: its key counts
            os.link(draft, path)
    finally:
        draft.unlink()
    # Before this, a crash may lose the name: then no token made with the key has been used, since it was not returned.
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
    return load_token_key(path)


def load_token_key(path: Path) -> bytes:
    """The token key in the file at `path`.

    Raises:
        FileNotFoundError: there is no such file.
        KeyFileError: as `load_or_create_token_key`.
        OSError: it cannot be read.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        about = os.fstat(descriptor)
        if not stat.S_ISREG(about.st_mode):
            raise KeyFileError(f"{path} is not a regular file")
        if about.st_mode & 0o077:
            raise KeyFileError(f"{path} may be read by others (mode {about.st_mode & 0o777:04o}): chmod 600 it")
        content = os.read(descriptor, 4 * TOKEN_KEY_BYTES)
    finally:
        os.close(descriptor)
    try:
        key = binascii.unhexlify(content.strip())
    except (binascii.Error, ValueError):
        key = b""
    if len(key) != TOKEN_KEY_BYTES:
        raise KeyFileError(f"{path} holds no key: {2 * TOKEN_KEY_BYTES} hexadecimal digits were expected")
    return key
