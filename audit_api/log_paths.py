"""The log itself under its C2SP paths: checkpoint and hash tiles for anyone, entry bundles for those who may read entries.

    /log/checkpoint
    /log/tile/<level>/<index>[.p/<width>]
    /log/tile/entries/<index>[.p/<width>]

A tile never changes once it is there, so it may be cached for ever; a partial one may go when its full tile is there, and
who finds it gone asks for that. Specification: https://c2sp.org/tlog-tiles
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request

from audit_api.auth import Role
from audit_api.gate import Call, Operation, Reading, Runner
from audit_api.parameters import raw_tail
from audit_api.problems import Problem
from collector.errors import NotFound, VerificationError
from correlator.storage import CHECKPOINT, LogStorage
from correlator.tiles import ENTRIES, Tile

__all__ = ["LogPaths"]

_FOR_EVER = "public, max-age=31536000, immutable"


@dataclass(frozen=True, slots=True)
class LogPaths:
    """The operations on the log's objects. `public`: checkpoint and hash tiles are for anyone."""

    storage: LogStorage
    public: bool = True

    def operations(self) -> list[Operation]:
        """Checkpoint, entry bundles, hash tiles; in the order in which paths are to be matched."""
        roles: frozenset[Role] = frozenset() if self.public else frozenset({"auditor", "sre", "admin"})
        octets = {"application/octet-stream": ("Octets", None)}
        return [
            Operation(
                operation_id="readLogCheckpoint",
                path="/log/checkpoint",
                tag="log",
                summary="The signed checkpoint",
                about="A C2SP `tlog-checkpoint`, as it was signed.",
                action="log.checkpoint",
                roles=roles,
                read=self.checkpoint,
                answers={"text/plain": ("Note", "ledger.example/payments\n35\n…\n\n— ledger.example/payments …\n")},
                problems=("not-found",),
            ),
            Operation(
                operation_id="readEntryBundle",
                path="/log/tile/entries/{index:path}",
                tag="log",
                summary="An entry bundle",
                about="Up to 256 entries, each after its length as two big-endian bytes. Entries hold facts, so a role is needed.",
                action="log.entries",
                roles=frozenset({"auditor", "admin"}),
                read=self.tile,
                target=_tile_target,
                path_parameters={
                    "index": ("The bundle's index, and its width if partial.", {"type": "string"}, "000.p/35")
                },
                answers=octets,
                problems=("not-found",),
            ),
            Operation(
                operation_id="readHashTile",
                path="/log/tile/{level}/{index:path}",
                tag="log",
                summary="A hash tile",
                about="Up to 256 hashes side by side. It never changes.",
                action="log.tile",
                roles=roles,
                read=self.tile,
                target=_tile_target,
                path_parameters={
                    "level": ("0 to 63.", {"type": "integer", "minimum": 0, "maximum": 63}, 0),
                    "index": ("The tile's index, and its width if partial.", {"type": "string"}, "000.p/35"),
                },
                answers=octets,
                problems=("not-found",),
            ),
        ]

    async def checkpoint(self, _: Call, run: Runner) -> Reading:
        """The checkpoint, which is never cached without asking."""
        return Reading(
            body=await run(self.storage.get, CHECKPOINT),
            media_type="text/plain; charset=utf-8",
            headers={"Cache-Control": "no-cache"},
        )

    async def tile(self, call: Call, run: Runner) -> Reading:
        """A tile or an entry bundle."""
        tile: Tile = call.target["tile"]
        try:
            body = await run(self.storage.get, tile.path)
        except NotFound as error:
            raise NotFound(f"the log has no {tile.path} (now)") from error
        cached = call.principal is None and tile.level != ENTRIES
        return Reading(
            body=body,
            media_type="application/octet-stream",
            headers={"Cache-Control": _FOR_EVER if cached else "private, no-store"},
            head=(tile.index + 1) * 256 - 257 + tile.width if tile.level == ENTRIES else -1,
        )


def _tile_target(request: Request) -> Mapping[str, Any]:
    path = raw_tail(request, "/log/")
    try:
        return {"tile": Tile.parse(path)}
    except VerificationError as error:
        raise Problem("not-found", str(error)) from error
