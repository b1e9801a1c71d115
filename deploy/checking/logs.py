"""Logs checked by themselves, without the store: one, or all shards' logs under their joint statement, or a copy of some of them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from correlator.check import Finding as LogFinding
from correlator.check import check_log, is_missing
from correlator.checkpoint import Checkpoint
from correlator.errors import NotFound, VerificationError
from correlator.head import decode_head
from correlator.note import Verifier
from correlator.shards import Shard, every_shard, key_of_log, split_origin
from correlator.statement import Statement, is_statement, open_statement
from correlator.storage import CHECKPOINT, LogStorage
from deploy.checking import Finding
from deploy.checking.shards import STATEMENT, check_statement, of_log

__all__ = ["LogsReport", "verify_logs"]


@dataclass(frozen=True, slots=True, kw_only=True)
class LogsReport:
    """What was found of logs: what is false, what what is there cannot show, and the origins of the logs looked at.

    `stated`: whether a joint statement was there, which then is judged, too.
    """

    findings: Sequence[LogFinding | Finding]
    doubts: Sequence[str] = ()
    origins: Sequence[str] = ()
    stated: bool = False


def verify_logs(
    storage_of: Callable[[str], LogStorage],
    verifier: Verifier,
    *,
    since: Checkpoint | Statement | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> LogsReport:
    """Check a log, or the joint statement where one stands in its place and the logs that it covers.

    A log that is one shard's is checked under its own origin: its checkpoint says which that is, and `verifier` may be the ledger's. What
    lies there may be a copy: of what is published alone, which has no head; of some shards' logs; of one, with the joint statement beside its checkpoint.

    Args:
        storage_of: gives the storage below the one in question: of ``""`` that one itself, else of a shard's name.
        verifier: the ledger's key.
        since: remembered from before; a checkpoint is of one log.
        progress: told now and then how many leaves of how many are done.

    Raises:
        Overloaded, StateUnknown: a storage could not be read.
    """
    root = storage_of("")
    raw = root.read_head()
    statement = None
    if raw is not None and is_statement(raw):
        try:
            statement = open_statement(raw, verifier)
            if isinstance(since, Statement):
                statement.check_follows(since)
        except VerificationError as error:
            return LogsReport(findings=[Finding(where=STATEMENT, problem=str(error))], stated=True)
    if not _is_there(root):
        return LogsReport(findings=[], doubts=["there is neither a log nor a joint statement"])
    if statement is not None:
        logs = {shard: storage_of(shard.name) for shard in every_shard(statement.count)}
        if is_missing(root, CHECKPOINT) or any(map(_is_there, logs.values())):
            return _all(logs, verifier, statement, since=since, progress=progress)
    return _one(root, raw, verifier, statement, since=since, progress=progress)


def _one(
    storage: LogStorage,
    raw: bytes | None,
    verifier: Verifier,
    statement: Statement | None,
    *,
    since: Checkpoint | Statement | None,
    progress: Callable[[int, int], None] | None,
) -> LogsReport:
    """Check the log that is here; a joint statement in the place of its head is of this one among others."""
    origin = _origin(storage, raw)
    key = key_of_log(verifier, origin)
    shard = split_origin(key.name)[1]
    stated = [one for one in (statement, since) if isinstance(one, Statement)]
    if stated and shard.count != stated[0].count:
        problem = f"it is of {stated[0].count} shards, and the log here is {origin[:200]!r}"
        return LogsReport(findings=[Finding(where=STATEMENT, problem=problem)], origins=[key.name])
    known = since if isinstance(since, Checkpoint) else None
    mirrored = raw is None or statement is not None
    findings: list[LogFinding | Finding] = [*check_log(storage, key, since=known, progress=progress, mirrored=mirrored)]
    for one in stated:
        check_statement(one, {shard: storage}, verifier, findings.append)
    return LogsReport(findings=findings, origins=[key.name], stated=statement is not None)


def _all(
    logs: Mapping[Shard, LogStorage],
    verifier: Verifier,
    statement: Statement,
    *,
    since: Checkpoint | Statement | None,
    progress: Callable[[int, int], None] | None,
) -> LogsReport:
    """Check the logs below their joint statement. One of which nothing is there may be elsewhere: nothing follows from that."""
    findings: list[LogFinding | Finding] = []
    doubts: list[str] = []
    here: dict[Shard, LogStorage] = {}
    if isinstance(since, Checkpoint) and since.origin not in {tree.origin for tree in statement.trees}:
        findings.append(Finding(where="log", problem=f"the remembered checkpoint is of another log, {since.origin!r}"))
    for (shard, storage), tree in zip(logs.items(), statement.trees, strict=True):
        known = since if isinstance(since, Checkpoint) and since.origin == tree.origin else None
        if _is_there(storage):
            here[shard] = storage
            key = key_of_log(verifier, tree.origin)
            mirrored = storage.read_head() is None
            findings += of_log(check_log(storage, key, since=known, progress=progress, mirrored=mirrored), shard)
        elif leaves := max(tree.size, known.size if known else 0):
            doubts.append(f"nothing is here of {tree.origin}, which had {leaves:,} leaves")
    for one in (statement, since):
        if isinstance(one, Statement):
            check_statement(one, here, verifier, findings.append)
    origins = [shard.origin(verifier.name) for shard in here]
    return LogsReport(findings=findings, doubts=doubts, origins=origins, stated=True)


def _is_there(storage: LogStorage) -> bool:
    """Whether anything of a log is there."""
    if storage.read_head() is not None or not is_missing(storage, CHECKPOINT):
        return True
    return next(iter(storage.paths()), None) is not None


def _origin(storage: LogStorage, head: bytes | None) -> str:
    """The origin that a log states, by its checkpoint or, before its first publish, by its head; empty when it states none. Checked later, under that name."""
    try:
        return _first_line(storage.get(CHECKPOINT))
    except NotFound:
        pass
    try:
        return "" if head is None else _first_line(decode_head(head).checkpoint.encode())
    except VerificationError:
        return ""


def _first_line(note: bytes) -> str:
    return note.partition(b"\n")[0].decode("utf-8", "replace")
