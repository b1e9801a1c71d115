"""`tally check`: one pass over the log, with everything else checked along the way."""

import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

from collector.errors import Overloaded, VerificationError
from correlator.check import check_log
from correlator.checkpoint import Checkpoint
from correlator.note import Verifier
from correlator.shards import Shard, key_of_log, split_origin
from correlator.statement import Statement
from correlator.storage import LogStorage
from deploy.checking import DAMAGE, Account, Finding
from deploy.checking.entries import EntryCheck
from deploy.checking.files import file_problems
from deploy.checking.heads import Heads
from deploy.checking.shards import STATEMENT, check_statement, check_together, of_log, open_standing
from deploy.checking.spools import check_spools
from deploy.checking.trails import index_check
from deploy.config import Config
from deploy.indexing import index_is_embedded
from deploy.logstorage import log_storage
from deploy.places import Places
from deploy.sharding import check_cut, shards_of
from deploy.storing import is_embedded, open_store

__all__ = ["check_everything"]


def check_everything(
    config: Config,
    verifier: Verifier,
    *,
    since: Checkpoint | Statement | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[list[Finding], Account]:
    """Check log, store, index and spools of an installation, which may be running, against each other.

    Of a ledger that is cut into shards each log is checked by itself, then all of them together and against the joint statement.

    Args:
        config: whose data folder, and how many links make a hub.
        verifier: the ledger's public key.
        since: a checkpoint remembered from before, of the log or of one shard's, which it must continue; or a joint statement, which all must.
        progress: told now and then how many leaves of how many are done.

    Raises:
        ConfigError: the ledger began with another number of shards.
        Overloaded, StateUnknown: something could not be read, from which no finding follows.
    """
    places = Places(Path(config.data))
    findings: list[Finding] = []
    check_cut(config)
    shards = shards_of(config)
    logs = {shard: log_storage(config, shard) for shard in shards}
    standing = _standing(config, verifier, findings) if len(shards) > 1 else None
    if is_embedded(config):
        findings += [Finding(where="store", problem=problem) for problem in file_problems(places.store)]
    account = Account()
    checks: dict[Shard, EntryCheck] = {}
    for shard, log in logs.items():
        remembered = since if isinstance(since, Checkpoint) else None
        if len(shards) > 1 and remembered is not None and remembered.origin != shard.origin(verifier.name):
            remembered = None
        check = _check_log(config, verifier, shard, log=log, since=remembered, progress=progress, findings=findings)
        if check is not None:
            checks[shard] = check
            account.add(check.account)
    if len(shards) > 1 and isinstance(since, Checkpoint) and split_origin(since.origin)[1] not in logs:
        findings.append(Finding(where="log", problem=f"the remembered checkpoint is of another log, {since.origin!r}"))
    if len(checks) == len(shards) > 1:
        check_together(checks, findings.append)
    for statement in (standing, since if isinstance(since, Statement) else None):
        if statement is not None:
            check_statement(statement, logs, verifier, findings.append)
    if isinstance(since, Statement) and standing is not None:
        _or_told(STATEMENT, lambda: standing.check_follows(since), findings)
    return findings, account


def _standing(config: Config, verifier: Verifier, findings: list[Finding]) -> Statement | None:
    """The joint statement that stands; that there is none which holds is a finding."""
    try:
        return open_standing(log_storage(config), verifier)
    except VerificationError as error:
        findings.append(Finding(where=STATEMENT, problem=str(error)))
        return None


def _check_log(
    config: Config,
    verifier: Verifier,
    shard: Shard,
    *,
    log: LogStorage,
    since: Checkpoint | None,
    progress: Callable[[int, int], None] | None,
    findings: list[Finding],
) -> EntryCheck | None:
    """Check one log and its index, and with the first one the spools; None when the store cannot be opened."""
    places = Places(Path(config.data), shard.name)
    key = key_of_log(verifier, shard.origin(verifier.name))
    if index_is_embedded(config):
        findings += [Finding(where=_index(shard), problem=problem) for problem in file_problems(places.index)]
    with ExitStack() as open_files:
        folder = Path(open_files.enter_context(tempfile.TemporaryDirectory(prefix="tally-check-")))
        heads = Heads(folder / "heads")
        open_files.callback(heads.close)
        try:
            store = open_store(config, places, read_only=True)
            open_files.callback(store.close)
            entries = EntryCheck(store=store, origin=key.name, heads=heads, tell=findings.append)
        except (*DAMAGE, Overloaded) as error:
            if not findings and isinstance(error, Overloaded):
                raise
            findings.append(Finding(where="store", problem=str(error)))
            # the log can be checked without it
            findings[:0] = of_log(check_log(log, key, since=since, progress=progress), shard)
            return None
        index = open_files.enter_context(index_check(config, places, log=log, tell=findings.append))

        def visit(first: int, bundle: Sequence[bytes]) -> None:
            for leaf, entry in entries.visit(first, bundle):
                if index is not None:
                    index.visit(leaf, entry)

        log_findings = of_log(check_log(log, key, since=since, progress=progress, visit=visit), shard)
        findings[:0] = log_findings
        _or_told("store", entries.finish, findings)
        if index is not None:
            _or_told(_index(shard), lambda: index.finish(log_holds=not log_findings), findings)
        if shard.number == 1:
            check_spools(
                places.root / "spool",
                ledger=verifier.name,
                logged=entries.digests,
                acknowledged=store.acknowledged,
                account=entries.account,
                tell=findings.append,
            )
    return entries


def _index(shard: Shard) -> str:
    return f"index {shard.name}" if shard.name else "index"


def _or_told(where: str, step: Callable[[], None], findings: list[Finding]) -> None:
    """A file that turns out to be damaged while it is read is a finding, and no reason to stop looking."""
    try:
        step()
    except DAMAGE as error:
        findings.append(Finding(where=where, problem=f"it cannot be read: {error}"))
