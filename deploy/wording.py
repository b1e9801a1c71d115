"""Words for people: counts, sizes, and text from outside made harmless. Pure."""

__all__ = ["count", "harmless", "in_words", "size_in_words"]


def count(number: int, one: str, many: str = "") -> str:
    """`number` with what is counted: ``1 entry``, ``2,000 entries``; `many` is `one` with an s unless given."""
    return f"{number:,} {one if number == 1 else many or f'{one}s'}"


def size_in_words(size_bytes: int) -> str:
    """Bytes in the unit that reads best, three digits: ``217 kB``."""
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size_bytes >= scale:
            return f"{size_bytes / scale:.3g} {unit}"
    return f"{size_bytes} B"


def harmless(text: str) -> str:
    """`text` on one line, without any character that would steer a terminal or reorder what is read.

    Line ends and tabs become spaces; other control and format characters (Unicode Cc, Cf, Cs, Co, Cn, Zl, Zp) their
    escapes, so that they are seen.
    """
    if text.isascii() and text.isprintable():
        return text
    text = text.replace("\r\n", " ").replace("\n", " ").replace("\t", " ")
    return "".join(
        char if char.isprintable() or char == " " else char.encode("unicode_escape", "backslashreplace").decode()
        for char in text
    )


def in_words(error: Exception) -> str:
    """An error's text; of one of the system the file and what is wrong with it, without number and quotation marks."""
    if isinstance(error, OSError) and error.filename and error.strerror:
        return f"{error.filename}: {error.strerror}"
    return str(error)
