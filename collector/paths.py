"""Paths to values in an event, and the shape that tells which of them can lead anywhere.

Settings name many paths, and most events have few of them. The names of an event's fields (its `Shape`) are the same for
all events that one line of a program writes, so what can be found is worked out once a shape (`collector.memo`).
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from collector.errors import Malformed
from collector.event import Event

__all__ = ["Path", "Shape", "as_key", "compile_path", "compile_paths", "first", "lookup", "shape_of"]

Shape = tuple[tuple[Any, ...], tuple[Any, ...], tuple[Any, ...] | None, bool]
"""The names of an event's attributes, of its resource, of its scope's attributes (None: no scope), and whether its body is a map."""


def shape_of(event: Event) -> Shape:
    """The event's shape, as it came: names may be of any type that a decoder gives."""
    scope = event.scope
    return (
        tuple(event.attributes),
        tuple(event.resource),
        None if scope is None else tuple(scope.attributes),
        type(event.body) is dict,
    )


class Path(msgspec.Struct, frozen=True):
    """A path, taken apart.

    Attributes:
        text: as it was written: ``attributes.order.id``.
        root: attributes, resource, body or scope.
        head: the first name behind the root; `rest`: everything behind it, which is tried as one name first.
        get: the value that an event has there, None when it has none.
    """

    text: str
    root: str
    head: str
    rest: str
    get: Callable[[Event], Any]

    def may_be_in(self, shape: Shape) -> bool:
        """False when no event of this shape has a value here."""
        attributes, resource, scope, body_is_map = shape
        if self.root == "body":
            return body_is_map
        names = {"attributes": attributes, "resource": resource, "scope": scope or ()}[self.root]
        return self.rest in names or self.head in names


def compile_paths(texts: Sequence[str]) -> tuple[Path, ...]:
    """`compile_path` for each."""
    return tuple(map(compile_path, texts))


def compile_path(text: str) -> Path:
    """Take a path apart. Raises `Malformed` when it starts nowhere."""
    root, _, rest = text.partition(".")
    if root == "scope":
        _, _, rest = rest.partition(".")
    if root not in _ROOTS or not rest:
        raise Malformed("a path starts with attributes., resource., body. or scope.attributes.", where=text)
    values = _ROOTS[root]
    head, dot, below = rest.partition(".")

    def get(event: Event) -> Any:
        found = values(event)
        if type(found) is not dict:
            return None
        if rest in found:  # the whole rest is tried as one name first, because attribute names hold dots
            return found[rest]
        return lookup(found.get(head), below) if dot else None

    return Path(text=text, root=root, head=head, rest=rest, get=get)


_ROOTS: Mapping[str, Callable[[Event], Any]] = {
    "attributes": lambda event: event.attributes,
    "resource": lambda event: event.resource,
    "body": lambda event: event.body,
    "scope": lambda event: event.scope.attributes if event.scope else None,
}


def lookup(value: Any, path: str) -> Any:
    """The value under `path`, at every level as one name first."""
    if type(value) is not dict:
        return None
    if path in value:
        return value[path]
    head, dot, rest = path.partition(".")
    return lookup(value.get(head), rest) if dot else None


def first(paths: Sequence[Path], event: Event) -> str:
    """The first value under `paths` that can be a key, as text; empty when there is none."""
    for path in paths:
        value = path.get(event)
        if value is not None:
            text = as_key(value)
            if text:
                return text
    return ""


def as_key(value: Any) -> str:
    """A value as the text of a key; empty for what is no text, integer or boolean."""
    if type(value) is str:
        return value
    if type(value) is int:
        return str(value)
    if type(value) is bool:
        return "true" if value else "false"
    return ""
