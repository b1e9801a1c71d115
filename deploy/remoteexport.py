"""Exports that an API makes, fetched to the end: as a job where a search is exported, whose file is taken up again where a transfer broke off.

What comes is a zip of the data and its manifest. Nothing of it is kept under the name that was asked for before all of it is here and its
SHA-256 is the one that the job, and the manifest, tell.
"""

import http.client
import lzma
import os
import re
import shutil
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import msgspec

from deploy.apiclient import Api, ApiProblem, Unanswered, trail_path
from deploy.progress import Report
from deploy.session import Failure

__all__ = ["Fetched", "RemoteExport"]

_JOBS = "/v1/export-jobs"
_PIECE = 256 << 10
_POLL_SECONDS = 1.0
_TRIES = 8
_LATER = frozenset({429, 502, 503, 504})
"""Answers after which the same question is worth asking again."""
_LONGEST_PAUSE_SECONDS = 30.0
_MANIFEST = "manifest.json"
_MAX_MANIFEST_BYTES = 64 << 20
_JOB = re.compile(r"[0-9a-f]{32}", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetched:
    """An export that is here: what its manifest says, and the bytes of its file."""

    manifest: "Manifest"
    bytes: int


class _Named(msgspec.Struct):
    id: str


class Made(msgspec.Struct):
    """What the API says of a job that is looked at."""

    id: str
    state: str
    rows: int
    bytes: int
    sha256: str
    problem: str


class _File(msgspec.Struct):
    bytes: int
    sha256: str


class _Truncated(msgspec.Struct):
    after_rows: int


class Manifest(msgspec.Struct):
    """What is looked at of an export's manifest (docs/export.md)."""

    counts: dict[str, int]
    complete: bool
    truncated: _Truncated | None
    files: tuple[_File]


_Kind = TypeVar("_Kind")


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteExport:
    """Fetches exports of one API into one file.

    Attributes:
        api: where.
        output: the file that is to be; its manifest stands beside it.
        manifest: that one.
        sleep: waits for so many seconds.
    """

    api: Api
    output: Path
    manifest: Path
    sleep: Callable[[float], None] = time.sleep

    # As a job ---------------------------------------------------------------------------------------------------------

    def ordered(self, parameters: Mapping[str, str]) -> str:
        """Have an export made; gives the job's id."""
        job = self._as_told(self.api.ask("POST", "/v1/exports", parameters), _Named).id
        if _JOB.fullmatch(job) is None:  # it becomes part of a path
            raise Failure(f"{self.api.url}: the answer names no job")
        return job

    def made(self, job: str, report: Report) -> "Made":
        """Wait until the job is done; gives what it says. `report` is told how many rows there are.

        Raises:
            Failure: it failed, or the API is away for too long.
        """
        while True:
            told = self._as_told(self._patiently(lambda: self.api.ask("GET", f"{_JOBS}/{job}")), Made)
            if told.id != job:
                raise Failure(f"{self.api.url}: asked for the job {job}, it tells of another")
            report(told.rows, 0)
            if told.state == "done":
                return told
            if told.state == "failed":
                raise Failure(f"the export failed: {told.problem}")
            self.sleep(_POLL_SECONDS)

    def fetched(self, told: "Made", report: Report) -> Fetched:
        """The file of a job that is done, from where an earlier transfer broke off. What has come stays if this one breaks off, too."""
        part = self.part(told.id)
        self._patiently(lambda: self._more(told.id, told.sha256, part, told.bytes, report))
        with part.open("rb") as file:
            found = _sum_of(file)
        if found != told.sha256:
            part.unlink()
            raise Failure(f"what came is not what {self.api.url} made: its SHA-256 is {found}, not {told.sha256}")
        unpacked = self._unpacked(part)
        part.unlink()
        return unpacked

    def part(self, job: str) -> Path:
        """Where the file is while it comes."""
        return self.output.with_name(f"{self.output.name}.{job}.part")

    def forget(self, job: str) -> None:
        """The job is of no more use; one that is gone already is all right."""
        try:
            self.api.ask("DELETE", f"{_JOBS}/{job}")
        except ApiProblem as problem:
            if problem.kind != "not-found":
                raise

    def _more(self, job: str, sha: str, part: Path, size: int, report: Report) -> None:
        """What is missing of the file."""
        with _appending(part) as file:
            have = file.tell()
            if have >= size:
                return
            asked = {"Range": f"bytes={have}-", "If-Range": f'"{sha}"', "Accept": "application/zip"}
            with self.api.stream(
                f"{_JOBS}/{job}/file", headers=asked if have else {"Accept": "application/zip"}
            ) as answer:
                if have and answer.status != http.client.PARTIAL_CONTENT:
                    file.truncate(0)
                    file.seek(0)
                    have = 0
                while data := answer.read(_PIECE):
                    file.write(data)
                    have += len(data)
                    report(have, size)
            if have < size:
                raise Unanswered(f"{self.api.url}: the transfer broke off after {have:,} of {size:,} bytes")

    def _as_told(self, answer: Any, kind: type[_Kind]) -> _Kind:
        try:
            return msgspec.convert(answer, kind)
        except msgspec.ValidationError as error:
            raise Failure(f"{self.api.url}: an answer that is not as the API's document says: {error}") from error

    def _patiently(self, ask: Callable[[], Any]) -> Any:
        """What is asked for, tried again with growing pauses while the API, or the way there, is away."""
        for attempt in range(_TRIES):
            try:
                return ask()
            except (Unanswered, OSError, http.client.HTTPException) as error:
                if attempt == _TRIES - 1:
                    raise Failure(f"given up: {error}") from error
            except ApiProblem as problem:
                # a proxy before it may say so, too, without a word of ours
                if problem.status not in _LATER or attempt == _TRIES - 1:
                    raise
            self.sleep(min(2.0**attempt, _LONGEST_PAUSE_SECONDS))
        raise AssertionError("the last try ends it")

    # At once ----------------------------------------------------------------------------------------------------------

    def of_trail(self, trail: str, form: str, report: Report) -> Fetched:
        """One trail as data. It is made while it is sent: one that breaks off begins anew."""
        part = self.part("trail")

        def whole() -> None:
            with part.open("wb") as file, self.api.stream(trail_path("/v1/exports", trail), {"format": form}) as answer:
                have = 0
                while data := answer.read(_PIECE):
                    file.write(data)
                    have += len(data)
                    report(have, 0)

        try:
            self._patiently(whole)
            return self._unpacked(part)
        finally:
            part.unlink(missing_ok=True)

    def report_of(self, trail: str) -> int:
        """One trail as a PDF report, in the output; gives its bytes."""
        data = self.api.get(trail_path("/v1/exports", trail), {"format": "pdf"}, accept="application/pdf")
        if not data.startswith(b"%PDF-"):
            raise Failure(f"{self.api.url}: the answer is no PDF")
        with _scratch(self.output) as scratch:
            scratch.write_bytes(data)
            scratch.replace(self.output)
        return len(data)

    # What came --------------------------------------------------------------------------------------------------------

    def _unpacked(self, archive: Path) -> Fetched:
        """Take the archive apart: the data into the output, the manifest beside it, each whole or not at all.

        Raises:
            Failure: it is not what an export is, or the file is not the one that its manifest names.
        """
        try:
            with zipfile.ZipFile(archive) as opened:
                members = opened.infolist()
                told = [one for one in members if one.filename == _MANIFEST]
                data = [one for one in members if one.filename != _MANIFEST]
                if len(told) != 1 or len(data) != 1 or told[0].file_size > _MAX_MANIFEST_BYTES:
                    raise Failure(f"{self.api.url}: what came is no export: {len(members)} files in it")
                text = opened.read(told[0])
                manifest = msgspec.json.decode(text, type=Manifest)
                if not {"rows", "trails", "damaged", "oversized", "retired"} <= manifest.counts.keys():
                    raise Failure(f"{self.api.url}: the manifest does not say how much there is")
                (named,) = manifest.files
                # a zip says before how large each of its files is: no more than that is written, and it is what the manifest says
                if data[0].file_size != named.bytes:
                    raise Failure(f"{self.api.url}: the file is not as long as its manifest says")
                with _scratch(self.output) as scratch, _scratch(self.manifest) as beside:
                    with opened.open(data[0]) as source, scratch.open("wb") as target:
                        shutil.copyfileobj(source, target, _PIECE)
                    with scratch.open("rb") as written:
                        if _sum_of(written) != named.sha256:
                            raise Failure(f"{self.api.url}: the file is not the one that its manifest names")
                    beside.write_bytes(text)
                    scratch.replace(self.output)
                    beside.replace(self.manifest)
        except (zipfile.BadZipFile, zlib.error, lzma.LZMAError, ValueError, RuntimeError, EOFError) as error:
            raise Failure(f"{self.api.url}: what came is no export: {error}") from error
        return Fetched(manifest=manifest, bytes=data[0].file_size)


def _sum_of(file: BinaryIO) -> str:
    digest = sha256()
    while data := file.read(_PIECE):
        digest.update(data)
    return digest.hexdigest()


@contextmanager
def _appending(path: Path) -> Iterator[BinaryIO]:
    """The file, at its end, readable by its owner alone: it is what trails hold."""
    with os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600), "r+b") as file:
        file.seek(0, os.SEEK_END)
        yield file


@contextmanager
def _scratch(output: Path) -> Iterator[Path]:
    """A file beside the one that is to be, gone in the end unless it was renamed."""
    scratch = output.with_name(f"{output.name}.{os.getpid()}.new")
    try:
        yield scratch
    finally:
        scratch.unlink(missing_ok=True)
