"""The incarnations of a collector: the live one with its files open, and those that still have something to ship."""

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from collector.batch import Fork, SignedHeader
from collector.disk import Disk
from collector.errors import Overloaded, StateUnknown
from collector.headerlog import HeaderLog
from collector.incarnation import Incarnation, find_incarnations, mark_forked, mint, remove, set_aside
from collector.segments import Damaged, SourceIds
from collector.ship import Shipper
from collector.spool import Deliver, Spool, SpoolLimits
from collector.store import Destination
from collector.takeover import TakeOverWaits, renumber

__all__ = ["Life", "Lives"]

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class Life:
    """One incarnation with its files; its shipper is made when the store first answers.

    `taken_below`: of a fork: the spool `taken_by` has its events below this sequence, durably, from the refused batch on.
    """

    incarnation: Incarnation
    spool: Spool
    headers: HeaderLog
    shipper: Shipper | None = None
    taken_by: Spool | None = None
    taken_below: int = 0

    def reached(self, sequence: int) -> None:
        """Its take-over has come so far."""
        self.taken_below = sequence

    @property
    def waiting_events(self) -> int:
        """Durable events that the store does not have yet; before it first answered, those that no batch was cut of."""
        if self.shipper is not None:
            return self.spool.next_sequence - max(self.shipper.stored_below, self.taken_below)
        last = self.headers.last
        return self.spool.next_sequence - (last.header.first + last.header.count if last else 0)

    def close(self) -> None:
        """Commit what is queued, and close the files."""
        self.spool.close()
        self.headers.close()


class Lives:
    """Opens and mints incarnations under one root. Arguments as `collector.pipeline.Pipeline`'s.

    Attributes:
        damaged: folders that did not read back and were set aside for a person.
        last_error: why the last of them did not.
        forked_bytes: what the folders of forked incarnations hold.
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
        committed: Callable[[], object],
        clock: Callable[[], int],
        monotonic: Callable[[], float],
        random_bytes: Callable[[int], bytes],
    ) -> None:
        self._root = root
        self._collector = collector
        self._ledger = ledger
        self._disk = disk
        self._journal = journal
        self._limits = limits
        self._deliver = deliver
        self._committed = committed
        self._clock = clock
        self._monotonic = monotonic
        self._random_bytes = random_bytes
        self.damaged: list[Path] = []
        self.last_error = ""
        self.forked_bytes = 0
        self._forked: list[tuple[Incarnation, int]] = []  # with the bytes of its folder

    def open(self) -> tuple[Life, list[Life]]:
        """The live incarnation, minted if there is none, and those to be drained and closed, oldest first, which can be read.

        Raises:
            StateUnknown: a folder belongs to another ledger, or a new spool does not read back.
        """
        live: Life | None = None
        draining: list[Life] = []
        found = find_incarnations(self._root, ledger=self._ledger, disk=self._disk)
        for at, incarnation in enumerate(found):
            if incarnation.forked:
                self._keep_forked(incarnation)
                continue
            life = self._open(incarnation)
            if life is None:
                continue
            last = life.headers.last
            if at == len(found) - 1 and not (last is not None and last.header.closed):
                live = life
            else:
                life.close()  # nothing comes in any more: while the log is away there may be more of them than files that may be open
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

    def limit(self, limits: SpoolLimits, lives: Iterable[Life]) -> None:
        """Other bounds for the spools of these, and of those to come. What is above them already stays."""
        self._limits = limits
        for life in lives:
            life.spool.limits = limits
            life.spool.room.keep_free_bytes = limits.keep_free_bytes

    def remove(self, life: Life) -> None:
        """Let go of an incarnation that the log holds whole; the journal has its ids, durably."""
        life.close()
        remove(life.incarnation, disk=self._disk)

    def take_over(self, life: Life, refused: SignedHeader, *, into: Spool) -> None:
        """Have another incarnation's spool take the events of this one from the refused batch on; durable on return.

        Raises:
            TakeOverWaits: there is no room for all of them now; the next call goes on.
            Damaged: this one does not read back.
            StateUnknown: the other one takes nothing more.
        """
        stream, header = life.incarnation.stream, refused.header
        try:
            life.spool.close()  # commits what was queued before
            self._journal.flush()  # the ids of its events must outlive its folder
            if life.taken_by is not into:  # the one before may have been set aside, with what it had taken
                life.taken_by, life.taken_below = into, header.first
            renumber(life.spool, stream, life.taken_below, into=into, reached=life.reached)
            incarnation = mark_forked(life.incarnation, header.number, disk=self._disk)
        except (Overloaded, OSError) as error:
            raise TakeOverWaits(f"the events of the forked {stream} cannot be taken over: {error}") from error
        life.headers.close()
        self._keep_forked(incarnation)

    def release_forked(self, store: Destination) -> None:
        """Remove the folders of forked incarnations of which the log holds all that the store took. Raises Overloaded."""
        for one in list(self._forked):
            incarnation, size_bytes = one
            if store.acknowledged(incarnation.stream) >= incarnation.forked - 1:
                self._forked.remove(one)
                self.forked_bytes -= size_bytes
                remove(incarnation, disk=self._disk)

    def _keep_forked(self, incarnation: Incarnation) -> None:
        directory = incarnation.directory
        size_bytes = sum(self._disk.size(directory / name) for name in self._disk.list_directory(directory))
        self._forked.append((incarnation, size_bytes))
        self.forked_bytes += size_bytes

    def give_up(self, life: Life, error: Damaged) -> None:
        """Set an incarnation aside that was found damaged while it was open. Nothing may use it afterwards."""
        life.spool.abandon(str(error))
        life.close()
        self._set_aside(life.incarnation, error)

    def _set_aside(self, incarnation: Incarnation, error: Damaged) -> None:
        # first: a crash in between finds the folder damaged again. The other way round, a re-send of events that only this
        # folder holds would be taken for a duplicate
        self._journal.forget()
        aside = set_aside(incarnation, disk=self._disk)
        self.damaged.append(aside)
        self.last_error = str(error)
        _log.error("spool damaged: %s; set aside as %s, a new incarnation goes on", error, aside.name)

    def _open(self, incarnation: Incarnation) -> Life | None:
        try:
            headers = HeaderLog(incarnation.directory, disk=self._disk)
            spool = Spool(
                incarnation.directory,
                disk=self._disk,
                journal=self._journal,
                limits=self._limits,
                deliver=self._deliver,
                committed=self._committed,
                monotonic=self._monotonic,
            )
            _check_together(headers, spool)
        except Damaged as error:
            self._set_aside(incarnation, error)
            return None
        if spool.torn_bytes:
            _log.warning(
                "spool %s: cut %d torn bytes that nobody had been told of", incarnation.stream, spool.torn_bytes
            )
        return Life(incarnation=incarnation, spool=spool, headers=headers)


def _check_together(headers: HeaderLog, spool: Spool) -> None:
    """A header is signed over what is durable, and segments go only when the log has their batches.

    Raises:
        Damaged: segments and header log do not belong together: one of them lost its end or its beginning.
    """
    last = headers.last
    end = last.header.first + last.header.count if last else 0
    if not spool.start.segment <= end <= spool.next_sequence:
        raise Damaged(
            f"the segments hold sequences {spool.start.segment} to {spool.next_sequence - 1},"
            f" but the last signed batch ends before sequence {end}"
        )
