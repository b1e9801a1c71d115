"""The body of an Elasticsearch or OpenSearch ``_bulk`` request: lines of actions and documents, undecoded documents out.

https://www.elastic.co/docs/api/doc/elasticsearch/operation/operation-bulk and https://docs.opensearch.org/latest/api-reference/document-apis/bulk/:
a line of JSON with one name, the action, whose value says index and id; then, for all actions but ``delete``, a line with the
document. A line of an action that is none makes the rest of the body meaningless, so the whole request is refused, before any of
it is taken, as both servers do.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from collector.errors import Malformed
from collector.receive.json_lines import object_of_line

__all__ = ["ACTIONS", "Item", "items_of"]

ACTIONS = ("index", "create", "update", "delete")

_SPACE = 0x20
_EMPTY_LINES = re.compile(rb"[ \t\v\f\r\n]*\n")
_MAX_ACTION_BYTES = 65_536
_MAX_NAME_BYTES = 512  # the longest _id of both servers; names of indexes are shorter


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One action.

    `name` is the document's ``_id``, empty when it has none; `error` is set when this action alone cannot be done. The document is the line
    from `start` to `end` of `body`: copied only while it is used, so that a large body is not in memory twice.
    """

    action: str
    index: str
    name: str
    body: bytes = field(repr=False)
    start: int
    end: int
    error: Malformed | None = None

    @property
    def document(self) -> bytes:
        """The document's line; empty when the action has none."""
        return self.body[self.start : self.end]


def items_of(body: bytes, *, index: str = "", max_items: int = 100_000, max_document_bytes: int = 2**20) -> list[Item]:
    """The actions of a body, in order.

    Args:
        body: decompressed. The newline at its end may be missing.
        index: the index of actions that name none.
        max_items: most actions.
        max_document_bytes: a longer document is cut to one byte more, and its item has an error.

    Raises:
        Malformed: no action where one must be (``bad_action``), nothing at all (``empty``), too many (``too_many_items``).
    """
    items: list[Item] = []
    lines = _lines(body)
    for number, start, end in lines:
        line = body[start:end]
        if not line or line.isspace():
            continue  # both servers allow empty lines between actions
        if len(items) == max_items:
            raise Malformed(f"more than {max_items} actions", label="too_many_items")
        action, details = _action(line, number)
        first = last = end
        if action != "delete":
            _, first, last = next(lines, (number, end, end))
            if first == last:
                raise Malformed("an action without its document", where=f"line {number}", label="bad_action")
        named, name, error = _checked(action, details, index)
        if error is None and last - first > max_document_bytes:
            error = Malformed(f"a document of more than {max_document_bytes} bytes", label="too_large")
            last = first + max_document_bytes + 1
        items.append(Item(action=action, index=named, name=name, body=body, start=first, end=last, error=error))
    if not items:
        raise Malformed("no actions", label="empty")
    return items


def _lines(body: bytes) -> Iterator[tuple[int, int, int]]:
    """Number, from 1, start and end of each line; of several empty ones in a row of the last, since they compress to nothing and there may be millions."""
    start, number = 0, 0
    while start < len(body):
        if body[start] <= _SPACE and (run := _EMPTY_LINES.match(body, start)) is not None:
            number += body.count(b"\n", start, run.end() - 1)
            start = run.end() - 1
        end = body.find(b"\n", start)
        end = len(body) if end < 0 else end
        number += 1
        yield number, start, end - body.endswith(b"\r", start, end)
        start = end + 1


def _action(line: bytes, number: int) -> tuple[str, dict[str, Any]]:
    where = f"line {number}"
    if len(line) > _MAX_ACTION_BYTES:
        raise Malformed(f"an action of more than {_MAX_ACTION_BYTES} bytes", where=where, label="bad_action")
    try:
        given = object_of_line(line)
    except Malformed as error:
        raise Malformed(f"an action is expected here: {error.reason}", where=where, label="bad_action") from error
    if len(given) != 1:
        raise Malformed("an action is an object with one name", where=where, label="bad_action")
    action, details = next(iter(given.items()))
    if action not in ACTIONS:
        raise Malformed(f"an action is one of {', '.join(ACTIONS)}", where=where, label="bad_action")
    if type(details) is not dict:
        raise Malformed("an action's value is an object", where=where, label="bad_action")
    return action, details


def _checked(action: str, details: dict[str, Any], index: str) -> tuple[str, str, Malformed | None]:
    """Index and id of an action, and what is wrong with it."""
    error: Malformed | None = None
    name = ""
    if details.get("_index") is not None:
        index, error = _name(details["_index"], "_index")
    if details.get("_id") is not None:
        name, wrong = _name(details["_id"], "_id")
        error = error or wrong
    if action in {"update", "delete"}:
        error = Malformed(f"{action} is not possible: an audit trail is only appended to", label="append_only")
    return index, name, error


def _name(value: Any, field: str) -> tuple[str, Malformed | None]:
    """A name as text: both servers take numbers for ``_id``, too."""
    text = str(value) if type(value) is int else value
    if type(text) is not str or len(text.encode("utf-8", "surrogatepass")) > _MAX_NAME_BYTES:
        return "", Malformed(f"{field} is no text of at most {_MAX_NAME_BYTES} bytes", label="bad_name")
    return text, None
