"""Writes the joint statement over all shards of a ledger, as the head of the ledger's root.

Every shard's correlator does; the compare-and-swap of the head puts them in order. A statement is made from the published checkpoints
and the statement that stands there, so whoever was slower finds another one there, and begins again from that:

    read the statement          nothing was changed
    read every checkpoint       each must continue the tree that the statement has of it, else that tree stays as it is
    swap                        the new statement, if the old one still stands: it has happened or it has not

So no statement has a smaller tree than the one before it, and a crash at any line costs a statement, which the next one makes up for.
"""

import logging
import threading
import time
from collections.abc import Callable, Mapping

from correlator.checkpoint import Checkpoint
from correlator.errors import Conflict, NotFound, Overloaded, StateUnknown, TallyError, VerificationError
from correlator.head import decode_head
from correlator.metrics import CorrelatorMetrics
from correlator.note import Signer
from correlator.reader import LogReader
from correlator.shards import Shard
from correlator.statement import Statement, is_statement, open_statement, sign_statement
from correlator.storage import LogStorage

__all__ = ["StatementWriter", "continuing"]

_ATTEMPTS = 10
_PAUSE_SECONDS = 0.05
"""What a swap takes, and some: several that meet at the lock of the head get their turns."""

_log = logging.getLogger("tally.correlator")


def continuing(reader: LogReader, known: Checkpoint) -> Checkpoint:
    """The log's published tree, once it is shown to continue the tree `known` of it. A log without a checkpoint is one of no leaves.

    Raises:
        VerificationError: it does not, or the log was changed.
        Overloaded, StateUnknown: from the storage.
    """
    try:
        tree = reader.tree()
    except NotFound:
        if known.size == 0:
            return known
        raise VerificationError(f"{known.origin} has no checkpoint, and had {known.size} leaves") from None
    if tree.size < known.size:
        raise VerificationError(f"{known.origin} was rolled back: {tree.size} leaves, and {known.size} before")
    if reader.root(known.size) != known.root:
        raise VerificationError(
            f"{known.origin} was forked: its tree of {tree.size} leaves does not continue the one of {known.size}"
        )
    return tree


class StatementWriter:
    """Keeps the joint statement up to date. For one thread.

    Args:
        root: where the ledger's root is; of it only the head is used.
        logs: every shard's log.
        signer: the ledger's key; its name is the ledger's.
        placement: of the rules by which this correlator places events (`correlator.derived.placement_of`).
        metrics: where to count what fails; by default its own.
        pause: waits so many seconds, where another shard's correlator is swapping the statement just now.
    """

    def __init__(
        self,
        root: LogStorage,
        logs: Mapping[Shard, LogStorage],
        signer: Signer,
        *,
        placement: str,
        metrics: CorrelatorMetrics | None = None,
        pause: Callable[[float], object] = time.sleep,
    ) -> None:
        self.metrics = metrics or CorrelatorMetrics()
        self._placement = placement
        self._pause = pause
        self._root = root
        self._logs = list(logs.values())
        self._signer = signer
        self._readers = [
            LogReader(
                storage,
                signer.verifier.named(shard.origin(signer.name)),
                cached_tiles=16,
                cached_bundles=1,
            )
            for shard, storage in sorted(logs.items(), key=lambda one: one[0].number)
        ]
        self._told: dict[str, str] = {}

    def begin(self) -> Statement:
        """The statement that stands; a ledger without one begins with the statement of no leaves, which fixes the number of shards.

        Raises:
            Conflict: what stands there is of another number of shards or other rules of placing, or the head of a ledger that is
                not cut.
            VerificationError: what stands there is not signed by the ledger's key; or nothing does, and there are logs.
            Overloaded, StateUnknown: from the storage.
        """
        raw = self._root.read_head()
        if raw is None:
            # it is durable before any shard's log begins, so this is no crash
            if any(log.read_head() is not None for log in self._logs) and self._root.read_head() is None:
                raise VerificationError(
                    "the joint statement is gone, and there are logs of shards: put back a copy of it"
                )
            raw = self._first()
        if not is_statement(raw):
            decode_head(raw)
            raise Conflict("the ledger is not cut into shards, which is settled when a ledger begins")
        statement = open_statement(raw, self._signer.verifier)
        if statement.count != len(self._readers):
            raise Conflict(
                f"the ledger is cut into {statement.count} shards, not {len(self._readers)}, which is settled when a ledger begins"
            )
        if statement.placement != self._placement:
            raise Conflict(
                "correlator.key_order or correlator.recorders is not as when the ledger began: of a ledger that is cut into shards"
                " they stay as they are, because shards that place by different rules could each leave an event to the other"
            )
        return statement

    def _first(self) -> bytes:
        """Write the first statement; gives what stands there then, for the shards' correlators may start all at once."""
        empty = sign_statement(Statement.empty(self._signer.name, self._placement, len(self._readers)), self._signer)
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                self._root.swap_head(None, empty)
            except Conflict:
                pass  # another one was faster
            except Overloaded:
                if attempt == _ATTEMPTS:
                    raise
                self._pause(_PAUSE_SECONDS)
            raw = self._root.read_head()
            if raw is not None:
                return raw
        raise StateUnknown("the joint statement was written and is not there")

    def look(self) -> bool:
        """Write a new statement if a shard has published something since; whether one was written.

        A shard whose log does not continue what the statement says of it keeps its old tree there, and is told of in the log.

        Raises:
            Conflict: another process has written a statement meanwhile.
            VerificationError: the statement that stands there was changed.
            Overloaded, StateUnknown: from a storage.
        """
        raw = self._root.read_head()
        if raw is None:
            raise VerificationError("the joint statement is gone")
        before = open_statement(raw, self._signer.verifier)
        trees = []
        refused = 0
        for reader, known in zip(self._readers, before.trees, strict=True):
            try:
                tree = continuing(reader, known)
            except VerificationError as error:
                self._tell(known.origin, str(error))
                refused += 1
                tree = known
            else:
                self._told.pop(known.origin, None)
            trees.append((tree.size, tree.root))
        self.metrics.statement_refused.set(refused)
        after = Statement.of(before.ledger, before.placement, trees)
        if after == before:
            return False
        after.check_follows(before)
        self._root.swap_head(raw, sign_statement(after, self._signer))
        return True

    def run(self, stop: threading.Event, *, every_seconds: float) -> None:
        """Look every so many seconds until `stop` is set, and once more then; what fails is told, and tried again."""
        while not stop.wait(every_seconds):
            self.look_quietly()
        self.look_quietly()

    def look_quietly(self) -> None:
        """`look`, with what fails told in the process's log: the logs go on without a statement."""
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                self.look()
            except (Conflict, Overloaded) as error:  # mostly another shard's correlator, at the same thing
                if attempt < _ATTEMPTS:
                    self._pause(_PAUSE_SECONDS)
                    continue
                self._failed(error)
            except (StateUnknown, VerificationError) as error:
                self._failed(error)
            else:
                self._told.pop("", None)
            return

    def _failed(self, error: TallyError) -> None:
        self.metrics.statement_failures.inc()
        self._tell("", str(error))

    def _tell(self, origin: str, problem: str) -> None:
        """Log it, unless it is what was said last."""
        if self._told.get(origin) != problem:
            self._told[origin] = problem
            _log.error("the joint statement does not cover everything", extra={"reason": problem})
