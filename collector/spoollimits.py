"""The bounds of a spool."""

from dataclasses import dataclass

__all__ = ["SpoolLimits"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SpoolLimits:
    """Bounds, in bytes: beyond the first two, and with less than `keep_free_bytes` left on the disk, senders hear `Overloaded`.

    Of what is kept free, shipping writes its signed headers and the journal: a disk that events alone had filled would keep them
    for ever. The last segment is longer by `reserve_bytes` at most.

    `shared_bytes`: the last so many of `total_bytes` are shared out between `ways` ways in (`collector.shares`); 0: first come, first served.
    """

    total_bytes: int = 4 * 1024**3
    queued_bytes: int = 64 * 1024**2
    segment_bytes: int = 32 * 1024**2
    reserve_bytes: int = 1024**2
    keep_free_bytes: int = 0
    shared_bytes: int = 0
    ways: int = 1

    @property
    def open_bytes(self) -> int:
        """What is for whoever comes first; a group that is longer is never taken."""
        return self.total_bytes - self.shared_bytes

    @property
    def reserve_of_a_way_bytes(self) -> int:
        """A way's part of what is shared out."""
        return self.shared_bytes // max(1, self.ways)
