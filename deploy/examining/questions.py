"""Questions to one OpenSearch cluster: asked by the configured user, and by another one where that may not."""

import re
import shlex
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from collector.errors import TallyError
from collector.store.opensearch.connection import Connection, Denied
from collector.store.settings import StoreSettings
from deploy.examining import Chart

__all__ = ["Login", "Questions", "flat", "tell_denied"]

T = TypeVar("T")

PATIENCE_SECONDS = 10.0
"""The longest that one answer is waited for: a cluster that needs longer to say how it is is not well."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Login:
    """A user of the cluster, beside the configured one; the password is the first line of its file."""

    user: str
    password_file: Path


@dataclass(slots=True)
class Questions:
    """Asks one cluster.

    Args:
        settings: where it is, and who we are. Raises OSError when a file cannot be read.
        login: who asks what the configured user may not; None: nobody.
        denied: gathers what nobody may ask, to be told once (`tell_denied`).
    """

    settings: StoreSettings
    login: Login | None = None
    denied: list[str] = field(default_factory=list)
    _connection: Connection = field(init=False)
    _other: Connection | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        patient = min(self.settings.timeout_seconds, PATIENCE_SECONDS)
        self.settings = msgspec.structs.replace(self.settings, timeout_seconds=patient)
        self._connection = Connection(self.settings)
        if self.login is not None:
            # by its password alone: a client certificate would be the configured user's
            other = {"user": self.login.user, "password_file": str(self.login.password_file)}
            plain = msgspec.structs.replace(self.settings, client_certificate="", client_key="", **other)
            self._other = Connection(plain)

    def close(self) -> None:
        """Close the connections."""
        self._connection.close()
        if self._other is not None:
            self._other.close()

    def either(self, work: Callable[[Connection], T]) -> T:
        """What `work` finds as the configured user or, where that may not, as the other one; raises what it raises.

        Raises:
            Denied: neither user may.
        """
        try:
            return work(self._connection)
        except Denied:
            if self._other is None:
                raise
            return work(self._other)

    def get(self, kind: type[T], path: str, **params: str) -> T:
        """What the cluster says at `path`, as whoever may ask.

        Raises:
            Denied: neither user may.
            Overloaded, Refusal: see `Connection.ask`.
        """
        return self.either(lambda connection: connection.json(kind, "GET", path, params=params))

    def own(self, kind: type[T], method: str, path: str, body: Any = None, **params: str) -> T:
        """As `get`, with any method, as the configured user alone."""
        return self._connection.json(kind, method, path, body, params=params)

    def told(self, chart: Chart, name: str, kind: type[T], path: str, **params: str) -> T | None:
        """As `get`, for `name`; None when there is no answer to be had, which is told."""
        try:
            return self.get(kind, path, **params)
        except TallyError as error:
            self._no_answer(chart, name, error)
            return None

    @contextmanager
    def about(self, chart: Chart, name: str) -> Iterator[None]:
        """Ask for `name` in the block; when an answer is not to be had, that is told, and the block is left."""
        try:
            yield
        except TallyError as error:
            self._no_answer(chart, name, error)

    def _no_answer(self, chart: Chart, name: str, error: TallyError) -> None:
        if isinstance(error, Denied):
            missing = re.search(r"no permissions for \[([^\]]+)\]", str(error))
            self.denied.append(f"{chart.subject} {name} ({missing[1]})" if missing else f"{chart.subject} {name}")
        else:
            chart.unknown(name, f"no answer: {error}")

    def curl(self, method: str, path: str, body: Any = None) -> str:
        """A command that an administrator can copy."""
        parts = ["curl", "-u", "ADMIN", "-X", method]
        if self.settings.ca_file:
            parts += ["--cacert", self.settings.ca_file]
        if body is not None:
            parts += ["-H", "content-type: application/json", "-d", msgspec.json.encode(body).decode()]
        return shlex.join([*parts, f"{self.settings.urls[0].rstrip('/')}{path}"])


def tell_denied(chart: Chart, user: str, denied: Sequence[str]) -> None:
    """One line for all that could not be asked for."""
    chart.unknown(
        "not allowed",
        f"{user or 'nobody'} may not ask for: {', '.join(dict.fromkeys(denied))}",
        "tally doctor --user NAME --password-file FILE    # somebody who may, for these questions alone",
        "or give this user the role tally_doctor as well (deploy/opensearch/roles.yml)",
    )


def flat(value: Any, name: str = "") -> dict[str, str]:
    """Nested settings or mappings as dotted names, every value as the text that OpenSearch may write instead of it."""
    if isinstance(value, dict):
        found: dict[str, str] = {}
        for key, below in value.items():
            found |= flat(below, f"{name}.{key}" if name else str(key))
        return found
    if isinstance(value, bool):
        return {name: "true" if value else "false"}
    if isinstance(value, list):
        return {name: ",".join(str(one) for one in value)}
    return {name: str(value)}
