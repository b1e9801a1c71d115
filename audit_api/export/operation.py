"""The operation that exports a trail as a bundle."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from audit_api.export.bundle import BundleExport, TooLarge
from audit_api.export.data import DataExports, chosen_format, format_parameter
from audit_api.export.formats import FORMATS, FormatUnavailable
from audit_api.export.printed import report_pdf
from audit_api.export.report import MAX_ENTRIES
from audit_api.export.walk import Selection
from audit_api.gate import Call, Operation, Reading, Runner
from audit_api.identity.scope import RowScope
from audit_api.logs import Logs
from audit_api.parameters import Parameter, flag
from audit_api.problems import Problem, too_many
from audit_api.settings import ApiSettings
from audit_api.trails import TRAIL_PARAMETER, trail_target
from collector.errors import NotFound
from correlator.bundle import Contents
from correlator.note import Verifier
from correlator.story import StoryTrails

__all__ = ["Exports"]

_AT_ONCE = 2

_WAIT_SECONDS = 10.0
"""So long an export waits for one of those under way to end; most are done within it, and nobody waits without an end."""

_RETRY_SECONDS = 15.0


@dataclass(frozen=True, slots=True)
class Exports:
    """Exports, of which `_AT_ONCE` are made at a time: each holds its bundle in memory."""

    logs: Logs
    settings: ApiSettings
    data: DataExports
    _room: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(_AT_ONCE))

    def operations(self) -> list[Operation]:
        """The export."""
        boolean = {"type": "boolean", "default": True}
        return [
            Operation(
                operation_id="exportTrail",
                path="/v1/exports/{trail:path}",
                tag="trails",
                summary="Export a trail",
                about=(
                    "A zip with the trail's entries and events, the signed batch headers, inclusion proofs and the signed "
                    "checkpoint: `tally verify FILE --key KEY` checks it offline. The same trail at the same checkpoint is the "
                    "same file."
                    + (
                        " A bundle is of one shard's log: `Tally-Traces-Elsewhere` counts the traces of the story that stand in other"
                        " logs; each is a bundle of its own, and `story.elsewhere` of the trail names them."
                        if self.logs.cut
                        else ""
                    )
                ),
                action="trail.export",
                export=True,
                scoped=True,
                roles=frozenset({"auditor", "admin"}),
                read=self.export,
                target=trail_target("/v1/exports/"),
                path_parameters={"trail": TRAIL_PARAMETER},
                parameters=(
                    format_parameter(
                        about="`bundle`: with all proofs; `pdf`: a report for people, with a QR code of the checkpoint. Else as data, a zip of one file and its manifest, the traces in other logs along: "
                        + "; ".join(f"`{one.name}`: {one.about}" for one in FORMATS.values())
                        + ".",
                        schema={"type": "string", "enum": ["bundle", "pdf", *FORMATS], "default": "bundle"},
                        parse=_format,
                        default="bundle",
                        example="bundle",
                    ),
                    Parameter(
                        name="linked",
                        about="With the trace trails that belong to its story.",
                        schema=boolean,
                        parse=flag,
                        default=True,
                        example=True,
                    ),
                    Parameter(
                        name="events",
                        about="With the events' bytes; else their entries alone.",
                        schema=boolean,
                        parse=flag,
                        default=True,
                        example=True,
                    ),
                    Parameter(
                        name="page",
                        about="With a page for people, in a bundle.",
                        schema=boolean,
                        parse=flag,
                        default=True,
                        example=True,
                    ),
                ),
                answers={"application/zip": ("Bundle", None), "application/pdf": ("PdfReport", None)},
                problems=("not-found", "export-too-large", "format-unavailable"),
            )
        ]

    async def export(self, call: Call, run: Runner) -> Reading:
        """The bundle, or the trail as data. Read in steps, so that other requests are answered in between."""
        if call.values["format"] not in ("bundle", "pdf"):
            return await self._as_data(call, run)
        pdf = call.values["format"] == "pdf"
        async with self._place():
            try:
                await _demand_reader(call)  # who has waited for a place may have gone
                export: BundleExport
                export, elsewhere = await run(self._begin, call)
                while await run(export.step):
                    await _demand_reader(call)
                contents = await run(export.gather)
                await _demand_reader(call)  # what follows is one step, however long
                # packing reads nothing more, so it need not keep the reading thread from others
                make = partial(self._report, key=export.key) if pdf else export.seal
                body = await asyncio.to_thread(make, contents)
            except FormatUnavailable as error:
                raise Problem("format-unavailable", str(error)) from error
            except TooLarge as error:
                raise Problem("export-too-large", str(error), limit=error.limit) from error
            except ValueError as error:  # the archive's own bounds
                raise Problem("export-too-large", str(error), limit=self.settings.export_entries) from error
        checkpoint = export.tree.checkpoint
        return Reading(
            body=body,
            media_type="application/pdf" if pdf else "application/zip",
            headers={
                "Content-Disposition": f'attachment; filename="{_file_name(call.target["trail"])}-{checkpoint.size}.{"pdf" if pdf else "zip"}"',
                "Tally-Checkpoint-Size": str(checkpoint.size),
                **({"Tally-Traces-Elsewhere": str(elsewhere)} if self.logs.cut else {}),
            },
            trail=call.target["trail"],
            head=export.head,
        )

    @asynccontextmanager
    async def _place(self) -> AsyncIterator[None]:
        """One of the places, while it is needed; raises the problem ``too-many-requests`` when none becomes free in time."""
        try:
            async with asyncio.timeout(_WAIT_SECONDS):
                await self._room.acquire()
        except TimeoutError as error:
            told = f"{_AT_ONCE} bundles or reports are being made: wait for one of them"
            raise too_many(_RETRY_SECONDS, told) from error
        try:
            yield
        finally:
            self._room.release()

    def _report(self, contents: Contents, *, key: Verifier) -> bytes:
        return report_pdf(contents, key, fonts=[Path(font) for font in self.settings.report_fonts])

    async def _as_data(self, call: Call, run: Runner) -> Reading:
        trail = call.target["trail"]
        trails, last = await run(self._trails, call)
        selection = Selection(
            trails=tuple(trails),
            events=call.values["events"],
            told={"trail": trail, "linked": call.values["linked"], "events": call.values["events"]},
        )
        answer = await self.data.streamed(call, selection, run, name=_file_name(trail))
        return replace(answer, trail=trail, head=min(last, answer.head))

    def _trails(self, call: Call) -> tuple[list[str], int]:
        """The trail asked for and the traces of its story if they are asked for, but those whose log is behind; and its last leaf."""
        trail = call.target["trail"]
        last = self.logs.seen(trail, call.scope).last_leaf
        if not call.values["linked"]:
            return [trail], last
        told = self._story(trail, call.scope)
        return [trail, *(trace for trace in told.traces if self._is_there(trace))], last

    def _is_there(self, trail: str) -> bool:
        try:
            return bool(self.logs.of(trail).evidence.index.leaves(trail, limit=1))
        except NotFound:
            return False

    def _begin(self, call: Call) -> tuple[BundleExport, int]:
        """The export, and how many traces of the story are in other logs."""
        trail = call.target["trail"]
        self.logs.seen(trail, call.scope)
        log = self.logs.of(trail)
        linked: list[str] = []
        elsewhere = 0
        if call.values["linked"]:
            told = self._story(trail, call.scope)
            linked = [trace for trace in told.traces if self.logs.of(trace) is log]
            elsewhere = len(told.traces) - len(linked)
        export = BundleExport(
            log.evidence,
            key=log.key,
            trails=[trail, *linked],
            events=call.values["events"],
            page=call.values["page"],
            max_entries=min(self.settings.export_entries, MAX_ENTRIES)
            if call.values["format"] == "pdf"
            else self.settings.export_entries,
        )
        return export, elsewhere

    def _story(self, trail: str, scope: RowScope) -> StoryTrails:
        told = self.logs.story(trail, scope)
        if told.traces and told.traces_left_out:  # of a hub, no trace is part of the story
            raise Problem(
                "export-too-large",
                f"{trail} has {told.traces_left_out} more traces than a story may have: export it with linked=false",
                limit=len(told.traces),
            )
        return told


async def _demand_reader(call: Call) -> None:
    """Raises the problem ``unavailable`` when whoever asked has closed the connection: others wait for the place."""
    if await call.request.is_disconnected():
        raise Problem("unavailable", "the connection was closed before the export was made")


def _format(text: str) -> str:
    return text if text in ("bundle", "pdf") else chosen_format(text)


def _file_name(trail: str) -> str:
    """A name for the file that any system takes: letters, digits, dots, dashes and underscores of the trail id."""
    plain = "".join(char if char.isascii() and (char.isalnum() or char in "-_.") else "_" for char in trail)
    return plain[:100]
