"""Which contents are in which file: found, renamed, emptied, copied, gone. Blocking; the tailer calls it in a thread, between its turns.

renamed               same inode, same contents: read on, under the new name
renamed out of sight  the file is open: it is read until it has not grown for a while, then let go
emptied or replaced   same inode, other contents: new contents begin there; the old ones are looked for in a copy beside it, and read
(copytruncate)        on in there; if there is none, what was read of them is handed on and the rest is lost
a copy appears        its name is longer than the original's, and it has what the original has: it is not read, unless the
original is emptied; then see above
inode used again      other contents: as a new file
compressed            not read: what was to be read, was, through the file that is still open
"""

import logging
import os
from collections import defaultdict, deque
from collections.abc import Callable, Sequence

from collector.receive.tail.copies import compare, like, may_be_copy, possible_stems, stem_of
from collector.receive.tail.places import (
    Found,
    OpenFile,
    found_files,
    is_compressed,
    neighbours,
    opened,
    start_of_last_line,
)
from collector.receive.tail.position import Remembered
from collector.receive.tail.reading import Tracked
from collector.receive.tail.settings import TailSettings

__all__ = ["FORGET_SECONDS", "MAX_TRACKED", "Watch"]

_log = logging.getLogger(__name__)

FORGET_SECONDS = 7 * 86_400
"""How long the position in a file is remembered after the file was last there."""

MAX_TRACKED = 10_000
"""How many files are remembered; more are not read until others are forgotten."""

_SEEN_STEP_SECONDS = 3_600  # how old `seen` may be: it need not be written each time


class Watch:
    """All that is known of the files of some entries.

    Args:
        entries: of the configuration.
        remembered, begun: of the checkpoint.
        random: gives so many random bytes.
        clock: Unix time in nanoseconds.

    Attributes:
        tracked: contents whose file is known.
        retired: contents whose file is not, or that were let go.
        begun: labels of the entries that have been used.
        dirty: something has changed that the checkpoint does not have.
        not_opened: for each entry, how many files wait because too many are open or known.
    """

    def __init__(
        self,
        entries: Sequence[TailSettings],
        remembered: Sequence[Remembered],
        begun: Sequence[str],
        *,
        random: Callable[[int], bytes],
        clock: Callable[[], int],
    ) -> None:
        self._entries = entries
        self._random = random
        self._clock = clock
        by_label = {entry.label: entry for entry in reversed(entries)}
        self.tracked: list[Tracked] = []
        self.retired = [Tracked.recall(one, by_label.get(one.entry)) for one in remembered]
        self.begun = list(begun)
        self.dirty = False
        self.not_opened = [0] * len(entries)
        self._new_entries = {entry.label for entry in entries} - set(begun)
        self._fresh = list(self.retired)  # to be looked for under other names once
        self._passed: dict[
            tuple[int, int], tuple[int, int, int]
        ] = {}  # size, time and version for which it was passed over
        self._copies: dict[tuple[int, int], tuple[bytes, int]] = {}  # of whose contents, and how long
        self._originals: dict[str, list[Tracked]] = defaultdict(list)  # by `stem_of`, as they were when the step began
        self._inodes: dict[int, list[Tracked]] = defaultdict(list)  # of what is retired
        self._room: dict[str, int] = {}  # by entry, how many more files may be opened in this step
        self._resting: dict[str, deque[Tracked]] = {}  # and which may be closed for one more
        self._version = 0
        self._told: set[str] = set()

    def remembered(self) -> tuple[Remembered, ...]:
        """What the checkpoint is to hold."""
        return tuple(one.remembered() for one in (*self.tracked, *self.retired))

    def step(self, now_seconds: float) -> None:
        """Look at everything once. `now_seconds` is of a monotonic clock."""
        found = found_files(self._entries)
        self._originals = defaultdict(list)
        self._inodes = defaultdict(list)
        for one in (*self.tracked, *self.retired):
            self._originals[stem_of(one.real)].append(one)
        for one in self.retired:
            self._inodes[one.inode].append(one)
        self._passed = {key: state for key, state in self._passed.items() if key in found}
        self._copies = {key: state for key, state in self._copies.items() if key in found}
        for one in list(self.tracked):
            try:
                self._look_at(one, found, now_seconds)
            except OSError as error:
                self._tell(f"{one.path} cannot be looked at: {error.strerror}")
        self._count_room()
        known = {one.key for one in self.tracked}
        new = [file for key, file in found.items() if key not in known and file.size > 0]
        for file in sorted(new, key=lambda file: file.inode not in self._inodes):  # those that may be known come first
            self._consider(file, now_seconds)
        self._search(now_seconds)
        self._open_what_has_grown(found)
        if self._new_entries:
            self.begun = list(dict.fromkeys([*self.begun, *self._new_entries]))
            self._new_entries = set()
            self.dirty = True
        self._forget()

    def retire(self, one: Tracked) -> None:
        """Its last event is taken: let it go."""
        one.close_file()
        one.key = None
        one.ended, one.leaving = True, False
        if one in self.tracked:
            self.tracked.remove(one)
            self.retired.append(one)
        self._changed()

    def close(self) -> None:
        """Close every file."""
        for one in self.tracked:
            one.close_file()

    # -- files that are known

    def _look_at(self, one: Tracked, found: dict[tuple[int, int], Found], now_seconds: float) -> None:
        if one.key is None:
            return  # its contents are gone: what was read of them is being handed on
        file = found.get(one.key)
        one.named = file is not None
        if file is not None and file.path != one.path:
            _log.info("%s is called %s now", one.path, file.path)
            one.call(file.path)
            self._changed()
        self._see(one)
        size = one.file.size() if one.file is not None else file.size if file is not None else None
        if size is None:
            self._find_again(one, now_seconds)
            return
        if one.replaced or size < one.prints.read_to:
            self._move_on(one, now_seconds)
            return
        if size > one.size:
            one.grown_seconds = now_seconds
            one.leaving = False
        one.size = size
        if not one.named and not one.unread and one.waiting is None and not one.leaving:
            patience_seconds = one.settings.release_seconds if one.settings is not None else 0.0
            one.leaving = now_seconds - one.grown_seconds >= patience_seconds

    def _see(self, one: Tracked) -> None:
        unix = self._clock() // 1_000_000_000
        if unix - one.seen >= _SEEN_STEP_SECONDS:
            one.seen = unix
            self.dirty = True

    def _find_again(self, one: Tracked, now_seconds: float) -> None:
        """It was closed while it rested, and is named no more."""
        known = {other.key for other in self.tracked if other is not one}
        if self._attach_to_neighbour(one, known, now_seconds):
            return
        _log.warning("%s is gone; it was read to byte %d", one.path, one.read_to)
        one.key = None
        one.leaving = True
        self._changed()

    def _move_on(self, one: Tracked, now_seconds: float) -> None:
        """Its file has other contents now."""
        gone = one.key
        one.close_file()
        one.key = None
        one.replaced = False
        self._changed()
        known = {other.key for other in self.tracked} | {gone}
        if self._attach_to_neighbour(one, known, now_seconds):
            _log.info("a file was emptied; its copy %s is read on at byte %d", one.path, one.read_to)
            return
        _log.info("%s was emptied or replaced; it had been read to byte %d", one.path, one.read_to)
        one.leaving = True

    def _attach_to_neighbour(self, one: Tracked, known: set[tuple[int, int] | None], now_seconds: float) -> bool:
        """Find its contents in another file of its folder: itself under another name, or a copy.

        Raises OSError: it was not found, and a file that may have it cannot be read now.
        """
        unreadable: OSError | None = None
        for file in neighbours(one.real):
            if file.key in known or file.size < one.prints.read_to:
                continue
            if file.inode != one.inode and not may_be_copy(one.real, file.path):
                continue
            content = opened(file)
            if content is None:
                continue
            try:
                same = like(one, content).same
            except OSError as error:
                same, unreadable = False, error
            if same:
                self._attach(one, content, file.path, now_seconds)
                return True
            content.close()
        if unreadable is not None:
            raise unreadable
        return False

    def _attach(self, one: Tracked, file: OpenFile, path: str, now_seconds: float) -> bool:
        """It has been found; always true."""
        one.attach(file, path, now_seconds)
        if one in self.retired:
            self.retired.remove(one)
            self.tracked.append(one)
            if one.label in self._room:
                self._room[one.label] -= 1
        self._see(one)
        self._changed()
        return True

    # -- files that are not

    def _consider(self, file: Found, now_seconds: float) -> None:
        if self._passed.get(file.key) == (file.size, file.modified_ns, self._version):
            return
        settings = self._entries[file.entry]
        at_end = settings.start == "end" and settings.label in self._new_entries
        if len(self.tracked) >= MAX_TRACKED or not (self._has_room(file.entry) or at_end):
            self.not_opened[file.entry] += 1
            return
        content = opened(file)
        taken, able = False, content is not None
        try:
            if content is not None and content.size():
                taken = self._take_up(file, content, settings, now_seconds, at_end=at_end)
        except OSError:
            able = False
        if not able:
            self._tell(f"{file.path} cannot be read")
            self.not_opened[file.entry] += 1
        if content is not None and not taken:
            content.close()

    def _take_up(
        self, file: Found, content: OpenFile, settings: TailSettings, now_seconds: float, *, at_end: bool
    ) -> bool:
        """Find out what is in it; true if it is read from now on."""
        if is_compressed(content.read(0, 6)):
            self._tell(f"{file.path} is compressed, and not read")
            self._pass(file)
            return False
        again = next((one for one in self._inodes[file.inode] if one.key is None and like(one, content).same), None)
        if again is not None:
            again.settings = again.settings or settings
            return self._attach(again, content, file.path, now_seconds)
        real = os.path.realpath(file.path)
        original: Tracked | None = None
        for one in (one for stem in possible_stems(real) for one in self._originals.get(stem, ())):
            if one.key == file.key or not may_be_copy(one.real, real):
                continue
            if one.key is not None:
                compared = compare(one, content)
                if compared is None:
                    one.replaced = True  # what this one is, shows once the other is looked at again
                    return False
                if compared:
                    self._see(one)
                    self._copies[file.key] = one.identity, file.size
                    self._pass(file)
                    return False
                continue
            alike = like(one, content)
            if alike.same and not one.leaving:
                one.settings = one.settings or settings
                return self._attach(one, content, file.path, now_seconds)
            # compared byte for byte while both were there, or by its fingerprints: what both hold has the same names
            if alike.same or alike.older or self._copies.get(file.key) == (one.identity, file.size):
                original = one
        self._begin(file, content, settings, now_seconds, at_end=at_end, original=original)
        return True

    def _pass(self, file: Found) -> None:
        self._passed[file.key] = file.size, file.modified_ns, self._version

    def _begin(
        self,
        file: Found,
        content: OpenFile,
        settings: TailSettings,
        now_seconds: float,
        *,
        at_end: bool,
        original: Tracked | None,
    ) -> None:
        identity = original.identity if original is not None else self._random(16)
        one = Tracked(identity=identity, label=settings.label, settings=settings, found=file)
        one.begin(content, start_of_last_line(content, settings.max_line_bytes) if at_end else 0)  # first: it may fail
        self.tracked.append(one)
        one.attach(content, file.path, now_seconds)
        if original is not None:
            one.go_on_from(original)
        self._originals[stem_of(one.real)].append(one)
        self._room[one.label] -= 1
        self._see(one)
        self._changed()

    def _search(self, now_seconds: float) -> None:
        """Look once for what the checkpoint remembers and no path names: it was rotated while nobody looked."""
        fresh, self._fresh = self._fresh, []
        for one in fresh:
            if one.key is not None or one.ended or one.settings is None:
                continue
            known = {other.key for other in self.tracked}
            try:
                found = self._attach_to_neighbour(one, known, now_seconds)
            except OSError as error:
                self._tell(f"{one.path} cannot be looked for: {error.strerror}")
                self._fresh.append(one)
                continue
            if not found:
                _log.warning(
                    "%s is gone: it was taken to byte %d, and what was written behind that is not read",
                    one.path,
                    one.taken.offset,
                )
                one.ended = True
                self._changed()

    # -- bounds

    def _count_room(self) -> None:
        self.not_opened = [0] * len(self._entries)
        self._room = {entry.label: entry.max_open_files for entry in self._entries}
        resting: dict[str, list[Tracked]] = {entry.label: [] for entry in self._entries}
        for one in self.tracked:
            if one.file is None or one.label not in self._room:
                continue
            self._room[one.label] -= 1
            if one.named and not one.unread and one.waiting is None and not one.holds_back:
                resting[one.label].append(one)
        self._resting = {
            label: deque(sorted(those, key=lambda one: one.grown_seconds)) for label, those in resting.items()
        }

    def _has_room(self, entry: int) -> bool:
        """Room for one more open file of the entry, if need be by closing one that rests."""
        label = self._entries[entry].label
        while self._room[label] <= 0 and self._resting[label]:
            one = self._resting[label].popleft()
            if one.file is not None:
                one.close_file()
                self._room[label] += 1
        return self._room[label] > 0

    def _open_what_has_grown(self, found: dict[tuple[int, int], Found]) -> None:
        for one in self.tracked:
            file = found.get(one.key) if one.key is not None else None
            if one.file is not None or file is None or not one.unread or one.settings is None:
                continue
            entry = self._entries.index(one.settings)
            content = opened(file) if self._has_room(entry) else None
            if content is None:
                self.not_opened[entry] += 1
            else:
                one.file = content
                self._room[one.label] -= 1

    def _forget(self) -> None:
        unix = self._clock() // 1_000_000_000
        kept = [one for one in self.retired if unix - one.seen < FORGET_SECONDS]
        surplus = len(self.tracked) + len(kept) - MAX_TRACKED
        if surplus > 0:
            kept = sorted(kept, key=lambda one: one.seen)[surplus:]
        if len(kept) < len(self.retired):
            self.retired = kept
            self.dirty = True

    def _changed(self) -> None:
        self._version += 1
        self.dirty = True

    def _tell(self, what: str) -> None:
        if what not in self._told and len(self._told) < MAX_TRACKED:
            self._told.add(what)
            _log.warning("%s", what)
