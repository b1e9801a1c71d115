"""How the ledger stands: its size, how far the index is, its streams, and who is known here."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from audit_api.answers import checkpoint_json
from audit_api.auth import ROLES, Authenticator
from audit_api.evidence import Evidence, SignedTree
from audit_api.gate import Call, Operation, Reading, Runner
from audit_api.parameters import Parameter, whole_number
from collector.errors import NotFound
from correlator.note import Verifier
from correlator.trail import stream_trail

__all__ = ["Overview"]

_encode = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True)
class Overview:
    """The operations for those who run the ledger."""

    evidence: Evidence
    key: Verifier
    authenticator: Authenticator

    def operations(self) -> list[Operation]:
        """Status, streams, principals."""
        return [
            Operation(
                operation_id="readStatus",
                path="/v1/status",
                tag="operation",
                summary="How the ledger stands",
                about="The checkpoint, and how many leaves the index has of it.",
                action="status.read",
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
        return Reading(body=await run(self._status))

    def _status(self) -> bytes:
        tree: SignedTree = self.evidence.tree()
        indexed = self.evidence.index.size()
        return b'{"ledger":%b,"fingerprint":%b,"checkpoint":%b,"indexed":%d,"index_lag":%d}' % (
            _encode(tree.checkpoint.origin),
            _encode(self.key.fingerprint),
            checkpoint_json(tree),
            indexed,
            max(0, tree.size - indexed),
        )

    async def streams(self, call: Call, run: Runner) -> Reading:
        """A page of streams."""
        return Reading(body=await run(self._streams, call.values))

    def _streams(self, values: Mapping[str, Any]) -> bytes:
        streams = self.evidence.store.streams()
        start, end = values["start"], values["start"] + values["limit"]
        rows = []
        for stream in streams[start:end]:
            row: dict[str, Any] = {"stream": stream, "logged_batch": self.evidence.store.acknowledged(stream)}
            try:
                summary = self.evidence.index.trail(stream_trail(stream))
                row |= {"trail": summary.trail, "status": summary.status, "entries": summary.entries}
            except NotFound:
                row |= {"trail": None, "status": "unknown", "entries": 0}
            rows.append(row)
        return _encode({"streams": rows, "next": end if end < len(streams) else None})

    async def principals(self, _: Call, __: Runner) -> Reading:
        """Who is known here."""
        rows = [
            {"principal": one.name, "roles": [role for role in ROLES if role in one.roles]}
            for one in self.authenticator.principals()
        ]
        return Reading(body=_encode({"principals": rows}))
