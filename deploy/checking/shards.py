"""What only all shards' logs together can show: that every event stands in exactly one, that they tell of the same batches, and that the joint statement covers them."""

from collections.abc import Callable, Iterable, Mapping

from correlator.check import Finding as LogFinding
from correlator.check import check_continues
from correlator.errors import VerificationError
from correlator.note import Verifier
from correlator.shards import Shard, key_of_log
from correlator.statement import Statement, is_statement, open_statement
from correlator.storage import LogStorage
from deploy.checking import Finding
from deploy.checking.entries import EntryCheck

__all__ = ["STATEMENT", "check_statement", "check_together", "of_log", "open_standing"]

STATEMENT = "joint statement (log/head)"
_MAX_FINDINGS = 20


def of_log(found: Iterable[LogFinding], shard: Shard) -> list[Finding]:
    """What was found in a log, with the path as seen from the ledger's root."""
    below = f"{shard.name}/" if shard.name else ""
    return [
        Finding(where=f"log {below}{one.path}", problem=one.problem, leaf=-1 if one.leaf is None else one.leaf)
        for one in found
    ]


def check_together(checks: Mapping[Shard, EntryCheck], tell: Callable[[Finding], None]) -> None:
    """Compare what was found in each shard's log. A batch that one of them does not hold yet is left out: it waits there."""
    first, *others = checks.values()
    for stream, digests in first.digests.items():
        told = 0
        for number, digest in digests.items():
            theirs = [check.digests.get(stream, {}).get(number) for check in others]
            if None in theirs:
                continue
            where = f"batch {number} of stream {stream}"
            if any(other != digest for other in theirs):
                tell(Finding(where=where, problem="the logs of two shards hold different headers of it: a fork"))
                continue
            problem = _not_once([check.here.get(stream, {}).get(number) for check in checks.values()])
            told += bool(problem)
            if problem and told <= _MAX_FINDINGS:
                tell(Finding(where=where, problem=problem))
        if told > _MAX_FINDINGS:
            tell(Finding(where=f"stream {stream}", problem=f"the same of {told - _MAX_FINDINGS} more batches"))


def _not_once(here: list[bytearray | None]) -> str:
    """What is wrong with a batch whose events the logs have so often; empty if each stands in one."""
    seen = [one for one in here if one is not None]
    if len(seen) < len(here):
        return ""  # the store could not give the batch, which is told already
    missing = doubled = 0
    for counts in zip(*seen, strict=True):
        missing += sum(counts) == 0
        doubled += sum(counts) > 1
    parts = []
    if missing:
        parts.append(f"{missing} of its events have no entry in any shard's log")
    if doubled:
        parts.append(f"{doubled} of its events have more than one entry in the shards' logs")
    return "; ".join(parts)


def open_standing(root: LogStorage, verifier: Verifier) -> Statement:
    """The joint statement that stands at the ledger's root.

    Raises:
        VerificationError: there is none, or the ledger's key did not sign it.
        Overloaded, StateUnknown: from the storage.
    """
    raw = root.read_head()
    if raw is None or not is_statement(raw):
        raise VerificationError("it is missing" if raw is None else "what is there is no joint statement")
    return open_statement(raw, verifier)


def check_statement(
    statement: Statement, logs: Mapping[Shard, LogStorage], verifier: Verifier, tell: Callable[[Finding], None]
) -> None:
    """Check that every shard's log continues what the statement says of it.

    Args:
        statement: signed by the ledger's key; read before the logs are.
        logs: of all shards, or of those that are at hand.
        verifier: the ledger's key.
        tell: gets each finding.
    """
    for shard, storage in logs.items():
        if statement.count != shard.count:
            tell(Finding(where=STATEMENT, problem=f"it is of {statement.count} shards, not of {shard.count}"))
            return
        known = statement.trees[shard.number - 1]
        key = key_of_log(verifier, known.origin)
        what = f"the joint statement of {known.size} leaves"
        for one in of_log(check_continues(storage, key, known, what), shard):
            tell(one)
