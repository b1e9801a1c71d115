"""A Bloom filter over keys that are hashes already: says for certain what was never added. Pure.

Burton H. Bloom, "Space/time trade-offs in hash coding with allowable errors" (1970). With 16 bits and 4 probes a key, about 1 key
in 400 that was not added seems to be there.
"""

import struct
from collections.abc import Iterable

__all__ = ["BloomFilter"]

_BITS_A_KEY = 16
_PROBES = struct.Struct("<4I")


class BloomFilter:
    """Keys have at least 17 bytes: one that says their kind, and 16 of a cryptographic hash.

    Args:
        capacity: keys for which it is made; more make it say "perhaps" more often.
    """

    __slots__ = ("_bits", "_capacity", "_count", "_mask")

    def __init__(self, capacity: int) -> None:
        size = 1 << max(10, (capacity * _BITS_A_KEY - 1).bit_length())
        self._bits = bytearray(size >> 3)
        self._mask = size - 1
        self._capacity = size // _BITS_A_KEY
        self._count = 0

    @property
    def full(self) -> bool:
        """Whether more keys were added than it is made for."""
        return self._count > self._capacity

    def add_all(self, keys: Iterable[bytes]) -> None:
        """Add these keys."""
        bits, mask = self._bits, self._mask
        for key in keys:
            for probe in _PROBES.unpack_from(key, 1):
                at = probe & mask
                bits[at >> 3] |= 1 << (at & 7)
            self._count += 1

    def __contains__(self, key: bytes) -> bool:
        """False: it was never added."""
        bits, mask = self._bits, self._mask
        for probe in _PROBES.unpack_from(key, 1):
            at = probe & mask
            if not bits[at >> 3] & 1 << (at & 7):
                return False
        return True
