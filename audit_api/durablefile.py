"""A small file that is either the old one or the new one, whatever happens: what the API keeps of its own, readable by its user alone."""

import os
from pathlib import Path

__all__ = ["remove_durable", "write_durable"]


def write_durable(path: Path, data: bytes) -> None:
    """Make a file's content this, durable on return; raises OSError, and then the file is what it was.

    A crash may leave what was half written beside it, under a name that ends with ``.part`` and that nobody else uses.
    """
    part = path.with_name(f"{path.name}.{os.urandom(8).hex()}.part")
    try:
        with part.open("xb") as file:
            os.fchmod(file.fileno(), 0o600)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)  # a crash before: the old one; after: the new one
    except OSError:
        part.unlink(missing_ok=True)
        raise
    _sync(path.parent)


def remove_durable(path: Path) -> None:
    """The file is gone, durably; also when it was not there."""
    path.unlink(missing_ok=True)
    _sync(path.parent)


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
