"""A file as lines of bounded length, plain or gzip, and the SHA-256 that names it."""

import gzip
import hashlib
import io
import stat
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, cast

from collector.errors import Malformed

__all__ = ["MAX_ROW_BYTES", "Source", "lines"]

MAX_ROW_BYTES = 2**20
"""Longest row; a longer one becomes a dead letter."""

_GZIP_MAGIC = b"\x1f\x8b"
_PIECE_BYTES = 1 << 20


class Source:
    """A file that is read once for its SHA-256 and once for its content. Of one that changes meanwhile nothing is given that the SHA-256 is not of.

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
        self._digests: list[bytes] = []
        with path.open("rb") as file:
            while piece := file.read(_PIECE_BYTES):
                first = first or piece[:2]
                digest.update(piece)
                self._digests.append(digest.digest())
                size += len(piece)
                if len(piece) < _PIECE_BYTES:
                    break  # what comes behind it while it grows would begin a piece elsewhere
        self.sha256 = digest.hexdigest()
        self.size_bytes = size
        self.compressed = first == _GZIP_MAGIC

    def open(self) -> BinaryIO:
        """The content, decompressed; the caller closes it. Reading raises OSError when the file is not what it was any more."""
        front = _Front(self.path, self.size_bytes, self._digests)
        content = cast("BinaryIO", io.BufferedReader(front, _PIECE_BYTES))
        if not self.compressed:
            return content
        # GzipFile reads member after member and checks each checksum; what it raises is wrapped by `lines`. A larger buffer
        # around it would lose what stands before the damage.
        return cast("BinaryIO", _Gzip(content))

    def has_grown(self) -> bool:
        """Whether a longer file than what is read of it stands there by now."""
        try:
            return self.path.stat().st_size > self.size_bytes
        except OSError:
            return False


class _Front(io.RawIOBase):
    """The first `size_bytes` of a file, piece by piece: each is given when it is whole, and was so before; a stream would bear the name of what it does not hold.

    `digests`: SHA-256 of the file up to the end of each piece.
    """

    def __init__(self, path: Path, size_bytes: int, digests: Sequence[bytes]) -> None:
        self._left_bytes = size_bytes
        self._digests = iter(digests)
        self._digest = hashlib.sha256()
        self._piece = memoryview(b"")
        self._file = path.open("rb")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if not self._piece and self._left_bytes:
            self._piece = memoryview(self._next_piece())
        given = self._piece[: len(memoryview(buffer))]
        memoryview(buffer)[: len(given)] = given
        self._piece = self._piece[len(given) :]
        return len(given)

    def _next_piece(self) -> bytes:
        piece = self._file.read(min(_PIECE_BYTES, self._left_bytes))
        self._left_bytes -= len(piece)
        if self._left_bytes and len(piece) < _PIECE_BYTES:
            raise OSError("it has become shorter while it was read")
        self._digest.update(piece)
        if self._digest.digest() != next(self._digests):
            raise OSError("it has changed while it was read")
        return piece

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
