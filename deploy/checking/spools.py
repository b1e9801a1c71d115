"""The spools on this machine, read without touching them: signed headers against the log, and every frame's checksum.

A collector may be writing meanwhile: what is torn at the very end of the newest file is no finding.
"""

import base64
import binascii
import re
import stat
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import chain
from pathlib import Path

from collector.batch import SignedHeader, StreamId, open_header
from collector.disk import OsDisk
from collector.errors import StateUnknown, VerificationError
from collector.frame import FrameError, durable_behind, read_frame
from collector.incarnation import read_meta
from collector.relay import relays, upstream_has
from collector.segments import Damaged, only_zeros, read_kept
from deploy.checking import Account, Finding

__all__ = ["check_spools"]

_HEADERS = re.compile(r"headers-\d{12}\.log", re.ASCII)
_SEGMENT = re.compile(r"\d{20}\.seg", re.ASCII)


def check_spools(
    root: Path,
    *,
    ledger: str,
    logged: Mapping[str, Mapping[int, str]],
    acknowledged: Callable[[StreamId], int],
    account: Account,
    tell: Callable[[Finding], None],
) -> None:
    """Check each incarnation's folder under ``root/<collector>/``.

    Args:
        root: the folder of all spools; may be absent.
        ledger: the log's origin.
        logged: for each stream the digests of the headers that the log holds, by number.
        acknowledged: up to which batch a stream's spool may have let go of its events, as the store says now. Of collectors that
            relay, their own folder says it.
        account: what was looked at is added.
        tell: gets each finding.
    """
    for folder in sorted(root.glob("*/*")) if root.is_dir() else ():
        name = f"spool {folder.parent.name}/{folder.name}"
        if folder.name.endswith(".damaged"):
            tell(
                Finding(where=name, problem="it could not be read back after a restart, and was set aside for a person")
            )
        elif _is_incarnation(folder):
            headers = _check_headers(name, folder, logged, tell)
            _check_meta(name, folder, ledger, headers, tell)
            _check_complete(name, folder, headers, logged, tell)
            let_go = partial(upstream_has, folder.parent) if relays(folder.parent) else acknowledged
            try:
                _check_segments(name, folder, headers, acknowledged=let_go, account=account, tell=tell)
            except StateUnknown as error:
                tell(Finding(where=name, problem=str(error)))


def _is_incarnation(folder: Path) -> bool:
    """Whether this is a stream's folder, whole or with parts missing; one that is just made or removed is not."""
    if folder.name.endswith(".new"):
        return False
    return any(chain(folder.glob("meta.json"), folder.glob("headers-*.log"), folder.glob("*.seg")))


def _files(name: str, folder: Path, pattern: str, form: re.Pattern[str], tell: Callable[[Finding], None]) -> list[Path]:
    """Those that look so, sorted; one whose name no collector gives is a finding, as it is damage to a collector that starts."""
    files = sorted(folder.glob(pattern))
    for file in files:
        if form.fullmatch(file.name) is None:
            tell(Finding(where=f"{name}, {file.name[:100]}", problem="no collector calls a file of its spool so"))
    return [file for file in files if form.fullmatch(file.name)]


def _check_meta(
    name: str, folder: Path, ledger: str, headers: Sequence[SignedHeader], tell: Callable[[Finding], None]
) -> None:
    """What ``meta.json`` says is what the folder and the signed headers say."""
    where = f"{name}, meta.json"
    try:
        meta = read_meta(_read(folder / "meta.json"))
    except FileNotFoundError:
        if folder.is_dir():  # else it was let go of meanwhile
            tell(Finding(where=where, problem="it is missing"))
        return
    except StateUnknown as error:
        tell(Finding(where=where, problem=str(error)))
        return
    if meta.ledger != ledger:
        tell(Finding(where=where, problem=f"it names the ledger {meta.ledger!r}, not {ledger!r}"))
    if meta.stream.rpartition("/")[2] != folder.name or any(one.header.stream != meta.stream for one in headers):
        tell(Finding(where=where, problem=f"it names the stream {meta.stream!r}, and the folder holds another one"))
    if headers and headers[0].header.number == 1 and headers[0].header.fork != meta.fork:
        tell(Finding(where=where, problem="what it says of a fork is not what the stream's first header says"))


def _check_complete(
    name: str,
    folder: Path,
    headers: Sequence[SignedHeader],
    logged: Mapping[str, Mapping[int, str]],
    tell: Callable[[Finding], None],
) -> None:
    """The newest header is never let go of, so the spool knows each batch that the log holds, or a newer one."""
    last = headers[-1].header.number if headers else 0
    for stream, digests in logged.items():
        if stream.rpartition("/")[2] == folder.name and max(digests) > last and folder.is_dir():
            problem = (
                f"its last signed header is {last}, and the log holds batch {max(digests)}: cut off or rolled back"
            )
            tell(Finding(where=f"{name}, headers", problem=problem))


def _check_headers(
    name: str, folder: Path, logged: Mapping[str, Mapping[int, str]], tell: Callable[[Finding], None]
) -> list[SignedHeader]:
    """Check the header log; gives the headers that hold."""
    headers: list[SignedHeader] = []
    files = _files(name, folder, "headers-*", _HEADERS, tell)
    before: SignedHeader | None = None
    for file in files:
        try:
            lines = _lines(file, newest=file == files[-1])
        except Damaged as error:
            tell(Finding(where=f"{name}, {file.name}", problem=str(error)))
            before = None
            continue
        for at, (line, torn) in enumerate(lines):
            try:
                signed = _open(line)
            except (VerificationError, ValueError, binascii.Error) as error:
                if not torn:
                    tell(Finding(where=f"{name}, {file.name}", problem=f"a signed header does not hold: {error}"))
                before = None
                continue
            header = signed.header
            what = f"batch {header.number} of stream {header.stream}"
            if at == 0 and file.stem != f"headers-{header.number:012d}":
                tell(
                    Finding(where=f"{name}, {file.name}", problem=f"it begins with {what}: lines are missing before it")
                )
            if before is not None and header.previous != before.digest:
                tell(Finding(where=f"{name}, {file.name}", problem=f"{what} does not follow the one before it"))
            in_log = logged.get(header.stream, {}).get(header.number)
            if in_log is not None and in_log != signed.digest:
                tell(Finding(where=f"{name}, {file.name}", problem=f"{what} is not the one that the log holds: a fork"))
            before = signed
            headers.append(signed)
    return headers


def _lines(file: Path, *, newest: bool) -> list[tuple[bytes, bool]]:
    """The lines of a header log, and whether this one may be torn: the last of the newest file, without its end. Raises `Damaged`."""
    try:
        data = _read(file)
    except FileNotFoundError:
        return []  # let go of meanwhile
    lines = data.splitlines(keepends=True)
    return [(line, newest and at == len(lines) - 1 and not line.endswith(b"\n")) for at, line in enumerate(lines)]


def _read(file: Path) -> bytes:
    """All of a file. Raises `Damaged`: it is on a sector that cannot be read, or no file, which is a finding; FileNotFoundError: it is gone, which need not be one."""
    if not stat.S_ISREG(file.stat().st_mode):  # a pipe would be waited at for ever
        raise Damaged(f"{file.name} is no regular file")
    try:
        return read_kept(OsDisk(), file)
    except Damaged as error:
        if isinstance(error.__cause__, FileNotFoundError):
            raise error.__cause__ from None
        raise


def _open(line: bytes) -> SignedHeader:
    if not line.endswith(b"\n"):
        raise ValueError("it has no end")
    signature, _, header = line[:-1].partition(b" ")
    return open_header(header, base64.b64decode(signature, validate=True))


def _check_segments(
    name: str,
    folder: Path,
    headers: Sequence[SignedHeader],
    *,
    acknowledged: Callable[[StreamId], int],
    account: Account,
    tell: Callable[[Finding], None],
) -> None:
    files = _files(name, folder, "*.seg", _SEGMENT, tell)
    # what a header signs was durable before it, and events are let go of only when the log has them
    shipped = headers[-1].header.first + headers[-1].header.count if headers else 0
    let_go = acknowledged(StreamId(headers[-1].header.stream)) if headers else 0  # read after the folder was listed
    kept = next((one.header.first for one in headers if one.header.number > let_go), shipped)
    if files and int(files[0].stem) > kept:
        missing = f"events {kept} to {int(files[0].stem) - 1} are missing before it, which the log does not hold yet"
        tell(Finding(where=f"{name}, {files[0].name}", problem=missing))
    expected: int | None = None
    for file in files:
        try:
            data = _read(file)
        except FileNotFoundError:
            expected = None  # let go of meanwhile
            continue
        except Damaged as error:
            tell(Finding(where=f"{name}, {file.name}", problem=str(error)))
            expected = None
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
                if only_zeros(data, at):
                    break  # what comes next, or should have come before, says whether there was something
                # what a signed header or a later frame calls durable was once whole; else it may be being written just now
                if file != files[-1] or expected < shipped or durable_behind(data, at + 1) > expected:
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
    end = (expected if files else 0) or 0
    if (expected is not None or not files) and end < shipped and folder.is_dir():
        problem = f"it ends before event {end}, and a signed header says that events up to {shipped - 1} were there"
        tell(Finding(where=f"{name}, segments", problem=problem))
