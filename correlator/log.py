"""The log's only writer: stage, swap the head, publish.

A publish goes through the storage in this order; a line that a crash can fall behind is numbered:

    1  stage       all new tiles and bundles as one object              durable
    2  swap_head   size, root, checkpoint, epoch, names of stagings     durable; from here on the publish has happened
    3  put_once    each new tile and bundle                             not yet durable
    4  replace     the public checkpoint                                not yet durable

and, every few publishes, before step 1 of the next one, *settles* what was published:

    5  drop_partials   partial tiles under tiles that are full now
    6  sync            everything published becomes durable; the next head leaves its stagings out
    7  drop_stage      after that head was swapped

What a crash (of the process, or of the power: then all that is not durable is lost, torn or kept, each by itself) leaves,
and what `AuditLog.open` makes of it:

    | crash              | persisted or not                     | then                                                     |
    |--------------------|--------------------------------------|----------------------------------------------------------|
    | before, during 1   | staging not there, torn, or whole    | head does not name it: garbage, dropped                  |
    | after 1, during 2  | head not swapped                     | as above: the publish has not happened                   |
    |                    | head swapped                         | published from the staging, as below                     |
    | in 2, its end      | head swapped, and not yet durable    | made durable, before anything of it is published         |
    | after 2, during 3  | tiles not there, torn, or whole      | written again from the stagings that the head names      |
    | after 3, during 4  | checkpoint old, torn, or new         | written again from the head                              |
    | during 5           | a partial tile gone or not           | written again, dropped again: its full tile is there     |
    | during 6           | some objects durable, some not       | as after 2: the head still names the stagings            |
    | 6 fails            | some not durable, though all read so | this writer stops; as after 2, each as another file      |
    | between 6 and 2    | all objects durable                  | written again                                            |
    | during 7           | a staging gone or not                | head does not name it: garbage, dropped                  |

Opening makes sure of the head, restores, syncs, and only then raises the epoch and drops what no head needs. A writer whose
head was swapped by another is *deposed*: its next swap, or its next checkpoint, is refused and raises `StateUnknown`. All it
can have done in between is to publish again, with the same bytes, what a head that it did swap has named, and in the place of
nothing that is durable already: nothing published ever changes.
Names of stagings carry the epoch, and only those of earlier epochs are dropped, so that no writer touches a later one's.

While there is nothing to publish, the writer *renews* the head (`renew`): the same head with another time in it. Closing
writes the head once more, without a writer. A crash in either leaves the old head or the new one; both say the same of the
tree. Whoever stands by (`correlator.standby`) sees by these that the writer lives, or that it has left.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from hashlib import sha256
from types import TracebackType
from typing import Self

import msgspec

from correlator.checkpoint import Checkpoint, open_checkpoint, sign
from correlator.errors import Conflict, Overloaded, StateUnknown, VerificationError
from correlator.frontier import append_to_bundles
from correlator.head import Head, StagingRef, decode_head, encode_head, encode_staging, staging_epoch
from correlator.merkle import EMPTY_ROOT
from correlator.merkle import leaf_hashes as hashes_of
from correlator.note import Signer
from correlator.reader import LogReader
from correlator.recovery import drop_superseded, load_edge, restore
from correlator.storage import Claim, LogStorage
from correlator.tiles import HEIGHT, MAX_ENTRY_BYTES, WIDTH, Tile

__all__ = ["AuditLog", "LogReader"]

MAX_STAGINGS = 16
"""Publishes between two settles; also what a recovery restores at most. Where puts are durable: one, for settling is free."""

MAX_STAGED_BYTES = 64 << 20
"""Bytes in stagings after which the next publish settles."""


class AuditLog:
    """One ledger's log, open for appending. Made by `open`; not for several threads at once.

    After a `StateUnknown` this object does nothing more: open the log again, and carry on from what it then holds.

    Attributes:
        swaps: how often this object has written the head: who renews it sees by this that it was written anyway.
    """

    def __init__(self, storage: LogStorage, signer: Signer, clock: Callable[[], int], head: Head) -> None:
        self._storage = storage
        self._signer = signer
        self._clock = clock
        self._head = head
        self._raw_head = encode_head(head)
        self._frontier, self._tail = load_edge(storage, head)
        self._claim: Claim | None = None
        self._entries: list[bytes] = []
        self._hashes: list[bytes] = []
        self._superseded: list[str] = []
        self._staged_bytes = 0
        self._failed = ""
        self.swaps = 0

    @classmethod
    def open(
        cls,
        storage: LogStorage,
        signer: Signer,
        *,
        clock: Callable[[], int],
        writer_id: str,
        take_over: bool = False,
    ) -> "AuditLog":
        """Finish what the last writer left, and become the writer. The signer's name is the log's origin.

        Args:
            storage: where the log lies; an empty one becomes a log of no entries.
            signer: the log's key.
            clock: nanoseconds since 1970; noted in the head for people, no decision rests on it.
            writer_id: who writes, for people.
            take_over: do not ask for the storage's claim: the writer that holds it hangs. It will be deposed.

        Raises:
            Conflict: another process writes this log, or has just opened it.
            VerificationError: the head, a staging or the tree's edge was changed, or the head is signed by another key.
            Overloaded, StateUnknown: from the storage.
        """
        claim = None if take_over else storage.claim()
        raw = None
        try:
            raw = storage.read_head()
            if raw is None:
                empty = Checkpoint(origin=signer.name, size=0, root=EMPTY_ROOT)
                found = Head(epoch=0, writer="", written_ns=0, size=0, root="", checkpoint="")
                found = _head_of(found, empty, sign(empty, signer))
            else:
                found = decode_head(raw)
                _check_signed(found, signer)
                if found.stagings:
                    # who swapped it may have died before it was durable, and what no power cut leaves must not be published
                    storage.swap_head(raw, raw)
                restore(storage, found)
            head = msgspec.structs.replace(
                found, epoch=found.epoch + 1, writer=writer_id, written_ns=clock(), stagings=()
            )
            log = cls(storage, signer, clock, head)
            storage.swap_head(raw, log._raw_head)
            storage.replace_checkpoint(head.checkpoint.encode(), head=log._raw_head)
            for name in storage.stages():
                if staging_epoch(name) < head.epoch:
                    storage.drop_stage(name)
        except BaseException as error:
            if claim is not None:
                claim.release()
            if isinstance(error, VerificationError) and storage.read_head() != raw:
                # It was no damage: a writer that lives has published, and has dropped what its head before had named.
                told = f"another process writes this log: its head changed while it was read ({error})"
                raise Conflict(told) from error
            raise
        log._claim = claim
        return log

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # What it holds ----------------------------------------------------------------------------------------------------

    @property
    def size(self) -> int:
        """Number of published leaves."""
        return self._head.size

    @property
    def next_leaf_index(self) -> int:
        """The leaf index that the next entry will have: `size`, plus what is appended and not yet published."""
        return self._head.size + len(self._entries)

    @property
    def root(self) -> bytes:
        """The root of the published tree, 32 bytes."""
        return bytes.fromhex(self._head.root)

    @property
    def epoch(self) -> int:
        """This writer's epoch."""
        return self._head.epoch

    @property
    def checkpoint(self) -> Checkpoint:
        """The published tree."""
        return Checkpoint(origin=self._signer.name, size=self.size, root=self.root)

    @property
    def signed_checkpoint(self) -> bytes:
        """The published tree's checkpoint as signed."""
        return self._head.checkpoint.encode()

    # Writing ----------------------------------------------------------------------------------------------------------

    def append(self, entries: Sequence[bytes], leaf_hashes: Sequence[bytes] | None = None) -> None:
        """Take entries for the next `publish`; until then they are in memory only.

        Args:
            entries: each becomes a leaf; at most 65,535 bytes.
            leaf_hashes: their leaf hashes, where the caller has worked them out for the trails' chains.

        Raises:
            ValueError: an entry is too long, or there are not as many hashes as entries; nothing was taken.
            StateUnknown: this writer has stopped.
        """
        self._check_alive()
        for at, entry in enumerate(entries):
            if len(entry) > MAX_ENTRY_BYTES:
                raise ValueError(f"entry {at} has {len(entry)} bytes, a leaf has at most {MAX_ENTRY_BYTES}")
        if leaf_hashes is not None and len(leaf_hashes) != len(entries):
            raise ValueError(f"{len(leaf_hashes)} leaf hashes for {len(entries)} entries")
        self._hashes += hashes_of(entries) if leaf_hashes is None else leaf_hashes
        self._entries += entries

    def publish(self) -> Checkpoint:
        """Make all appended entries part of the log, and sign it. Durable on return; without entries nothing is done.

        Raises:
            Overloaded: nothing was published; the entries are kept, and the same call may succeed later.
            StateUnknown: another writer has taken over, or the storage failed: open the log again to know which.
        """
        self._check_alive()
        if not self._entries:
            return self.checkpoint
        old = self._head
        most = 1 if self._storage.put_is_durable else MAX_STAGINGS
        settled = len(old.stagings) >= most or self._staged_bytes >= MAX_STAGED_BYTES
        tail, bundles = append_to_bundles(old.size, self._tail, self._entries)
        frontier, tiles = self._frontier.extend(self._hashes)
        objects = bundles + tiles
        checkpoint = Checkpoint(origin=self._signer.name, size=frontier.size, root=frontier.root)
        staging = encode_staging(frontier.size, objects)
        name = f"{frontier.size}-{checkpoint.root.hex()}.{old.epoch}"
        ref = StagingRef(name=name, sha256=sha256(staging).hexdigest())
        with self._stop_on_failure("staging"):
            if settled:
                self._settle()
            self._storage.stage(name, staging)
            head = _head_of(old, checkpoint, sign(checkpoint, self._signer))
            self._swap(head, (() if settled else old.stagings) + (ref,))
        self._frontier, self._tail = frontier, tail
        self._entries, self._hashes = [], []
        self._superseded += [tile.path for tile, _ in objects if _completes(tile, old.size)]
        self._staged_bytes = len(staging) + (0 if settled else self._staged_bytes)
        with self._stop_on_failure("publishing", overload_too=True):
            for tile, data in objects:
                self._storage.put_once(tile.path, data)
            try:
                self._storage.replace_checkpoint(self.signed_checkpoint, head=self._raw_head)
            except Conflict:
                drop_superseded(self._storage, objects)
                raise
            if settled:
                self._drop_stagings(old)
        return checkpoint

    def renew(self) -> None:
        """Write the head again with the time of now and nothing else changed, so that who stands by sees a writer alive.

        Raises:
            Overloaded: it was not written; the same call may succeed later.
            StateUnknown: another writer has taken over, or the storage failed: open the log again to know which.
        """
        self._check_alive()
        with self._stop_on_failure("renewing the head"):
            self._swap(self._head, self._head.stagings)

    def reclaim(self) -> None:
        """Take the claim that the deposed writer held, as soon as that one lets go of it; nothing to do for who has it.

        Raises:
            Overloaded, StateUnknown: from the storage.
        """
        self._check_alive()
        if self._claim is None:
            try:
                self._claim = self._storage.claim()
            except Conflict:
                pass  # it still hangs

    def close(self) -> None:
        """Make all that was published durable under its own name, leave the head, and give the claim up. Publishes nothing.

        Raises:
            Overloaded, StateUnknown: from the storage. Nothing published is lost: the next `open` finishes the work.
        """
        try:
            if not self._failed:
                old = self._head
                with self._stop_on_failure("closing"):
                    if old.stagings:
                        self._settle()
                    self._swap(msgspec.structs.replace(old, writer=""), ())
                    self._drop_stagings(old)
        finally:
            self._failed = self._failed or "it is closed"
            if self._claim is not None:
                self._claim.release()
                self._claim = None

    def _settle(self) -> None:
        for path in self._superseded:  # before the sync, so that what goes anyway is not written out
            self._storage.drop_partials(path)
        self._storage.sync()
        self._superseded = []

    def _swap(self, head: Head, stagings: tuple[StagingRef, ...]) -> None:
        # Also where the clock stands still or goes back: no two heads are alike, so that each swap is seen.
        now_ns = max(self._clock(), self._head.written_ns + 1)
        head = msgspec.structs.replace(head, written_ns=now_ns, stagings=stagings)
        raw = encode_head(head)
        self._storage.swap_head(self._raw_head, raw)
        self._head, self._raw_head = head, raw
        self.swaps += 1

    def _drop_stagings(self, head: Head) -> None:
        for ref in head.stagings:
            self._storage.drop_stage(ref.name)

    def _check_alive(self) -> None:
        if self._failed:
            raise StateUnknown(f"this writer has stopped: {self._failed}")

    @contextmanager
    def _stop_on_failure(self, doing: str, *, overload_too: bool = False) -> Iterator[None]:
        """Stop for good on whatever happens inside, but for an `Overloaded` while nothing has been published yet."""
        try:
            yield
        except BaseException as error:
            if isinstance(error, Overloaded) and not overload_too:
                raise
            self._failed = f"{doing} failed: {error!r}"
            if isinstance(error, Conflict):
                raise StateUnknown(f"another writer has taken over this log ({doing}: {error})") from error
            if isinstance(error, Exception) and not isinstance(error, StateUnknown):
                raise StateUnknown(f"{doing} failed: {error}") from error
            raise


def _head_of(head: Head, checkpoint: Checkpoint, signed: bytes) -> Head:
    return msgspec.structs.replace(
        head, size=checkpoint.size, root=checkpoint.root.hex(), checkpoint=signed.decode("utf-8")
    )


def _completes(tile: Tile, size: int) -> bool:
    """Whether this full tile was partial in the tree of ``size`` leaves."""
    count = size >> HEIGHT * max(tile.level, 0)
    return tile.width == WIDTH and tile.index == count // WIDTH and count % WIDTH > 0


def _check_signed(head: Head, signer: Signer) -> None:
    checkpoint = open_checkpoint(head.checkpoint.encode(), signer.verifier)
    if (checkpoint.size, checkpoint.root.hex()) != (head.size, head.root):
        raise VerificationError("the head's size and root are not those of the checkpoint in it")
