"""How many things stand in a request, counted before anything is made of them: two bytes of one may become a kilobyte here.

Bodies are bounded in bytes, which bounds nothing else: compressed, a few kilobytes hold as many empty records as there are bytes in what they inflate
to. So a way in whose decoder makes everything at once counts first, without decoding, and refuses what no sender sends.
"""

from collections.abc import Iterator, Sequence
from typing import Any, TypeAlias

import msgpack

from collector.errors import Malformed, TooLarge

__all__ = [
    "Path",
    "Walked",
    "check_decoded",
    "check_json",
    "check_nested",
    "check_protobuf",
    "count_json",
    "count_msgpack",
]

Path = Sequence[Sequence[int]]
"""From a message to its records: for each step the numbers of the fields that lead on."""

_Kind: TypeAlias = "dict[int, _Kind]"

_MAX_VALUES = 4 * 2**20
_MAX_VALUES_OF_ONE = 2**20  # twice what fits into an event by default
_CONTAINER = 4
_STEPS = 4_096
_LONGEST_VARINT = 10
_SIZES = (0, 8, 0, 0, 0, 4)  # of values by their kind; a group's begin and end have none
_OTHER = (-1, -1)
_OTHERS = 4
"""So many other fields may stand beside each record: a scope of one record has two, a metric of one point five. Who sends a million sends nothing else, and each is a step of the count."""


class Walked:
    """Counts the values of what is decoded already and becomes events, record by record.

    Attributes:
        since: counted since it was last set to 0; whoever has it may give others a turn.
    """

    __slots__ = ("_left", "since")

    def __init__(self) -> None:
        self.since = 0
        self._left = _MAX_VALUES_OF_ONE

    def begin(self) -> None:
        """Here begins a record, or what several have in common."""
        self._left = _MAX_VALUES_OF_ONE

    def count(self, values: int) -> None:
        """So many values are walked next. Raises Malformed: they are too many, those before them counted."""
        self.since += values
        self._left -= values
        if self._left < 0:
            raise Malformed(f"more than {_MAX_VALUES_OF_ONE} values", label="too_large")


def check_json(body: bytes) -> None:
    """Raises `TooLarge`: more than 4,194,304 values may stand in this JSON, which are some hundred megabytes when decoded.

    Commas and opening brackets are counted, and not looked whether they stand in texts: as many separate values.
    """
    if len(body) <= _MAX_VALUES:
        return
    if count_json(body) > _MAX_VALUES:
        raise TooLarge(f"more than {_MAX_VALUES} values in a request")


def count_json(data: bytes) -> int:
    """How many values stand in the lists and objects of this JSON, these counted with them, or more: it is not looked whether commas and brackets stand in texts."""
    return data.count(b",") + data.count(b"{") + data.count(b"[")


def check_protobuf(body: bytes, path: Path, most: int) -> None:
    """Raises `TooLarge`: a message in protobuf has more than so many records at `path`, counted with what they stand in, or very many other fields beside them.

    What is no protobuf ends the count where it ends the decoder, which says so.
    """
    if len(body) <= 2 * most:  # the shortest has two bytes
        return
    count = others = 0
    levels = [_places(body, 0, len(body), path[0])]
    while levels:
        place = next(levels[-1], None)
        if place is None:
            levels.pop()
            continue
        if place is _OTHER:
            others += 1
            if others > _OTHERS * most:
                raise TooLarge(f"more than {_OTHERS * most} fields beside the records of a request")
            continue
        count += 1
        if count > most:
            raise _too_many(most)
        if len(levels) < len(path):
            levels.append(_places(body, *place, path[len(levels)]))


def check_nested(body: bytes, descriptor: Any, most: int) -> Iterator[None]:
    """Count all messages in a message of protobuf, whatever they stand in; `descriptor` is its own. It takes long to count millions: at each step others may have a turn.

    Raises `TooLarge`: more than so many. Each takes some fifty bytes when decoded, and time when it is made a value. What is no protobuf
    ends the count, as above.
    """
    if len(body) <= 2 * most:  # the shortest has two bytes
        return
    kind, heads = _known(descriptor)
    if len(body) - len(body.translate(None, delete=heads)) <= most:
        return  # there are no more than bytes with which one may begin; nearly always that is all that must be known
    count = steps = 0
    at, end = 0, len(body)
    above: list[tuple[int, _Kind]] = []
    try:
        while True:
            steps += 1
            if steps % _STEPS == 0:
                yield
            if at >= end:
                if not above:
                    return
                end, kind = above.pop()
                continue
            key = body[at]  # here and below a call would take longer than all else
            at += 1
            if key >= 0x80:
                key, at = _varint(body, at - 1)
            wire = key & 7
            if wire == 2:
                size = body[at]
                at += 1
                if size >= 0x80:
                    size, at = _varint(body, at - 1)
                below = kind.get(key >> 3)
                if below is None:
                    at += size
                    continue
                count += 1
                if count > most:
                    raise TooLarge(f"more than {most} attributes and other parts in a request")
                if size:
                    above.append((end, kind))
                    end, kind = min(at + size, end), below
            else:
                at = _past(body, at, wire)
    except IndexError:
        return


def check_decoded(request: Any, descriptor: Any, path: Path, most: int) -> None:
    """The same of a decoded request, whose attributes have the names that `descriptor`, of its message in protobuf, knows. Raises `TooLarge`."""
    count = 0
    level = [(request, descriptor)]
    for at, numbers in enumerate(path):
        below: list[tuple[Any, Any]] = []
        for one, kind in level:
            for number in numbers:
                field = kind.fields_by_number[number]
                found = getattr(one, field.name)
                found = found if isinstance(found, list) else () if found is None else (found,)
                count += len(found)
                if count > most:
                    raise _too_many(most)
                if at + 1 < len(path):
                    below.extend((item, field.message_type) for item in found)
        level = below


def count_msgpack(data: bytes, most: int) -> int:
    """How many values stand in the maps and lists of one value in MessagePack; each of these counts as four, for an empty one takes as much room as several values.

    Raises:
        TooLarge: more than `most`.
        ValueError, TypeError, RecursionError, msgpack.UnpackException: it cannot be read.
    """
    left = most

    def seen(several: Sequence[Any]) -> None:  # each is let go of as soon as it is whole
        nonlocal left
        left -= _CONTAINER + len(several)
        if left < 0:
            raise TooLarge(f"more than {most} values")

    try:
        msgpack.unpackb(
            data, raw=True, strict_map_key=False, object_hook=seen, list_hook=seen, max_array_len=most, max_map_len=most
        )
    except ValueError as error:
        if "exceeds max_" in str(error):
            raise TooLarge(f"more than {most} values") from error
        raise
    return most - left


def _known(descriptor: Any) -> tuple[_Kind, bytes]:
    """A message's fields that are messages, and theirs; and every first byte that one of these fields may have."""
    kinds: dict[str, _Kind] = {}
    heads: set[int] = set()

    def of(one: Any) -> _Kind:
        found = kinds.get(one.full_name)
        if found is None:
            found = kinds[one.full_name] = {}
            for field in one.fields:
                if field.message_type is not None:
                    found[field.number] = of(field.message_type)
                    head = (field.number << 3 | 2) & 0x7F
                    heads.update((head, head | 0x80))  # also a number that is written longer than it need be
        return found

    return of(descriptor), bytes(sorted(heads))


def _too_many(most: int) -> TooLarge:
    return TooLarge(f"more than {most} records in a request, counted with what they stand in: send them in several")


def _places(body: bytes, at: int, end: int, numbers: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Start and end of each of these messages among the fields between `at` and `end` (https://protobuf.dev/programming-guides/encoding/), `_OTHER` for each other field.

    A group's own fields are read as if they stood beside it: that counts too many, never too few.
    """
    try:
        while at < end:
            key, at = _varint(body, at)
            wire = key & 7
            if wire == 2:
                size, at = _varint(body, at)
                yield (at, min(at + size, end)) if key >> 3 in numbers else _OTHER
                at += size
                continue
            yield _OTHER
            at = _past(body, at, wire)
    except IndexError:
        return


def _past(body: bytes, at: int, wire: int) -> int:
    """Where a field ends that has no length: its value begins at `at`. Raises IndexError: there is no such field."""
    if wire == 0:
        while body[at] >= 0x80:
            at += 1
        return at + 1
    if wire > 5:
        raise IndexError("no kind of field")
    return at + _SIZES[wire]


def _varint(body: bytes, at: int) -> tuple[int, int]:
    """A number and where it ends. Raises IndexError: it is none."""
    byte = body[at]
    if byte < 0x80:
        return byte, at + 1
    value = byte & 0x7F
    for place in range(1, _LONGEST_VARINT):
        byte = body[at + place]
        value |= (byte & 0x7F) << 7 * place
        if byte < 0x80:
            return value, at + place + 1
    raise IndexError("a number of more than 10 bytes")
