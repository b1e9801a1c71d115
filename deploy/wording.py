"""Numbers in words for people. Pure."""

__all__ = ["count", "size_in_words"]


def count(number: int, one: str, many: str = "") -> str:
    """`number` with what is counted: ``1 entry``, ``2,000 entries``; `many` is `one` with an s unless given."""
    return f"{number:,} {one if number == 1 else many or f'{one}s'}"


def size_in_words(size_bytes: int) -> str:
    """Bytes in the unit that reads best, three digits: ``217 kB``."""
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size_bytes >= scale:
            return f"{size_bytes / scale:.3g} {unit}"
    return f"{size_bytes} B"
