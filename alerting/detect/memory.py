"""What a watch remembers: something for each account, of a bounded number of accounts; and windows of event time. Pure."""

from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

from alerting.detect.payment import MOST_AHEAD_NS

__all__ = ["Accounts", "Window"]

_Key = TypeVar("_Key")
_Kept = TypeVar("_Kept")
_Value = TypeVar("_Value")

MAX_ACCOUNTS = 100_000
MAX_WINDOW = 1_000


class Accounts(Generic[_Key, _Kept]):
    """Something for each account, made when the account is first seen. Past `most` the one that was idle longest is forgotten."""

    __slots__ = ("_kept", "_make", "_most", "forgotten")

    def __init__(self, make: Callable[[], _Kept], *, most: int = MAX_ACCOUNTS) -> None:
        self._make = make
        self._most = most
        self._kept: OrderedDict[_Key, _Kept] = OrderedDict()
        self.forgotten = 0

    def __len__(self) -> int:
        return len(self._kept)

    def of(self, key: _Key) -> _Kept:
        """What is kept for this account, which is the last to be forgotten now."""
        kept = self._kept.get(key)
        if kept is None:
            kept = self._kept[key] = self._make()
            if len(self._kept) > self._most:
                self._kept.popitem(last=False)
                self.forgotten += 1
        else:
            self._kept.move_to_end(key)
        return kept

    def look(self, key: _Key) -> _Kept | None:
        """What is kept for this account, if anything; it is not remembered longer for that."""
        return self._kept.get(key)


class Window(Generic[_Value]):
    """The values of the last `length_ns` of event time, in the order of their times however they come.

    What is older than the newest by more than the length, and by what the newest may be dated too late, is let go of: until then the
    others are counted all the same. Of more than `MAX_WINDOW` values the oldest go: a count then says "so many at least".
    """

    __slots__ = ("_length_ns", "_times", "_values")

    def __init__(self, length_ns: int) -> None:
        self._length_ns = length_ns
        self._times: list[int] = []
        self._values: list[_Value] = []

    def add(self, time_ns: int, value: _Value) -> None:
        """Put a value in its place."""
        times, values = self._times, self._values
        at = bisect_right(times, time_ns)
        times.insert(at, time_ns)
        values.insert(at, value)
        gone = max(bisect_right(times, times[-1] - self._length_ns - MOST_AHEAD_NS), len(times) - MAX_WINDOW)
        if gone > 0:
            del times[:gone], values[:gone]

    def until(self, time_ns: int) -> list[_Value]:
        """The values of the `length_ns` that end with this time, that time's own included."""
        first = bisect_right(self._times, time_ns - self._length_ns)
        return self._values[first : bisect_right(self._times, time_ns)]
