"""The parameter ``filter_path`` of Elasticsearch and OpenSearch: which parts of an answer a client wants.

https://www.elastic.co/docs/reference/elasticsearch/rest-apis/common-options#common-options-response-filtering: paths of names,
separated by commas; ``*`` stands for any part of a name, ``**`` for any names in between; ``-`` in front takes away instead. Lists are passed
through without a name of their own. What is left empty is left out.
"""

import re
from functools import lru_cache
from typing import Any

from collector.errors import Malformed

__all__ = ["FilterPath"]

_MAX_CHARACTERS = 1_024
_MAX_PATHS = 32
_Path = tuple[str, ...]
_NOTHING = object()


class FilterPath:
    """A filter, taken apart.

    Args:
        text: the parameter's value; empty: everything is wanted.

    Raises:
        Malformed: more than 1,024 characters or 32 paths (``filter_path``).
    """

    def __init__(self, text: str) -> None:
        paths = [path for path in text.split(",") if path]
        if len(text) > _MAX_CHARACTERS or len(paths) > _MAX_PATHS:
            raise Malformed("filter_path is too long", label="filter_path")
        self._wanted = tuple(_path(path) for path in paths if not path.startswith("-"))
        self._unwanted = tuple(_path(path[1:]) for path in paths if path.startswith("-"))

    def of(self, value: Any) -> Any:
        """`value` (of maps, lists and plain values) without what is not wanted; an empty map when nothing is left."""
        if self._wanted:
            value = _kept(value, self._wanted)
        if self._unwanted and value is not _NOTHING:
            value = _without(value, self._unwanted)
        return {} if value is _NOTHING else value


def _path(text: str) -> _Path:
    return tuple(text.split("."))


def _kept(value: Any, paths: tuple[_Path, ...]) -> Any:
    if type(value) is dict:
        kept: Any = {}
        for name, below in value.items():
            onward = _onward(name, paths)
            found = below if () in onward else _kept(below, onward) if onward else _NOTHING
            if found is not _NOTHING:
                kept[name] = found
        return kept or _NOTHING
    if type(value) is list:
        kept = [found for element in value if (found := _kept(element, paths)) is not _NOTHING]
        return kept or _NOTHING
    return _NOTHING


def _without(value: Any, paths: tuple[_Path, ...]) -> Any:
    if type(value) is dict:
        left: Any = {}
        for name, below in value.items():
            onward = _onward(name, paths)
            found = _NOTHING if () in onward else _without(below, onward) if onward else below
            if found is not _NOTHING:
                left[name] = found
        return left or _NOTHING
    if type(value) is list:
        left = [found for element in value if (found := _without(element, paths)) is not _NOTHING]
        return left or _NOTHING
    return value


@lru_cache(maxsize=1_024)  # an answer has the same few names a hundred thousand times
def _onward(name: str, paths: tuple[_Path, ...]) -> tuple[_Path, ...]:
    """What is left of each path that leads through `name`, each once."""
    onward: list[_Path] = []
    for path in paths:
        head, rest = path[0], path[1:]
        if head == "**":
            onward.append(path if rest else ())
            if rest and _matches(rest[0], name):
                onward.append(rest[1:])
        elif _matches(head, name):
            onward.append(rest)
    return tuple(dict.fromkeys(onward))


def _matches(pattern: str, name: str) -> bool:
    if "*" not in pattern:
        return pattern == name
    return re.fullmatch(".*".join(map(re.escape, re.split(r"\*+", pattern))), name, re.DOTALL) is not None
