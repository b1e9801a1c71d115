"""The operation that exports what a search finds, as data: a zip with the file and its manifest, made while it is sent."""

import asyncio
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from audit_api.export.formats import FORMATS, FormatUnavailable
from audit_api.export.making import Archive, Making
from audit_api.export.shelf import Shelf
from audit_api.export.walk import Row, Selection, Walk, told_query, told_scope
from audit_api.gate import Call, Operation, Reading, Runner
from audit_api.limits import Limits
from audit_api.logs import Logs
from audit_api.parameters import Parameter
from audit_api.problems import Problem
from audit_api.search_parameters import search_query
from audit_api.settings import ApiSettings
from audit_api.trails import Trails

__all__ = ["DataExports", "chosen_format", "format_parameter"]

AT_ONCE = 4
"""Exports that are streamed at a time: each takes turns in the one thread that reads."""

_RETRY_SECONDS = 15


def chosen_format(text: str) -> str:
    """The name of a format of data; ValueError for any other text."""
    if text not in FORMATS:
        raise ValueError(f"it is none of {', '.join(FORMATS)}")
    return text


def format_parameter(**more: Any) -> Parameter:
    """The parameter that chooses a format; `more` replaces parts of it."""
    given: dict[str, Any] = {
        "name": "format",
        "about": "; ".join(f"`{one.name}`: {one.about}" for one in FORMATS.values()) + ".",
        "schema": {"type": "string", "enum": list(FORMATS), "default": "ndjson"},
        "parse": chosen_format,
        "default": "ndjson",
        "example": "csv",
    }
    return Parameter(**(given | more))


@dataclass(frozen=True, slots=True)
class DataExports:
    """Exports of data; see `AT_ONCE`. `shelf` keeps what each principal took within a day; without one there is no such bound.

    `limits`: knows what they took of other processes.
    """

    logs: Logs
    settings: ApiSettings
    limits: Limits
    shelf: Shelf | None = None
    _room: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(AT_ONCE))
    _promised: Counter[str] = field(default_factory=Counter)
    """By principal the rows that exports which this process makes now may have: what one may have, another may not."""

    def conditions(self) -> tuple[Parameter, ...]:
        """The parameters that say which trails: those of the search, but for its paging."""
        find = next(one for one in Trails(self.logs, self.settings).operations() if one.operation_id == "findTrails")
        return tuple(one for one in find.parameters if one.name not in ("cursor", "limit"))

    def operations(self) -> list[Operation]:
        """The export."""
        return [
            Operation(
                operation_id="exportTrails",
                path="/v1/exports",
                tag="trails",
                summary="Export what a search finds",
                about=(
                    "A zip with one file in the format asked for, and `manifest.json`: the selection, the signed checkpoint up to which it is "
                    "complete, counts, and the file's SHA-256. Every trail that meets all conditions is in it from its first entry to its last "
                    f"below the checkpoint. It ends after {self.settings.export_rows:,} rows; the manifest then says so, and where. It is made "
                    "while it is sent; one that was cut off on its way has no directory, and no program opens it."
                ),
                action="trails.export",
                scoped=True,
                export=True,
                roles=frozenset({"auditor", "admin"}),
                read=self.export,
                parameters=(format_parameter(), *self.conditions()),
                answers={"application/zip": ("ExportArchive", None)},
                problems=("format-unavailable", "not-found", "too-many-requests"),
            )
        ]

    async def export(self, call: Call, run: Runner) -> Reading:
        """The answer to the request for a search's export."""
        query = search_query(call.values)
        selection = Selection(query=query, told=told_query(query) | told_scope(call.scope), scope=call.scope)
        return await self.streamed(call, selection, run)

    async def room(self, principal: str) -> int:
        """How many rows this principal may be given still within the day, at least 1.

        Raises:
            Problem: ``too-many-requests``: they have taken as many as they may.
        """
        a_day = self.settings.export_rows_a_day
        if self.shelf is None:
            return 1 << 62
        everywhere = await self.limits.taken(principal)
        here = self.shelf.spent(principal)
        left = a_day - max(here, everywhere.rows)
        if left <= 0:
            seconds = everywhere.free_seconds if everywhere.rows >= here else self.shelf.free_seconds(principal)
            wait = {"Retry-After": str(max(1, int(seconds)))}
            raise Problem("too-many-requests", f"you have taken {a_day:,} rows within a day", headers=wait)
        return left

    async def promised(self, principal: str) -> int:
        """How many rows an export by this principal may have that begins now, at least 1; no other may have them before `spend`.

        Raises:
            Problem: ``too-many-requests``: as `room`, or their exports under way may have the rest.
        """
        left = await self.room(principal) - self._promised[principal]
        if left <= 0:
            a_day = self.settings.export_rows_a_day
            told = f"your exports under way may have all that is left of {a_day:,} rows a day: wait for one of them"
            raise Problem("too-many-requests", told, headers={"Retry-After": str(_RETRY_SECONDS)})
        rows = min(self.settings.export_rows, left)
        self._promised[principal] += rows
        return rows

    def spend(self, principal: str, rows: int, promised: int) -> None:
        """Rows that a principal was given now, and how many they might have had."""
        self._promised[principal] -= promised
        if not self._promised[principal]:
            del self._promised[principal]
        self.limits.spend(principal, rows)
        if self.shelf is not None:
            self.shelf.spend(principal, rows)

    async def streamed(self, call: Call, selection: Selection, run: Runner, *, name: str = "tallystick") -> Reading:
        """The archive of a selection, as an answer that is made while it is sent.

        Raises:
            Problem: ``too-many-requests`` when there is no room; ``format-unavailable``.
            NotFound, VerificationError, Overloaded: as the log, the index and the store do, of its beginning.
        """
        assert call.principal is not None
        form, principal = call.values["format"], call.principal.name
        if self._room.locked():
            headers = {"Retry-After": str(_RETRY_SECONDS)}
            raise Problem(
                "too-many-requests", f"{AT_ONCE} exports are under way: wait for one of them", headers=headers
            )
        await self._room.acquire()
        most = 0
        try:
            most = await self.promised(principal)
            archive = await run(self._begin, selection, form, most)
        except BaseException:
            self._room.release()
            self.spend(principal, 0, most)
            raise

        def done() -> None:
            self._room.release()
            self.spend(principal, archive.making.walk.counts["rows"], most)

        parts = _Parts(archive, run, done)
        try:
            await parts.begin()
        except BaseException:
            await parts.aclose()
            raise
        size = max(one["size"] for one in archive.making.walk.checkpoints())
        return Reading(
            media_type="application/zip",
            headers={
                "Content-Disposition": f'attachment; filename="{name}-{size}.{FORMATS[form].ending}.zip"',
                "Tally-Checkpoint-Size": str(size),
            },
            head=archive.making.walk.head,
            stream=parts,
        )

    def _begin(self, selection: Selection, form: str, most: int) -> Archive:
        try:
            return Archive(Making(Walk(self.logs.all, selection, max_rows=most), form))
        except FormatUnavailable as error:
            raise Problem("format-unavailable", str(error)) from error


class _Parts:
    """An archive's bytes: read in the thread that reads, shaped in another, so that other requests are answered in between."""

    def __init__(self, archive: Archive, run: Runner, done: Callable[[], None]) -> None:
        self._archive = archive
        self._rows: list[Row] | None = None
        self._run = run
        self._done: Callable[[], None] | None = done
        self._finished = False

    async def begin(self) -> None:
        """Read the first rows, so that what is wrong from the beginning is said as a problem."""
        self._rows = await self._run(self._archive.read)

    def __aiter__(self) -> "_Parts":
        return self

    async def __anext__(self) -> bytes:
        while self._rows is not None:
            data = await asyncio.to_thread(self._archive.shape, self._rows)
            self._rows = await self._run(self._archive.read)
            if data:
                return data
        if self._finished:
            raise StopAsyncIteration
        self._finished = True
        return await asyncio.to_thread(self._archive.finish)

    async def aclose(self) -> None:
        """Make room for others; once, however often it is called."""
        done, self._done = self._done, None
        if done is not None:
            done()
            self._archive.abandon()
