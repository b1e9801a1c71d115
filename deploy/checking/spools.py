"""The spools on this machine, read without touching them: signed headers against the log, and every frame's checksum.

A collector may be writing meanwhile: what is torn at the very end of the newest file is no finding.
"""

import base64
import binascii
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from collector.batch import SignedHeader, open_header
from collector.errors import VerificationError
from collector.frame import FrameError, find_frame, read_frame
from deploy.checking import Account, Finding

__all__ = ["check_spools"]


def check_spools(
    root: Path, *, logged: Mapping[str, Mapping[int, str]], account: Account, tell: Callable[[Finding], None]
) -> None:
    """Check each incarnation's folder under ``root/<collector>/``.

    Args:
        root: the folder of all spools; may be absent.
        logged: for each stream the digests of the headers that the log holds, by number.
        account: what was looked at is added.
        tell: gets each finding.
    """
    for folder in sorted(root.glob("*/*")) if root.is_dir() else ():
        name = f"spool {folder.parent.name}/{folder.name}"
        if folder.name.endswith(".damaged"):
            tell(
                Finding(where=name, problem="it could not be read back after a restart, and was set aside for a person")
            )
        elif (folder / "meta.json").is_file():
            shipped = _check_headers(name, folder, logged, tell)
            _check_segments(name, folder, shipped, account, tell)


def _check_headers(
    name: str, folder: Path, logged: Mapping[str, Mapping[int, str]], tell: Callable[[Finding], None]
) -> int:
    """Check the header log; gives the sequence below which everything was durable when the last header was signed."""
    shipped = 0
    files = sorted(folder.glob("headers-*.log"))
    before: SignedHeader | None = None
    for file in files:
        for line, torn in _lines(file, newest=file == files[-1]):
            try:
                signed = _open(line)
            except (VerificationError, ValueError, binascii.Error) as error:
                if not torn:
                    tell(Finding(where=f"{name}, {file.name}", problem=f"a signed header does not hold: {error}"))
                before = None
                continue
            header = signed.header
            what = f"batch {header.number} of stream {header.stream}"
            if before is not None and header.previous != before.digest:
                tell(Finding(where=f"{name}, {file.name}", problem=f"{what} does not follow the one before it"))
            in_log = logged.get(header.stream, {}).get(header.number)
            if in_log is not None and in_log != signed.digest:
                tell(Finding(where=f"{name}, {file.name}", problem=f"{what} is not the one that the log holds: a fork"))
            before = signed
            shipped = header.first + header.count
    return shipped


def _lines(file: Path, *, newest: bool) -> Iterator[tuple[bytes, bool]]:
    """The lines of a header log, and whether this one may be torn: the last of the newest file, without its end."""
    try:
        data = file.read_bytes()
    except FileNotFoundError:
        return  # let go of meanwhile
    lines = data.splitlines(keepends=True)
    for at, line in enumerate(lines):
        yield line, newest and at == len(lines) - 1 and not line.endswith(b"\n")


def _open(line: bytes) -> SignedHeader:
    if not line.endswith(b"\n"):
        raise ValueError("it has no end")
    signature, _, header = line[:-1].partition(b" ")
    return open_header(header, base64.b64decode(signature, validate=True))


def _check_segments(name: str, folder: Path, shipped: int, account: Account, tell: Callable[[Finding], None]) -> None:
    files = sorted(folder.glob("*.seg"))
    expected: int | None = None
    for file in files:
        try:
            data = file.read_bytes()
        except FileNotFoundError:
            expected = None  # let go of meanwhile
            continue
        first = int(file.stem)
        if expected is not None and first != expected:
            tell(Finding(where=f"{name}, {file.name}", problem=f"it begins at event {first} where {expected} comes"))
        expected = first
        at = 0
        while at < len(data):
            try:
                frame = read_frame(data, at)
            except FrameError as error:
                later = find_frame(data, at + 1)
                # what a signed header or a later frame calls durable was once whole; else it may be being written just now
                if file != files[-1] or expected < shipped or (later is not None and later.durable > expected):
                    tell(Finding(where=f"{name}, {file.name}", problem=f"damaged at byte {at}: {error}"))
                    expected = None
                break
            if frame.first != expected:
                tell(
                    Finding(
                        where=f"{name}, {file.name}", problem=f"event {frame.first} at byte {at} where {expected} comes"
                    )
                )
            account.spooled_frames += 1
            expected, at = frame.first + frame.count, frame.end
