"""Exports that are made while nobody waits, on disk: what was asked, how far it is, and the file. They outlive the process.

Each job is ``<id>.json``, and ``<id>.zip`` once it is done. A file of another name is ours from before a crash, and goes at the start. What
is written is durable (fsync, rename, fsync of the folder) before anyone hears of it. Readable by the API's user alone: it is what trails hold.
"""

import logging
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

import msgspec

from audit_api.durablefile import write_durable

__all__ = ["Job", "Shelf"]

_log = logging.getLogger(__name__)

_ID = re.compile(r"[0-9a-f]{32}", re.ASCII)
_DAY_NS = 86_400_000_000_000

State = Literal["queued", "running", "done", "failed"]


class Job(msgspec.Struct, kw_only=True):
    """One export, asked for and made by and by.

    Attributes:
        id: 32 hex digits that cannot be guessed.
        principal: whose it is.
        query: the request's query as sent: format and conditions.
        scope: what of the ledger the principal saw when they asked (`audit_api.export.walk.told_scope`); empty: all.
        created_ns, finished_ns: Unix time; 0: not yet.
        rows, bytes: so far; of one that is done, of the whole file.
        sha256: of the file, once it is done; hex.
        size: of the largest checkpoint up to which it is.
        complete: whether it has all that was asked for.
        problem: why it failed.
    """

    id: str
    principal: str
    format: str
    query: str
    scope: dict[str, list[str] | str] = {}
    created_ns: int
    finished_ns: int = 0
    state: State = "queued"
    rows: int = 0
    bytes: int = 0
    sha256: str = ""
    size: int = 0
    complete: bool = True
    problem: str = ""


class _Spent(msgspec.Struct, kw_only=True):
    principal: str
    at_ns: int
    rows: int


_decode_job = msgspec.json.Decoder(Job).decode
_decode_spent = msgspec.json.Decoder(list[_Spent]).decode


class Shelf:
    """The folder of jobs. Used by one thread at a time.

    Args:
        folder: made if it is not there.
        clock: Unix time in nanoseconds.
        keep_seconds: a job is gone so long after it ended.
        has_card: whether a text holds a card number, which is kept nowhere in the clear (PCI DSS 4.0.1, 3.5.1).
    """

    def __init__(
        self, folder: Path, *, clock: Callable[[], int], keep_seconds: float, has_card: Callable[[str], bool]
    ) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._folder = folder
        self._clock = clock
        self._keep_ns = int(keep_seconds * 1e9)
        self.has_card = has_card
        self._jobs: dict[str, Job] = {}
        self._spent: list[_Spent] = []
        self._open()

    def _open(self) -> None:
        for path in sorted(self._folder.iterdir()):
            if path.name == "spent.json":
                self._spent = _decode_spent(path.read_bytes())
            elif path.suffix == ".json" and _ID.fullmatch(path.stem):
                job = _decode_job(path.read_bytes())
                if job.state == "running":  # by a process that is no more: from the beginning, up to a newer checkpoint
                    job.state, job.rows, job.bytes = "queued", 0, 0
                self._jobs[job.id] = job
        for path in self._folder.iterdir():
            known = path.name == "spent.json" or (path.stem in self._jobs and path.suffix in (".json", ".zip"))
            if not known and (path.suffix == ".part" or _ID.fullmatch(path.stem)):
                path.unlink()
        for job in self._jobs.values():
            if job.state == "done" and not self.file(job).exists():
                job.state, job.problem = "failed", "its file is gone"

    # Jobs -------------------------------------------------------------------------------------------------------------

    def __iter__(self) -> Iterator[Job]:
        """All jobs, oldest first; those whose time is over are gone, or go once the disk lets them."""
        now = self._clock()
        over = [job for job in self._jobs.values() if job.finished_ns and job.finished_ns + self._keep_ns <= now]
        for job in over:
            try:
                self.remove(job)
            except OSError as error:
                _log.warning("export %s is over and cannot be removed yet: %s", job.id, error)
        jobs = [job for job in self._jobs.values() if job not in over]
        return iter(sorted(jobs, key=lambda job: (job.created_ns, job.id)))

    def find(self, name: str) -> Job | None:
        """The job of this id."""
        return next((job for job in self if job.id == name), None)

    def add(self, *, principal: str, form: str, query: str, scope: dict[str, list[str] | str]) -> Job:
        """A new job, durable on return."""
        job = Job(
            id=os.urandom(16).hex(),
            principal=principal,
            format=form,
            query=query,
            scope=scope,
            created_ns=self._clock(),
        )
        self._jobs[job.id] = job
        self.save(job)
        return job

    def save(self, job: Job) -> None:
        """Make durable what the job says; of one that was removed meanwhile nothing."""
        if job.id in self._jobs:
            write_durable(self._folder / f"{job.id}.json", msgspec.json.encode(job))

    def remove(self, job: Job) -> None:
        """The job and its file are gone. Raises OSError: something of it is still there, and counts."""
        for suffix in (".json", ".zip", ".part"):
            (self._folder / f"{job.id}{suffix}").unlink(missing_ok=True)
        self._jobs.pop(job.id, None)

    def has(self, job: Job) -> bool:
        """Whether it is still here."""
        return job.id in self._jobs

    def file(self, job: Job) -> Path:
        """The file of a job that is done."""
        return self._folder / f"{job.id}.zip"

    def part(self, job: Job) -> Path:
        """The file of a job that is being made."""
        return self._folder / f"{job.id}.part"

    def expires_ns(self, job: Job) -> int:
        """When it is gone; 0 while it is not at its end."""
        return job.finished_ns + self._keep_ns if job.finished_ns else 0

    def total_bytes(self) -> int:
        """Of all files together."""
        return sum(job.bytes for job in self._jobs.values())

    def finish(self, job: Job) -> None:
        """The part becomes the file, and the job is done: durable on return."""
        part = self.part(job)
        with part.open("rb+") as file:
            os.fsync(file.fileno())
        part.replace(self.file(job))
        job.state, job.finished_ns = "done", self._clock()
        self.save(job)

    def fail(self, job: Job, problem: str) -> None:
        """The job is at its end without a file."""
        job.state, job.problem, job.finished_ns, job.bytes = "failed", problem, self._clock(), 0
        self.part(job).unlink(missing_ok=True)
        self.save(job)

    # What principals took ---------------------------------------------------------------------------------------------

    def spend(self, principal: str, rows: int) -> None:
        """Rows that a principal was given now; kept for a day, whatever becomes of the job."""
        now = self._clock()
        self._spent = [one for one in self._spent if one.at_ns > now - _DAY_NS]
        if rows:
            self._spent.append(_Spent(principal=principal, at_ns=now, rows=rows))
            write_durable(self._folder / "spent.json", msgspec.json.encode(self._spent))

    def spent(self, principal: str) -> int:
        """Rows that a principal was given within the last day."""
        now = self._clock()
        return sum(one.rows for one in self._spent if one.principal == principal and one.at_ns > now - _DAY_NS)

    def free_seconds(self, principal: str) -> float:
        """After so long the oldest of what a principal was given counts no more."""
        mine = [one.at_ns for one in self._spent if one.principal == principal]
        return max(1.0, (min(mine, default=0) + _DAY_NS - self._clock()) / 1e9)
