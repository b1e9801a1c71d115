"""The settings of the tail: each ``[[collector.tail]]`` in ``tally.toml`` names files to follow."""

import re
from typing import Annotated, Literal

import msgspec

__all__ = ["KubernetesSettings", "MultilineSettings", "TailSettings"]

_Seconds = Annotated[float, msgspec.Meta(ge=0.01, le=86_400.0)]


def _compiled(pattern: str, key: str) -> re.Pattern[str]:
    try:
        return re.compile(pattern)
    except (re.error, RecursionError, OverflowError) as error:
        raise ValueError(f"{key} is no regular expression: {error}") from error


class MultilineSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Lines that make one event together. Without `start` and `indented` each line is an event.

    Attributes:
        start: regular expression: a line in which it is found at the beginning starts an event, every other one continues it.
        indented: a line that begins with a blank or a tab continues the event before it (stack traces).
        timeout_seconds: an event is taken to be over when nothing has followed for so long; also for lines that a container runtime
            has cut in pieces.
        max_bytes: an event that grows longer is cut in several, each but the last marked `continued`.
    """

    start: str = ""
    indented: bool = False
    timeout_seconds: _Seconds = 2.0
    max_bytes: Annotated[int, msgspec.Meta(ge=1_024, le=4 * 1024**2)] = 256 * 1024

    def __post_init__(self) -> None:
        """Refuse a pattern that is none."""
        _compiled(self.start, "start")


class TailSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Files to follow. A file belongs to the first entry that names it.

    Attributes:
        paths: absolute paths or globs (`*`, `?`, `[a-z]`, and `**` for any folders).
        exclude: globs of paths that are left out.
        name: what metrics call this entry; empty: its first path.
        format: how a line is read: `lines` as text, `json`, `cri`, `docker`, or `auto`, which tells it by the first line of each file; in a
            file that is neither of the last two, lines that are JSON objects are read as such and all others as text.
        service: `service.name` of events that do not name one themselves.
        service_pattern: regular expression, searched in a file's path, with a group named `service`; where it is found it goes before
            `service`.
        start: where a file begins that is there when the entry is used for the first time: `beginning` or `end`. Files that appear later
            are read from their beginning.
        encoding: of text: `utf-8` or `latin-1`. A line that is not UTF-8 is kept, marked, and its bytes stand in an attribute.
        max_line_bytes: a longer line becomes a dead letter.
        poll_seconds: how often files are looked for and looked at.
        release_seconds: how long a file that is deleted, or no longer named by `paths`, is still read after it has last grown.
        max_open_files: how many files are open at a time; more wait until one of them is at its end.
        kubernetes: whether paths of Kubernetes (`/var/log/containers`, `/var/log/pods`) give resource attributes.
        multiline: lines that make one event together.
    """

    paths: Annotated[tuple[str, ...], msgspec.Meta(min_length=1)]
    exclude: tuple[str, ...] = ()
    name: Annotated[str, msgspec.Meta(max_length=64)] = ""
    format: Literal["auto", "lines", "json", "cri", "docker"] = "auto"
    service: str = ""
    service_pattern: str = ""
    start: Literal["beginning", "end"] = "beginning"
    encoding: Literal["utf-8", "latin-1"] = "utf-8"
    max_line_bytes: Annotated[int, msgspec.Meta(ge=1_024, le=8 * 1024**2)] = 1024**2
    poll_seconds: _Seconds = 0.5
    release_seconds: _Seconds = 30.0
    max_open_files: Annotated[int, msgspec.Meta(ge=1, le=65_536)] = 256
    kubernetes: bool = True
    multiline: MultilineSettings = MultilineSettings()

    def __post_init__(self) -> None:
        """Refuse paths that depend on where a process was started, and patterns that are none."""
        for path in (*self.paths, *self.exclude):
            if not path.startswith("/"):
                raise ValueError(f"{path!r} is no absolute path")
        pattern = _compiled(self.service_pattern, "service_pattern")
        if self.service_pattern and "service" not in pattern.groupindex:
            raise ValueError("service_pattern has no group named service: (?P<service>…)")
        if self.format == "json" and (self.multiline.start or self.multiline.indented):
            raise ValueError("multiline does not go with format json: each line is an event")

    @property
    def label(self) -> str:
        """What metrics and the checkpoint call the entry."""
        return self.name or self.paths[0]


class KubernetesSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The Kubernetes API, asked for a pod's labels, node and owner. Reading never waits for it.

    Attributes:
        api: whether it is asked at all.
        server: its URL; `http` is for a proxy on this machine.
        token_file: of the service account, which needs `get` on pods; read for each request. Empty: none is sent.
        ca_file: certificates that the server's is checked against; empty: the system's.
        labels: which labels become resource attributes `k8s.pod.label.<name>`; a `*` takes all, up to 64.
        refresh_seconds: how long an answer is used.
    """

    api: bool = False
    server: Annotated[str, msgspec.Meta(pattern=r"^https?://[^/@?#]+$")] = "https://kubernetes.default.svc"
    token_file: str = "/var/run/secrets/kubernetes.io/serviceaccount/token"  # noqa: S105 - where Kubernetes puts it, not what it is
    ca_file: str = "/var/run/secrets/kubernetes.io/serviceaccount/ca.crt"
    labels: tuple[str, ...] = ("*",)
    refresh_seconds: _Seconds = 600.0
