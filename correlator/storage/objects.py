"""The log in object storage: the same names as in a folder, below one prefix of a bucket.

    checkpoint                         the signed checkpoint              replaced by a conditional put
    tile/0/000 … tile/entries/000 …    hash tiles, entry bundles          put once, on condition that nothing is there
    head                               the head                           replaced by a conditional put
    staging/<name>                     stagings                           put; deleted when no head needs them
    probe/<name>                       once by each process that writes   shows that the store honours conditions; deleted

A put is durable on return, so `sync` has nothing to do, and an object is never torn.

*A lost reply is no conflict.* A put whose reply was lost may have been done; the driver sends it again and is refused by its own first attempt. So
after a refusal or an error the object is read: if it is what we wrote, we have written it. No two heads are alike, so nobody else can have. If the
head still is the old one after an error, the put may be under way yet: that is `StateUnknown`, never "nothing was done". Whoever opens the log next
writes another head, and what arrives then is refused, for its condition names the old one.

*The checkpoint never goes back*, though no lock can be held over it and the head. `replace_checkpoint` reads in this order:

    1  the checkpoint and its version
    2  the head: another than ours means `Conflict`
    3  puts ours on condition that the checkpoint still is that version; refused: from 1 again

Let a deposed writer D be stopped between any two of these, while its successor N swaps the head (N1) and puts its checkpoint (N2):

    | D stops      | and when it wakes up                                                                                            |
    |--------------|-----------------------------------------------------------------------------------------------------------------|
    | before 2     | if N1 has happened, D finds another head: `Conflict`, and nothing is put                                        |
    | 2 – 3, N2    | the version of 1 is older than N2: refused. From 1 again, and 2 finds another head                              |
    | 2 – 3, N1    | N2 has not happened: D puts what D's head says, which is not older than what stands there. N is refused at its  |
    |              | own 3, reads again, and puts its own                                                                            |

D's put over N's would need a 1 after N2 and a 2 before N1, and N1 comes before N2. By ETags that are hashes of the content, a version is the same again when the
content is: but D must have read it at 1 as what N has put, which is after N2. A put of D that arrives late carries the same condition.
"""

import os
from collections.abc import Callable, Iterator, Sequence

from correlator.errors import Conflict, NotFound, Overloaded, StateUnknown
from correlator.storage import CHECKPOINT, Claim, check_stage_name, check_tile_path, is_torn
from correlator.storage.bucket import ABSENT, Absent, Bucket, Found, Refused, Version

__all__ = ["ObjectStorage"]

_HEAD = "head"
_ATTEMPTS = 8
"""To replace the checkpoint: each one that is refused met another writer's, and a deposed one can meet us only once."""


class _OpenClaim:
    def release(self) -> None:
        """Nothing was taken."""


class ObjectStorage:
    """A `LogStorage` in `bucket`. Reading is for several threads.

    `claim` excludes nobody: object storage has no lock that ends with its holder, and one that had to be broken by hand or by the
    clock would be a second, worse epoch. Who wants to write waits until the head stands still (`correlator.standby`).

    Args:
        bucket: where the log lies, and nothing else.
        random: gives so many random bytes.
    """

    claim_excludes = False
    put_is_durable = True

    def __init__(self, bucket: Bucket, *, random: Callable[[int], bytes] = os.urandom) -> None:
        self._bucket = bucket
        self._random = random
        self._known_head: Found | None = None  # as last read or written, so that a swap needs one request
        self._probed = False

    # Published objects ------------------------------------------------------------------------------------------------

    def put_once(self, path: str, data: bytes) -> None:
        """See `LogStorage.put_once`."""
        check_tile_path(path)
        found = self._put_or_read(path, data, over=ABSENT)
        if found is not None:
            raise StateUnknown(f"{path} is there with other bytes ({len(found.data)} found, {len(data)} to write)")

    def restore(self, path: str, data: bytes) -> None:
        """See `LogStorage.restore`. A put does not tear; what was copied here from a disk may be torn."""
        check_tile_path(path)
        found = self._read(path)  # first, for after a clean publish it is there
        if found is None:
            found = self._put_or_read(path, data, over=ABSENT)
        elif found.data == data:
            return
        if found is not None and is_torn(found.data, data):
            found = self._put_or_read(path, data, over=found.version)
        if found is not None:
            raise StateUnknown(f"{path} is there with other bytes ({len(found.data)} found, {len(data)} to write)")

    def get(self, path: str) -> bytes:
        """See `LogStorage.get`."""
        if path != CHECKPOINT:
            try:
                check_tile_path(path)
            except ValueError as error:
                raise NotFound(str(error)) from error
        return self._bucket.get(path).data

    def paths(self) -> Iterator[str]:
        """See `LogStorage.paths`."""
        return self._bucket.paths("tile")

    def drop_partials(self, path: str) -> None:
        """See `LogStorage.drop_partials`."""
        check_tile_path(path)
        for partial in self._bucket.paths(f"{path}.p"):
            self._bucket.delete(partial)

    def sync(self) -> None:
        """See `LogStorage.sync`: what was put is durable."""

    def replace_checkpoint(self, signed: bytes, *, head: bytes) -> None:
        """See `LogStorage.replace_checkpoint`, and above why the order is this one."""
        for _ in range(_ATTEMPTS):
            there = self._read(CHECKPOINT)
            if self.read_head() != head:
                raise Conflict("the head is not the one that this checkpoint belongs to")
            if there is not None and there.data == signed:
                return
            if self._put_or_read(CHECKPOINT, signed, over=ABSENT if there is None else there.version) is None:
                return
        raise StateUnknown(f"{CHECKPOINT} changed {_ATTEMPTS} times while it was to be replaced, under the same head")

    # Stagings ---------------------------------------------------------------------------------------------------------

    def stage(self, name: str, data: bytes) -> None:
        """See `LogStorage.stage`. A staging that no head names is nothing yet, whether its put was done or not: try again."""
        try:
            self._bucket.put(_stage(name), data)
        except StateUnknown as error:
            raise Overloaded(f"not staged: {error}", retry_after_seconds=2.0) from error

    def read_stage(self, name: str) -> bytes:
        """See `LogStorage.read_stage`."""
        return self._bucket.get(_stage(name)).data

    def stages(self) -> Sequence[str]:
        """See `LogStorage.stages`."""
        return sorted(path.rpartition("/")[2] for path in self._bucket.paths("staging"))

    def drop_stage(self, name: str) -> None:
        """See `LogStorage.drop_stage`."""
        self._bucket.delete(_stage(name))

    # The head ---------------------------------------------------------------------------------------------------------

    def read_head(self) -> bytes | None:
        """See `LogStorage.read_head`."""
        found = self._known_head = self._read(_HEAD)
        return None if found is None else found.data

    def swap_head(self, old: bytes | None, new: bytes) -> None:
        """See `LogStorage.swap_head`."""
        self._require_conditions()
        known = self._known_head
        if old is not None and (known is None or known.data != old):
            if self.read_head() == new:
                return
            known = self._known_head
            if known is None or known.data != old:
                raise Conflict("the head is not the one to be replaced: another writer has swapped it")
        over: Version | Absent = ABSENT if old is None or known is None else known.version
        self._known_head = None
        found = self._put_or_read(_HEAD, new, over=over, kept=lambda version: self._keep(new, version))
        if found is not None:
            raise Conflict("the head is not the one to be replaced: another writer has swapped it")

    def _keep(self, head: bytes, version: Version) -> None:
        self._known_head = Found(data=head, version=version)

    def claim(self) -> Claim:
        """See `LogStorage.claim`: always given, for it excludes nobody."""
        return _OpenClaim()

    # Requests ---------------------------------------------------------------------------------------------------------

    def _read(self, path: str) -> Found | None:
        try:
            return self._bucket.get(path)
        except NotFound:
            return None

    def _put_or_read(
        self, path: str, data: bytes, *, over: Version | Absent, kept: Callable[[Version], None] | None = None
    ) -> Found | None:
        """Put on a condition; None when `data` stands there afterwards, by whichever attempt, else what stands there instead.

        Raises:
            StateUnknown: it was not answered, and what was to be replaced still stands there, or nothing can be read.
        """
        for _ in range(_ATTEMPTS):
            try:
                version = self._bucket.put(path, data, over=over)
            except (Refused, StateUnknown, NotFound) as error:
                try:
                    found = self._read(path)
                except (Overloaded, StateUnknown) as unread:
                    raise StateUnknown(f"{error}; and it cannot be read: {unread}") from error
                if found is None and isinstance(error, Refused) and over is ABSENT:
                    continue  # a superseded partial tile, which another writer has removed in between
                if found is not None and found.data == data:
                    version = found.version
                elif found is not None and (isinstance(error, Refused) or found.version != over):
                    return found
                else:
                    raise StateUnknown(f"{error}: it may have been written, or be written yet") from error
            if kept is not None:
                kept(version)
            return None
        raise StateUnknown(f"{path} comes and goes")

    def _require_conditions(self) -> None:
        """Once, before the first swap; raises as `probe`."""
        if not self._probed:
            self.probe()

    def probe(self) -> None:
        """Try the conditions of puts on an object that is removed again: a server that ignores them would let two writers fork the log.

        Raises:
            StateUnknown: it does, or nothing can be put.
            Overloaded, NotFound: what was put cannot be read.
        """
        path = f"probe/{self._random(8).hex()}"  # nobody else's: what is late of another process does not land here
        try:
            self._bucket.put(path, b"1", over=ABSENT)
        except Refused:
            pass  # by its own first attempt, whose reply was lost
        old = self._bucket.get(path)
        try:
            self._bucket.put(path, old.data + b"2", over=old.version)
        except Refused:
            pass  # as above
        for over in (ABSENT, old.version):
            try:
                self._bucket.put(path, b"3", over=over)
            except Refused:
                continue
            self._bucket.delete(path)
            raise StateUnknown("this object storage ignores the conditions of a put: a log cannot be kept there safely")
        self._bucket.delete(path)
        self._probed = True


def _stage(name: str) -> str:
    check_stage_name(name)
    return f"staging/{name}"
