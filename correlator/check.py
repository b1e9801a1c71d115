"""Checking a whole log: every entry and every tile hashed again, up to the signed root; what was changed is named.

Works from the bundles up. Where a tile is not what lies below it hashes to, the signed root decides which of the two was
changed: a tile that leads to the root is right, and then what lies below it is not.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from correlator.checkpoint import Checkpoint, open_checkpoint
from correlator.errors import NotFound, VerificationError
from correlator.frontier import Frontier
from correlator.head import decode_head, decode_staging
from correlator.merkle import HASH_BYTES, leaf_hashes, perfect_root, tree_root
from correlator.note import Verifier
from correlator.storage import CHECKPOINT, LogStorage
from correlator.tiles import ENTRIES, HEIGHT, WIDTH, HashTile, Tile, TileHashReader, encode_bundle, parse_bundle

__all__ = ["Finding", "check_continues", "check_log", "head_size", "is_missing"]

_HEAD = "head"
_TILE_BYTES = WIDTH * HASH_BYTES
_NO_HASH = bytes(HASH_BYTES)  # stands for a leaf that can not be read; no entry has it
_PAUSES_SECONDS = (0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 3.2)
"""How long a writer that has swapped the head is given to publish it: a few seconds, as many objects in slow object storage take."""
_NOT_THE_BEGINNING = "it is not the beginning of what the tree has there: it was changed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Something that is not as it must be: which object (its path under the log's prefix), which leaf, and what."""

    path: str
    problem: str
    leaf: int | None = None

    def __str__(self) -> str:
        where = self.path if self.leaf is None else f"{self.path}, leaf {self.leaf}"
        return f"{where}: {self.problem}"


def check_log(
    storage: LogStorage,
    verifier: Verifier,
    *,
    since: Checkpoint | None = None,
    progress: Callable[[int, int], None] | None = None,
    visit: Callable[[int, Sequence[bytes]], None] | None = None,
    mirrored: bool = False,
    pause: Callable[[float], None] = time.sleep,
) -> Iterator[Finding]:
    """Check everything in ``storage`` against the log's key; yields what is wrong, nothing if all is well.

    A writer may go on meanwhile: what it publishes after the start is not looked at. A head that is not published yet is no finding before
    its writer had some seconds for it; of a log that its writer has closed it is one at once. After a power cut, open the log for
    writing first: until then, what that restores is reported.

    Args:
        storage: the log.
        verifier: the log's public key, from outside.
        since: a checkpoint remembered from before; the log must continue it.
        progress: told now and then how many leaves of how many are done.
        visit: given each bundle's entries as read, with the first one's leaf index, in order, for checks of one's own.
            They are hashed here all the same: believe nothing they say if there are findings.
        mirrored: what is there was fetched from where the log is published: it has no head of its own, and none is looked for.
        pause: waits for so many seconds.

    Raises:
        Overloaded, StateUnknown: the storage could not be read; no finding follows from that.
    """
    head, problems = (None, []) if mirrored else _open_head(storage, verifier)
    yield from problems
    published, problems = _open_published(storage, verifier)
    if published is None and head is not None and is_missing(storage, CHECKPOINT):
        # a log's first publish, between head and checkpoint
        published, problems = _published_in_time(storage, verifier, 0, pause)
    yield from problems
    tree = published or head
    if tree is None:
        return
    check = _TreeCheck(storage, tree)
    check.list_objects(max(tree.size, head.size if head else 0))
    for start in range(0, tree.size, WIDTH):
        entries = check.entries(start // WIDTH)
        yield from check.take()
        if visit is not None:
            visit(start, entries)
        if progress is not None and start // WIDTH % 64 == 0:
            progress(start, tree.size)
    root = check.root()
    yield from check.take()
    if root != tree.root:
        problem = f"the entries and tiles of the tree of {tree.size} leaves do not lead to the signed root"
        yield Finding(path=CHECKPOINT, problem=problem)
    if progress is not None:
        progress(tree.size, tree.size)
    if head is not None and published is not None and head.size > published.size:
        later, _ = _published_in_time(storage, verifier, head.size, pause)
        if later is None or later.size < head.size:
            problem = (
                f"it has {published.size} leaves, the head {head.size}: rolled back, or a writer died; open the log"
            )
            yield Finding(path=CHECKPOINT, problem=problem)
    elif head is not None and published is not None and head_size(storage) < published.size:
        # the head is swapped before the checkpoint is published, so one read after it is never behind it
        problem = f"it has {head.size} leaves, the published checkpoint {published.size}: rolled back"
        yield Finding(path=_HEAD, problem=problem)
    elif head is not None:
        yield from _check_continues(storage, tree, head, f"the head's checkpoint of {head.size} leaves")
    if since is not None:
        yield from _check_continues(storage, tree, since, f"the remembered checkpoint of {since.size} leaves")


def check_continues(storage: LogStorage, verifier: Verifier, known: Checkpoint, what: str) -> Iterator[Finding]:
    """Check that the published log continues the tree `known` of it, which findings call `what`; raises as `check_log`."""
    published, problems = _open_published(storage, verifier)
    if published is not None:
        yield from _check_continues(storage, published, known, what)
    elif known.size:
        yield from problems


def _open_published(storage: LogStorage, verifier: Verifier) -> tuple[Checkpoint | None, list[Finding]]:
    try:
        return open_checkpoint(storage.get(CHECKPOINT), verifier), []
    except (NotFound, VerificationError) as error:
        return None, [Finding(path=CHECKPOINT, problem=str(error))]


def _published_in_time(
    storage: LogStorage, verifier: Verifier, size: int, pause: Callable[[float], None]
) -> tuple[Checkpoint | None, list[Finding]]:
    """As `_open_published`, once that has `size` leaves, or nobody is at work who would publish them, or the patience is at its end."""
    for seconds in _PAUSES_SECONDS:
        at_work = _has_writer(storage)  # before the checkpoint: a writer that closed the log had published by then
        published, problems = _open_published(storage, verifier)
        if (published is not None and published.size >= size) or not at_work:
            return published, problems
        pause(seconds)
    return _open_published(storage, verifier)


def is_missing(storage: LogStorage, path: str) -> bool:
    """Whether there is no object of this path. Raises as `check_log`."""
    try:
        storage.get(path)
    except NotFound:
        return True
    return False


def _has_writer(storage: LogStorage) -> bool:
    data = storage.read_head()
    try:
        return data is not None and decode_head(data).writer != ""
    except VerificationError:
        return False


def _open_head(storage: LogStorage, verifier: Verifier) -> tuple[Checkpoint | None, list[Finding]]:
    """The head's checkpoint, and what is wrong with the head and the stagings that it names."""
    data = storage.read_head()
    if data is None:
        return None, [Finding(path=_HEAD, problem="it is missing")]
    try:
        head = decode_head(data)
        checkpoint = open_checkpoint(head.checkpoint.encode(), verifier)
        if (checkpoint.size, checkpoint.root.hex()) != (head.size, head.root):
            raise VerificationError("its size and root are not those of the checkpoint in it")
    except VerificationError as error:
        return None, [Finding(path=_HEAD, problem=str(error))]
    problems = []
    for ref in head.stagings:
        try:
            decode_staging(storage.read_stage(ref.name), ref)
        except NotFound as error:
            if storage.read_head() == data:  # else a writer has settled it meanwhile
                problems.append(Finding(path=f"staging/{ref.name}", problem=f"{error}, and the head names it"))
        except VerificationError as error:
            problems.append(Finding(path=f"staging/{ref.name}", problem=str(error)))
    return checkpoint, problems


def _check_continues(storage: LogStorage, tree: Checkpoint, known: Checkpoint, what: str) -> Iterator[Finding]:
    if known.origin != tree.origin:
        yield Finding(path=CHECKPOINT, problem=f"{what} is of another log, {known.origin!r}")
    elif known.size > tree.size:
        yield Finding(path=CHECKPOINT, problem=f"it has {tree.size} leaves: rolled back behind {what}")
    elif known.size == tree.size:
        if known.root != tree.root:
            yield Finding(path=CHECKPOINT, problem=f"it signs another root than {what}: a fork")
    else:
        try:
            if tree_root(known.size, _hashes_of(storage, tree)) != known.root:
                yield Finding(
                    path=CHECKPOINT, problem=f"its tree of {tree.size} leaves does not continue {what}: a fork"
                )
        except VerificationError as error:
            yield Finding(path=CHECKPOINT, problem=f"that its tree continues {what} can not be shown: {error}")


def _read(storage: LogStorage, tile: Tile) -> bytes:
    """A tile's or bundle's bytes; of the full one, cut, where it has superseded the partial one.

    Raises:
        VerificationError: it is missing, or too short or long.
    """
    try:
        return storage.get(tile.path)
    except NotFound as error:
        try:
            data = storage.get(tile.full.path)
        except NotFound:
            raise VerificationError(f"{tile.path} is missing") from error
    if tile.level == ENTRIES:
        return encode_bundle(parse_bundle(data, WIDTH, tile.full.path)[: tile.width])
    return HashTile(tile.full, data).data[: tile.width * HASH_BYTES]


def _hashes_of(storage: LogStorage, tree: Checkpoint) -> TileHashReader:
    return TileHashReader(size=tree.size, root=tree.root, fetch=lambda tile: HashTile(tile, _read(storage, tile)))


class _TreeCheck:
    """One pass over a tree, bundle by bundle; tiles of higher levels are checked as they fill up."""

    def __init__(self, storage: LogStorage, tree: Checkpoint) -> None:
        self._storage = storage
        self._size = tree.size
        self._hashes = _hashes_of(storage, tree)
        self._findings: list[Finding] = []
        self._filling: list[bytes] = []  # of each level, the believed hashes of its last tile
        self._partials: dict[tuple[int, int], list[Tile]] = {}  # those of any size, from the listing

    def take(self) -> list[Finding]:
        """What was found since the last call."""
        findings, self._findings = self._findings, []
        return findings

    def _say(self, tile: Tile, problem: str, leaf: int | None = None) -> None:
        self._findings.append(Finding(path=tile.path, problem=problem, leaf=leaf))

    def list_objects(self, known_size: int) -> None:
        """See what lies there: partial tiles are noted, what belongs to no tree of up to ``known_size`` leaves is said."""
        for path in self._storage.paths():
            try:
                tile = Tile.parse(path)
            except VerificationError as error:
                self._findings.append(Finding(path=path, problem=str(error)))
                continue
            end = tile.index * WIDTH + tile.width << HEIGHT * max(tile.level, 0)
            if end > known_size:
                known_size = max(known_size, head_size(self._storage))  # a writer may be at work
            if end > known_size:
                self._say(tile, f"it does not belong to the tree of {known_size} leaves")
            elif tile.width < WIDTH:
                self._partials.setdefault((tile.level, tile.index), []).append(tile)

    def entries(self, index: int) -> list[bytes]:
        """Check the bundle ``index`` and all that it completes; gives its entries, none if it can not be read."""
        place = Tile(level=ENTRIES, index=index, width=min(self._size - index * WIDTH, WIDTH))
        entries: list[bytes] = []
        try:
            entries = parse_bundle(_read(self._storage, place), place.width, place.path)
            hashes = b"".join(leaf_hashes(entries))
        except VerificationError as error:
            self._say(place, str(error))
            hashes = self._leaves_without_bundle(place)
        believed = self._tile(Tile(level=0, index=index, width=place.width), hashes)
        for partial, data in self._earlier_partials(place):
            try:
                same = believed.startswith(b"".join(leaf_hashes(parse_bundle(data, partial.width, partial.path))))
            except VerificationError:
                same = False
            if not same:
                self._say(partial, _NOT_THE_BEGINNING)
        return entries

    def root(self) -> bytes:
        """The root that all this leads to, after the last bundle."""
        for level in range(1, len(self._filling)):
            if hashes := self._filling[level]:
                index = self._size >> HEIGHT * (level + 1)
                self._tile(Tile(level=level, index=index, width=len(hashes) // HASH_BYTES), hashes)
        return Frontier(size=self._size, edges=tuple(self._filling)).root

    def _tile(self, tile: Tile, computed: bytes) -> bytes:
        """Check a hash tile against what lies below it, and go on upwards with what is believed, which is given back."""
        while len(self._filling) < tile.level + 2:
            self._filling.append(b"")
        believed = self._believed(tile, computed)
        for partial, data in self._earlier_partials(tile):
            if data != believed[: partial.width * HASH_BYTES]:
                self._say(partial, _NOT_THE_BEGINNING)
        if tile.width < WIDTH:
            self._filling[tile.level] = believed
            return believed
        self._filling[tile.level] = b""
        above = self._filling[tile.level + 1] = self._filling[tile.level + 1] + perfect_root(believed)
        if len(above) == _TILE_BYTES:
            self._tile(Tile(level=tile.level + 1, index=tile.index // WIDTH), above)
        return believed

    def _believed(self, tile: Tile, computed: bytes) -> bytes:
        try:
            if _read(self._storage, tile) == computed:
                return computed
            proven = self._hashes.tile(tile.level, tile.index).data[: len(computed)]
        except VerificationError as error:
            what = "" if tile.path in str(error) else "it is not what lies below it hashes to; "
            self._say(tile, f"{what}{error}")
            return computed
        below = Tile(level=ENTRIES if tile.level == 0 else tile.level - 1, index=tile.index, width=tile.width)
        for at in range(0, len(computed), HASH_BYTES):
            if proven[at : at + HASH_BYTES] == computed[at : at + HASH_BYTES]:
                continue
            number = tile.index * WIDTH + at // HASH_BYTES
            if tile.level == 0:
                if computed[at : at + HASH_BYTES] != _NO_HASH:
                    self._say(below, "this entry is not the one in the signed tree: it was changed", leaf=number)
            else:
                self._say(
                    Tile(level=tile.level - 1, index=number), "it, and what lies below it, are not of the signed tree"
                )
        return proven

    def _leaves_without_bundle(self, place: Tile) -> bytes:
        try:
            return self._hashes.tile(0, place.index).data[: place.width * HASH_BYTES]
        except VerificationError:
            return _NO_HASH * place.width

    def _earlier_partials(self, tile: Tile) -> Iterator[tuple[Tile, bytes]]:
        """The narrower partial tiles that lie in this place, of trees of earlier sizes."""
        for partial in self._partials.pop((tile.level, tile.index), []):
            if partial.width < tile.width:  # else it is this one, or published since the start
                try:
                    yield partial, self._storage.get(partial.path)
                except NotFound:
                    pass  # superseded since it was listed


def head_size(storage: LogStorage) -> int:
    """How many leaves the head says that the log has, whoever signed it; 0 without one. Raises as `check_log`."""
    data = storage.read_head()
    try:
        return 0 if data is None else decode_head(data).size
    except VerificationError:
        return 0
