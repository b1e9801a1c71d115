"""One file's contents, from bytes to events: what is read of them, what is taken, and what their checkpoint says.

`Tracked` is one generation of contents: a file that is emptied and filled again has another one, under another identity. It is used by one
thread at a time.
"""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from collector.errors import Malformed
from collector.event import Origin
from collector.receive import Arrival
from collector.receive.tail.events import RECEIVER, arrival_of_message, source_id
from collector.receive.tail.formats import Form, form_of, part_of
from collector.receive.tail.kubernetes import attributes_of_path
from collector.receive.tail.lines import Line, LineCutter
from collector.receive.tail.messages import LINE_BREAK, Assembler, Cut, Message, Position
from collector.receive.tail.places import Found, OpenFile
from collector.receive.tail.position import Remembered
from collector.receive.tail.prints import HEAD_BYTES, Prints, likeness
from collector.receive.tail.settings import TailSettings
from collector.rejection import Rejection

__all__ = ["READ_BYTES", "Batch", "Tracked"]

READ_BYTES = 256 * 1024
"""How much of a file is read at a time, before it is another one's turn."""

_KEPT_OF_REFUSED = 128 * 1024  # the dead letters keep half of it


@dataclass(slots=True, kw_only=True)
class Batch:
    """What one turn has given, in order; `position` is what is taken once all of it is."""

    arrivals: list[Arrival] = field(default_factory=list)
    refusals: list[Rejection] = field(default_factory=list)
    position: Position = field(default_factory=Position)


class Tracked:
    """See the module.

    Args:
        identity: of the contents, 16 bytes by chance.
        label: of the entry; `settings`: the entry itself, None while the configuration has none.
        found: where it was last seen.

    Attributes:
        file: open, or None.
        key: device and inode of the file that has the contents; None when none is known to.
        size: of the file when it was last looked at.
        since_seconds: since when the file is known to have the contents, grown_seconds: when it was last seen to have grown; monotonic.
        named: whether the entry's paths name it now.
        replaced: the file has other contents now.
        leaving: once it is read to its end, what waits for more is handed on, and it is let go.
        ended: it was let go.
        durable: a checkpoint has it, so that its events may be handed on.
        waiting: a batch that could not be taken yet.
        metadata: further resource attributes, by whoever knows; `metadata_marks`: what is to be said of that.
    """

    def __init__(self, *, identity: bytes, label: str, settings: TailSettings | None, found: Found) -> None:
        self.identity = identity
        self.label = label
        self.settings = settings
        self._resource: dict[str, Any] = {}
        self._service = ""
        self.call(found.path)
        self.device, self.inode = found.key
        self.key: tuple[int, int] | None = None
        self.file: OpenFile | None = None
        self.size = 0
        self.grown_seconds = self.since_seconds = 0.0
        self.seen = 0
        self.named = self.replaced = self.leaving = self.ended = self.durable = False
        self.waiting: Batch | None = None
        self.prints = Prints()
        self.taken = Position()
        self.cuts: list[Cut] = []
        self.form: Form | None = None
        self.metadata: Mapping[str, Any] = {}
        self.metadata_marks: tuple[str, ...] = ()
        self._last = b""
        self._cutter: LineCutter | None = None
        self._assembler: Assembler | None = None
        self._closing: list[str] = []

    # -- where it is

    @classmethod
    def recall(cls, remembered: Remembered, settings: TailSettings | None) -> "Tracked":
        """What a checkpoint remembers; not attached to a file yet."""
        found = Found(
            path=remembered.path, device=remembered.device, inode=remembered.inode, size=0, modified_ns=0
        )  # fmt: skip
        one = cls(identity=bytes.fromhex(remembered.identity), label=remembered.entry, settings=settings, found=found)
        one.real = remembered.real
        one.prints, one.taken, one.form = remembered.prints(), remembered.position(), remembered.form
        one.cuts = list(one.taken.cuts)
        one.seen, one.ended, one.durable = remembered.seen, remembered.ended, True
        return one

    def remembered(self) -> Remembered:
        """What a checkpoint is to remember of it now."""
        return Remembered(
            identity=self.identity.hex(),
            entry=self.label,
            path=_text(self.path),
            real=_text(self.real),
            device=self.device,
            inode=self.inode,
            form=self.form,
            head_bytes=self.prints.head_bytes,
            head=self.prints.head,
            marks=self.prints.marks,
            offset=self.taken.offset,
            ahead=dict(self.taken.ahead),
            cuts=tuple(self.cuts),
            seen=self.seen,
            ended=self.ended,
        )

    def attach(self, file: OpenFile, path: str, now_seconds: float) -> None:
        """The contents are in this file; the caller has compared them."""
        self.close_file()
        self.file = file
        self.key = self.device, self.inode = file.key
        self.size = file.size()
        self.grown_seconds = self.since_seconds = now_seconds
        self.replaced = self.leaving = self.ended = False
        self.call(path)

    def call(self, path: str) -> None:
        """The file is called so now."""
        self.path, self.real = path, os.path.realpath(path)
        self._resource, self._service = {}, ""
        if self.settings is not None:
            self._resource = attributes_of_path(self.path, self.real) if self.settings.kubernetes else {}
            self._service = _service(self.settings, self.path) or self._resource.get("k8s.container.name", "")

    @property
    def resource(self) -> Mapping[str, Any]:
        """What the file's path says of its service."""
        return self._resource

    def close_file(self) -> None:
        """Let go of the open file, not of what is known."""
        if self.file is not None:
            self.file.close()
            self.file = None

    def begin(self, file: OpenFile, offset: int) -> None:
        """New contents, of which nothing before `offset` is wanted."""
        size = file.size()
        # all that is there is in the prints from the start: the head alone may be a banner that every file of the service has
        self.prints = Prints().after(
            file.read(0, HEAD_BYTES), size, file.read(max(0, size - HEAD_BYTES), min(size, HEAD_BYTES))
        )
        self.taken = Position(offset=offset)

    def go_on_from(self, original: "Tracked") -> None:
        """These contents are a copy of the original's, as far as they go: what was taken there need not be read here."""
        self.form = original.form
        if original.taken.offset <= self.size:
            self.taken, self.cuts = original.taken, list(original.cuts)
        else:
            self.taken = Position(offset=self.size)

    # -- what there is to do

    @property
    def read_to(self) -> int:
        """Up to where it is read, in bytes."""
        return self._cutter.end if self._cutter is not None else self.taken.offset

    @property
    def unread(self) -> bool:
        """Whether the file holds more than was read, as far as was looked."""
        return self.key is not None and self.size > self.read_to

    @property
    def behind_bytes(self) -> int:
        """How much of the file is not taken yet."""
        return max(0, self.size - self.taken.offset) if self.key is not None else 0

    @property
    def holds_back(self) -> bool:
        """Whether something that was read waits for more."""
        return (self._assembler is not None and bool(self._assembler.waiting)) or (
            self._cutter is not None and self._cutter.open_bytes > 0
        )

    # -- turns

    def read(self, now_seconds: float) -> Batch | None:
        """Read on; None when there is nothing, or the file has other contents (`replaced`). Raises OSError."""
        file = self.file
        if file is None or self.settings is None:
            return None
        cutter, assembler = self._machines(self.settings)
        data = file.read(cutter.end, READ_BYTES)
        if not data:
            return None
        # compared after reading: what was read came from these contents, or they are gone by now and it shows
        size = file.size()
        head = file.read(0, HEAD_BYTES)
        if not likeness(self.prints, size, file.read).same:
            self.replaced = True
            return None
        self.size = max(size, cutter.end + len(data))
        end = cutter.end + len(data)
        self._last = (self._last + data)[-HEAD_BYTES:] if self._last_ends_at(cutter.end) else data[-HEAD_BYTES:]
        self.prints = self.prints.after(head, end, self._last)
        batch = Batch()
        for line in cutter.feed(data):
            self._take_line(line, assembler, now_seconds, batch)
        batch.position = assembler.position(cutter.start)
        return batch

    def cut(self, now_seconds: float) -> bool:
        """Decide what is over because nothing follows; true if something is. Then the checkpoint must be saved, and `close` called."""
        if self._assembler is None or self._cutter is None:
            return False
        if self._closing:
            return True  # decided before, and not saved yet
        if not self.leaving:
            self._closing = self._assembler.due(now_seconds)
            self.cuts += [Cut(stream, self._cutter.start) for stream in self._closing]
            return bool(self._closing)
        self._closing = self._assembler.waiting
        if self._cutter.open_bytes:
            self._closing.append(LINE_BREAK)
        if self._closing:
            # the line without an end may be of any stream
            streams = dict.fromkeys((*self._closing, LINE_BREAK, "", "stdout", "stderr"))
            self.cuts += [Cut(stream, self._cutter.end) for stream in streams]
        return bool(self._closing)

    def close(self, now_seconds: float) -> Batch:
        """Hand on what `cut` has decided."""
        assert self._assembler is not None
        assert self._cutter is not None
        batch = Batch()
        if LINE_BREAK in self._closing and (line := self._cutter.rest()) is not None:
            self._take_line(line, self._assembler, now_seconds, batch)
            self._closing = [*dict.fromkeys([*self._closing, *self._assembler.waiting])]
        for stream in self._closing:
            if stream in self._assembler.waiting:
                self._give(self._assembler.close(stream), batch)
        self._closing = []
        batch.position = self._assembler.position(self._cutter.start)
        return batch

    def take(self, position: Position) -> None:
        """All up to this position is durable."""
        self.taken = position
        self.cuts = [cut for cut in self.cuts if position.needs(cut)]

    # -- inside

    def _machines(self, settings: TailSettings) -> tuple[LineCutter, Assembler]:
        if self._cutter is None or self._assembler is None:
            self._cutter = LineCutter(
                offset=self.taken.offset,
                max_bytes=settings.max_line_bytes,
                breaks=[cut.offset for cut in self.cuts if cut.stream == LINE_BREAK],
            )
            position = Position(offset=self.taken.offset, ahead=self.taken.ahead, cuts=tuple(self.cuts))
            self._assembler = Assembler(settings.multiline, position)
        return self._cutter, self._assembler

    def _last_ends_at(self, offset: int) -> bool:
        return bool(self.prints.marks) and self.prints.marks[-1].offset == offset

    def _take_line(self, line: Line, assembler: Assembler, now_seconds: float, batch: Batch) -> None:
        settings = self.settings
        assert settings is not None
        try:
            if line.size > settings.max_line_bytes:
                raise Malformed(
                    f"a line of {line.size} bytes; at most {settings.max_line_bytes}", label="too_large"
                )  # fmt: skip
            if self.form is None:
                if not line.data.strip():
                    return
                self.form = form_of(line.data) if settings.format == "auto" else settings.format
            part = part_of(line, self.form, settings.encoding)
        except Malformed as error:
            self._refuse(line.start, line.data, error, batch)
            return
        if part is not None:
            self._give(assembler.add(part, now_seconds), batch)

    def _give(self, messages: list[Message], batch: Batch) -> None:
        for message in messages:
            try:
                batch.arrivals.append(self._arrival(message))
            except Malformed as error:
                self._refuse(message.start, message.text.encode("utf-8", "surrogateescape"), error, batch)

    def _arrival(self, message: Message) -> Arrival:
        assert self.form is not None
        return arrival_of_message(
            message,
            form=self.form,
            identity=self.identity,
            path=self.path,
            service=self._service,
            resource={**self.metadata, **self._resource},
            marks=self.metadata_marks,
        )

    def _refuse(self, start: int, raw: bytes, error: Malformed, batch: Batch) -> None:
        where = f"byte {start}" + (f", {error.where}" if error.where else "")
        batch.refusals.append(
            Rejection(
                raw=raw[:_KEPT_OF_REFUSED],
                error=Malformed(error.reason, where=where, label=error.label),
                origin=Origin(receiver=RECEIVER, file=self.path),
                source_id=source_id(self.identity, start, raw),
            )
        )


def _service(settings: TailSettings, path: str) -> str:
    if settings.service_pattern:
        match = re.search(settings.service_pattern, path)
        if match is not None and match["service"]:
            return match["service"]
    return settings.service


def _text(path: str) -> str:
    """A path as it can be written down: where it is not UTF-8 it is only a hint, and the inode finds the file."""
    return os.fsencode(path).decode("utf-8", "replace")
