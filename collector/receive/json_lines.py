"""One line of JSON becomes an arrival: an Event as we write it, or any other object as a free record.

Shared by the HTTP way in and the importer. Strict decoding first, for speed; what it refuses and other programs write all the same
(NaN, lone surrogates, text that is not UTF-8) is taken by Python's own decoder, and marked by the intake.
"""

import json
from typing import Any

import msgspec

from collector.errors import Malformed
from collector.event import Origin
from collector.receive import Arrival
from collector.receive.event_line import EventLine, arrival_of_event
from collector.receive.record import arrival_of_record

__all__ = ["arrival_of_line", "object_of_line", "value_of_json"]


_decode_event = msgspec.json.Decoder(EventLine).decode
_decode_record = msgspec.json.Decoder(dict[str, Any]).decode
_decode = msgspec.json.Decoder().decode


def object_of_line(line: bytes) -> dict[str, Any]:
    """The JSON object that stands in `line`; raises `Malformed` when none does."""
    try:
        return _decode_record(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        pass
    value = value_of_json(line)
    if not isinstance(value, dict):
        raise Malformed("not a JSON object", label="bad_json")
    return value


def value_of_json(data: bytes) -> Any:
    """The JSON value that `data` is; raises `Malformed` when it is none."""
    try:
        return _decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        pass
    try:
        return json.loads(data.decode("utf-8", "surrogateescape"))
    except RecursionError as error:
        raise Malformed("nested too deeply", label="too_deep") from error
    except ValueError as error:
        where = f"column {error.colno}" if isinstance(error, json.JSONDecodeError) else ""
        raise Malformed("not JSON", where=where, label="bad_json") from error


def arrival_of_line(line: bytes, *, origin: Origin, service: str = "", observed: str = "") -> Arrival:
    """The event of one line.

    A line whose names are all fields of the Event, with fitting values, is that event; every other object is a free record
    (`collector.receive.record`).

    Raises:
        Malformed: not a JSON object.
    """
    try:
        return arrival_of_event(_decode_event(line), origin=origin, service=service, observed=observed)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, Malformed):
        return arrival_of_record(object_of_line(line), origin=origin, service=service, observed=observed)
