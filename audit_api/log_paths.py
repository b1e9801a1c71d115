"""The log itself under its C2SP paths: checkpoint and hash tiles for anyone, entry bundles for those who may read entries.

    /log/checkpoint
    /log/tile/<level>/<index>[.p/<width>]
    /log/tile/entries/<index>[.p/<width>]

Of a ledger that is cut into shards each log has these paths under its own prefix, ``/log/shard-2-of-3/``, which is that of a C2SP log like
any other, and ``/log/head`` is the joint statement over all of them: the same paths that they have in the ledger's storage.

A tile never changes once it is there, so it may be cached for ever; a partial one may go when its full tile is there, and
who finds it gone asks for that. Specification: https://c2sp.org/tlog-tiles
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request

from audit_api.auth import Role
from audit_api.gate import Call, Operation, Reading, Runner
from audit_api.logs import Logs
from audit_api.parameters import raw_tail
from audit_api.problems import Problem
from collector.errors import NotFound, VerificationError
from correlator.storage import CHECKPOINT
from correlator.tiles import ENTRIES, Tile

__all__ = ["LogPaths"]

_NOTE = "text/plain; charset=utf-8"
_FOR_EVER = "public, max-age=31536000, immutable"


@dataclass(frozen=True, slots=True)
class LogPaths:
    """The operations on the log's objects. `public`: checkpoint and hash tiles are for anyone."""

    logs: Logs
    public: bool = True

    def operations(self) -> list[Operation]:
        """Checkpoint, entry bundles, hash tiles; in the order in which paths are to be matched."""
        roles: frozenset[Role] = frozenset() if self.public else frozenset({"auditor", "sre", "admin"})
        prefix = "/log/{shard}" if self.logs.cut else "/log"
        which = {"shard": _shard_parameter(self.logs)} if self.logs.cut else {}
        octets = {"application/octet-stream": ("Octets", None)}
        return [
            *([self._statement_operation(roles)] if self.logs.cut else []),
            Operation(
                operation_id="readLogCheckpoint",
                path=f"{prefix}/checkpoint",
                tag="log",
                summary="The signed checkpoint",
                about="A C2SP `tlog-checkpoint`, as it was signed.",
                action="log.checkpoint",
                scoped=True,
                roles=roles,
                read=self.checkpoint,
                target=self._log_target,
                path_parameters=which,
                answers={"text/plain": ("Note", "ledger.example/payments\n35\n…\n\n— ledger.example/payments …\n")},
                problems=("not-found",),
            ),
            Operation(
                operation_id="readEntryBundle",
                path=f"{prefix}/tile/entries/{{index:path}}",
                tag="log",
                summary="An entry bundle",
                about="Up to 256 entries, each after its length as two big-endian bytes. Entries hold facts, so a role is needed.",
                action="log.entries",
                roles=frozenset({"auditor", "admin"}),
                read=self.tile,
                target=self._tile_target,
                path_parameters=which
                | {"index": ("The bundle's index, and its width if partial.", {"type": "string"}, "000.p/35")},
                answers=octets,
                problems=("not-found",),
            ),
            Operation(
                operation_id="readHashTile",
                path=f"{prefix}/tile/{{level}}/{{index:path}}",
                tag="log",
                summary="A hash tile",
                about="Up to 256 hashes side by side. It never changes.",
                action="log.tile",
                scoped=True,
                roles=roles,
                read=self.tile,
                target=self._tile_target,
                path_parameters=which
                | {
                    "level": ("0 to 63.", {"type": "integer", "minimum": 0, "maximum": 63}, 0),
                    "index": ("The tile's index, and its width if partial.", {"type": "string"}, "000.p/35"),
                },
                answers=octets,
                problems=("not-found",),
            ),
        ]

    def _statement_operation(self, roles: frozenset[Role]) -> Operation:
        return Operation(
            operation_id="readStatement",
            path="/log/head",
            tag="log",
            summary="The joint statement",
            about="A C2SP `signed-note` over the size and root of every shard's log (docs/format.md, Shards). Each log continues what it says.",
            action="log.statement",
            scoped=True,
            roles=roles,
            read=self.statement,
            answers={"text/plain": ("Statement", None)},
            problems=("not-found",),
        )

    async def statement(self, _: Call, run: Runner) -> Reading:
        """The joint statement, never cached without asking."""
        note, _statement = await run(self.logs.statement)
        return Reading(body=note, media_type=_NOTE, headers={"Cache-Control": "no-cache"})

    async def checkpoint(self, call: Call, run: Runner) -> Reading:
        """The checkpoint, which is never cached without asking."""
        body = await run(call.target["log"].storage.get, CHECKPOINT)
        return Reading(body=body, media_type=_NOTE, headers={"Cache-Control": "no-cache"})

    async def tile(self, call: Call, run: Runner) -> Reading:
        """A tile or an entry bundle."""
        tile: Tile = call.target["tile"]
        try:
            body = await run(call.target["log"].storage.get, tile.path)
        except NotFound as error:
            raise NotFound(f"the log has no {tile.path} (now)") from error
        cached = call.principal is None and tile.level != ENTRIES
        return Reading(
            body=body,
            media_type="application/octet-stream",
            headers={"Cache-Control": _FOR_EVER if cached else "private, no-store"},
            head=(tile.index + 1) * 256 - 257 + tile.width if tile.level == ENTRIES else -1,
        )

    def _log_target(self, request: Request) -> Mapping[str, Any]:
        name = str(request.path_params["shard"]) if self.logs.cut else ""
        try:
            return {"log": self.logs.named(name)}
        except NotFound as error:
            raise Problem("not-found", str(error)) from error

    def _tile_target(self, request: Request) -> Mapping[str, Any]:
        target = self._log_target(request)
        name = target["log"].shard.name
        path = raw_tail(request, f"/log/{name}/" if name else "/log/")
        try:
            return {**target, "tile": Tile.parse(path)}
        except VerificationError as error:
            raise Problem("not-found", str(error)) from error


def _shard_parameter(logs: Logs) -> tuple[str, Mapping[str, Any], Any]:
    names = [log.shard.name for log in logs.all]
    return ("The shard whose log it is.", {"type": "string", "enum": names}, names[-1])
