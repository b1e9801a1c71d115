"""A file as lines of bounded length, plain or gzip, and the SHA-256 that names it."""

import gzip
import hashlib
import io
import stat
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, cast

from collector.errors import Malformed

__all__ = ["MAX_ROW_BYTES", "Source", "lines"]

MAX_ROW_BYTES = 2**20
"""Longest row; a longer one becomes a dead letter."""

_GZIP_MAGIC = b"\x1f\x8b"
_PIECE_BYTES = 1 << 20


class Source:
    """A file that is read once for its SHA-256 and once for its content: of one that grows meanwhile, only what the SHA-256 is of.

    Attributes:
        path: where it is.
        sha256: of the file as it is stored, compressed if it is; 64 hex digits.
        size_bytes: of the file as it is stored.
        compressed: whether it is gzip.

    Raises:
        OSError: it cannot be read.
        Malformed: it is a pipe, a device or a socket, which cannot be read twice.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        kind = path.stat().st_mode  # before it is opened: that would wait for who writes into a pipe
        if not (stat.S_ISREG(kind) or stat.S_ISDIR(kind)):  # opening a folder says what is wrong with it
            raise Malformed(
                "not a regular file; it is read twice, so write what comes out of a pipe into a file first",
                where=path.name,
                label="bad_file",
            )
        digest = hashlib.sha256()
        size = 0
        first = b""
        with path.open("rb") as file:
            while piece := file.read(_PIECE_BYTES):
                first = first or piece[:2]
                digest.update(piece)
                size += len(piece)
        self.sha256 = digest.hexdigest()
        self.size_bytes = size
        self.compressed = first == _GZIP_MAGIC

    def open(self) -> BinaryIO:
        """The content, decompressed; the caller closes it. Reading raises OSError when the file is not what it was any more."""
        front = _Front(self.path, self.size_bytes, self.sha256)
        content = cast("BinaryIO", io.BufferedReader(front, _PIECE_BYTES))
        if not self.compressed:
            return content
        # GzipFile reads member after member and checks each checksum; what it raises is wrapped by `lines`. A larger buffer
        # around it would lose what stands before the damage.
        return cast("BinaryIO", _Gzip(content))


class _Front(io.RawIOBase):
    """The first `size_bytes` of a file. Their last piece is given only when their SHA-256 is `sha256`: else a stream would bear the name of what it does not hold."""

    def __init__(self, path: Path, size_bytes: int, sha256: str) -> None:
        self._left_bytes = size_bytes
        self._sha256 = sha256
        self._digest = hashlib.sha256()
        self._file = path.open("rb", buffering=0)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        piece = memoryview(buffer)[: self._left_bytes]
        read = self._file.readinto(piece)
        if not read and self._left_bytes:
            raise OSError("it has become shorter while it was read")
        self._digest.update(piece[:read])
        self._left_bytes -= read
        if not self._left_bytes and self._digest.hexdigest() != self._sha256:
            raise OSError("it has changed while it was read")
        return read

    def close(self) -> None:
        self._file.close()
        super().close()


class _Gzip(gzip.GzipFile):
    """A GzipFile that closes what it reads from."""

    def __init__(self, content: BinaryIO) -> None:
        super().__init__(fileobj=content, mode="rb")
        self._content = content

    def close(self) -> None:
        super().close()
        self._content.close()


def lines(stream: BinaryIO, max_bytes: int = MAX_ROW_BYTES) -> Iterator[bytes]:
    """The lines with their ends. One longer than `max_bytes` comes cut, as ``max_bytes + 1`` bytes; its rest is passed over.

    Raises:
        Malformed: the compressed data is damaged or cut short (``bad_gzip``); the lines before have been given out.
    """
    while True:
        try:
            line = stream.readline(max_bytes + 1)
            rest = line
            while len(rest) > max_bytes and not rest.endswith(b"\n"):
                rest = stream.readline(max_bytes + 1)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise Malformed("the compressed file is damaged or cut short", label="bad_gzip") from error
        if not line:
            return
        yield line
