"""Makes the jobs of a shelf, one after the other, oldest first."""

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable
from hashlib import sha256
from pathlib import Path
from typing import BinaryIO

from audit_api.export.making import Archive, Making
from audit_api.export.shelf import Job, Shelf
from audit_api.gate import Runner
from audit_api.problems import Problem
from collector.errors import Overloaded, TallyError

__all__ = ["Worker"]

_RETRIES = 5

_log = logging.getLogger("tally.api")


class Worker:
    """One task that makes jobs while the application runs.

    Args:
        shelf: the jobs.
        begin: makes a job's `Making` of at most so many rows; called in the thread that reads. Raises one of our errors.
        run: runs a function in that thread.
        promised: how many rows a principal may be given now, which no other export may have before `spend`; raises `Problem` when that is none.
        spend: notes what a principal was given, and how many rows were promised for that.
        disk_bytes: most bytes of all files together; a job that would pass it fails.
        rest_seconds: between two attempts when log, index or store did not answer.
    """

    def __init__(
        self,
        shelf: Shelf,
        *,
        begin: Callable[[Job, int], Making],
        run: Runner,
        promised: Callable[[str], Awaitable[int]],
        spend: Callable[[str, int, int], None],
        disk_bytes: int,
        rest_seconds: float = 5.0,
    ) -> None:
        self._shelf = shelf
        self._begin = begin
        self._run = run
        self._promised = promised
        self._spend = spend
        self._disk_bytes = disk_bytes
        self._rest_seconds = rest_seconds
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin with what is on the shelf."""
        self._task = asyncio.create_task(self._work())

    def wake(self) -> None:
        """There is a new job."""
        self._wake.set()

    async def stop(self) -> None:
        """Let go of the job under way: it is made from its beginning after the next start."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None

    async def _work(self) -> None:
        while True:
            self._wake.clear()
            job = next((one for one in self._shelf if one.state == "queued"), None)
            if job is None:
                await self._wake.wait()
                continue
            try:
                await self._make_patiently(job)
            except (TallyError, Problem, OSError) as error:
                _log.error("export %s failed: %s", job.id, error)
                self._fail(job, f"the disk: {error.strerror}" if isinstance(error, OSError) else str(error))
            except Exception:  # noqa: BLE001 - a fault of ours ends this job, and not those that wait
                _log.exception("export %s failed", job.id)
                self._fail(job, "an error that the server's log has")

    def _fail(self, job: Job, problem: str) -> None:
        try:
            self._shelf.fail(job, problem)
        except OSError as error:  # told from memory; after the next start it is made again
            _log.error("that export %s failed could not be written: %s", job.id, error)

    async def _make_patiently(self, job: Job) -> None:
        for attempt in range(_RETRIES):
            try:
                return await self._make(job)
            except Overloaded:
                if attempt == _RETRIES - 1:
                    raise
                await asyncio.sleep(self._rest_seconds)
        return None

    async def _make(self, job: Job) -> None:
        promised, given = await self._promised(job.principal), 0
        try:
            given = await self._made(job, promised)
        finally:
            self._spend(job.principal, given, promised)

    async def _made(self, job: Job, most: int) -> int:
        """Makes the job's file of at most so many rows; gives how many it has: none of one that was deleted meanwhile."""
        job.state, job.rows, job.bytes = "running", 0, 0
        self._shelf.save(job)
        archive: Archive | None = None
        digest = sha256()
        file = await asyncio.to_thread(_create, self._shelf.part(job))
        try:
            making = await self._run(self._begin, job, most)
            archive = Archive(making)
            while (rows := await self._run(archive.read)) is not None:
                await self._put(job, file, await asyncio.to_thread(archive.shape, rows), digest.update)
                job.rows = making.walk.counts["rows"]
                if not self._shelf.has(job):
                    return 0  # deleted while it was made
            await self._put(job, file, await asyncio.to_thread(archive.finish), digest.update)
            # it may take seconds, so not in the event loop: `Shelf.finish` finds nothing left to sync
            await asyncio.to_thread(_sync, file)
        finally:
            file.close()
            if archive is not None:
                archive.abandon()
            if not self._shelf.has(job):
                self._shelf.part(job).unlink(missing_ok=True)
        if not self._shelf.has(job):
            return 0
        job.sha256 = digest.hexdigest()
        job.size = max(one["size"] for one in making.walk.checkpoints())
        job.complete = making.walk.truncated is None
        self._shelf.finish(job)
        return job.rows

    async def _put(self, job: Job, file: BinaryIO, data: bytes, count: Callable[[bytes], None]) -> None:
        if not data:
            return
        if self._shelf.total_bytes() + len(data) > self._disk_bytes:
            raise TallyError(f"all exports together may have {self._disk_bytes:,} bytes: delete some, or ask for less")
        count(data)
        await asyncio.to_thread(file.write, data)
        job.bytes += len(data)


def _sync(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())


def _create(path: Path) -> BinaryIO:
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb")
