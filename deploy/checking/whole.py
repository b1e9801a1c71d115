"""`tally check`: one pass over the log, with everything else checked along the way."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

from collector.errors import NotFound
from collector.store.sqlite import SqliteStore
from correlator.check import check_log
from correlator.checkpoint import Checkpoint
from correlator.note import Verifier
from correlator.storage.file import FileStorage
from deploy.checking import DAMAGE, Account, Finding
from deploy.checking.entries import EntryCheck
from deploy.checking.spools import check_spools
from deploy.checking.trails import index_check
from deploy.config import Config
from deploy.places import Places

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
    with ExitStack() as open_files:
        try:
            store = SqliteStore(places.store, read_only=True)
        except NotFound as error:
            findings.append(Finding(where="store", problem=str(error)))
            return findings, Account()
        open_files.callback(store.close)
        index = open_files.enter_context(
            index_check(places.index, hub_links=config.correlator.hub_links, tell=findings.append)
        )
        entries = EntryCheck(store=store, ledger=verifier.name, tell=findings.append)

        def visit(first: int, bundle: Sequence[bytes]) -> None:
            for leaf, entry in entries.visit(first, bundle):
                if index is not None:
                    index.visit(leaf, entry)

        log_findings = list(check_log(FileStorage(places.log), verifier, since=since, progress=progress, visit=visit))
        findings[:0] = [
            Finding(where=f"log {found.path}", problem=found.problem, leaf=-1 if found.leaf is None else found.leaf)
            for found in log_findings
        ]
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


def _or_told(where: str, step: Callable[[], None], findings: list[Finding]) -> None:
    """A file that turns out to be damaged while it is read is a finding, and no reason to stop looking."""
    try:
        step()
    except DAMAGE as error:
        findings.append(Finding(where=where, problem=f"it cannot be read: {error}"))
