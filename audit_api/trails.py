"""Finding trails, and reading one: its entries with their events and proofs, and what stands beside it.

The answers are put together from bytes: an entry and an event are canonical JSON already, so they go in as they are, and who
hashes them finds the leaf and the digest.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
from starlette.requests import Request

from audit_api.answers import base64_list, checkpoint_json, retired_json, skeleton, summary_json
from audit_api.evidence import Evidence, LoggedEntry, SignedTree
from audit_api.gate import Call, Operation, Reading, Runner
from audit_api.identity.scope import RowScope, find_seen
from audit_api.logs import Logs, ServedLog
from audit_api.ndjson import NDJSON, Lines, LineStream, Room, wants_lines
from audit_api.parameters import (
    Parameter,
    encode_bounds,
    encode_cursor,
    flag,
    raw_tail,
    trail_of,
    whole_number,
)
from audit_api.problems import Problem
from audit_api.search_parameters import cursor_parser, search_parameters, search_query
from audit_api.settings import ApiSettings
from collector.errors import NotFound
from correlator.index import TrailSummary

__all__ = ["PAGE_BYTES", "TRAIL_PARAMETER", "Trails", "trail_target"]

PAGE_BYTES = 4 << 20
"""A page ends with the entry that passes so many bytes, so that memory does not depend on how large events are."""

VARY = {"Vary": "Accept"}
_STREAMS = 16
"""Lists that are sent as lines at once; each is read a page at a time, in turn with everybody else."""
_GROUP = 25
"""Entries that are read at once with their events, before it is looked at how long they were."""
_encode = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True)
class Trails:
    """The operations on trails."""

    logs: Logs
    settings: ApiSettings
    _room: Room = field(default_factory=lambda: Room(_STREAMS))

    def operations(self) -> list[Operation]:
        """Find and read."""
        return [self._find_operation(), self._read_operation()]

    # Find -------------------------------------------------------------------------------------------------------------

    def _find_operation(self) -> Operation:
        return Operation(
            operation_id="findTrails",
            path="/v1/trails",
            tag="trails",
            summary="Find trails",
            about=(
                "Trails that meet all conditions, newest first. The cursor of the next page is bounds of leaf indexes, so "
                "paging is stable while the log grows, and a cursor never goes stale. As `application/x-ndjson` all pages, a trail a line; "
                "the last line has `end`."
            ),
            action="trails.search",
            scoped=True,
            roles=frozenset({"auditor", "sre", "admin"}),
            read=self.find,
            parameters=search_parameters(self.logs, self.settings),
            answers={"application/json": ("TrailPage", None), NDJSON: ("TrailLines", None)},
        )

    async def find(self, call: Call, run: Runner) -> Reading:
        """The answer to a search: a page, or as lines all of it."""
        size, rows, following = await run(self._find, call.values, call.scope)
        if not wants_lines(call.accept):
            return Reading(body=_encode({"size": size, "trails": rows, "next": following}), headers=VARY)

        async def next_page(cursor: str) -> Lines:
            values = {**call.values, "cursor": cursor_parser(self.logs)(cursor)}
            _, rows, following = await run(self._find, values, call.scope)
            return [_encode(row) for row in rows], following

        self._room.enter()
        first = ([_encode(row) for row in rows], following)
        stream = LineStream(first, next_page, counted="trails", more={"size": size}, room=self._room)
        return Reading(stream=stream, media_type=NDJSON, headers=VARY)

    def _find(self, values: Mapping[str, Any], scope: RowScope) -> tuple[int, list[dict[str, Any]], str | None]:
        """How many leaves are looked at, a page of trails, and the next one's cursor."""
        query = search_query(values)
        if self.logs.cut:
            found = self.logs.find(query, cursor=values["cursor"], limit=values["limit"], scope=scope)
            following = encode_bounds(found.size, found.bounds) if found.bounds else None
            return found.size, [self._summary_json(log, one) for log, one in found.trails], following
        evidence = self.logs.all[0].evidence
        index = evidence.index
        cursor = values["cursor"]
        size, below = cursor if cursor is not None else (min(index.size(), evidence.tree().size), None)
        page = find_seen(index, query, scope, size=size, below=below, limit=values["limit"])
        following = None if page.next_below is None else encode_cursor(size, page.next_below)
        return size, [summary_json(one) for one in page.trails], following

    def _summary_json(self, log: ServedLog, summary: TrailSummary) -> dict[str, Any]:
        return summary_json(summary) | self._log_json(log)

    def _log_json(self, log: ServedLog) -> dict[str, Any]:
        """Which log leaf indexes are of, where there are several."""
        return {"log": log.key.name} if self.logs.cut else {}

    # Read -------------------------------------------------------------------------------------------------------------

    def _read_operation(self) -> Operation:
        return Operation(
            operation_id="readTrail",
            path="/v1/trails/{trail:path}",
            tag="trails",
            summary="Read a trail",
            about=(
                "A page of the trail's entries by position, each with its event and, if asked for, its inclusion proof under "
                "the checkpoint in the answer. `entry` and `event` are the canonical bytes as they are, so that who hashes "
                "them finds the leaf hash and the digest. The role sre sees what happened where, not the events and facts. "
                "Who has read the trail before stands beside it: reading is no part of a trail. A page of long events ends early, "
                "after about 4 MiB: `next` says where it goes on. As `application/x-ndjson` all entries "
                "from `start` on under one checkpoint: first what stands beside them, then an entry a line; the last line has `end`."
            ),
            action="trail.read",
            scoped=True,
            roles=frozenset({"auditor", "sre", "admin"}),
            read=self.read,
            target=trail_target("/v1/trails/"),
            path_parameters={"trail": TRAIL_PARAMETER},
            parameters=(
                Parameter(
                    name="start",
                    about="Position of the first entry.",
                    schema={"type": "integer", "minimum": 0, "maximum": 1 << 53, "default": 0},
                    parse=whole_number(0, 1 << 53),
                    default=0,
                    example=0,
                ),
                Parameter(
                    name="limit",
                    about="Most entries on the page.",
                    schema={"type": "integer", "minimum": 1, "maximum": self.settings.page_entries, "default": 100},
                    parse=whole_number(1, self.settings.page_entries),
                    default=min(100, self.settings.page_entries),
                    example=100,
                ),
                Parameter(
                    name="proofs",
                    about="With each entry its inclusion proof (RFC 9162 section 2.1.3), each hash in base64.",
                    schema={"type": "boolean", "default": False},
                    parse=flag,
                    default=False,
                    example=True,
                ),
                Parameter(
                    name="events",
                    about="With each entry its event.",
                    schema={"type": "boolean", "default": True},
                    parse=flag,
                    default=True,
                    example=True,
                ),
                Parameter(
                    name="beside",
                    about="With the checkpoint and who has read the trail, which change though the trail does not. Left out, "
                    "If-None-Match finds a trail that did not change unchanged.",
                    schema={"type": "boolean", "default": True},
                    parse=flag,
                    default=True,
                ),
            ),
            answers={"application/json": ("Trail", None), NDJSON: ("EntryLines", None)},
            problems=("not-found",),
        )

    async def read(self, call: Call, run: Runner) -> Reading:
        """The answer about one trail: a page of entries, or as lines all of them."""
        trail, values = call.target["trail"], call.values
        if values["proofs"] and not values["beside"]:
            raise Problem("bad-parameter", "proofs are under the checkpoint, which is left out", parameter="beside")
        tree, summary, told = await run(self._begun, call)
        start = values["start"]
        rows, leaves = await run(self._rows, call, tree, start)
        if not wants_lines(call.accept):
            end = start + len(leaves)
            following = b"%d" % end if leaves and end < summary.entries else b"null"
            body = b'{%b,"entries":[%b],"next":%b}' % (told, b",".join(rows), following)
            return Reading(body=body, trail=trail, head=leaves[-1] if leaves else -1, headers=VARY)

        async def next_page(start: int) -> Lines:
            rows, leaves = await run(self._rows, call, tree, start)
            return rows, start + len(leaves) if leaves else None

        self._room.enter()
        first = (rows, start + len(leaves) if leaves else None)
        stream = LineStream(first, next_page, counted="entries", room=self._room, lead=[b"{%b}" % told])
        head = min(summary.last_leaf, tree.size - 1) if leaves else -1
        return Reading(stream=stream, media_type=NDJSON, trail=trail, head=head, headers=VARY)

    def _begun(self, call: Call) -> tuple[SignedTree, TrailSummary, bytes]:
        """The tree that all of the answer is of, what the index tells of the trail, and all members of the answer but its entries."""
        trail = call.target["trail"]
        log = self.logs.of(trail)
        tree = log.evidence.tree()
        try:
            summary = self.logs.seen(trail, call.scope)
        except NotFound as error:
            raise NotFound(f"there is no trail {trail} below leaf {tree.size}") from error
        told = b'"trail":%b,"summary":%b,"story":%b' % (
            _encode(trail),
            _encode(self._summary_json(log, summary)),
            _encode(self._story(trail, call.scope)),
        )
        if call.values["beside"]:
            told += b',"checkpoint":%b,"accesses":%b' % (checkpoint_json(tree), _encode(self._accesses(trail)))
        return tree, summary, told

    def _rows(self, call: Call, tree: SignedTree, start: int) -> tuple[list[bytes], Sequence[int]]:
        """A page of entries as JSON, and their leaves: as many as were asked for, or as fill `PAGE_BYTES`."""
        trail = call.target["trail"]
        evidence = self.logs.of(trail).evidence
        leaves = evidence.index.leaves(trail, start=start, limit=call.values["limit"], size=tree.size)
        full = call.has_role("auditor", "admin")
        rows: list[bytes] = []
        held = 0
        for at in range(0, len(leaves), _GROUP):
            entries = evidence.entries(leaves[at : at + _GROUP])
            told = self._full_rows(evidence, entries, tree, call.values) if full else [skeleton(one) for one in entries]
            for row in told:
                rows.append(row)
                held += len(row)
                if held >= PAGE_BYTES:
                    return rows, leaves[: len(rows)]
        return rows, leaves

    def _full_rows(
        self, evidence: Evidence, entries: Sequence[LoggedEntry], tree: SignedTree, values: Mapping[str, Any]
    ) -> list[bytes]:
        events: dict[int, bytes] = {}
        problems: dict[int, str] = {}
        if values["events"]:
            events, problems = evidence.events_or_problems(entries)
        rows = []
        for one in entries:
            row = b'{"leaf":%d,"entry":%b,"event":%b' % (one.leaf, one.data, events.get(one.leaf, b"null"))
            if problems and one.leaf in problems:
                row += b',"problem":' + _encode(problems[one.leaf])
            elif values["events"] and one.entry.kind == "event" and one.leaf not in events:
                row += b',"retired":' + _encode(retired_json(evidence.retired(one)))
            if values["proofs"]:
                row += b',"proof":' + _encode(base64_list(evidence.reader.inclusion(one.leaf, tree.size)))
            rows.append(row + b"}")
        return rows

    def _story(self, trail: str, scope: RowScope) -> dict[str, Any]:
        told = self.logs.story(trail, scope)
        home = self.logs.of(trail)
        elsewhere = [trace for trace in told.traces if self.logs.of(trace) is not home]
        return {
            "traces": told.traces,
            "traces_left_out": told.traces_left_out,
            "related": [{"trail": one.trail, "through": one.through or None} for one in told.related],
            "related_left_out": told.related_left_out,
            "hubs": told.hubs,
            **({"elsewhere": elsewhere} if self.logs.cut else {}),
        }

    def _accesses(self, trail: str) -> dict[str, Any]:
        accesses, complete = self.logs.accesses(trail)
        return {
            "complete": complete,
            "entries": [
                {
                    "leaf": one.access.leaf,
                    "time": one.access.time,
                    "principal": one.access.principal,
                    "action": one.access.action,
                    "head": one.access.head,
                    "refused": one.access.refused,
                    **self._log_json(one.log),
                }
                for one in accesses
            ],
        }


# ------------------------------------------------------------------------------------------------------ parts of answers

_TRAIL_PATTERN = (
    "^(tenant/[^/]+/)?(transaction/[^/]+|key/[^/]+/[^/]+|trace/[0-9a-f]{32}|stream/[^/]+/[0-9a-f]{16,64}|access/[^/]+)$"
    "|^ledger/[a-z]+$"
)

TRAIL_PARAMETER = (
    "The trail id, as it stands (it is percent-encoded already), or percent-encoded once more as one segment.",
    {"type": "string", "maxLength": 1000, "pattern": _TRAIL_PATTERN},
    "transaction/PAY-1",
)


def trail_target(prefix: str) -> Callable[[Request], Mapping[str, Any]]:
    """A `target` for paths that end in a trail id."""

    def target(request: Request) -> Mapping[str, Any]:
        return {"trail": trail_of(raw_tail(request, prefix))}

    return target
