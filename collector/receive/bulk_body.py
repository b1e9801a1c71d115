"""The body of an Elasticsearch or OpenSearch ``_bulk`` request: lines of actions and documents, undecoded documents out.

https://www.elastic.co/docs/api/doc/elasticsearch/operation/operation-bulk and https://docs.opensearch.org/latest/api-reference/document-apis/bulk/:
a line of JSON with one name, the action, whose value says index and id; then, for all actions but ``delete``, a line with the
document. A line of an action that is none makes the rest of the body meaningless, so the whole request is refused, before any of
it is taken, as both servers do.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from collector.errors import Malformed
from collector.receive.json_lines import object_of_line

__all__ = ["ACTIONS", "Item", "items_of"]

ACTIONS = ("index", "create", "update", "delete")

_MAX_ACTION_BYTES = 65_536
_MAX_NAME_BYTES = 512  # the longest _id of both servers; names of indexes are shorter


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One action.

    `name` is the document's ``_id``, empty when it has none; `document` its line; `error` is set when this action alone cannot be done.
    """

    action: str
    index: str
    name: str
    document: bytes
    error: Malformed | None = None


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
    for number, line in lines:
        if not line.strip():
            continue  # both servers allow empty lines between actions
        if len(items) == max_items:
            raise Malformed(f"more than {max_items} actions", label="too_many_items")
        action, details = _action(line, number)
        document = b""
        if action != "delete":
            _, document = next(lines, (number, b""))
            if not document:
                raise Malformed("an action without its document", where=f"line {number}", label="bad_action")
        items.append(_item(action, details, document, index, max_document_bytes))
    if not items:
        raise Malformed("no actions", label="empty")
    return items


def _lines(body: bytes) -> Iterator[tuple[int, bytes]]:
    """Number, from 1, and bytes of each line; one at a time, so that a body is not in memory twice."""
    start, number = 0, 0
    while start < len(body):
        end = body.find(b"\n", start)
        end = len(body) if end < 0 else end
        number += 1
        yield number, body[start:end].removesuffix(b"\r")
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


def _item(action: str, details: dict[str, Any], document: bytes, index: str, max_document_bytes: int) -> Item:
    error: Malformed | None = None
    named = details.get("_index")
    if named is not None:
        index, error = _name(named, "_index")
    name = ""
    if details.get("_id") is not None:
        name, wrong = _name(details["_id"], "_id")
        error = error or wrong
    if action in {"update", "delete"}:
        error = Malformed(f"{action} is not possible: an audit trail is only appended to", label="append_only")
    elif len(document) > max_document_bytes:
        error = Malformed(f"a document of more than {max_document_bytes} bytes", label="too_large")
        document = document[: max_document_bytes + 1]
    return Item(action=action, index=index, name=name, document=document, error=error)


def _name(value: Any, field: str) -> tuple[str, Malformed | None]:
    """A name as text: both servers take numbers for ``_id``, too."""
    text = str(value) if type(value) is int else value
    if type(text) is not str or len(text.encode("utf-8", "surrogatepass")) > _MAX_NAME_BYTES:
        return "", Malformed(f"{field} is no text of at most {_MAX_NAME_BYTES} bytes", label="bad_name")
    return text, None
