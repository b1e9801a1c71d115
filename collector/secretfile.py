"""Secrets that stand in files of their own, and never in ``tally.toml``: shared keys, passwords, the keys of certificates."""

from pathlib import Path

from collector.errors import Malformed

__all__ = ["check_files", "read_secret"]

_MAX_BYTES = 1_024


def read_secret(file: str, *, at_most: int = _MAX_BYTES) -> bytes:
    """The file's content without white space at its ends, 1 to `at_most` bytes.

    Raises:
        Malformed: it is empty, or longer (``bad_key_file``).
        OSError: it cannot be read.
    """
    with Path(file).open("rb") as stream:
        data = stream.read(at_most + 1)
    secret = data.strip()
    if not secret or len(data) > at_most:
        raise Malformed(f"{file}: a secret of 1 to {at_most} bytes is expected in it", label="bad_key_file")
    return secret


def check_files(*files: str) -> None:
    """Look whether the files can be read; an empty name is none. `ssl` does not say which of them cannot. Raises OSError."""
    for file in files:
        if file:
            Path(file).open("rb").close()
