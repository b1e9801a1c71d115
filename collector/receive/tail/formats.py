r"""How a line of a file is read: as text, as JSON, or as what a container runtime has written around the service's own line. Pure.

CRI, the format of containerd and CRI-O (https://github.com/kubernetes/design-proposals-archive/blob/main/node/kubelet-cri-logging.md):
``TIME STREAM TAGS CONTENT``, the first of the tags (``:`` between them) is ``P`` for a piece of a line that goes on and ``F`` for its last.
Docker's is in `collector.receive.docker`.
"""

import re
from typing import Literal

from collector.errors import Malformed
from collector.event import format_time, parse_time
from collector.receive.docker import docker_line, is_docker
from collector.receive.json_lines import object_of_line
from collector.receive.tail.lines import Line
from collector.receive.tail.messages import UNTERMINATED, Part

__all__ = ["HOLE", "Form", "form_of", "part_of"]

Form = Literal["lines", "json", "cri", "docker", "mixed"]
"""`mixed`: JSON objects where a line is one, else text."""

HOLE = "hole_skipped"
"""Mark of a line in front of which zeros were passed over."""

_CRI = re.compile(rb"(\d{4}-\d\d-\d\dT[0-9:.]{8,18}(?:Z|[+-]\d\d:\d\d)) (stdout|stderr) ([PF])(?::[^ ]*)?(?: |$)")


def form_of(first_line: bytes) -> Form:
    """How a file is read whose first line this is."""
    if _CRI.match(first_line):
        return "cri"
    if first_line.startswith(b"{"):
        try:
            if is_docker(object_of_line(first_line)):
                return "docker"
        except Malformed:
            pass
    return "mixed"


def part_of(line: Line, form: Form, encoding: str) -> Part | None:
    """The line decoded; None for an empty one.

    Raises:
        Malformed: it is not in the file's format; its place is not said.
    """
    data = line.data.removesuffix(b"\r")
    if not data:
        return None
    marks = (*((HOLE,) if line.hole else ()), *(() if line.ended else (UNTERMINATED,)))
    if form == "cri":
        return _cri(line, data, marks)
    if form == "docker":
        docker = docker_line(data)
        return Part(
            start=line.start,
            end=line.end,
            text=docker.text,
            stream=docker.stream if docker.stream in {"stdout", "stderr"} else "",
            time=docker.observed,
            whole=docker.whole,
            others=docker.attributes(),
            marks=marks,
        )
    text, raw = _decoded(data, encoding)
    return Part(start=line.start, end=line.end, text=text, raw=raw if form != "json" else b"", marks=marks)


def _cri(line: Line, data: bytes, marks: tuple[str, ...]) -> Part:
    match = _CRI.match(data)
    if match is None:
        raise Malformed("not a line of a container runtime (time, stream, P or F, content)", label="bad_cri")
    stream = match[2].decode()
    others = {"log.iostream": stream}
    try:
        time = format_time(parse_time(match[1].decode()))
    except Malformed:
        time, others["cri.time"] = "", match[1].decode()
    text, raw = _decoded(data[match.end() :], "utf-8")
    return Part(
        start=line.start,
        end=line.end,
        text=text,
        stream=stream,
        time=time,
        whole=match[3] == b"F",
        others=others,
        raw=raw,
        marks=marks,
    )


def _decoded(data: bytes, encoding: str) -> tuple[str, bytes]:
    try:
        return data.decode(encoding), b""
    except UnicodeDecodeError:
        return data.decode("utf-8", "surrogateescape"), data
