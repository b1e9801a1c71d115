"""The log in a folder: what a web server could serve as a C2SP log, beside what only the writer needs.

    checkpoint                         the signed checkpoint              replaced, under the lock of head.lock
    tile/0/000 … tile/entries/000 …    hash tiles, entry bundles          written once, synced together by `sync`
    head                               the head                           replaced and synced, under the lock of head.lock
    staging/<name>                     stagings                           synced; removed when what they hold is durable
    tmp/                               files on their way to their name   emptied by `claim`
    head.lock, writer.lock             flock(2): a swap; the writer, for life

Every file is written in ``tmp/`` and renamed into place, so under its name it is whole, or, after a power cut and before
`sync`, torn; `restore` mends that.
"""

import errno
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from itertools import count
from pathlib import Path

from collector.disk import Disk, DiskLock, OsDisk
from correlator.errors import Conflict, NotFound, Overloaded, StateUnknown
from correlator.storage import CHECKPOINT, check_stage_name, check_tile_path, is_torn

__all__ = ["FileStorage"]

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)
_NO_FILES = (errno.EMFILE, errno.ENFILE)


@contextmanager
def _seam(what: str, overloads: Sequence[int] = (*_NO_ROOM, *_NO_FILES)) -> Iterator[None]:
    """Wrap the system's errors: `Overloaded` for those that may be tried again, else `StateUnknown`."""
    try:
        yield
    except OSError as error:
        if error.errno in overloads:
            raise Overloaded(f"{what}: {error.strerror}", retry_after_seconds=5.0) from error
        raise StateUnknown(f"{what}: {error.strerror or error}") from error


def _syncing(what: str) -> AbstractContextManager[None]:
    """`_seam` for the sync of what has its name already: that it failed is told once.

    The system then counts as written what it could not write, so a second sync would have nothing to do, succeed, and mean
    nothing. Missing room is `StateUnknown` here: what was to be durable must be written again as another file, by `restore`.
    """
    return _seam(what, _NO_FILES)


class FileStorage:
    """A `LogStorage` in the folder ``root`` (created on the first write), through ``disk``."""

    claim_excludes = True
    put_is_durable = False

    def __init__(self, root: Path, disk: Disk | None = None) -> None:
        self._root = root
        self._disk: Disk = OsDisk() if disk is None else disk
        self._temporary = (root / "tmp" / f"{number:x}" for number in count())
        self._folders: set[Path] = set()
        self._unsynced: dict[Path, None] = {}

    # Published objects ------------------------------------------------------------------------------------------------

    def put_once(self, path: str, data: bytes) -> None:
        """See `LogStorage.put_once`."""
        self._put(path, data, mend=False)

    def restore(self, path: str, data: bytes) -> None:
        """See `LogStorage.restore`."""
        self._put(path, data, mend=True)

    def _put(self, path: str, data: bytes, *, mend: bool) -> None:
        check_tile_path(path)
        target = self._root / path
        with _seam(path):
            # Of two writers that race for a name both bring the same bytes: a writer publishes only what the head that it
            # has swapped names. But one that was deposed in here must not put a file that nobody syncs in the place of one
            # that its successor has synced: hence `rename_new`, and in mending a file that is synced before it has the name.
            found = self._disk.read(target) if self._disk.exists(target) else None
            if found is None and not mend:
                temporary = self._written(target.parent, data, sync=False)
                try:
                    self._disk.rename_new(temporary, target)
                except FileExistsError:
                    self._disk.remove(temporary)
                    found = self._disk.read(target)
            # Mending, also where the same bytes are there: they may be in the system's memory alone, after a sync of
            # them that failed, and a sync would not write them (see `_syncing`). Another file's it does.
            elif mend and (found is None or found == data or is_torn(found, data)):
                self._write(target, data, sync=True)
                found = None
            if found is not None and found != data:
                raise StateUnknown(f"{path} is there with other bytes ({len(found)} found, {len(data)} to write)")
            self._unsynced[target] = None  # also when it was there: who wrote it may have died before its sync

    def get(self, path: str) -> bytes:
        """See `LogStorage.get`."""
        if path != CHECKPOINT:
            try:
                check_tile_path(path)
            except ValueError as error:
                raise NotFound(str(error)) from error
        with _seam(path):
            try:
                return self._disk.read(self._root / path)
            except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
                raise NotFound(f"{path} is not there") from error

    def paths(self) -> Iterator[str]:
        """See `LogStorage.paths`."""
        with _seam("tile"):
            yield from self._walk(self._root / "tile", "tile")

    def _walk(self, folder: Path, prefix: str) -> Iterator[str]:
        try:
            names = self._disk.list_directory(folder)
        except FileNotFoundError:
            return
        for name in names:
            path = f"{prefix}/{name}"
            # A file ends in 3 digits, or in up to 3 below a ".p"; whatever else lies there is looked into, or named.
            try:
                inside = [] if prefix.endswith(".p") else self._disk.list_directory(folder / name)
            except NotADirectoryError:
                inside = None
            except FileNotFoundError:
                continue  # a folder of partial tiles that the writer has dropped since: no object, and no damage
            if inside is None or prefix.endswith(".p"):
                yield path
            else:
                yield from self._walk(folder / name, path)

    def drop_partials(self, path: str) -> None:
        """See `LogStorage.drop_partials`. Not synced: what comes back after a power cut is true, only superfluous."""
        check_tile_path(path)
        folder = self._root / f"{path}.p"
        with _seam(f"{path}.p"):
            try:
                for name in self._disk.list_directory(folder):
                    self._unsynced.pop(folder / name, None)
                    self._disk.remove(folder / name)
                self._folders.discard(folder)
                self._disk.remove_directory(folder)
            except FileNotFoundError:
                pass  # there are none, or a writer that takes over removes them at the same time

    def sync(self) -> None:
        """See `LogStorage.sync`."""
        with _syncing("sync"):
            for path in self._unsynced:
                self._disk.sync_file(path)
            for folder in dict.fromkeys(path.parent for path in self._unsynced):
                self._disk.sync_directory(folder)
        self._unsynced.clear()

    def replace_checkpoint(self, signed: bytes, *, head: bytes) -> None:
        """See `LogStorage.replace_checkpoint`."""
        with self._head_lock(), _seam(CHECKPOINT):
            if self._read(self._root / "head") != head:
                raise Conflict("the head is not the one that this checkpoint belongs to")
            self._write(self._root / CHECKPOINT, signed, sync=False)

    # Stagings ---------------------------------------------------------------------------------------------------------

    def stage(self, name: str, data: bytes) -> None:
        """See `LogStorage.stage`."""
        target = self._stage(name)
        with _seam(f"staging/{name}"):
            self._write(target, data, sync=True)
            with _syncing("staging"):
                self._disk.sync_directory(target.parent)

    def read_stage(self, name: str) -> bytes:
        """See `LogStorage.read_stage`."""
        with _seam(f"staging/{name}"):
            found = self._read(self._stage(name))
        if found is None:
            raise NotFound(f"staging/{name} is not there")
        return found

    def stages(self) -> Sequence[str]:
        """See `LogStorage.stages`."""
        with _seam("staging"):
            try:
                return self._disk.list_directory(self._root / "staging")
            except FileNotFoundError:
                return []

    def drop_stage(self, name: str) -> None:
        """See `LogStorage.drop_stage`. The removal is not synced: a staging that comes back is removed again."""
        with _seam(f"staging/{name}"):
            try:
                self._disk.remove(self._stage(name))
            except FileNotFoundError:
                pass

    # The head ---------------------------------------------------------------------------------------------------------

    def read_head(self) -> bytes | None:
        """See `LogStorage.read_head`."""
        with _seam("head"):
            return self._read(self._root / "head")

    def swap_head(self, old: bytes | None, new: bytes) -> None:
        """See `LogStorage.swap_head`."""
        with self._head_lock(), _seam("head"):
            found = self._read(self._root / "head")
            if found not in (old, new):
                raise Conflict("the head is not the one to be replaced: another writer has swapped it")
            if found != new or old == new:  # as another file: a sync of this one may have failed, see `_syncing`
                self._write(self._root / "head", new, sync=True)
            with _syncing("head"):
                self._disk.sync_directory(self._root)

    def claim(self) -> DiskLock:
        """See `LogStorage.claim`; also empties ``tmp/``, where only files of dead writers can lie then."""
        with _seam("writer.lock"):
            self._folder(self._root)
            claim = self._disk.lock(self._root / "writer.lock")
            if claim is None:
                raise Conflict(f"another process writes the log in {self._root}")
            self._folder(self._root / "tmp")
            for name in self._disk.list_directory(self._root / "tmp"):
                self._disk.remove(self._root / "tmp" / name)
            return claim

    @contextmanager
    def _head_lock(self) -> Iterator[None]:
        with _seam("head.lock"):
            self._folder(self._root)
            lock = self._disk.lock(self._root / "head.lock")
        if lock is None:
            raise Overloaded("another process is swapping the head", retry_after_seconds=0.1)
        try:
            yield
        finally:
            lock.release()

    # Files ------------------------------------------------------------------------------------------------------------

    def _stage(self, name: str) -> Path:
        check_stage_name(name)
        return self._root / "staging" / name

    def _folder(self, folder: Path) -> None:
        if folder not in self._folders:
            self._disk.make_directory(folder)
            self._folders.add(folder)

    def _read(self, path: Path) -> bytes | None:
        try:
            return self._disk.read(path)
        except FileNotFoundError:
            return None

    def _write(self, target: Path, data: bytes, *, sync: bool) -> None:
        """The file whole under its name, whatever stood there. The name is durable when its folder is synced."""
        self._disk.replace(self._written(target.parent, data, sync=sync), target)

    def _written(self, folder: Path, data: bytes, *, sync: bool) -> Path:
        """The file whole under a name in ``tmp/``, to be renamed into `folder`, which is there then."""
        self._folder(self._root / "tmp")
        self._folder(folder)
        while True:
            temporary = next(self._temporary)
            try:
                self._disk.write_new(temporary, data, sync=sync)
            except FileExistsError:
                continue  # of a dead writer, or of one that we have taken over from
            except OSError:
                with suppress(
                    OSError
                ):  # on a full disk each trial would leave another, and take the room that was made
                    self._disk.remove(temporary)
                raise
            return temporary
