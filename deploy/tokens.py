"""The file of the API's tokens on disk: read, changed under a lock, replaced as a whole."""

import fcntl
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from audit_api.auth import TokenRecord, TokensError, parse_tokens, render_tokens

__all__ = ["change_tokens", "read_tokens"]


def read_tokens(path: Path) -> list[TokenRecord]:
    """The tokens in the file, none if there is no file; raises `TokensError`."""
    try:
        return parse_tokens(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return []
    except (OSError, UnicodeDecodeError) as error:
        raise TokensError(f"{path}: {error}") from error


def change_tokens(path: Path, change: Callable[[list[TokenRecord]], Sequence[TokenRecord]]) -> None:
    """Replace the file by what `change` makes of its tokens; durable, mode 0600; one change at a time. Raises `TokensError`."""
    lock = os.open(path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        text = render_tokens(change(read_tokens(path)))
        parse_tokens(text)  # a file that the API does not understand would lock everybody out
        scratch = path.with_suffix(".new")
        fd = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(fd, "w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        scratch.replace(path)
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    finally:
        os.close(lock)
