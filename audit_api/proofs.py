"""Proofs: one event's place in the log, the checkpoint, and how two sizes of the log hang together."""

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
from starlette.requests import Request

from audit_api.answers import base64_list, checkpoint_json, retired_json
from audit_api.evidence import LoggedEntry
from audit_api.gate import Call, Operation, Reading, Runner
from audit_api.identity.scope import RowScope
from audit_api.logs import Logs, ServedLog
from audit_api.parameters import Parameter, whole_number
from audit_api.problems import Problem
from collector.batch import EventRef, StreamId, stream_id
from collector.errors import Malformed, NotFound
from collector.event import decode_event, facts_of
from correlator.stitch import Stitcher
from correlator.trail import RETIREMENTS, access_trail, incident_trail, is_incident, stream_trail

__all__ = ["Proofs"]

TLOG_PROOF = "text/plain"
_MAX_SIZE = (1 << 53) - 1
_COLLECTOR = "^[a-z0-9]([a-z0-9._-]{0,62}[a-z0-9])?$"
_encode = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True)
class Proofs:
    """The operations on proofs. `public` lets anyone ask for what holds hashes alone."""

    logs: Logs
    public: bool = True

    def operations(self) -> list[Operation]:
        """Event's proof, checkpoint, consistency."""
        roles: frozenset[Any] = frozenset() if self.public else frozenset({"auditor", "sre", "admin"})
        return [
            Operation(
                operation_id="proveEvent",
                path="/v1/events/{collector}/{incarnation}/{sequence}/proof",
                tag="proofs",
                summary="Prove one event",
                about=(
                    "The event's entry, its inclusion proof under the latest checkpoint, and the signed batch header with "
                    "the path of the event's facts: all that shows that the collector signed it and that the log has it. "
                    "As `text/plain` a C2SP `tlog-proof` that carries the entry as its extra data."
                ),
                action="event.prove",
                scoped=True,
                roles=frozenset({"auditor", "admin"}),
                read=self.prove,
                target=_event_target,
                path_parameters={
                    "collector": ("The collector's name.", {"type": "string", "pattern": _COLLECTOR}, "gateway"),
                    "incarnation": (
                        "The incarnation: 16 to 64 hex digits.",
                        {"type": "string", "pattern": "^[0-9a-f]{16,64}$"},
                        "00000000000000aa",
                    ),
                    "sequence": (
                        "The event's sequence in the stream.",
                        {"type": "integer", "minimum": 0, "maximum": _MAX_SIZE},
                        0,
                    ),
                },
                answers={
                    "application/json": ("EventProof", None),
                    TLOG_PROOF: (
                        "TlogProof",
                        "c2sp.org/tlog-proof@v1\nextra …\nindex 14\n…\n\nledger.example/payments\n…",
                    ),
                },
                problems=("not-found", "not-logged-yet"),
            ),
            Operation(
                operation_id="readCheckpoint",
                path="/v1/checkpoint",
                tag="proofs",
                summary="Read the latest checkpoint",
                about=(
                    "The joint statement over all shards' logs, which each of them is shown to continue, and each log's signed size "
                    "and root; with the key that this ledger says it has: for comparing, not for trust."
                    if self.logs.cut
                    else "The log's signed size and root, and the key that this ledger says it has: for comparing, not for trust."
                ),
                action="checkpoint.read",
                scoped=True,
                roles=roles,
                read=self.checkpoint,
                answers={"application/json": ("CheckpointAndKey", None)},
            ),
            Operation(
                operation_id="proveConsistency",
                path="/v1/consistency",
                tag="proofs",
                summary="Prove that the log has only grown",
                about=(
                    "The RFC 9162 section 2.1.4 proof that the tree of `first` leaves is the beginning of that of `second` "
                    "leaves, by default the latest."
                ),
                action="consistency.read",
                scoped=True,
                roles=roles,
                read=self.consistency,
                parameters=(
                    Parameter(
                        name="first",
                        about="The smaller size.",
                        schema={"type": "integer", "minimum": 0, "maximum": _MAX_SIZE},
                        parse=whole_number(0, _MAX_SIZE),
                        default=None,
                        example=1,
                        required=True,
                    ),
                    Parameter(
                        name="second",
                        about="The larger size; by default that of the latest checkpoint.",
                        schema={"type": "integer", "minimum": 0, "maximum": _MAX_SIZE},
                        parse=whole_number(0, _MAX_SIZE),
                        default=None,
                    ),
                    *self._shard_parameter(),
                ),
                answers={"application/json": ("Consistency", None)},
                problems=("not-found",),
            ),
        ]

    def _shard_parameter(self) -> tuple[Parameter, ...]:
        if not self.logs.cut:
            return ()
        last = len(self.logs.all)
        return (
            Parameter(
                name="shard",
                about="Whose log.",
                schema={"type": "integer", "minimum": 1, "maximum": last},
                parse=whole_number(1, last),
                default=None,
                example=1,
                required=True,
            ),
        )

    # Checkpoints ------------------------------------------------------------------------------------------------------

    async def checkpoint(self, _: Call, run: Runner) -> Reading:
        """The latest checkpoint; of a ledger that is cut the joint statement, and every log's checkpoint."""
        told: bytes = await run(self._covered if self.logs.cut else self._checkpoint)
        body = b'{%b,"key":%b,"fingerprint":%b}' % (
            told,
            _encode(self.logs.key.vkey),
            _encode(self.logs.key.fingerprint),
        )
        return Reading(body=body)

    def _checkpoint(self) -> bytes:
        return b'"checkpoint":%b' % checkpoint_json(self.logs.all[0].evidence.tree())

    def _covered(self) -> bytes:
        note, _ = self.logs.statement()  # before the checkpoints, so that none of them is older
        return b'"statement":%b,"checkpoints":[%b]' % (
            _encode(note.decode("utf-8")),
            b",".join(checkpoint_json(tree) for tree in self.logs.trees()),
        )

    async def consistency(self, call: Call, run: Runner) -> Reading:
        """The proof between two sizes."""
        return Reading(body=await run(self._consistency, call.values))

    def _consistency(self, values: Mapping[str, Any]) -> bytes:
        first, second = values["first"], values["second"]
        if first is None:
            raise Problem("bad-parameter", "it is needed", parameter="first")
        if self.logs.cut and values["shard"] is None:
            raise Problem("bad-parameter", "it is needed: each shard has a log of its own", parameter="shard")
        evidence = self.logs.all[values["shard"] - 1 if self.logs.cut else 0].evidence
        tree = evidence.tree()
        end = tree.size if second is None else second
        if first > end:
            raise Problem("bad-parameter", "the first size is larger than the second", parameter="first")
        reader = evidence.reader
        proof = reader.consistency(first, end)
        return _encode(
            {
                **({"log": tree.checkpoint.origin} if self.logs.cut else {}),
                "first": {"size": first, "root": _base64(reader.root(first))},
                "second": {"size": end, "root": _base64(reader.root(end))},
                "proof": base64_list(proof),
            }
        )

    # One event --------------------------------------------------------------------------------------------------------

    async def prove(self, call: Call, run: Runner) -> Reading:
        """The proof of one event."""
        ref = call.target["ref"]
        log, found = await run(self._seen, ref, call.scope)
        as_text = TLOG_PROOF in call.accept and "application/json" not in call.accept
        body = await run(self._tlog_proof if as_text else self._proof, log, found)
        return Reading(
            body=body,
            media_type=f"{TLOG_PROOF}; charset=utf-8" if as_text else "application/json",
            headers={"Vary": "Accept"},
            trail=found.entry.trail,
            head=found.leaf,
        )

    def _seen(self, ref: EventRef, scope: RowScope) -> tuple[ServedLog, LoggedEntry]:
        """As `_find`; who sees but a part of the ledger is told the same of what is not seen and of what is not there."""
        if scope.whole:
            return self._find(ref)
        try:
            log, found = self._find(ref)
            self.logs.seen(found.entry.trail, scope)
        except (NotFound, Problem) as error:
            raise NotFound(f"event {ref.sequence} of stream {ref.stream} is not in the log") from error
        return log, found

    def _find(self, ref: EventRef) -> tuple[ServedLog, LoggedEntry]:
        """The entry of an event, and the log that it is in: it follows from the event alone in which trails it may be."""
        try:
            (data,) = self.logs.store.events([ref])
            facts = facts_of(decode_event(data), "", {})
        except NotFound:
            facts = self.logs.of(RETIREMENTS).evidence.retired_facts(ref)
        except Malformed as error:
            raise NotFound(
                f"event {ref.sequence} of stream {ref.stream} in the store cannot be read: {error}"
            ) from error
        trails = [trail for trail, _ in Stitcher().identities(facts)]
        if facts.access is not None:
            trails.insert(0, access_trail(facts.access.principal or "unknown", facts.tenant))
        if facts.retirement is not None:
            trails.insert(0, RETIREMENTS)
        if facts.incident is not None and is_incident(facts.incident.id):
            trails.insert(0, incident_trail(facts.incident.id))
        trails.append(stream_trail(ref.stream, facts.tenant))
        size = 0
        needle = b'"sequence":%d,"stream":%b' % (ref.sequence, _encode(ref.stream))
        meant = 0 if facts.retirement is None else facts.retirement.shard
        for trail in trails:
            log = self.logs.of_event(trail, meant if trail == RETIREMENTS else 0)
            evidence = log.evidence
            try:
                size = evidence.tree().size
            except NotFound:
                if not self.logs.cut:
                    raise
                continue  # that shard has not published anything
            for leaf in evidence.leaves_about(ref, trail, size=size):
                if needle in evidence.reader.entry(leaf):
                    (one,) = evidence.entries([leaf])
                    if (one.entry.stream, one.entry.sequence) == (ref.stream, ref.sequence):
                        return log, one
        where = "its shard's log yet" if self.logs.cut else f"the log of {size} leaves"
        raise Problem(
            "not-logged-yet",
            f"event {ref.sequence} of stream {ref.stream} is stored, but not in {where}",
            headers={"Retry-After": "1"},
        )

    def _tlog_proof(self, log: ServedLog, found: LoggedEntry) -> bytes:
        return log.evidence.reader.proof(found.leaf, extra=found.data).encode()

    def _proof(self, log: ServedLog, found: LoggedEntry) -> bytes:
        evidence = log.evidence
        tree = evidence.tree()
        events, problems = evidence.events_or_problems([found])
        batch = evidence.batch_of(found)
        path = evidence.facts_path(batch, found.entry.sequence)
        proof = evidence.reader.inclusion(found.leaf, tree.size)
        logged = evidence.reader.inclusion(batch.leaf, tree.size)
        return b'{"trail":%b,"leaf":%d,"entry":%b,"event":%b,%b"proof":%b,"checkpoint":%b,"batch":%b}' % (
            _encode(found.entry.trail),
            found.leaf,
            found.data,
            events.get(found.leaf, b"null"),
            b'"problem":%b,' % _encode(problems[found.leaf])
            if problems
            else b'"retired":%b,' % _encode(retired_json(evidence.retired(found)))
            if found.leaf not in events
            else b"",
            _encode(base64_list(proof)),
            checkpoint_json(tree),
            b'{"leaf":%d,"entry":%b,"proof":%b,"facts_path":%b}'
            % (batch.leaf, batch.data, _encode(base64_list(logged)), _encode(base64_list(path))),
        )


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _event_target(request: Request) -> Mapping[str, Any]:
    given = request.path_params
    try:
        stream: StreamId = stream_id(str(given["collector"]), str(given["incarnation"]))
        sequence = whole_number(0, _MAX_SIZE)(str(given["sequence"]))
    except ValueError as error:
        raise Problem("bad-parameter", str(error), parameter="event") from error
    return {"ref": EventRef(stream=stream, sequence=sequence)}
