"""The bounds of a spool."""

from dataclasses import dataclass

__all__ = ["SpoolLimits"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SpoolLimits:
    """Bounds, in bytes: beyond the first two, and with less than `keep_free_bytes` left on the disk, senders hear `Overloaded`.

    Of what is kept free, shipping writes its signed headers and the journal: a disk that events alone had filled would keep them
    for ever. The last segment is longer by `reserve_bytes` at most.
    """

    total_bytes: int = 4 * 1024**3
    queued_bytes: int = 64 * 1024**2
    segment_bytes: int = 32 * 1024**2
    reserve_bytes: int = 1024**2
    keep_free_bytes: int = 0
