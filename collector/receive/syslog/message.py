"""One syslog message, parsed. Pure: bytes in, `SyslogMessage` or `Malformed` out.

RFC 5424, section 6, with lengths of names not held to its limits but to ours. Everything that has a priority and no version is read as RFC 3164
describes what it found in use: ``TIME HOST TAG: CONTENT``, any part of which may be missing.
"""

import re
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, tzinfo

from collector.errors import Malformed
from collector.event import format_time, parse_time

__all__ = ["BSD", "YEAR_ASSUMED", "SyslogMessage", "parse_message"]

BSD = "syslog_bsd"
"""Mark of a message in the form of RFC 3164, which says less and guarantees nothing."""

YEAR_ASSUMED = "time_year_assumed"
"""Mark of a time that was stated without year and zone: the year is the one that puts it nearest to now."""

MAX_PARAMETERS = 256
"""Most parameters of a message's structured data."""

_NAME = rb"[!-~]{1,255}"
_PRI = re.compile(rb"<(0|[1-9]\d{0,2})>")
_HEADER = re.compile(
    rb"1 (-|[!-~]{1,64}) (" + _NAME + rb") (" + _NAME + rb") (" + _NAME + rb") (" + _NAME + rb") (?=-|\[)"
)
_SD_ID = re.compile(rb"\[([!#-<>-\\^-~]{1,255})(?=[ \]])")
_SD_PARAM = re.compile(rb' +([!#-<>-\\^-~]{1,255})="((?:[^"\\]|\\.)*)"', re.DOTALL)
_ESCAPED = re.compile(rb'\\(["\\\]])')
_BOM = b"\xef\xbb\xbf"

_MONTHS = {name: number for number, name in enumerate(b"Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec".split(), 1)}
_BSD_TIME = re.compile(rb"([A-Z][a-z]{2}) ([ \d]\d) (\d\d):(\d\d):(\d\d)(?:\.(\d{1,6}))?(?: |$)")
_ISO_TIME = re.compile(rb"(\d{4}-\d\d-\d\dT[0-9:.]{8,18}(?:Z|[+-]\d\d:\d\d))(?: |$)")
_TAG = re.compile(rb"([!-9;-Z\\^-~]{1,255}?)(?:\[([!-Z\\^-~]{1,255})\])?:(?: |$)")
_HOST = re.compile(rb"([0-9A-Za-z.:_%-]{1,255}) ")


@dataclass(frozen=True, slots=True, kw_only=True)
class SyslogMessage:
    """What a message says; empty where it says nothing.

    Attributes:
        facility: 0–23; `severity`: 0 (emergency) to 7 (debug).
        time: RFC 3339 UTC.
        structured: ids of the structured data to their parameters, each with all of its values, as bytes.
        text: the message proper, as bytes.
        marks: what is unusual.
    """

    facility: int
    severity: int
    time: str = ""
    host: str = ""
    app: str = ""
    process: str = ""
    message_id: str = ""
    structured: dict[str, dict[str, list[bytes]]] = field(default_factory=dict)
    text: bytes = b""
    marks: tuple[str, ...] = ()


def parse_message(data: bytes, *, now: datetime, zone: tzinfo) -> SyslogMessage:
    """Parse one message.

    Args:
        data: without its framing.
        now: for the year of a time without one; aware.
        zone: of a time without one.

    Raises:
        Malformed: it has no priority, or says that it is RFC 5424 and is not (``bad_syslog``).
    """
    match = _PRI.match(data)
    if match is None or int(match[1]) > 191:
        raise Malformed("no priority in front (RFC 5424, section 6.2.1)", where="byte 0", label="bad_syslog")
    facility, severity = divmod(int(match[1]), 8)
    rest = data[match.end() :]
    if rest[:2] == b"1 ":
        return _parse_5424(rest, facility, severity, match.end())
    return _parse_3164(rest, facility, severity, now, zone)


def _parse_5424(rest: bytes, facility: int, severity: int, offset: int) -> SyslogMessage:
    header = _HEADER.match(rest)
    if header is None:
        raise Malformed(
            "not the header of RFC 5424: version, time, host, app, process, message id", where=f"byte {offset}", label="bad_syslog"
        )  # fmt: skip
    time, host, app, process, message_id = (b"" if part == b"-" else part for part in header.groups())
    structured, end = _structured(rest, header.end(), offset)
    if rest[end : end + 1] not in {b"", b" "}:
        raise Malformed("no blank behind the structured data", where=f"byte {offset + end}", label="bad_syslog")
    try:
        stated = format_time(parse_time(time.decode())) if time else ""
    except Malformed as error:
        raise Malformed(f"its time is none: {error.reason}", where=f"byte {offset + 2}", label="bad_syslog") from error
    return SyslogMessage(
        facility=facility,
        severity=severity,
        time=stated,
        host=host.decode(),
        app=app.decode(),
        process=process.decode(),
        message_id=message_id.decode(),
        structured=structured,
        text=rest[end + 1 :].removeprefix(_BOM),
    )


def _structured(rest: bytes, at: int, offset: int) -> tuple[dict[str, dict[str, list[bytes]]], int]:
    """The structured data that begins at `at`, and where it ends (section 6.3)."""
    if rest[at : at + 1] == b"-":
        return {}, at + 1
    found: dict[str, dict[str, list[bytes]]] = {}
    count = 0
    while element := _SD_ID.match(rest, at):
        parameters = found.setdefault(element[1].decode(), {})
        at = element.end()
        while parameter := _SD_PARAM.match(rest, at):
            count += 1
            if count > MAX_PARAMETERS:
                raise Malformed(
                    f"more than {MAX_PARAMETERS} parameters", where=f"byte {offset + at}", label="too_large"
                )
            parameters.setdefault(parameter[1].decode(), []).append(_ESCAPED.sub(rb"\1", parameter[2]))
            at = parameter.end()
        if rest[at : at + 1] != b"]":
            raise Malformed("structured data that does not end", where=f"byte {offset + at}", label="bad_syslog")
        at += 1
    if not found:
        raise Malformed("structured data without an id", where=f"byte {offset + at}", label="bad_syslog")
    return found, at


def _parse_3164(rest: bytes, facility: int, severity: int, now: datetime, zone: tzinfo) -> SyslogMessage:
    marks, time, host, app, process = [BSD], "", "", "", ""
    rest = rest.lstrip(b" ")
    if match := _BSD_TIME.match(rest):
        time = _bsd_time(match, now, zone)
        if time:
            marks.append(YEAR_ASSUMED)
    elif match := _ISO_TIME.match(rest):
        try:
            time = format_time(parse_time(match[1].decode()))
        except Malformed:
            match = None
    if match and time:
        rest = rest[match.end() :]
        if not _TAG.match(rest) and (named := _HOST.match(rest)):
            host = named[1].decode()
            rest = rest[named.end() :]
    if tag := _TAG.match(rest):
        app, process = tag[1].decode(), (tag[2] or b"").decode()
        rest = rest[tag.end() :]
    return SyslogMessage(
        facility=facility,
        severity=severity,
        time=time,
        host=host,
        app=app,
        process=process,
        text=rest.removeprefix(_BOM),
        marks=tuple(marks),
    )


def _bsd_time(match: re.Match[bytes], now: datetime, zone: tzinfo) -> str:
    """RFC 3339 UTC of a time without year, in the year that puts it nearest to `now`; empty if there is no such day."""
    month = _MONTHS.get(match[1], 0)
    here = now.astimezone(zone)
    found: list[datetime] = []
    for year in (here.year - 1, here.year, here.year + 1):
        try:
            fraction = int((match[6] or b"").ljust(6, b"0"))
            found.append(
                datetime(year, month, int(match[2]), int(match[3]), int(match[4]), int(match[5]), fraction, tzinfo=zone)
            )
        except ValueError:
            continue  # no such month, 29 February in most years, or beyond the calendar
    nearest = min(found, key=lambda one: abs(one - here), default=None)
    if nearest is None:
        return ""
    since = nearest.astimezone(UTC) - datetime(1970, 1, 1, tzinfo=UTC)
    return format_time(since // timedelta(microseconds=1) * 1_000)
