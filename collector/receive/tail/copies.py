"""Whether one file is a copy of another: by name, by what is known of contents that are gone, or by both files."""

import os

from collector.receive.tail.places import OpenFile, look, opened
from collector.receive.tail.prints import Likeness, likeness
from collector.receive.tail.reading import Tracked

__all__ = ["compare", "like", "may_be_copy"]

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


def may_be_copy(original: str, copy: str) -> bool:
    """Whether a rotator would call a copy so: in the same folder, the same name with something added to it, before its suffix or behind."""
    folder, name = os.path.split(original)
    other_folder, other_name = os.path.split(copy)
    stem = os.path.splitext(name)[0]  # noqa: PTH122 - texts, for every two files of a folder
    return folder == other_folder and len(other_name) > len(name) and other_name.startswith(stem)
