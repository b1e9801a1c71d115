"""Trails that the writer of an index keeps in memory: those that were touched lately, within bounds. Pure."""

from collections.abc import Callable
from typing import Generic, TypeVar

__all__ = ["Recent"]

_TRAILS = 8_192
_KEYS = 262_144
"""Keys that a generation may hold: some 50 MB of them. A trail has a few, or up to twice `correlator.index.rows.KEYS_A_PAGE`."""

_Kept = TypeVar("_Kept")


class Recent(Generic[_Kept]):
    """Two generations: what is got or put is in the young one. When that is full it becomes the old one, whose turn has then passed.

    Args:
        keys_of: how many business keys are kept of a trail.
        trails, keys: how many of each make a generation full.
    """

    __slots__ = ("_keys", "_keys_of", "_most_keys", "_most_trails", "_old", "_young")

    def __init__(self, keys_of: Callable[[_Kept], int], *, trails: int = _TRAILS, keys: int = _KEYS) -> None:
        self._keys_of = keys_of
        self._most_trails = trails
        self._most_keys = keys
        self._young: dict[str, _Kept] = {}
        self._old: dict[str, _Kept] = {}
        self._keys = 0

    def __len__(self) -> int:
        """Trails in memory; one that is in both generations counts twice."""
        return len(self._young) + len(self._old)

    def get(self, trail: str) -> _Kept | None:
        """What is kept of the trail, or None."""
        kept = self._young.get(trail)
        if kept is None:
            kept = self._old.get(trail)
            if kept is not None:
                self.put(trail, kept)
        return kept

    def put(self, trail: str, kept: _Kept, *, new_keys: int = 0) -> None:
        """Keep this of the trail; `new_keys`: how many keys it gained since it was put last."""
        self._keys += new_keys if trail in self._young else self._keys_of(kept)
        self._young[trail] = kept

    def turn(self) -> None:
        """Let the old generation go if the young one is full; between two writes, for one of them must find what it put."""
        if len(self._young) >= self._most_trails or self._keys >= self._most_keys:
            self._old, self._young, self._keys = self._young, {}, 0

    def forget(self) -> None:
        """Keep nothing."""
        self._young, self._old, self._keys = {}, {}, 0
