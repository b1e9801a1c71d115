"""Whether one file is a copy of another: by name, by what is known of contents that are gone, or by both files."""

import os
from collections.abc import Iterator

from collector.receive.tail.places import OpenFile, look, opened
from collector.receive.tail.prints import Likeness, likeness
from collector.receive.tail.reading import Tracked

__all__ = ["compare", "like", "may_be_copy", "possible_stems", "stem_of"]

_COMPARED_BYTES = 64 * 1024


def like(one: Tracked, file: OpenFile) -> Likeness:
    """How a file compares with what is known of some contents. Raises OSError."""
    return likeness(one.prints, file.size(), file.read)


def compare(one: Tracked, file: OpenFile) -> bool | None:
    """Whether a file is a copy, perhaps in the making, of contents that are where they were; None if they are there no more."""
    original = one.file
    if original is None:
        found = look(one.path)
        original = opened(found) if found is not None and found.key == one.key else None
    if original is None:
        return False
    try:
        if not like(one, original).same:
            return None
        size = file.size()
        if size > original.size():
            return False
        length = min(size, _COMPARED_BYTES)
        return all(original.read(at, length) == file.read(at, length) for at in (0, size - length))
    finally:
        if original is not one.file:
            original.close()


def stem_of(path: str) -> str:
    """The path without the suffix of its name."""
    return os.path.splitext(path)[0]  # noqa: PTH122 - texts, for every file at every look


def possible_stems(copy: str) -> Iterator[str]:
    """The stems of all paths that this one may be a copy of, by its name."""
    folder, name = os.path.split(copy)
    for end in range(1, len(name) + 1):
        yield os.path.join(folder, name[:end])  # noqa: PTH118 - as in `stem_of`


def may_be_copy(original: str, copy: str) -> bool:
    """Whether a rotator would call a copy so: in the same folder, the same name with something added to it, before its suffix or behind."""
    same_folder = os.path.dirname(original) == os.path.dirname(copy)  # noqa: PTH120 - as in `stem_of`
    return same_folder and len(copy) > len(original) and copy.startswith(stem_of(original))
