"""The operations on export jobs: ask for one, see how far it is, fetch its file in pieces, delete it. Each principal's are their own."""

import asyncio
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, BinaryIO
from urllib.parse import parse_qsl, unquote_to_bytes

import msgspec
from starlette.requests import Request

from audit_api.export.data import DataExports, format_parameter
from audit_api.export.formats import FORMATS, FormatUnavailable, open_writer
from audit_api.export.making import Making
from audit_api.export.shelf import Job, Shelf
from audit_api.export.walk import Selection, Walk, told_query, told_scope
from audit_api.export.worker import Worker
from audit_api.gate import Call, Operation, Reading, Runner
from audit_api.identity.scope import RowScope
from audit_api.parameters import parse_query
from audit_api.problems import Problem
from audit_api.purpose import PURPOSE
from audit_api.search_parameters import search_query
from collector.event import format_time

__all__ = ["JOB_SCHEMAS", "ExportJobs"]

_PATH = "/v1/export-jobs"
_PIECE = 256 << 10
_RANGE = re.compile(r"bytes=([0-9]{0,18})-([0-9]{0,18})", re.ASCII)
_EXAMPLE = {
    "id": "0123456789abcdef0123456789abcdef",
    "state": "done",
    "format": "csv",
    "query": "format=csv&kind=transaction",
    "created": "2026-01-01T00:00:00.000000000Z",
    "finished": "2026-01-01T00:00:09.000000000Z",
    "expires": "2026-01-02T00:00:09.000000000Z",
    "rows": 1200,
    "bytes": 48_213,
    "sha256": "0" * 64,
    "size": 35,
    "complete": True,
    "problem": "",
}

_encode = msgspec.json.Encoder().encode


def _schema(properties: Mapping[str, Any], example: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "additionalProperties": False,
        "required": list(properties),
        "properties": dict(properties),
        "example": example,
    }


_WHOLE, _TEXT, _TIME = {"type": "integer"}, {"type": "string"}, {"type": ["string", "null"]}
_JOB = {
    "id": _TEXT,
    "state": {"type": "string", "enum": ["queued", "running", "done", "failed"]},
    "format": {"type": "string", "enum": list(FORMATS)},
    "query": _TEXT,
    "created": _TEXT,
    "finished": _TIME,
    "expires": _TIME,
    "rows": _WHOLE,
    "bytes": _WHOLE,
    "sha256": _TEXT,
    "size": _WHOLE,
    "complete": {"type": "boolean"},
    "problem": _TEXT,
}

JOB_SCHEMAS: Mapping[str, Any] = {
    "ExportJob": _schema(_JOB, _EXAMPLE),
    "ExportJobs": _schema(
        {"jobs": {"type": "array", "items": {"$ref": "#/components/schemas/ExportJob"}}}, {"jobs": [_EXAMPLE]}
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportJobs:
    """Jobs on a shelf.

    Attributes:
        data: what exports are made with, and its limits.
        shelf: where they are; used in the event loop's thread, but for what a job's beginning asks.
        worker: makes them.
    """

    data: DataExports
    shelf: Shelf
    worker: Worker

    @classmethod
    def over(cls, data: DataExports, shelf: Shelf, *, run: Runner) -> "ExportJobs":
        """With a worker that makes what is on the shelf; start and stop it with the application."""

        def begin(job: Job, most: int) -> Making:
            # as the gate took it: a purpose may stand in the query, which was put on record when it was asked for
            values = parse_query(job.query.encode("ascii"), (format_parameter(), *data.conditions(), PURPOSE))
            form = values.pop("format")
            query, scope = search_query(values), _scope_of(job)
            selection = Selection(query=query, told=told_query(query) | told_scope(scope), scope=scope)
            return Making(Walk(data.logs.all, selection, max_rows=most), form)

        worker = Worker(
            shelf,
            begin=begin,
            run=run,
            promised=data.promised,
            spend=data.spend,
            disk_bytes=data.settings.export_disk_bytes,
        )
        return cls(data=data, shelf=shelf, worker=worker)

    def operations(self) -> list[Operation]:
        """All of them."""
        common: dict[str, Any] = {"tag": "trails", "roles": frozenset({"auditor", "admin"}), "scoped": True}
        named: dict[str, Any] = {
            **common,
            "target": _job_target,
            "path_parameters": {
                "job": ("The job's id.", {"type": "string", "pattern": "^[0-9a-f]{32}$"}, _EXAMPLE["id"])
            },
        }
        keep = f"{self.data.settings.export_keep_seconds:,} seconds"
        return [
            Operation(
                operation_id="createExport",
                path="/v1/exports",
                method="POST",
                success=202,
                summary="Have an export made",
                about=(
                    "As `exportTrails`, made while nobody waits: the answer is a job, `Location` its path. One is made at a time; what "
                    f"the server stops in is made from its beginning after the next start. A job and its file are gone {keep} after it ended."
                ),
                action="trails.export",
                export=True,
                read=self.create,
                parameters=(format_parameter(), *self.data.conditions()),
                answers={"application/json": ("ExportJob", None)},
                problems=("format-unavailable",),
                **common,
            ),
            Operation(
                operation_id="listExports",
                path=_PATH,
                summary="Your export jobs",
                about="Oldest first.",
                action="exports.list",
                read=self.list,
                answers={"application/json": ("ExportJobs", None)},
                **common,
            ),
            Operation(
                operation_id="readExport",
                path=f"{_PATH}/{{job}}",
                summary="How far an export is",
                about="`rows` and `bytes` so far. Of one that is done `sha256` is that of its file.",
                action="exports.read",
                read=self.read,
                answers={"application/json": ("ExportJob", None)},
                problems=("not-found",),
                **named,
            ),
            Operation(
                operation_id="fetchExport",
                path=f"{_PATH}/{{job}}/file",
                summary="Fetch the file of an export",
                about="The zip that `exportTrails` would send. Takes one `Range` of bytes, and `If-Range` with its `ETag` (RFC 9110 section 14): "
                "a transfer that was cut off is resumed (206).",
                action="exports.fetch",
                read=self.fetch,
                answers={"application/zip": ("ExportArchive", None)},
                problems=("not-found", "not-done", "range-not-satisfiable"),
                **named,
            ),
            Operation(
                operation_id="deleteExport",
                path=f"{_PATH}/{{job}}",
                method="DELETE",
                summary="Delete an export",
                about="The job and its file; one that is being made ends.",
                action="exports.delete",
                read=self.delete,
                answers={"application/json": ("ExportJob", None)},
                problems=("not-found",),
                **named,
            ),
        ]

    async def create(self, call: Call, run: Runner) -> Reading:  # noqa: ARG002 - the signature of all operations
        """A new job, durable before it is told."""
        name, settings = _name(call), self.data.settings
        jobs = [*self.shelf]
        if len(jobs) >= settings.export_jobs:
            message = f"there are {len(jobs)} export jobs, and may be no more: delete some, or wait"
            raise Problem("too-many-requests", message, headers={"Retry-After": "60"})
        await self.data.room(name)
        form = call.values["format"]
        try:
            await asyncio.to_thread(open_writer, form)
        except FormatUnavailable as error:
            raise Problem("format-unavailable", str(error)) from error
        scope = told_scope(call.scope).get("scope", {})
        query = call.request.scope.get("query_string", b"").decode("ascii")
        for parameter, value in parse_qsl(query):  # it is kept with the job, and stands in the file's manifest
            if self.shelf.has_card(value):
                detail = (
                    "it holds a card number, which is kept nowhere in the clear: ask by its token, or without a job"
                )
                raise Problem("bad-parameter", detail, parameter=parameter)
        job = self.shelf.add(principal=name, form=form, query=query, scope=scope)
        self.worker.wake()
        return replace(self._told(job), headers={"Location": f"{_PATH}/{job.id}"})

    async def list(self, call: Call, run: Runner) -> Reading:  # noqa: ARG002 - as in `create`
        """The principal's jobs."""
        mine = [self._json(job) for job in self.shelf if _sees(call, job)]
        return Reading(body=_encode({"jobs": mine}))

    async def read(self, call: Call, run: Runner) -> Reading:  # noqa: ARG002 - as in `create`
        """One of them."""
        return self._told(self._job(call))

    async def delete(self, call: Call, run: Runner) -> Reading:  # noqa: ARG002 - as in `create`
        """It is gone; what it was is told."""
        job = self._job(call)
        self.shelf.remove(job)
        return self._told(job)

    async def fetch(self, call: Call, run: Runner) -> Reading:  # noqa: ARG002 - as in `create`
        """The file, or a range of it."""
        job = self._job(call)
        if job.state != "done":
            raise Problem("not-done", f"the export is {job.state}{f': {job.problem}' if job.problem else ''}")
        etag = f'"{job.sha256}"'
        first, last, part = 0, job.bytes - 1, False
        asked = call.request.headers.get("range", "")
        if asked and call.request.headers.get("if-range", etag) == etag:
            found = _range_of(asked, job.bytes)
            if found is not None:
                (first, last), part = found, True
        file: BinaryIO = await asyncio.to_thread(self.shelf.file(job).open, "rb")
        headers = {
            "Accept-Ranges": "bytes",
            "ETag": etag,
            "Content-Length": str(last - first + 1),
            "Content-Disposition": f'attachment; filename="tallystick-{job.size}.{FORMATS[job.format].ending}.zip"',
        }
        if part:
            headers["Content-Range"] = f"bytes {first}-{last}/{job.bytes}"
        return Reading(
            media_type="application/zip",
            headers=headers,
            head=job.size - 1,
            status=206 if part else 200,
            stream=_Pieces(file, first, last - first + 1),
        )

    def _job(self, call: Call) -> Job:
        """The job that the path names; the same problem when there is none and when it is somebody else's."""
        job = self.shelf.find(call.target["job"])
        if job is None or not _sees(call, job):
            raise Problem("not-found", "there is no such export, or it is gone")
        return job

    def _told(self, job: Job) -> Reading:
        return Reading(body=_encode(self._json(job)))

    def _json(self, job: Job) -> dict[str, Any]:
        expires = self.shelf.expires_ns(job)
        return {
            "id": job.id,
            "state": job.state,
            "format": job.format,
            "query": job.query,
            "created": format_time(job.created_ns),
            "finished": format_time(job.finished_ns) if job.finished_ns else None,
            "expires": format_time(expires) if expires else None,
            "rows": job.rows,
            "bytes": job.bytes,
            "sha256": job.sha256,
            "size": job.size,
            "complete": job.complete,
            "problem": job.problem,
        }


class _Pieces:
    """A run of a file's bytes; open from the beginning, so that it may be deleted meanwhile."""

    def __init__(self, file: BinaryIO, first: int, count: int) -> None:
        self._file = file
        self._left = count
        file.seek(first)

    def __aiter__(self) -> "_Pieces":
        return self

    async def __anext__(self) -> bytes:
        if not self._left:
            raise StopAsyncIteration
        data = await asyncio.to_thread(self._file.read, min(self._left, _PIECE))
        if not data:
            raise OSError("the file is shorter than it was")
        self._left -= len(data)
        return data

    async def aclose(self) -> None:
        """Close the file."""
        self._file.close()


def _range_of(asked: str, size: int) -> tuple[int, int] | None:
    """First and last byte of a Range header; None for what is not one range of bytes, which is passed over (RFC 9110 section 14.2).

    Raises:
        Problem: ``range-not-satisfiable``: it has none of the file's bytes.
    """
    found = _RANGE.fullmatch(asked.strip())
    if found is None or not (found[1] or found[2]):
        return None
    if not found[1]:
        first, last = max(0, size - int(found[2])), size - 1
        wrong = not int(found[2])
    else:
        first, last = int(found[1]), min(int(found[2] or size), size - 1)
        if found[2] and int(found[2]) < first:
            return None
        wrong = first >= size
    if wrong:
        raise Problem(
            "range-not-satisfiable", f"the file has {size} bytes", headers={"Content-Range": f"bytes */{size}"}
        )
    return first, last


def _job_target(request: Request) -> Mapping[str, Any]:
    text = unquote_to_bytes(str(request.path_params.get("job", ""))).decode("utf-8", "replace")
    return {"job": text}


def _name(call: Call) -> str:
    assert call.principal is not None
    return call.principal.name


def _sees(call: Call, job: Job) -> bool:
    """Whose job it is, unless they have come to see less than when they asked for it."""
    return job.principal == _name(call) and (call.scope.whole or call.scope == _scope_of(job))


def _scope_of(job: Job) -> RowScope:
    told = job.scope
    return RowScope(
        tenants=frozenset(told["tenants"]) if "tenants" in told else None,
        services=frozenset(told["services"]) if "services" in told else None,
        since=str(told.get("since", "")),
        until=str(told.get("until", "")),
    )
