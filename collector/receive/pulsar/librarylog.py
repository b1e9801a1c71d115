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

_LINE = re.compile(r".* \| ((?:\[[^]]*\] )*)(.*)")
"""Time, level, thread and place in the source; then, in brackets, a connection or a consumer, with numbers that change from trial to trial; then the text."""

_GONE = "Discarding corrupted message"
"""It takes a message off the subscription, because it cannot read it; why was said before."""


class LibraryLog:
    """Keeps the last error, and says in our log which messages will never come.

    Attributes:
        said: the last error's text; empty: none since somebody has emptied it.
    """

    def __init__(self) -> None:
        self.said = ""

    def read(self, lines: Iterable[bytes]) -> None:
        """Read what is written, line by line, for as long as it comes."""
        for line in lines:
            found = _LINE.fullmatch(line.decode("utf-8", "replace").strip())
            if found is None:
                continue
            who, text = found.groups()
            if text.startswith(_GONE):
                _log.error(
                    "pulsar: the client lets go of a message that it cannot read: %s%s: %s", who, text, self.said
                )
            else:
                self.said = text


@functools.cache
def library_log() -> tuple[LibraryLog, pulsar.FileLogger]:
    """The one of this process, and what has the library write to it."""
    log = LibraryLog()
    ours, theirs = os.pipe()
    stream = os.fdopen(ours, "rb")
    threading.Thread(target=log.read, args=(stream,), name="tally-pulsar-log", daemon=True).start()
    return log, pulsar.FileLogger(pulsar.LoggerLevel.Error, f"/dev/fd/{theirs}")
