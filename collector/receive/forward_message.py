"""What a Fluent Forward connection says: bytes in, groups of events out; no sockets here.

Fluent Forward Protocol v1 (https://github.com/fluent/fluentd/wiki/Forward-Protocol-Specification-v1): a stream of MessagePack
arrays, each in one of four modes:

    Message                   [tag, time, record, option?]
    Forward                   [tag, [[time, record], …], option?]
    PackedForward             [tag, bytes of [time, record] …, option?]
    CompressedPackedForward   as PackedForward, option {"compressed": "gzip"}, or "zstd" (fluentd since 1.19)

`time` is an EventTime (ext type 0: seconds and nanoseconds, 32 bits each, big-endian), an integer or a float of seconds; or, from Fluent Bit,
one of these with metadata, `[time, metadata]` (`fluent_metadata`). A lone nil is a heartbeat. Reading is in two steps: `forward_framing` finds where a message ends,
then the whole message is decoded in one go. What the fast decoder refuses (text that is not
UTF-8, keys that are no text, one bad record among good ones) is taken again record by record, so that only the bad record is lost to
the dead letters.
"""

import contextlib
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import msgspec

from collector.errors import Malformed
from collector.event import Origin, format_time
from collector.receive.fluent_metadata import FluentBitEvents, check_record, is_stamped, stamp_in, with_metadata
from collector.receive.fluent_msgpack import (
    ARRAY,
    RAW,
    Values,
    count_of,
    decode_entries,
    decode_message,
    decode_plain_entries,
    elements,
    kept_time,
    option_in,
    slices,
    tag_in,
    time_text,
    unpack,
)
from collector.receive.forward_events import add_events, are_canonical_events
from collector.receive.forward_framing import NIL, Framing
from collector.receive.forward_group import Group, Limits
from collector.receive.inflate import gunzip, unzstd
from collector.receive.record import arrival_of_record

__all__ = ["MessageReader"]

_CODINGS: Mapping[Any, Callable[..., bytes]] = {"gzip": gunzip, b"gzip": gunzip, "zstd": unzstd, b"zstd": unzstd}
"""The option's `compressed`. Anything else, as "text" from npm's fluent-logger, is no compression."""

_MESSAGE = ARRAY | {NIL[0]}  # what a message begins with
_NO_MESSAGE_BYTES = 16_384

_CHUNK_OF_NOTHING = hashlib.sha512().hexdigest()[:32]
"""Fluent Bit's id is a hash of the records, but in Message mode (a tag made of the records) newer ones hash no bytes at all: all of its messages have this one."""


class MessageReader:
    """Decodes the messages of a connection.

    Args:
        clock: Unix time in nanoseconds; stamps `observed`.
        service: ``service.name`` of records that name none; None takes the tag's first segment.
        limits: what is refused.

    Attributes:
        framing: cuts what arrives into messages.
        peer: who sends, as far as that was shown (`collector.event.Origin`); set before the first message.
    """

    def __init__(self, *, clock: Callable[[], int], service: str | None = None, limits: Limits | None = None) -> None:
        self._clock = clock
        self._service = service
        self._limits = limits or Limits()
        self.framing = Framing(self._limits.max_message_bytes)
        self._message: bytes | None = None  # whole, and not decoded yet
        self._lost: Malformed | None = None  # what has come behind it is no message
        self._origin: Origin | None = None  # of the last message
        self.peer = ""
        self._stamped: FluentBitEvents | None = None  # of the message at hand

    @property
    def waiting(self) -> bool:
        """Whether there is something for `groups`: a whole message, or the place where framing was lost."""
        return self._message is not None or self._lost is not None

    def hear(self, data: bytes) -> None:
        """Something has arrived. Nothing is decoded yet: it is looked where a message ends, and no more."""
        try:
            self.framing.feed(data)
        except Malformed as error:
            self._lost = error
        if self._message is None and self._lost is None:
            self._look()

    def _look(self) -> None:
        """One message ahead: what is decoded next is known before it is its turn."""
        self._message = None
        if self._lost is None:
            try:
                self._message = self.framing.next_message()
            except Malformed as error:
                self._lost = error

    def groups(self, data: bytes = b"") -> Iterator[Group]:
        """The groups that are whole, with `data` that has arrived; messages in a row without a chunk and with the same tag are one group.

        Raises:
            Malformed: as `Framing.next_message`; the groups before it have been given out.
        """
        if data:
            self.hear(data)
        joined: Group | None = None
        messages = 0  # of it
        observed = format_time(self._clock())
        while (message := self._message) is not None:
            self._look()
            values = 1
            if message[0] not in _MESSAGE:
                message, values = self._with_what_is_none_either(message)
            group = self.decode(message, observed)
            if group is None:
                continue
            if (
                joined is not None
                and not group.alone
                and joined.origin is group.origin
                and max(messages, len(joined.arrivals) + len(joined.refused)) < self._limits.max_joined
            ):
                messages += values
                joined.arrivals.extend(group.arrivals)
                joined.refused.extend(group.refused)
                joined.size_bytes += group.size_bytes
                continue
            if joined is not None:
                yield joined
            joined = None
            if not group.alone:
                joined, messages = group, values
            else:
                yield group
        if joined is not None:
            yield joined
        if self._lost is not None:
            lost, self._lost = self._lost, None
            raise lost

    def _with_what_is_none_either(self, value: bytes) -> tuple[bytes, int]:
        """A value that is no message, with the like of it in a row, and how many they are.

        Of a request of another protocol each byte is a value; a person wants to see it as it came.
        """
        values, size_bytes = [value], len(value)
        while self._message is not None and self._message[0] not in _MESSAGE and size_bytes < _NO_MESSAGE_BYTES:
            values.append(self._message)
            size_bytes += len(self._message)
            self._look()
        return b"".join(values), len(values)

    def decode(self, message: bytes, observed: str) -> Group | None:
        """The group that one whole message tells; None for heartbeats. What is wrong with it stands in `refused`."""
        if message.startswith(NIL):
            return None
        try:
            group = self._decode(message, observed)
        except MemoryError:
            raise  # that is not the message's fault: it may be read when it comes again
        except Exception as error:  # noqa: BLE001 - whatever breaks: without an ack the sender would come again with it for ever
            group = self._broken(message, error)
        if group.chunk == _CHUNK_OF_NOTHING:
            group.digest = hashlib.sha256(message).digest()
        group.size_bytes = max(group.size_bytes, len(message))
        if self._stamped is not None:
            group.size_bytes += self._stamped.repeated_bytes
        return group

    def _decode(self, message: bytes, observed: str) -> Group:
        if not Values(message).fit(message):
            return self._careful(message, observed)
        try:
            wire = decode_message(message)
        except (msgspec.DecodeError, ValueError, RecursionError):
            return self._careful(message, observed)
        second = wire.second
        if type(second) is bytes:
            return self._packed(message, wire.tag, second, wire.third or {}, observed)
        if type(second) is list:
            group = self._group(wire.tag, wire.third or {})
            self._add(group, second, observed, message)
            self._check_size(group, wire.third or {}, len(second))
            return group
        if wire.third is None:
            return self._whole_refused(
                message, wire.tag, {}, Malformed("Message mode without a record", label="bad_record")
            )
        group = self._group(wire.tag, wire.fourth or {})
        self._add(group, [(with_metadata(second, wire.fourth), wire.third)], observed, message)
        return group

    # ------------------------------------------------------------------------------------------ the parts of a group

    def _group(self, tag: str, option: dict[Any, Any]) -> Group:
        self._stamped = None
        if self._origin is None or tag != self._origin.tag:
            self._origin = Origin(receiver="forward", tag=tag, peer=self.peer)
        chunk = option.get("chunk")
        if isinstance(chunk, bytes):
            chunk = chunk.decode("utf-8", "surrogateescape")
        return Group(origin=self._origin, chunk=chunk if isinstance(chunk, str) and chunk else None)

    def _whole_refused(self, message: bytes, tag: str, option: dict[Any, Any], error: Malformed) -> Group:
        group = self._group(tag, option)
        group.refused.append((message, error))
        return group

    def _broken(self, message: bytes, error: Exception) -> Group:
        """A message on which our own reading has failed: a dead letter, under its tag and chunk if these can be read."""
        tag, option = "", {}
        with contextlib.suppress(msgspec.DecodeError, ValueError, RecursionError):
            wire = decode_message(message)
            tag, option = wire.tag, (wire.third if type(wire.second) in {bytes, list} else wire.fourth) or {}
        reason = Malformed(f"cannot be read: {type(error).__name__}", label="bad_message")
        return self._whole_refused(message, tag, option, reason)

    def _add_all(self, group: Group, entries: bytes, observed: str, message: bytes) -> None:
        if not Values(entries).fit(entries):
            raise ValueError("too many values, or one that cannot be read")
        try:
            found = decode_plain_entries(entries)
        except msgspec.ValidationError:  # some value is nested, a float, bytes …
            self._add(group, decode_entries(entries), observed, message)
        else:
            self._add(group, found, observed, message, plain=True)

    def _add(
        self,
        group: Group,
        entries: Sequence[tuple[Any, dict[Any, Any]]],
        observed: str,
        message: bytes,
        *,
        plain: bool = False,
    ) -> None:
        service = group.origin.tag.partition(".")[0] if self._service is None else self._service
        origin, add = group.origin, group.arrivals.append
        for time, record in entries:
            text = time_text(time)
            if not text:
                if is_stamped(time):
                    try:
                        self._add_stamped(group, time, record, service=service, observed=observed, plain=plain)
                    except Malformed as error:
                        group.arrivals.clear()
                        group.refused[:] = [(message, error)]
                        return
                    continue
                kept_time(time, record)
            marks = () if text else ("time_unusable",)
            add(
                arrival_of_record(
                    record, origin=origin, service=service, time=text, observed=observed, marks=marks, plain=plain
                )
            )

    def _add_stamped(
        self, group: Group, stamp: Any, record: dict[Any, Any], *, service: str, observed: str, plain: bool
    ) -> None:
        if self._stamped is None:
            self._stamped = FluentBitEvents(max_repeated_bytes=self._limits.max_inflated_bytes)
        arrival = self._stamped.arrival(
            stamp, record, origin=group.origin, service=service, observed=observed, plain=plain
        )
        if arrival is not None:
            group.arrivals.append(arrival)

    def _check_size(self, group: Group, option: dict[Any, Any], found: int, packed_bytes: int = -1) -> None:
        """The option's `size` counts the records: when it disagrees something was lost before us, so it is put on record.

        The npm package fluent-logger puts the length of the packed bytes there instead, which is as good.
        """
        size = option.get("size")
        events = found - self._stamped.markers if self._stamped is not None else found  # Fluent Bit counts either
        if type(size) is int and size not in {found, events, packed_bytes}:
            error = Malformed(f"the option says {size} records, the message has {found}", label="size_mismatch")
            chunk = group.chunk and group.chunk.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
            note = {"tag": group.origin.tag, "chunk": chunk, "size": size, "found": found}
            group.refused.append((msgspec.json.encode(note), error))

    def _packed(self, message: bytes, tag: str, packed: bytes, option: dict[Any, Any], observed: str) -> Group:
        packed_bytes = len(packed)
        try:
            if option.get("fluent_signal", 0) != 0:
                raise Malformed("Fluent Bit's own encoding of metrics and traces is not taken", label="bad_signal")
            coding = option.get("compressed")
            inflate = _CODINGS.get(coding) if type(coding) in {str, bytes} else None
            if inflate is not None:
                packed = inflate(packed, max_bytes=self._limits.max_inflated_bytes)
            count = count_of(packed, self._limits.max_records)
        except Malformed as error:
            return self._whole_refused(message, tag, option, error)
        group = self._group(tag, option)
        group.size_bytes = len(packed)
        if are_canonical_events(option):
            self._check_size(group, option, add_events(group, slices(packed, group.refused), observed))
            return group
        try:
            if count is None:
                raise ValueError("the last record is cut or damaged")
            self._add_all(group, b"\xdd" + count.to_bytes(4) + packed, observed, message)
        except (msgspec.DecodeError, ValueError, RecursionError):
            count = self._add_carefully(group, packed, observed, message)
            if packed[0] not in ARRAY and not group.arrivals:
                # of another form: what stands behind may be no option, but the record
                neither = Malformed("neither packed records nor a time", label="bad_record")
                return self._whole_refused(message, tag, option, neither)
        self._check_size(group, option, count, packed_bytes)
        return group

    # --------------------------------------------------------------------------- record by record, when speed has failed

    def _add_carefully(self, group: Group, packed: bytes, observed: str, message: bytes) -> int:
        count, values = 0, Values(packed)
        for raw in slices(packed, group.refused):
            count += 1
            try:
                values.take(raw)
                entry = unpack(raw)
                if not isinstance(entry, list) or len(entry) != 2:
                    raise Malformed("a record is not a pair of time and map", label="bad_record")
                check_record(*entry)
            except Malformed as error:
                group.refused.append((raw, Malformed(error.reason, where=f"record {count}", label=error.label)))
                continue
            self._add(group, [(entry[0], entry[1])], observed, message)
            if group.refused and group.refused[0][0] is message:
                break  # all of it
        return count

    def _careful(self, message: bytes, observed: str) -> Group:
        try:
            named, second, *rest = elements(message)
            stamp = stamp_in(second)
            raw = second[0] in RAW and (
                len(rest) < 2 or 0xC4 <= second[0] <= 0xC6
            )  # text before record and option is no time
            many = stamp is None and (second[0] in ARRAY or raw)
            tag = tag_in(named)
        except Malformed as error:
            return self._whole_refused(message, "", {}, error)
        try:
            # it has the chunk: whatever else is wrong, its sender is to hear that we have it
            option = option_in(rest[0 if many else 1 :])
        except Malformed as error:
            group = self._whole_refused(message, tag or "", {}, error)
            group.digest = hashlib.sha256(message).digest()  # it may come again for ever
            return group
        if tag is None:
            return self._whole_refused(message, "", option, Malformed("the tag is not text", label="bad_message"))
        if raw:
            packed = unpack(second)  # text: what MessagePack called "raw" before it had binary data
            if isinstance(packed, str):
                packed = packed.encode("utf-8", "surrogateescape")
            return self._packed(message, tag, packed, option, observed)
        group = self._group(tag, option)
        if many:
            header = 1 if second[0] < 0xDC else 3 if second[0] == 0xDC else 5
            count = self._add_carefully(group, second[header:], observed, message)
            self._check_size(group, option, count)
            return group
        try:
            if not rest:
                raise Malformed("Message mode without a record", label="bad_record")
            Values(rest[0]).take(rest[0])
            time, record = stamp or unpack(second), unpack(rest[0])
            check_record(time, record)
        except Malformed as error:
            group.refused.append((message, error))
            return group
        self._add(group, [(with_metadata(time, option), record)], observed, message)
        return group
