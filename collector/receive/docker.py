"""Docker's JSON log lines: objects of log, stream and time (the ``json-file`` logging driver).

Docker cuts a line of more than 16 KiB: the piece has exactly 16,384 bytes and no line end. An import keeps it, marked `truncated`; the
tail joins the pieces. Shared by both.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from collector.errors import Malformed
from collector.event import Origin, format_time, parse_time
from collector.receive import Arrival
from collector.receive.json_lines import object_of_line
from collector.receive.record import arrival_of_record, states_time

__all__ = ["DockerLine", "arrival_of_docker_line", "arrival_of_text", "docker_line", "is_docker", "same_time"]

CUT_BYTES = 16_384
"""Where Docker cuts a line."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DockerLine:
    """`text` without the line end that Docker's framing has; `observed` is when Docker saw it, RFC 3339, or empty.

    `whole`: the service's line ends with this piece.
    """

    text: str
    stream: str
    observed: str
    truncated: bool
    others: dict[str, Any]
    whole: bool = True

    def attributes(self) -> dict[str, Any]:
        """What an event should keep of Docker's own: the stream, under OpenTelemetry's name for it, and `attrs`."""
        return {"log.iostream": self.stream, **self.others} if self.stream else dict(self.others)


def is_docker(record: Mapping[str, Any]) -> bool:
    """Whether an object is a line of Docker's: text under `log`, `stream` and `time`, and nothing but `attrs` beside them."""
    return record.keys() - {"attrs"} == {"log", "stream", "time"} and all(
        type(record[name]) is str for name in ("log", "stream", "time")
    )


def same_time(stated: str, known: str) -> bool:
    """Whether `stated` is the time `known` (nine digits, Z) written with fewer digits: cheaper than reading it."""
    return stated[-1:] == "Z" and stated[:-1].ljust(29, "0") == known[:-1]


def docker_line(line: bytes, known: str = "") -> DockerLine:
    """Unwrap one line; `known` is a time that it may repeat. Raises `Malformed` when the line is not Docker's."""
    record = object_of_line(line)
    if not is_docker(record):
        raise Malformed("not a line of Docker's JSON log (log, stream, time)", label="bad_docker")
    text: str = record["log"]
    whole = text.endswith("\n")
    others: dict[str, Any] = {}
    attrs = record.get("attrs")
    if isinstance(attrs, dict):
        others.update(attrs)
    try:
        observed = known if same_time(record["time"], known) else format_time(parse_time(record["time"]))
    except Malformed:
        observed, others["docker.time"] = "", record["time"]
    return DockerLine(
        text=text[:-1] if whole else text,
        stream=record["stream"],
        observed=observed,
        truncated=not whole and len(text.encode("utf-8", "surrogatepass")) >= CUT_BYTES,
        others=others,
        whole=whole,
    )


def arrival_of_docker_line(line: bytes, *, origin: Origin) -> Arrival:
    """The event of one line: the service's own JSON object if it logs such, else its text; raises `Malformed`."""
    docker = docker_line(line)
    arrival = arrival_of_text(docker, origin=origin)
    if docker.truncated:
        arrival.event.marks.append("truncated")
    return arrival


def arrival_of_text(docker: DockerLine, *, origin: Origin, time: str | None = None) -> Arrival:
    """As `arrival_of_docker_line`, of a line that is unwrapped.

    The time is `time`, else the one that the service's own object states, else Docker's. The mark `truncated` is the caller's
    to set where the line comes out of something else.
    """
    record: dict[str, Any] = {}
    if docker.text.startswith("{"):
        try:
            record = object_of_line(docker.text.encode("utf-8", "surrogateescape"))
        except (Malformed, UnicodeEncodeError):
            record = {}
    if not record:
        record = {"body": docker.text}
    if time is None and not states_time(record):
        time = docker.observed
    for name, value in docker.attributes().items():
        record.setdefault(name, value)
    return arrival_of_record(record, origin=origin, time=time, observed=docker.observed)
