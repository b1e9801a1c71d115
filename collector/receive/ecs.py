"""Documents in Elastic Common Schema, as Beats, Logstash and Elastic's loggers send them, become events.

ECS (https://www.elastic.co/docs/reference/ecs) writes ``log.level`` as one dotted name or as an object in an object; both mean the same. The
nested names that have a place in the event are lifted to their dotted form, and then the table of `collector.receive.record` rules.
``log`` is flattened wholly: left nested it would be taken for a message. Nothing is lost, and a dotted name that is there
already is never overwritten.

``transaction.id`` of ECS is the id of a span at a service's entry, not of a business transaction: it stays an attribute.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from collector.errors import Malformed
from collector.event import Origin
from collector.receive import Arrival
from collector.receive.record import arrival_of_record

__all__ = ["arrival_of_document", "digest_of", "place_id"]

_LIFTED: Mapping[str, tuple[str, ...]] = {
    "trace": ("id",),
    "span": ("id",),
    "service": ("name",),
    "event": ("name", "action", "outcome"),
}
_DEEPEST_LOG = 8  # levels below ``log`` that get dotted names; ECS has three

_encode_sorted = msgspec.json.Encoder(order="sorted").encode


def arrival_of_document(
    document: dict[str, Any],
    *,
    origin: Origin,
    source_id: bytes | None = None,
    service: str = "",
    observed: str = "",
) -> Arrival:
    """The event that a document tells. The document becomes the event's attributes: the caller must not use it afterwards.

    Args:
        document: as decoded.
        origin: how it came in.
        source_id: names it; None: its own ``log.record.uid`` does, if it has one.
        service: ``service.name`` when the document names no service.
        observed: when the collector saw it, RFC 3339.
    """
    _lift(document)
    arrival = arrival_of_record(document, origin=origin, service=service, observed=observed)
    return arrival if source_id is None else msgspec.structs.replace(arrival, source_id=source_id)


def digest_of(document: Mapping[str, Any]) -> bytes:
    """32 bytes that tell documents apart, whatever the order of their names: Beats write a map's names in any order.

    Raises:
        Malformed: nested too deeply.
    """
    try:
        data = _encode_sorted(document)
    except (UnicodeEncodeError, OverflowError, TypeError, msgspec.MsgspecError):  # what only Python's decoder takes
        try:
            data = json.dumps(document, sort_keys=True).encode()
        except RecursionError as error:
            raise Malformed("nested too deeply", label="too_deep") from error
    except RecursionError as error:
        raise Malformed("nested too deeply", label="too_deep") from error
    return hashlib.sha256(data).digest()


def place_id(document: Mapping[str, Any]) -> bytes | None:
    """The source id of a document that says where in a file it was read; None when it does not.

    The file's path and the offset in it do not name a line for ever: a file is rotated, and another one stands there. So the id is that
    of the whole document, in which path, offset, host and the time of reading are: a shipper that sends a document
    again from its memory is recognised, and no two lines are ever taken for one.
    """
    if _at(document, "log", "file", "path") and type(_at(document, "log", "offset")) is int:
        return b"place\0" + digest_of(document)
    return None


def _at(value: Any, *names: str) -> Any:
    """The value at a path of names, nested or dotted at any level; None when there is none."""
    if not names:
        return value
    if isinstance(value, Mapping):
        for length in range(len(names), 0, -1):
            found = value.get(".".join(names[:length]))
            if found is not None:
                return _at(found, *names[length:])
    return None


def _lift(document: dict[str, Any]) -> None:
    for head, leaves in _LIFTED.items():
        below = document.get(head)
        if type(below) is not dict:
            continue
        for leaf in leaves:
            name = f"{head}.{leaf}"
            if name not in document and type(below.get(leaf)) is str:
                document[name] = below.pop(leaf)
        if not below:
            del document[head]
    log = document.get("log")
    if type(log) is dict:
        flat = list(_flattened("log", log))
        names = {name for name, _ in flat}
        if flat and len(names) == len(flat) and document.keys().isdisjoint(names):  # else something would be lost
            del document["log"]
            document.update(flat)


def _flattened(prefix: str, value: dict[Any, Any], level: int = 1) -> Iterator[tuple[str, Any]]:
    for name, below in value.items():
        dotted = f"{prefix}.{name}"
        if type(below) is dict and below and level < _DEEPEST_LOG:
            yield from _flattened(dotted, below, level + 1)
        else:
            yield dotted, below
