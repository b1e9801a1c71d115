"""The incarnations of a collector with their files open: the live one, and those that still have something to ship."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from collector.batch import Fork
from collector.disk import Disk
from collector.errors import StateUnknown
from collector.headerlog import HeaderLog
from collector.incarnation import Incarnation, find_incarnations, mint, set_aside
from collector.segments import SourceIds
from collector.ship import Shipper
from collector.spool import Deliver, Spool, SpoolLimits

__all__ = ["Life", "Lives"]

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class Life:
    """One incarnation with its open files; its shipper is made when the store first answers."""

    incarnation: Incarnation
    spool: Spool
    headers: HeaderLog
    shipper: Shipper | None = None


class Lives:
    """Opens and mints incarnations under one root. Arguments as `collector.pipeline.Pipeline`'s.

    Attributes:
        damaged: folders that did not read back and were set aside for a person.
        last_error: why the last of them did not.
    """

    def __init__(
        self,
        root: Path,
        *,
        collector: str,
        ledger: str,
        disk: Disk,
        journal: SourceIds,
        limits: SpoolLimits,
        deliver: Deliver,
        clock: Callable[[], int],
        random_bytes: Callable[[int], bytes],
    ) -> None:
        self._root = root
        self._collector = collector
        self._ledger = ledger
        self._disk = disk
        self._journal = journal
        self._limits = limits
        self._deliver = deliver
        self._clock = clock
        self._random_bytes = random_bytes
        self.damaged: list[Path] = []
        self.last_error = ""

    def open(self) -> tuple[Life, list[Life]]:
        """The live incarnation, minted if there is none, and those to be drained, oldest first.

        Raises:
            StateUnknown: a folder belongs to another ledger, or a new spool does not read back.
        """
        live: Life | None = None
        draining: list[Life] = []
        found = find_incarnations(self._root, ledger=self._ledger, disk=self._disk)
        for at, incarnation in enumerate(found):
            life = None if incarnation.forked else self._open(incarnation)
            if life is None:
                continue
            last = life.headers.last
            if at == len(found) - 1 and not (last is not None and last.header.closed):
                live = life
            else:
                draining.append(life)
        return live or self.new(None), draining

    def new(self, fork: Fork | None) -> Life:
        """Mint an incarnation and open it; `fork` is what its first header says of the one it replaces."""
        incarnation = mint(
            self._root,
            collector=self._collector,
            ledger=self._ledger,
            disk=self._disk,
            clock=self._clock,
            random=self._random_bytes,
            fork=fork,
        )
        life = self._open(incarnation)
        if life is None:
            raise StateUnknown(f"a new spool in {self._root.name} does not read back")
        return life

    def _open(self, incarnation: Incarnation) -> Life | None:
        try:
            headers = HeaderLog(incarnation.directory, disk=self._disk)
            spool = Spool(
                incarnation.directory,
                disk=self._disk,
                journal=self._journal,
                limits=self._limits,
                deliver=self._deliver,
            )
        except StateUnknown as error:
            aside = set_aside(incarnation, disk=self._disk)
            self.damaged.append(aside)
            self.last_error = str(error)
            _log.error("spool damaged: %s; set aside as %s, a new incarnation goes on", error, aside.name)
            return None
        if spool.torn_bytes:
            _log.warning(
                "spool %s: cut %d torn bytes that nobody had been told of", incarnation.stream, spool.torn_bytes
            )
        return Life(incarnation=incarnation, spool=spool, headers=headers)
