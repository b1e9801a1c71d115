"""Logs checked by themselves, without the store: one, or all shards' logs under their joint statement."""

from collections.abc import Callable, Sequence

from correlator.check import Finding as LogFinding
from correlator.check import check_log
from correlator.checkpoint import Checkpoint
from correlator.errors import NotFound, VerificationError
from correlator.note import Verifier
from correlator.shards import Shard, key_of_log, split_origin
from correlator.statement import Statement, is_statement
from correlator.storage import CHECKPOINT, LogStorage
from deploy.checking import Finding
from deploy.checking.shards import STATEMENT, check_statement, of_log, open_standing

__all__ = ["verify_logs"]


def verify_logs(
    storage_of: Callable[[str], LogStorage],
    verifier: Verifier,
    *,
    since: Checkpoint | Statement | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[Sequence[LogFinding | Finding], Sequence[str]]:
    """Check a log, or the joint statement where one stands in its place and the logs that it covers; findings, and the origins looked at.

    A log that is one shard's is checked under its own origin: its head says which that is, and `verifier` may be the ledger's.

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
    if raw is None or not is_statement(raw):
        if isinstance(since, Statement):
            problem = "what is there is no joint statement, and one is remembered"
            return [Finding(where=STATEMENT, problem=problem)], [verifier.name]
        key = key_of_log(verifier, _origin(root))
        return list(check_log(root, key, since=since, progress=progress)), [key.name]
    findings: list[LogFinding | Finding] = []
    try:
        statement = open_standing(root, verifier)
        if isinstance(since, Statement):
            statement.check_follows(since)
    except VerificationError as error:
        return [Finding(where=STATEMENT, problem=str(error))], [verifier.name]
    shards = [Shard(number=number, count=statement.count) for number in range(1, statement.count + 1)]
    logs = {shard: storage_of(shard.name) for shard in shards}
    names = []
    for shard, storage in logs.items():
        key = key_of_log(verifier, shard.origin(verifier.name))
        known = since if isinstance(since, Checkpoint) and since.origin == key.name else None
        findings += of_log(check_log(storage, key, since=known, progress=progress), shard)
        names.append(key.name)
    if isinstance(since, Checkpoint) and split_origin(since.origin)[1] not in logs:
        findings.append(Finding(where="log", problem=f"the remembered checkpoint is of another log, {since.origin!r}"))
    for known_statement in (statement, since):
        if isinstance(known_statement, Statement):
            check_statement(known_statement, logs, verifier, findings.append)
    return findings, names


def _origin(storage: LogStorage) -> str:
    """The origin that a log's checkpoint states; empty when it has none. What is in it is checked later, under that name."""
    try:
        return storage.get(CHECKPOINT).partition(b"\n")[0].decode("utf-8", "replace")
    except NotFound:
        return ""
