"""The header log: every batch header that a stream has signed and the log does not hold yet, in the spool beside its segments.

A header is written and synced here before the store hears of it, so a batch is never cut twice: after a crash the same
header is sent again. One header a line, ``base64(signature) SP header LF``; the signature tells a whole line from a torn
one, and a changed one from both.
"""

import base64
import binascii
import re
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from collector.batch import SignedHeader, open_header
from collector.disk import AppendFile, Disk
from collector.errors import VerificationError
from collector.segments import Damaged

__all__ = ["HeaderLog"]

_PREFIX, _SUFFIX = "headers-", ".log"
_NAME = re.compile(r"headers-\d{12}\.log", re.ASCII)


class HeaderLog:
    """The signed headers of one stream, ascending and chained. Facts are not kept here: the segments have them.

    Args:
        directory: the incarnation's folder.
        disk: the disk.
        headers_a_file: how many headers go into one file.

    Raises:
        Damaged: on opening, a header that was synced does not read back, or the chain does not hold.
    """

    def __init__(self, directory: Path, *, disk: Disk, headers_a_file: int = 1_000) -> None:
        self._directory = directory
        self._disk = disk
        self._headers_a_file = headers_a_file
        self._files: list[int] = []  # number of the first header in each file, ascending
        self._file: AppendFile | None = None
        self._size = 0  # durable bytes of the last file
        self.last: SignedHeader | None = None
        self._kept: list[SignedHeader] = []
        self._recover()

    def after(self, number: int) -> list[SignedHeader]:
        """The headers kept with a number greater than `number`, ascending, without facts."""
        return [signed for signed in self._kept if signed.header.number > number]

    def append(self, signed: SignedHeader) -> None:
        """Write and sync one header. A crash before the sync: it was never sent, and the batch is cut anew.

        Raises:
            OSError: the disk did not take it; nothing may be sent.
        """
        line = _line(signed)
        file = self._writable(signed.header.number)
        try:
            file.write(line)
            file.sync()
        except OSError:
            file.close()
            self._file = None  # part of the line may be in the file: `_writable` cuts it off before anything follows it
            raise
        self._size += len(line)
        # without its facts, which are a third of the events' bytes: headers are kept until the log has them, and that may take days
        self.last = replace(signed, facts=b"")
        self._kept.append(self.last)

    def _writable(self, number: int) -> AppendFile:
        if self._file is None and self._files:
            path = self._path(self._files[-1])
            self._disk.truncate(path, self._size)
            self._file = self._disk.append_to(path)
        if self._file is not None and number - self._files[-1] < self._headers_a_file:
            return self._file
        file = self._disk.append_to(self._path(number))
        try:
            self._disk.sync_directory(self._directory)
        except OSError:
            file.close()
            raise
        if self._file is not None:
            self._file.close()
        self._file, self._size = file, 0
        if number not in self._files:
            self._files.append(number)
        return file

    def release(self, number: int) -> None:
        """Forget headers up to `number`; the last one is always kept, because the next one chains to it."""
        self._kept = [signed for signed in self._kept if signed.header.number > number]
        # a crash may have left a last file without a header: the one before it then holds the last
        last = self.last.header.number if self.last else 0
        while len(self._files) > 1 and self._files[1] <= min(number + 1, last):
            with suppress(FileNotFoundError):  # removed before, when the folder's sync then failed
                self._disk.remove(self._path(self._files[0]))
            self._disk.sync_directory(self._directory)
            del self._files[0]

    def close(self) -> None:
        """Close the file being written."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _path(self, number: int) -> Path:
        return self._directory / f"{_PREFIX}{number:012d}{_SUFFIX}"

    def _recover(self) -> None:
        names = [name for name in self._disk.list_directory(self._directory) if name.startswith(_PREFIX)]
        for name in names:
            if not _NAME.fullmatch(name):
                raise Damaged(f"{name} in {self._directory.name} is no header log's name")
        self._files = sorted(int(name.removeprefix(_PREFIX).removesuffix(_SUFFIX)) for name in names)
        for at, first in enumerate(self._files):
            self._recover_file(first, last_file=at == len(self._files) - 1)
        if self._files:
            self._file = self._disk.append_to(self._path(self._files[-1]))
            self._size = self._file.size()

    def _recover_file(self, first: int, *, last_file: bool) -> None:
        path = self._path(first)
        data = self._disk.read(path)
        at = 0
        while at < len(data):
            end = data.find(b"\n", at) + 1
            try:
                signed = _parse(data[at:end])
                self._check_chain(signed)
            except (VerificationError, ValueError, binascii.Error) as error:
                # only the last line of the last file can be torn; it was not synced, so it was not sent
                if last_file and (not end or end == len(data)) and not _was_synced(data[at:]):
                    self._disk.truncate(path, at)
                    break
                raise Damaged(f"header log {path.name}: damaged at byte {at}: {error}") from error
            self._kept.append(signed)
            self.last = signed
            at = end
        if last_file:
            # a whole line that was never synced is kept: the batch it names may be sent, so it must not vanish later
            self._disk.sync_file(path)
            self._disk.sync_directory(self._directory)

    def _check_chain(self, signed: SignedHeader) -> None:
        before = self.last
        if before is None:
            return
        if signed.header.number != before.header.number + 1 or signed.header.previous != before.digest:
            raise VerificationError(f"batch {signed.header.number} does not follow batch {before.header.number}")
        if signed.header.first != before.header.first + before.header.count:
            raise VerificationError(f"batch {signed.header.number} does not begin where the one before ends")


def _line(signed: SignedHeader) -> bytes:
    return base64.b64encode(signed.signature) + b" " + signed.data + b"\n"


def _parse(line: bytes) -> SignedHeader:
    if not line.endswith(b"\n"):
        raise VerificationError("the line is cut short")
    signature, space, data = line[:-1].partition(b" ")
    if not space:
        raise VerificationError("no signature and header")
    return open_header(data, base64.b64decode(signature, validate=True))


def _was_synced(tail: bytes) -> bool:
    """Whether a bad last line is more than a torn write explains: it is whole in shape, yet its bytes are wrong.

    A torn write lacks its end, or holds zeros where pages were never written.
    """
    return tail.endswith(b"}\n") and b"\x00" not in tail
