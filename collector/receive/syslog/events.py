"""A syslog message becomes an arrival, as appendix A of OpenTelemetry's logs data model maps it. Pure.

(https://opentelemetry.io/docs/specs/otel/logs/data-model-appendix/) MSGID becomes the event's name. A message that is a JSON object, also behind
``@cee:``, is read as a record.
"""

from typing import Any

import msgspec

from collector.errors import Malformed
from collector.event import Origin
from collector.receive import Arrival
from collector.receive.json_lines import object_of_line
from collector.receive.record import ORIGINAL, arrival_of_record, put_over, states_time
from collector.receive.syslog.message import SyslogMessage

__all__ = ["RECEIVER", "arrival_of_syslog"]

RECEIVER = "syslog"
"""`Origin.receiver` of syslog's events."""

SEVERITIES = (
    ("emerg", 21), ("alert", 19), ("crit", 18), ("err", 17), ("warning", 13), ("notice", 10), ("info", 9), ("debug", 5),
)  # fmt: skip
"""Syslog's severities 0–7: their keywords, and OpenTelemetry's numbers (data model, appendix B)."""

FACILITIES = tuple(
    "kern user mail daemon auth syslog lpr news uucp cron authpriv ftp ntp audit alert clock "
    "local0 local1 local2 local3 local4 local5 local6 local7".split()
)
"""Facilities 0–23 by their usual names (RFC 5424, section 6.2.1)."""


def arrival_of_syslog(
    message: SyslogMessage, *, service: str = "", peer: str = "", marks: tuple[str, ...] = ()
) -> Arrival:
    """The event of a message.

    `service` is that of a message without app name, `peer` the address that it came from, `marks` what else is unusual.
    """
    text, raw = _text(message.text)
    record = _record(text)
    if record is None:
        record = {"body": text}
    attributes: dict[str, Any] = {"syslog.facility": FACILITIES[message.facility]}
    if message.process:
        attributes["syslog.procid"] = message.process
    if peer:
        attributes["network.peer.address"] = peer
    for name, parameters in message.structured.items():
        for key, values in parameters.items():
            texts = [value.decode("utf-8", "surrogateescape") for value in values]
            attributes[f"syslog.{name}.{key}"] = texts[0] if len(texts) == 1 else texts
    if raw:
        attributes[ORIGINAL] = raw
    put_over(record, attributes)
    arrival = arrival_of_record(
        record,
        origin=Origin(receiver=RECEIVER),
        service=message.app or service,
        time=None if states_time(record) else message.time,
        resource={"host.name": message.host} if message.host else None,
        marks=(*message.marks, *marks),
    )
    event = arrival.event
    if not (event.severity_number or event.severity_text):
        word, number = SEVERITIES[message.severity]
        event = msgspec.structs.replace(event, severity_text=word, severity_number=number)
    if message.message_id and not event.event_name:
        event = msgspec.structs.replace(event, event_name=message.message_id)
    return msgspec.structs.replace(arrival, event=event)


def _text(data: bytes) -> tuple[str, bytes]:
    try:
        return data.decode(), b""
    except UnicodeDecodeError:
        return data.decode("utf-8", "surrogateescape"), data


def _record(text: str) -> dict[str, Any] | None:
    bare = text.removeprefix("@cee:").lstrip()
    if not bare.startswith("{"):
        return None
    try:
        return object_of_line(bare.encode("utf-8", "surrogateescape"))
    except (Malformed, UnicodeEncodeError):
        return None
