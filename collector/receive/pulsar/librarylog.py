"""What the library says of itself, read from a pipe.

Its threads write there, and one of ours reads: Python's `logging` in their place would have them wait for the interpreter's lock, which we may hold
while we wait for them. The library keeps the logger of its first client for good, so there is one for the process, and it is never closed.
"""

import functools
import logging
import os
import re
import threading
from collections.abc import Iterable

import pulsar

__all__ = ["LibraryLog", "library_log"]

_log = logging.getLogger(__name__)

_LINE = re.compile(r".* (\w+):\d+ \| ((?:\[[^]]*\] )*)(.*)")
"""Time, level and thread; the place in the source; in brackets a connection or a consumer, with numbers that change from trial to trial; the text."""

_GONE = "Discarding corrupted message"
"""It takes a message off the subscription, because it cannot read it; why was said before."""

_CONSEQUENCES = "MultiTopicsConsumerImpl"
"""Where it says only what follows, under names that it has made up."""

_MARK = b"so far\n"
_READ_SECONDS = 1.0


class LibraryLog:
    """Keeps errors, and says in our log which messages will never come.

    Attributes:
        logger: has the library write here.
    """

    def __init__(self) -> None:
        self._ours, self._theirs = os.pipe()
        self.logger = pulsar.FileLogger(pulsar.LoggerLevel.Error, f"/dev/fd/{self._theirs}")
        self._first = ""
        self._last = ""
        self._so_far = threading.Event()

    def read(self) -> None:
        """Read what is written, for as long as it comes."""
        with os.fdopen(self._ours, "rb") as lines:
            self.take(lines)

    def take(self, lines: Iterable[bytes]) -> None:
        """Take what was read."""
        for line in lines:
            if line == _MARK:
                self._so_far.set()
            elif found := _LINE.fullmatch(line.decode("utf-8", "replace").strip()):
                self._take(*found.groups())

    def _take(self, source: str, who: str, text: str) -> None:
        if text.startswith(_GONE):
            _log.error("pulsar: the client lets go of a message that it cannot read: %s%s: %s", who, text, self._last)
            return
        self._last = text
        if source != _CONSEQUENCES:
            self._first = self._first or text

    def forget(self) -> None:
        """Something new begins."""
        self._first = ""

    def cause(self) -> str:
        """The first error since `forget`, of all that is written by now: rather a cause than what follows from it. Empty: there was none."""
        self._so_far.clear()
        os.write(self._theirs, _MARK)
        self._so_far.wait(_READ_SECONDS)
        return self._first


@functools.cache
def library_log() -> LibraryLog:
    """The one of this process, and a thread that reads it."""
    log = LibraryLog()
    threading.Thread(target=log.read, name="tally-pulsar-log", daemon=True).start()
    return log
