"""`tally check`: one pass over the log, with everything else checked along the way."""

import tempfile
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path

from collector.errors import Overloaded
from correlator import check as log_check
from correlator.check import check_log
from correlator.checkpoint import Checkpoint
from correlator.note import Verifier
from deploy.checking import DAMAGE, Account, Finding
from deploy.checking.entries import EntryCheck
from deploy.checking.files import file_problems
from deploy.checking.heads import Heads
from deploy.checking.spools import check_spools
from deploy.checking.trails import index_check
from deploy.config import Config
from deploy.indexing import index_is_embedded
from deploy.logstorage import log_storage
from deploy.places import Places
from deploy.storing import is_embedded, open_store

__all__ = ["check_everything"]


def check_everything(
    config: Config,
    verifier: Verifier,
    *,
    since: Checkpoint | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[list[Finding], Account]:
    """Check log, store, index and spools of an installation, which may be running, against each other.

    Args:
        config: whose data folder, and how many links make a hub.
        verifier: the log's public key.
        since: a checkpoint remembered from before, which the log must continue.
        progress: told now and then how many leaves of how many are done.

    Raises:
        Overloaded, StateUnknown: something could not be read, from which no finding follows.
    """
    places = Places(Path(config.data))
    findings: list[Finding] = []
    log = log_storage(config)
    if is_embedded(config):
        findings += [Finding(where="store", problem=problem) for problem in file_problems(places.store)]
    if index_is_embedded(config):
        findings += [Finding(where="index", problem=problem) for problem in file_problems(places.index)]
    with ExitStack() as open_files:
        folder = Path(open_files.enter_context(tempfile.TemporaryDirectory(prefix="tally-check-")))
        heads = Heads(folder / "heads")
        open_files.callback(heads.close)
        try:
            store = open_store(config, places, read_only=True)
            open_files.callback(store.close)
            entries = EntryCheck(store=store, ledger=verifier.name, heads=heads, tell=findings.append)
        except (*DAMAGE, Overloaded) as error:
            if not findings and isinstance(error, Overloaded):
                raise
            findings.append(Finding(where="store", problem=str(error)))
            # the log can be checked without it
            return _of_log(check_log(log, verifier, since=since, progress=progress)) + findings, Account()
        index = open_files.enter_context(index_check(config, places, tell=findings.append))

        def visit(first: int, bundle: Sequence[bytes]) -> None:
            for leaf, entry in entries.visit(first, bundle):
                if index is not None:
                    index.visit(leaf, entry)

        log_findings = _of_log(check_log(log, verifier, since=since, progress=progress, visit=visit))
        findings[:0] = log_findings
        _or_told("store", entries.finish, findings)
        if index is not None:
            _or_told("index", lambda: index.finish(log_holds=not log_findings), findings)
        check_spools(
            places.root / "spool",
            ledger=verifier.name,
            logged=entries.digests,
            acknowledged=store.acknowledged,
            account=entries.account,
            tell=findings.append,
        )
    return findings, entries.account


def _of_log(found: Iterable[log_check.Finding]) -> list[Finding]:
    return [
        Finding(where=f"log {one.path}", problem=one.problem, leaf=-1 if one.leaf is None else one.leaf)
        for one in found
    ]


def _or_told(where: str, step: Callable[[], None], findings: list[Finding]) -> None:
    """A file that turns out to be damaged while it is read is a finding, and no reason to stop looking."""
    try:
        step()
    except DAMAGE as error:
        findings.append(Finding(where=where, problem=f"it cannot be read: {error}"))
