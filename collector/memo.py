"""A bounded memory of what was worked out for keys that come from outside.

The records of one line of a program all have the same names, the events of one operation the same service: what follows
from those alone is worked out once. Senders choose the names, so neither their number nor their length may decide how
much is remembered.
"""

import sys
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

__all__ = ["Memo"]

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Memo(dict[K, V], Generic[K, V]):
    """``memo[key]`` is ``work_out(key)``, remembered. Keys are texts, or tuples of texts, tuples, numbers and None.

    Args:
        work_out: a pure function.
        entries: most that are remembered; when it is full it starts anew.
        characters: in one key, at most; what is worked out for a longer one is not remembered.
    """

    __slots__ = ("_characters", "_entries", "_work_out")

    def __init__(self, work_out: Callable[[K], V], *, entries: int = 1_024, characters: int = 4_096) -> None:
        super().__init__()
        self._work_out = work_out
        self._entries = entries
        self._characters = characters

    def __missing__(self, key: K) -> V:
        """Work it out: a look-up of what is known never gets here."""
        value = self._work_out(key)
        if _characters(key) <= self._characters:
            if len(self) >= self._entries:
                self.clear()
            self[key] = value
        return value


def _characters(key: object) -> int:
    """About how much memory a key takes: a character each, and some for every part. What is not known is too much."""
    if isinstance(key, tuple):
        return sum(map(_characters, key)) + 8
    if isinstance(key, str):
        return len(key) + 8
    return 8 if key is None or isinstance(key, bool | int | float) else sys.maxsize
