"""How the ledger stands: its size, how far the index is, its streams, and who is known here."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from audit_api.answers import checkpoint_json
from audit_api.auth import ROLES, Authenticator
from audit_api.evidence import SignedTree
from audit_api.gate import Call, Operation, Reading, Runner
from audit_api.logs import Logs
from audit_api.parameters import Parameter, whole_number
from collector.errors import NotFound
from correlator.index import TrailSummary
from correlator.trail import stream_trail

__all__ = ["Overview"]

_STATUSES = ("gap", "error")
_encode = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True)
class Overview:
    """The operations for those who run the ledger."""

    logs: Logs
    authenticator: Authenticator

    def operations(self) -> list[Operation]:
        """Status, streams, principals."""
        return [
            Operation(
                operation_id="readStatus",
                path="/v1/status",
                tag="operation",
                summary="How the ledger stands",
                about=(
                    "The joint statement, which each shard's log is shown to continue, each log's checkpoint, and how many leaves its "
                    "index has of it."
                    if self.logs.cut
                    else "The checkpoint, and how many leaves the index has of it."
                ),
                action="status.read",
                scoped=True,
                roles=frozenset({"sre", "auditor", "admin"}),
                read=self.status,
                answers={"application/json": ("Status", None)},
            ),
            Operation(
                operation_id="listStreams",
                path="/v1/streams",
                tag="operation",
                summary="The streams",
                about=(
                    "Each stream that ever stored a batch, in the order of arrival: how far the log has it, and whether "
                    "something of it is missing (`gap`)."
                ),
                action="streams.list",
                roles=frozenset({"sre", "auditor", "admin"}),
                read=self.streams,
                parameters=(
                    Parameter(
                        name="start",
                        about="How many streams to pass over.",
                        schema={"type": "integer", "minimum": 0, "default": 0},
                        parse=whole_number(0, 1 << 53),
                        default=0,
                        example=0,
                    ),
                    Parameter(
                        name="limit",
                        about="Most streams on the page.",
                        schema={"type": "integer", "minimum": 1, "maximum": 500, "default": 100},
                        parse=whole_number(1, 500),
                        default=100,
                        example=100,
                    ),
                ),
                answers={"application/json": ("StreamPage", None)},
            ),
            Operation(
                operation_id="listPrincipals",
                path="/v1/principals",
                tag="operation",
                summary="Who is known here",
                about="The principals that have a token, and their roles. Tokens are added and removed beside the API, in its file.",
                action="principals.list",
                roles=frozenset({"admin"}),
                read=self.principals,
                answers={"application/json": ("Principals", None)},
            ),
        ]

    async def status(self, _: Call, run: Runner) -> Reading:
        """How the ledger stands."""
        return Reading(body=await run(self._status_of_shards if self.logs.cut else self._status))

    def _status(self) -> bytes:
        evidence = self.logs.all[0].evidence
        tree: SignedTree = evidence.tree()
        indexed = evidence.index.size()
        return b'{"ledger":%b,"fingerprint":%b,"checkpoint":%b,"indexed":%d,"index_lag":%d}' % (
            _encode(tree.checkpoint.origin),
            _encode(self.logs.key.fingerprint),
            checkpoint_json(tree),
            indexed,
            max(0, tree.size - indexed),
        )

    def _status_of_shards(self) -> bytes:
        note, _ = self.logs.statement()  # before the checkpoints, so that none of them is older
        rows = []
        for log in self.logs.all:
            indexed = log.evidence.index.size()
            try:
                tree = log.evidence.tree()
            except NotFound:
                told, lag = b"null", 0
            else:
                told, lag = checkpoint_json(tree), max(0, tree.size - indexed)
            rows.append(
                b'{"log":%b,"checkpoint":%b,"indexed":%d,"index_lag":%d}' % (_encode(log.key.name), told, indexed, lag)
            )
        return b'{"ledger":%b,"fingerprint":%b,"statement":%b,"logs":[%b]}' % (
            _encode(self.logs.key.name),
            _encode(self.logs.key.fingerprint),
            _encode(note.decode("utf-8")),
            b",".join(rows),
        )

    async def streams(self, call: Call, run: Runner) -> Reading:
        """A page of streams."""
        return Reading(body=await run(self._streams, call.values))

    def _streams(self, values: Mapping[str, Any]) -> bytes:
        streams = self.logs.store.streams()
        start, end = values["start"], values["start"] + values["limit"]
        rows = []
        for stream in streams[start:end]:
            row: dict[str, Any] = {"stream": stream, "logged_batch": self.logs.store.acknowledged(stream)}
            summaries = self._summaries(stream_trail(stream))
            if summaries:
                status = min((one.status for one in summaries), key=_worst_first)
                row |= {"trail": summaries[0].trail, "status": status, "entries": summaries[0].entries}
            else:
                row |= {"trail": None, "status": "unknown", "entries": 0}
            rows.append(row)
        return _encode({"streams": rows, "next": end if end < len(streams) else None})

    def _summaries(self, trail: str) -> list[TrailSummary]:
        """What each log tells of the trail of a stream, for each has one; that of the trail's own shard first."""
        home = self.logs.of(trail)
        found = []
        for log in (home, *(log for log in self.logs.all if log is not home)):
            try:
                found.append(log.evidence.index.trail(trail))
            except NotFound:
                continue
        return found

    async def principals(self, _: Call, __: Runner) -> Reading:
        """Who is known here."""
        rows = [
            {"principal": one.name, "roles": [role for role in ROLES if role in one.roles]}
            for one in self.authenticator.principals()
        ]
        return Reading(body=_encode({"principals": rows}))


def _worst_first(status: str) -> int:
    return _STATUSES.index(status) if status in _STATUSES else len(_STATUSES)
