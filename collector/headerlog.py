"""The header log: every batch header that a stream has signed and the log does not hold yet, in the spool beside its segments.

A header is written and synced here before the store hears of it, so a batch is never cut twice: after a crash the same
header is sent again. One header a line, ``base64(signature) SP header LF``; the signature tells a whole line from a torn
one, and a changed one from both.

While the correlator is away they may come to a million. So memory holds of each but its place and where its batch begins; whoever
wants one reads it again. And a start verifies the signatures of the last file alone: each header names the hash of the one before, so
the last one speaks for all. A signature that changed in another file is found when its header is to be sent.
"""

import base64
import binascii
import re
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from collector.batch import MAX_HEADER_BYTES, SignedHeader, open_header, read_header
from collector.disk import AppendFile, Disk, write_again
from collector.errors import VerificationError
from collector.segments import Damaged, read_kept

__all__ = ["HeaderLog"]

_PREFIX, _SUFFIX = "headers-", ".log"
_NAME = re.compile(r"headers-\d{12}\.log", re.ASCII)
_MAX_LINE_BYTES = MAX_HEADER_BYTES + 90  # base64 of a signature, a space and the line's end


class HeaderLog:
    """The signed headers of one stream, ascending and chained. Facts are not kept here: the segments have them.

    Args:
        directory: the incarnation's folder.
        disk: the disk.
        headers_a_file: how many headers go into one file.

    Attributes:
        last: the newest header, without its facts; None before the first.
        oldest: the number of the oldest header that is kept: the next one's if none is.

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
        self.oldest = 1
        self._firsts = array("Q")  # of each header kept, by its number less `oldest`: the sequence of its first event,
        self._places = array("Q")  # and the offset of its line in its file
        self._recover()

    @property
    def next_sequence(self) -> int:
        """The sequence that the next batch begins with."""
        return self.last.header.first + self.last.header.count if self.last else 0

    def after(self, number: int) -> Iterator[SignedHeader]:
        """The headers kept with a number greater than `number`, ascending, without facts. Each is read when it is asked for.

        Raises:
            Damaged: one does not read back.
            OSError: it cannot be read now.
        """
        while (number := max(number + 1, self.oldest)) < self.oldest + len(self._firsts):
            yield self._read(number)

    def sequence_behind(self, number: int) -> int:
        """The sequence of the first event behind batch `number`; of the first that a header is kept for, if that comes later."""
        at = max(0, number + 1 - self.oldest)
        return self._firsts[at] if at < len(self._firsts) else self.next_sequence

    def last_below(self, sequence: int) -> int:
        """The number of the newest header kept whose batch begins below `sequence`; the one before the oldest if there is none."""
        return self.oldest - 1 + bisect_left(self._firsts, sequence)

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
        self._keep(replace(signed, facts=b""), self._size)
        self._size += len(line)

    def _keep(self, signed: SignedHeader, place: int) -> None:
        if not self._firsts:
            self.oldest = signed.header.number
        self._firsts.append(signed.header.first)
        self._places.append(place)
        self.last = signed

    def _read(self, number: int) -> SignedHeader:
        place = self._places[number - self.oldest]
        path = self._path(self._files[bisect_right(self._files, number) - 1])
        line, end, _ = read_kept(self._disk, path, place, _MAX_LINE_BYTES).partition(b"\n")
        try:
            signed = _parse(line + end)
        except (VerificationError, ValueError, binascii.Error) as error:
            raise Damaged(f"header log {path.name}: damaged at byte {place}: {error}") from error
        if signed.header.number != number:
            raise Damaged(f"header log {path.name}: batch {signed.header.number} at byte {place}, expected {number}")
        return signed

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
            with suppress(OSError):
                # another sync of the same name may make nothing durable (`write_again`): the next try makes another file
                self._disk.remove(self._path(number))
            raise
        if self._file is not None:
            self._file.close()
        self._file, self._size = file, 0
        if number not in self._files:
            self._files.append(number)
        return file

    def release(self, number: int) -> None:
        """Forget headers up to `number`; the last one is always kept, because the next one chains to it."""
        gone = min(max(0, number + 1 - self.oldest), len(self._firsts))
        del self._firsts[:gone], self._places[:gone]
        self.oldest += gone
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
        if (
            self._firsts and self._size == 0
        ):  # a crash left the last file without a header: the last one stands in the file before
            self._read(self.oldest + len(self._firsts) - 1)

    def _recover_file(self, first: int, *, last_file: bool) -> None:
        path = self._path(first)
        data = read_kept(self._disk, path)
        at = 0
        while at < len(data):
            end = data.find(b"\n", at) + 1
            try:
                signed = _parse(data[at:end], verify=last_file)
                self._check_chain(signed)
            except (VerificationError, ValueError, binascii.Error) as error:
                # only the last line of the last file can be torn; it was not synced, so it was not sent
                if last_file and (not end or end == len(data)) and not _was_synced(data[at:]):
                    break
                raise Damaged(f"header log {path.name}: damaged at byte {at}: {error}") from error
            self._keep(signed, at)
            at = end
        if last_file:
            # a whole line that was never synced, or in vain, is kept: the batch it names may be sent, so it must not vanish later
            write_again(self._disk, path, data[:at])

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


def _parse(line: bytes, *, verify: bool = True) -> SignedHeader:
    if not line.endswith(b"\n"):
        raise VerificationError("the line is cut short")
    signature, space, data = line[:-1].partition(b" ")
    if not space:
        raise VerificationError("no signature and header")
    signature = base64.b64decode(signature, validate=True)
    if verify:
        return open_header(data, signature)
    return SignedHeader(header=read_header(data), data=data, signature=signature, facts=b"")


def _was_synced(tail: bytes) -> bool:
    """Whether a bad last line is more than a torn write explains: it is whole in shape, yet its bytes are wrong.

    A torn write lacks its end, or holds zeros where pages were never written.
    """
    return tail.endswith(b"}\n") and b"\x00" not in tail
