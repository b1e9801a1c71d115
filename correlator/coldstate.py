"""The cold part of the correlator's state: one LMDB file under ``state/``, derived from the log and rebuilt when in doubt.

Keys are one letter and what it is about; trails stand as a 24-byte BLAKE2b, because LMDB's keys are short and a sorted run of
short keys is written fastest:

    m                         what this file belongs to, and how many leaves it covers
    h <trail>                 head of a trail
    l <trail, trail>          a link that stands
    s <stream id>             a stream's frontier
    p <trail, flow>           progress of a declared flow
    t <deadline> <trail, flow>  a timer; big-endian, so that the earliest comes first

A flush writes heads and links first, in slices, and then everything else in one transaction with the number of leaves that it
covers. So after a crash the file is true for that number of leaves, but for heads and links that may be later; a later head
says so by its leaf index, and a link that stands early does no harm. What follows is replayed from the log.

LMDB has no checksums, and a head that a failing disk changed would break its trail's chain in the log for ever. So every value
stands behind the CRC-32 of its key and itself. One that does not fit ends this process's work, and the file with it: the next
start makes it anew.

Looking for what is not there is the most frequent question (every new trail asks it), so the keys of heads are in a Bloom filter in
memory: only what is probably there costs a look at the file.
"""

import hashlib
import shutil
import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Generic, TypeVar
from zlib import crc32

import lmdb
import msgspec

from correlator.bloom import BloomFilter
from correlator.errors import Overloaded, StateUnknown, TallyError

__all__ = ["ColdState", "Meta", "Table", "key_of", "time_key"]

_MAP_BYTES = 1 << 36
"""Address space reserved for the file, 64 GiB; the file itself is only as large as its content."""

_SLICE = 4_096
"""Keys looked at or written in one mapping at most."""

_TOUCHED_PAGES = 1_024
"""Pages that one slice of a flush may touch, about: around each, the kernel maps up to 15 more that it has in its cache."""

_META = b"m"

_Value = TypeVar("_Value")


class Meta(msgspec.Struct, frozen=True, kw_only=True):
    """What the file belongs to.

    Attributes:
        version: of this layout.
        fingerprint: of everything beside the log that the state follows from (flows, origin).
        leaves: the state is true for the log's first so many leaves.
        last_hash: leaf hash of the last of them, hex; empty when there is none.
        recorded_ns: recorded time of the last of them.
    """

    version: int = 1
    fingerprint: str = ""
    leaves: int = 0
    last_hash: str = ""
    recorded_ns: int = 0


_decode_meta = msgspec.msgpack.Decoder(Meta).decode
_encode = msgspec.msgpack.Encoder().encode


def key_of(letter: bytes, name: str) -> bytes:
    """The key of something about a trail, or about two names with a line end between them."""
    return letter + hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=24).digest()


def time_key(letter: bytes, deadline_ns: int, name: str = "") -> bytes:
    """A key that sorts by time; without a name it stands before all those of that time."""
    stamp = letter + struct.pack(">Q", deadline_ns)
    return stamp + key_of(b"", name) if name else stamp


class ColdState:
    """One LMDB environment. Made when absent; a damaged one is emptied, for everything in it can be derived again."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        try:
            self._open()
        except (lmdb.Error, msgspec.DecodeError, StateUnknown):
            shutil.rmtree(folder, ignore_errors=True)
            with _wrapped():
                self._open()

    def _open(self) -> None:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._map()
        try:
            self._refuse_cut_off()
            self.meta = self._read_meta()
            self._known = self._filter()
        except BaseException:
            self.close()
            raise

    def _map(self) -> None:
        # readahead off: lookups are random, and what the kernel reads ahead counts as this process's memory
        self._env = lmdb.open(str(self._folder), map_size=_MAP_BYTES, readahead=False, max_readers=16, mode=0o600)
        self._reader = self._env.begin(buffers=False)

    def _refuse_cut_off(self) -> None:
        # reading a mapped page that the file does not have would kill the process (SIGBUS)
        needed = (self._env.info()["last_pgno"] + 1) * self._env.stat()["psize"]
        if (self._folder / "data.mdb").stat().st_size < needed:
            raise StateUnknown("the correlator's state was cut off")

    def _filter(self) -> BloomFilter:
        known = BloomFilter(2 * self._env.stat()["entries"] + 65_536)
        first = b"h"
        while keys := self._head_keys(first):
            known.add_all(keys)
            first = keys[-1] + b"\x00"
            self._remap()
        return known

    def _head_keys(self, first: bytes) -> Sequence[bytes]:
        """Keys of heads from this one on, in order, so many at most as may be looked at in one mapping."""
        keys: list[bytes] = []
        with self._reader.cursor() as cursor:
            found = cursor.set_range(first)
            while found and len(keys) < _SLICE and cursor.key().startswith(b"h"):
                keys.append(cursor.key())
                found = cursor.next()
        return keys

    def _read_meta(self) -> Meta:
        with self._env.begin() as txn:
            raw = txn.get(_META)
        return Meta() if raw is None else _decode_meta(raw)

    def get(self, key: bytes) -> bytes | None:
        """The value under this key, or None."""
        if key.startswith(b"h") and key not in self._known:
            return None
        try:
            value: bytes | None = self._reader.get(key)
        except lmdb.Error as error:
            raise _meant(error) from error
        return None if value is None else self._checked(key, value)

    def _checked(self, key: bytes, value: bytes) -> bytes:
        content = value[4:]
        if crc32(content, crc32(key)) != int.from_bytes(value[:4], "big"):
            # what is open stays readable; what is opened next begins anew
            (self._folder / "data.mdb").unlink(missing_ok=True)
            raise StateUnknown("the correlator's state is damaged; it is made anew from the log at the next start")
        return content

    def items(self, letter: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Everything under this letter, in the order of keys. No `write` while it runs."""
        with _wrapped(), self._reader.cursor() as cursor:
            found = cursor.set_range(letter)
            while found and cursor.key().startswith(letter):
                yield cursor.key(), self._checked(cursor.key(), cursor.value())
                found = cursor.next()

    def between(self, first: bytes, last: bytes, limit: int) -> Sequence[tuple[bytes, bytes]]:
        """At most `limit` items with keys from `first` up to `last`, in the order of keys."""
        out: list[tuple[bytes, bytes]] = []
        with _wrapped(), self._reader.cursor() as cursor:
            found = cursor.set_range(first)
            while found and cursor.key() <= last and len(out) < limit:
                out.append((cursor.key(), self._checked(cursor.key(), cursor.value())))
                found = cursor.next()
        return out

    def write(
        self,
        bulk: Iterable[tuple[bytes, bytes]],
        rest: Iterable[tuple[bytes, bytes]] = (),
        removed: Iterable[bytes] = (),
        meta: Meta | None = None,
    ) -> None:
        """Put and remove; durable on return. A key of `rest` that is in `removed` as well is there afterwards.

        A crash in here leaves a beginning of `bulk`, sorted; `rest`, `removed` and `meta` are there together or not at all.
        Slices, because LMDB keeps every page that a transaction touches in memory until its end. The larger the file, the
        more pages a slice of so many keys would touch, so the fewer keys it has.
        """
        items = sorted(bulk)
        with _wrapped():
            pages = max(1, self._env.stat()["leaf_pages"])
            size = min(_SLICE, max(_TOUCHED_PAGES, _TOUCHED_PAGES * len(items) // pages))
            for start in range(0, len(items), size):
                with self._writing() as txn, txn.cursor() as cursor:
                    cursor.putmulti(_sealed(items[start : start + size]))
            with self._writing() as txn:
                for key in removed:
                    txn.delete(key)
                with txn.cursor() as cursor:
                    cursor.putmulti(_sealed(sorted(rest)))
                if meta is not None:
                    txn.put(_META, _encode(meta))
            if meta is not None:
                self.meta = meta
            self._known.add_all(key for key, _ in items if key.startswith(b"h"))
            if self._known.full:
                self._known = self._filter()

    @contextmanager
    def _writing(self) -> Iterator[lmdb.Transaction]:
        self._reader.abort()
        try:
            with self._env.begin(write=True) as txn:
                yield txn
        finally:
            self._remap()

    def _remap(self) -> None:
        """A new mapping: the pages that the old one touched no longer count as this process's memory."""
        self._reader.abort()
        self._env.close()
        self._map()

    def clear(self) -> None:
        """Empty it."""
        with _wrapped():
            self._reader.abort()
            self._env.close()
        shutil.rmtree(self._folder, ignore_errors=True)
        with _wrapped():
            self._open()

    def close(self) -> None:
        """Release the file."""
        self._reader.abort()
        self._env.close()


class Table(Generic[_Value]):
    """One kind of thing, in two generations in memory before the cold store.

    What was read or written lately is in the young generation; when that is full, it becomes the old one, whose turn has
    then passed. Values must not be changed without a `put`.

    Args:
        cold: where the rest is.
        letter: under which letter.
        limit: size of the young generation after which it becomes the old one.
        encode, decode: a value as bytes, and back.
    """

    __slots__ = ("_cold", "_decode", "_encode", "_letter", "_limit", "_old", "dirty", "young")

    def __init__(
        self,
        cold: ColdState,
        letter: bytes,
        *,
        limit: int,
        encode: Callable[[_Value], bytes],
        decode: Callable[[bytes], _Value],
    ) -> None:
        self._cold = cold
        self._letter = letter
        self._limit = limit
        self._encode = encode
        self._decode = decode
        self.young: dict[str, _Value] = {}
        self._old: dict[str, _Value] = {}
        self.dirty: set[str] = set()

    def get(self, name: str) -> _Value | None:
        """The value under this name, or None."""
        value = self.young.get(name)
        if value is not None:
            return value
        value = self._old.get(name)
        if value is None:
            raw = self._cold.get(key_of(self._letter, name))
            if raw is None:
                return None
            value = self._decode(raw)
        self.young[name] = value
        return value

    def put(self, name: str, value: _Value) -> None:
        """Set the value; it stays in memory until it was flushed."""
        self.young[name] = value
        self.dirty.add(name)

    def changed(self) -> Iterator[tuple[bytes, bytes]]:
        """What is dirty, as the cold store keeps it."""
        for name in self.dirty:
            yield key_of(self._letter, name), self._encode(self.young[name])

    def flushed(self) -> None:
        """All that was dirty is in the cold store; turn the generations if the young one is full."""
        self.dirty.clear()
        if len(self.young) >= self._limit:
            self._old = self.young
            self.young = {}


def _sealed(items: Iterable[tuple[bytes, bytes]]) -> Iterator[tuple[bytes, bytes]]:
    for key, value in items:
        yield key, crc32(value, crc32(key)).to_bytes(4, "big") + value


@contextmanager
def _wrapped() -> Iterator[None]:
    """Turn the driver's errors into those that callers act on."""
    try:
        yield
    except lmdb.Error as error:
        raise _meant(error) from error


def _meant(error: lmdb.Error) -> TallyError:
    if isinstance(error, (lmdb.MapFullError, lmdb.DiskError, lmdb.ReadersFullError)):
        return Overloaded(f"the correlator's state cannot be written: {error}", retry_after_seconds=5.0)
    return StateUnknown(f"the correlator's state is damaged: {error}")
