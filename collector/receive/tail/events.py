"""A message of a file becomes an arrival, with a name by which it is recognised when it is read again. Pure."""

import hashlib
from collections.abc import Mapping
from typing import Any

from collector.errors import Malformed
from collector.event import Origin
from collector.receive import Arrival
from collector.receive.docker import DockerLine, arrival_of_text
from collector.receive.json_lines import arrival_of_line
from collector.receive.record import ORIGINAL, arrival_of_record, put_over
from collector.receive.tail.formats import Form
from collector.receive.tail.messages import Message

__all__ = ["RECEIVER", "arrival_of_message", "source_id"]

RECEIVER = "tail"
"""`Origin.receiver` of what comes from files."""


def source_id(identity: bytes, start: int, content: bytes) -> bytes:
    """The name of what stands at `start` of the contents called `identity`: 37 bytes.

    The content is part of it, so that a file wrongly taken for a copy of another loses nothing but what both have at the same place.
    """
    return b"tail\0" + hashlib.sha256(identity + start.to_bytes(8, "big") + content).digest()


def arrival_of_message(
    message: Message,
    *,
    form: Form,
    identity: bytes,
    path: str,
    service: str,
    resource: Mapping[str, Any],
    marks: tuple[str, ...] = (),
) -> Arrival:
    """The event of a message.

    Args:
        message: with its text and what is known of it.
        form: how the file is read.
        identity: of the file's contents.
        path: of the file, as it is called now.
        service: of an event that does not name one.
        resource: further attributes of the source.
        marks: what else is unusual.

    Raises:
        Malformed: in a file of JSON, a line that is no object.
    """
    origin = Origin(receiver=RECEIVER, file=path, offset=message.start)
    content = message.text.encode("utf-8", "surrogatepass")
    arrival = _arrival(message, form, origin)
    event = arrival.event
    if message.raw:
        put_over(event.attributes, {ORIGINAL: message.raw})
    put_over(event.resource, resource)
    if service:
        event.resource.setdefault("service.name", service)
    event.marks.extend((*message.marks, *marks))
    return arrival if arrival.source_id else Arrival(event=event, source_id=source_id(identity, message.start, content))


def _arrival(message: Message, form: Form, origin: Origin) -> Arrival:
    if form in {"cri", "docker"}:
        line = DockerLine(
            text=message.text, stream="", observed=message.time, truncated=False, others=dict(message.others)
        )
        return arrival_of_text(line, origin=origin)
    if form == "json":
        return arrival_of_line(message.text.encode("utf-8", "surrogateescape"), origin=origin)
    if form == "mixed" and message.text.startswith("{"):
        try:
            return arrival_of_line(message.text.encode("utf-8", "surrogateescape"), origin=origin)
        except Malformed:
            pass  # text that happens to begin like JSON
    return arrival_of_record({"body": message.text}, origin=origin)
