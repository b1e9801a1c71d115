"""What is Fluent's own in MessagePack: its messages and times, its text that is not UTF-8, and the errors that reading it can raise."""

import struct
from collections.abc import Iterator, Sequence
from typing import Annotated, Any

import msgpack
import msgspec
from msgspec.msgpack import Ext

from collector.canonical import MAX_SAFE_INTEGER
from collector.errors import Malformed, TooLarge
from collector.event import format_time
from collector.receive.census import count_msgpack

__all__ = [
    "ARRAY",
    "MSGPACK_ERRORS",
    "RAW",
    "Entry",
    "Values",
    "Wire",
    "careful_unpacker",
    "count_of",
    "decode_entries",
    "decode_message",
    "decode_plain_entries",
    "elements",
    "kept_time",
    "option_in",
    "slices",
    "tag_in",
    "time_text",
    "unpack",
]

ARRAY = frozenset([*range(0x90, 0xA0), 0xDC, 0xDD])  # MessagePack's first bytes of an array
RAW = frozenset([*range(0xA0, 0xC0), 0xC4, 0xC5, 0xC6, 0xD9, 0xDA, 0xDB])  # … of text and binary data
_UNCOUNTED_BYTES = 8 * 2**20
"""What is no longer is decoded without a count, unless very many maps and lists may begin in it: a chunk of fluentd's is so long by default, at the most."""

_CONTAINERS = bytes([*range(0x80, 0xA0), *range(0xDC, 0xE0)])
"""First bytes of maps and lists; in text they are parts of other characters than ASCII."""

_UNCOUNTED_CONTAINERS = 2**20
_MAX_VALUES = 4 * 2**20
_MAX_VALUES_OF_ONE = 2**20  # twice what fits into an event by default
_event_time = struct.Struct(">II").unpack  # seconds and nanoseconds
MSGPACK_ERRORS = (ValueError, TypeError, OverflowError, RecursionError, msgpack.UnpackException)

_Time = Ext | int | float
Entry = tuple[_Time | tuple[_Time, dict[str, Any]], dict[str, Any]]
"""A record with its time, or with its time and metadata (`collector.receive.fluent_metadata`)."""


class Wire(msgspec.Struct, array_like=True):
    """A message as the fast decoder takes it; `third` is the record in Message mode, else the option."""

    tag: str
    second: bytes | list[Entry] | Ext | int | float
    third: dict[str, Any] | None = None
    fourth: dict[str, Any] | None = None


decode_message = msgspec.msgpack.Decoder(Wire).decode
decode_entries = msgspec.msgpack.Decoder(list[Entry]).decode

_SafeInteger = Annotated[int, msgspec.Meta(ge=-MAX_SAFE_INTEGER, le=MAX_SAFE_INTEGER)]
_NoMetadata = Annotated[dict[str, Any], msgspec.Meta(max_length=0)]
_PlainEntry = tuple[_Time | tuple[_Time, _NoMetadata], dict[str, str | _SafeInteger | bool | None]]
decode_plain_entries = msgspec.msgpack.Decoder(list[_PlainEntry]).decode
"""At the same cost as `decode_entries`; what it takes without an error is `collector.receive.Arrival.plain`."""


def count_of(packed: bytes, most: int) -> int | None:
    """How many records stand in `packed`; None when it does not end with a record's last byte. Raises Malformed: more than so many."""
    framer = msgpack.Unpacker(max_buffer_size=len(packed) or 1)
    framer.feed(packed)
    count = 0
    try:
        while framer.tell() < len(packed):
            framer.skip()
            count += 1
            if count > most:
                raise Malformed(f"more than {most} records in a message", label="too_large")
    except MSGPACK_ERRORS:
        return None
    return count


class Values:
    """How many values the records of `data` may hold, counted before they are decoded: one byte of it may become a hundred.

    Counted where it is longer than 8 MiB, or more than 1,048,576 maps and lists may begin in it. No other is looked at: senders' are none of these by default.
    """

    def __init__(self, data: bytes) -> None:
        self._left = _MAX_VALUES if len(data) > _UNCOUNTED_BYTES or _may_be_dense(data) else None

    def fit(self, data: bytes) -> bool:
        """Whether all of it may be decoded at once; also no, when it cannot be read."""
        if self._left is not None:
            try:
                count_msgpack(data, self._left)
            except (Malformed, *MSGPACK_ERRORS):
                return False
        return True

    def take(self, record: bytes) -> None:
        """Count a record alone. Raises `Malformed`: it has too many, or those before it had."""
        if self._left is None:
            return
        most = min(self._left, _MAX_VALUES_OF_ONE)
        try:
            self._left -= count_msgpack(record, most)
        except TooLarge as error:
            self._left -= most
            reason = f"more than {_MAX_VALUES_OF_ONE} values"
            if most < _MAX_VALUES_OF_ONE:
                reason = f"in a message of more than {_MAX_VALUES} values: these are behind"
            raise Malformed(reason, label="too_large") from error
        except MSGPACK_ERRORS:
            return  # who decodes it says so


def _may_be_dense(data: bytes) -> bool:
    return len(data) > _UNCOUNTED_CONTAINERS < len(data) - len(data.translate(None, _CONTAINERS))


def time_text(time: Any) -> str:
    """RFC 3339 of a Forward time; empty when it is none."""
    if type(time) is Ext:
        data = bytes(time.data)
        if time.code != 0 or len(data) != 8:
            return ""
        seconds, fraction_ns = _event_time(data)
        if fraction_ns >= 1_000_000_000:
            return ""
        unix_ns = seconds * 1_000_000_000 + fraction_ns
    elif type(time) is int:
        unix_ns = time * 1_000_000_000
    elif type(time) is float and abs(time) < 1e12:
        unix_ns = round(time * 1_000_000) * 1_000  # a double holds today's seconds to about 0.2 µs
    else:
        return ""
    try:
        return format_time(unix_ns)
    except Malformed:
        return ""


def kept_time(time: Any, record: dict[Any, Any]) -> None:
    """Keep a time that is none as the record's field ``fluent.time``."""
    record.setdefault("fluent.time", bytes(time.data).hex() if type(time) is Ext else str(time))


def careful_unpacker(data: bytes) -> Any:
    """Takes what the fast decoder refuses: text that is not UTF-8 (kept as surrogates) and keys of any type.

    Keys that are binary data and UTF-8 become text, as some loggers pack all of their strings so.
    """
    unpacker = msgpack.Unpacker(
        max_buffer_size=len(data) or 1,
        strict_map_key=False,
        unicode_errors="surrogateescape",
        timestamp=3,  # MessagePack's own time, inside a record: a datetime
        ext_hook=Ext,
        object_hook=_named,
    )
    unpacker.feed(data)
    return unpacker


def _named(record: dict[Any, Any]) -> dict[Any, Any]:
    if bytes not in set(map(type, record)):
        return record
    named = {_text_of(name): value for name, value in record.items()}
    return named if len(named) == len(record) else record  # two become one: the event will say so


def _text_of(name: Any) -> Any:
    if type(name) is not bytes:
        return name
    try:
        return name.decode()
    except UnicodeDecodeError:
        return name


def unpack(raw: bytes) -> Any:
    """The one value that `raw` holds, taken carefully; raises `Malformed`."""
    try:
        return careful_unpacker(raw).unpack()
    except MSGPACK_ERRORS as error:
        raise Malformed(f"MessagePack that cannot be read: {type(error).__name__}", label="bad_msgpack") from error


def elements(message: bytes) -> list[bytes]:
    """The two to four elements of a message, not decoded. Raises `Malformed`: it has not so many."""
    framer = careful_unpacker(message)
    found: list[bytes] = []
    try:
        count = framer.read_array_header()
        start = framer.tell()
        for _ in range(count if 2 <= count <= 4 else 0):
            framer.skip()
            found.append(message[start : framer.tell()])
            start = framer.tell()
    except MSGPACK_ERRORS:
        found.clear()
    if not found:
        raise Malformed("not an array of tag, events and option", label="bad_message")
    return found


def tag_in(raw: bytes) -> str | None:
    """A message's tag as text; None: it is none."""
    if raw[0] not in RAW:
        return None
    tag = unpack(raw)
    if isinstance(tag, str):
        tag = tag.encode("utf-8", "surrogateescape")
    return bytes(tag).decode("utf-8", "replace")  # it goes into `Origin`, which is text


def option_in(rest: Sequence[bytes]) -> dict[Any, Any]:
    """The option that stands first in the rest of a message; empty: there is none. Raises Malformed: it cannot be read."""
    if not rest:
        return {}
    Values(rest[0]).take(rest[0])
    option = unpack(rest[0])
    return option if isinstance(option, dict) else {}


def slices(packed: bytes, refused: list[tuple[bytes, Malformed]]) -> Iterator[bytes]:
    """Each record's own bytes; what cannot be cut into records is refused, and ends it."""
    framer = msgpack.Unpacker(max_buffer_size=len(packed) or 1)
    framer.feed(packed)
    start = 0
    while start < len(packed):
        try:
            framer.skip()
        except MSGPACK_ERRORS:
            error = Malformed(
                "not MessagePack, or cut short", where=f"byte {start} of the packed records", label="bad_msgpack"
            )
            refused.append((packed[start:], error))
            return
        yield packed[start : framer.tell()]
        start = framer.tell()
