"""The log in memory: for tests, and for logs that need not outlive their process."""

from collections.abc import Iterator, Sequence

from correlator.errors import Conflict, NotFound, StateUnknown
from correlator.storage import CHECKPOINT, Claim, check_tile_path, is_torn

__all__ = ["MemoryStorage"]


class _MemoryClaim:
    def __init__(self, storage: "MemoryStorage") -> None:
        self._storage = storage

    def release(self) -> None:
        if self._storage.claimed_by is self:
            self._storage.claimed_by = None


class MemoryStorage:
    """A `LogStorage` of dictionaries, which a test may look into and tamper with."""

    claim_excludes = True
    put_is_durable = False  # as files, so that the writer's settling is tried without a disk

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.staged: dict[str, bytes] = {}
        self.head: bytes | None = None
        self.claimed_by: _MemoryClaim | None = None

    def put_once(self, path: str, data: bytes) -> None:
        """See `LogStorage.put_once`."""
        check_tile_path(path)
        if self.objects.setdefault(path, data) != data:
            raise StateUnknown(f"{path} is there with other bytes")

    def restore(self, path: str, data: bytes) -> None:
        """See `LogStorage.restore`. Memory does not tear, but whoever fills it for a test may."""
        if is_torn(self.objects.get(path, b""), data):
            self.objects.pop(path, None)
        self.put_once(path, data)

    def get(self, path: str) -> bytes:
        """See `LogStorage.get`."""
        try:
            return self.objects[path]
        except KeyError as error:
            raise NotFound(f"{path[:100]} is not there") from error

    def paths(self) -> Iterator[str]:
        """See `LogStorage.paths`."""
        return iter([path for path in self.objects if path != CHECKPOINT])

    def drop_partials(self, path: str) -> None:
        """See `LogStorage.drop_partials`."""
        for partial in [partial for partial in self.objects if partial.startswith(f"{path}.p/")]:
            del self.objects[partial]

    def sync(self) -> None:
        """See `LogStorage.sync`: nothing to do."""

    def replace_checkpoint(self, signed: bytes, *, head: bytes) -> None:
        """See `LogStorage.replace_checkpoint`."""
        if self.head != head:
            raise Conflict("the head is not the one that this checkpoint belongs to")
        self.objects[CHECKPOINT] = signed

    def stage(self, name: str, data: bytes) -> None:
        """See `LogStorage.stage`."""
        self.staged[name] = data

    def read_stage(self, name: str) -> bytes:
        """See `LogStorage.read_stage`."""
        try:
            return self.staged[name]
        except KeyError as error:
            raise NotFound(f"staging/{name} is not there") from error

    def stages(self) -> Sequence[str]:
        """See `LogStorage.stages`."""
        return sorted(self.staged)

    def drop_stage(self, name: str) -> None:
        """See `LogStorage.drop_stage`."""
        self.staged.pop(name, None)

    def read_head(self) -> bytes | None:
        """See `LogStorage.read_head`."""
        return self.head

    def swap_head(self, old: bytes | None, new: bytes) -> None:
        """See `LogStorage.swap_head`."""
        if self.head not in (old, new):
            raise Conflict("the head is not the one to be replaced: another writer has swapped it")
        self.head = new

    def claim(self) -> Claim:
        """See `LogStorage.claim`."""
        if self.claimed_by is not None:
            raise Conflict("another writer has claimed this log")
        self.claimed_by = _MemoryClaim(self)
        return self.claimed_by
