"""Finding trails, and reading one: its entries with their events and proofs, and what stands beside it.

The answers are put together from bytes: an entry and an event are canonical JSON already, so they go in as they are, and who
hashes them finds the leaf and the digest.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
from starlette.requests import Request

from audit_api.answers import MAX_LINKS, base64_list, checkpoint_json, retired_json, skeleton, summary_json
from audit_api.evidence import Evidence, LoggedEntry, SignedTree
from audit_api.gate import Call, Operation, Reading, Runner
from audit_api.identity.scope import RowScope, find_seen
from audit_api.logs import Logs, ServedLog
from audit_api.parameters import (
    Parameter,
    decode_bounds,
    decode_cursor,
    encode_bounds,
    encode_cursor,
    flag,
    raw_tail,
    time,
    trail_of,
    whole_number,
)
from audit_api.settings import ApiSettings
from collector.errors import NotFound
from correlator.index import AmountRange, TextSearch, TrailQuery, TrailSummary
from correlator.index.rows import STATUSES
from correlator.index.words import MAX_TEXT

__all__ = ["TRAIL_PARAMETER", "Trails", "trail_target"]

KINDS = ("transaction", "key", "trace", "stream", "access", "ledger")

_encode = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True)
class Trails:
    """The operations on trails."""

    logs: Logs
    settings: ApiSettings

    def operations(self) -> list[Operation]:
        """Find and read."""
        return [self._find_operation(), self._read_operation()]

    # Find -------------------------------------------------------------------------------------------------------------

    def _find_operation(self) -> Operation:
        text = {"type": "string", "maxLength": 1000}
        return Operation(
            operation_id="findTrails",
            path="/v1/trails",
            tag="trails",
            summary="Find trails",
            about=(
                "Trails that meet all conditions, newest first. The cursor of the next page is bounds of leaf indexes, so "
                "paging is stable while the log grows, and a cursor never goes stale."
            ),
            action="trails.search",
            scoped=True,
            roles=frozenset({"auditor", "sre", "admin"}),
            read=self.find,
            parameters=(
                Parameter(
                    name="transaction", about="The transaction ID.", schema=text, parse=_not_empty, example="PAY-1"
                ),
                Parameter(
                    name="key",
                    about="A business key: its name, a colon, its value.",
                    schema={"type": "string", "pattern": "^[^:]+:.+$", "maxLength": 1000},
                    parse=_key,
                    default=None,
                    example="order_id:O-1",
                ),
                Parameter(
                    name="service", about="A service that took part.", schema=text, parse=_not_empty, example="ledger"
                ),
                Parameter(
                    name="since",
                    about="The trail's span of stated times ends at or after this RFC 3339 time.",
                    schema={"type": "string", "format": "date-time"},
                    parse=time,
                    example="2026-01-01T00:00:00Z",
                ),
                Parameter(
                    name="until",
                    about="The trail's span of stated times begins before this RFC 3339 time.",
                    schema={"type": "string", "format": "date-time"},
                    parse=time,
                    example="2027-01-01T00:00:00+01:00",
                ),
                Parameter(
                    name="status",
                    about="The newest verdict, else `error`, `gap` or `ok`.",
                    schema={"type": "string", "enum": list(STATUSES)},
                    parse=_one_of(STATUSES),
                    example="complete",
                ),
                Parameter(
                    name="kind",
                    about="The trail's family.",
                    schema={"type": "string", "enum": list(KINDS)},
                    parse=_one_of(KINDS),
                    example="transaction",
                ),
                Parameter(
                    name="amount",
                    about="The span of the trail's amounts in a currency (ISO 4217) meets this range, bounds included: "
                    "`EUR:10..20`, `EUR:10..`, `EUR:..20`, `EUR:12.50`.",
                    schema={"type": "string", "pattern": "^[A-Za-z]{3}:.+$", "maxLength": 100},
                    parse=AmountRange.parse,
                    default=None,
                    example="EUR:10..20",
                ),
                Parameter(
                    name="text",
                    about="Words, all of which must be found, in any case: each as the value of the trail's own id or of one of "
                    "its keys, whole, or as a word of the name of a service or an event. `refund*` finds what begins so.",
                    schema={"type": "string", "minLength": 1, "maxLength": MAX_TEXT},
                    parse=TextSearch.parse,
                    default=None,
                    example="payment rec*",
                ),
                Parameter(name="tenant", about="The tenant.", schema=text, parse=_not_empty, example=None),
                Parameter(
                    name="cursor",
                    about="`next` of the page before, with the same conditions.",
                    schema={"type": "string", "maxLength": 1000 if self.logs.cut else 100},
                    parse=decode_bounds(len(self.logs.all)) if self.logs.cut else decode_cursor,
                    default=None,
                ),
                Parameter(
                    name="limit",
                    about="Most trails on the page.",
                    schema={"type": "integer", "minimum": 1, "maximum": self.settings.page_trails, "default": 50},
                    parse=whole_number(1, self.settings.page_trails),
                    default=min(50, self.settings.page_trails),
                    example=20,
                ),
            ),
            answers={"application/json": ("TrailPage", None)},
        )

    async def find(self, call: Call, run: Runner) -> Reading:
        """The answer to a search."""
        return Reading(body=await run(self._find, call.values, call.scope))

    def _find(self, values: Mapping[str, Any], scope: RowScope) -> bytes:
        query = TrailQuery(
            **{
                name: values[name]
                for name in (
                    "tenant",
                    "transaction",
                    "key",
                    "service",
                    "since",
                    "until",
                    "status",
                    "kind",
                    "amount",
                    "text",
                )
            }
        )
        if self.logs.cut:
            return self._find_over_logs(query, values, scope)
        evidence = self.logs.all[0].evidence
        index = evidence.index
        cursor = values["cursor"]
        size, below = cursor if cursor is not None else (min(index.size(), evidence.tree().size), None)
        page = find_seen(index, query, scope, size=size, below=below, limit=values["limit"])
        following = None if page.next_below is None else encode_cursor(size, page.next_below)
        return _encode({"size": size, "trails": [summary_json(one) for one in page.trails], "next": following})

    def _find_over_logs(self, query: TrailQuery, values: Mapping[str, Any], scope: RowScope) -> bytes:
        page = self.logs.find(query, cursor=values["cursor"], limit=values["limit"], scope=scope)
        following = encode_bounds(page.size, page.bounds) if page.bounds else None
        trails = [self._summary_json(log, one) for log, one in page.trails]
        return _encode({"size": page.size, "trails": trails, "next": following})

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
                "Who has read the trail before stands beside it: reading is no part of a trail."
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
                    schema={"type": "integer", "minimum": 0, "default": 0},
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
            ),
            answers={"application/json": ("Trail", None)},
            problems=("not-found",),
        )

    async def read(self, call: Call, run: Runner) -> Reading:
        """The answer about one trail."""
        body, head = await run(self._read, call)
        return Reading(body=body, trail=call.target["trail"], head=head)

    def _read(self, call: Call) -> tuple[bytes, int]:
        trail, values = call.target["trail"], call.values
        log = self.logs.of(trail)
        evidence = log.evidence
        tree = evidence.tree()
        index = evidence.index
        try:
            summary = self.logs.seen(trail, call.scope)
        except NotFound as error:
            raise NotFound(f"there is no trail {trail} below leaf {tree.size}") from error
        leaves = index.leaves(trail, start=values["start"], limit=values["limit"], size=tree.size)
        entries = evidence.entries(leaves)
        if call.has_role("auditor", "admin"):
            rows = self._full_rows(evidence, entries, tree, values)
        else:
            rows = [skeleton(one) for one in entries]
        end = values["start"] + len(leaves)
        more = bool(leaves) and end < summary.entries
        body = b'{"trail":%b,"summary":%b,"checkpoint":%b,"entries":[%b],"next":%b,"story":%b,"accesses":%b}' % (
            _encode(trail),
            _encode(self._summary_json(log, summary)),
            checkpoint_json(tree),
            b",".join(rows),
            b"%d" % end if more else b"null",
            _encode(self._story(trail, call.scope)),
            _encode(self._accesses(trail)),
        )
        return body, leaves[-1] if leaves else -1

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
            "related": [{"trail": one.trail, "through": one.through or None} for one in told.related[:MAX_LINKS]],
            "related_left_out": max(0, len(told.related) - MAX_LINKS),
            "hubs": told.hubs[:MAX_LINKS],
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

TRAIL_PARAMETER = (
    "The trail id, as it stands (it is percent-encoded already), or percent-encoded once more as one segment.",
    {"type": "string", "maxLength": 1000},
    "transaction/PAY-1",
)


def _not_empty(text: str) -> str:
    if not text:
        raise ValueError("it is empty")
    return text


def _key(text: str) -> tuple[str, str]:
    name, colon, value = text.partition(":")
    if not (name and colon and value):
        raise ValueError("it is not a key's name, a colon, and its value")
    return name, value


def _one_of(words: Sequence[str]) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text not in words:
            raise ValueError(f"it is none of {', '.join(words)}")
        return text

    return parse


def trail_target(prefix: str) -> Callable[[Request], Mapping[str, Any]]:
    """A `target` for paths that end in a trail id."""

    def target(request: Request) -> Mapping[str, Any]:
        return {"trail": trail_of(raw_tail(request, prefix))}

    return target
