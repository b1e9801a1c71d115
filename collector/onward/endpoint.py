"""A server that metrics are sent to: one connection over HTTP or TLS, with what says who we are."""

import base64
import http.client
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from collector.clienttls import client_tls
from collector.errors import Malformed, TallyError
from collector.onward.settings import MetricsToSettings
from collector.secretfile import read_secret

__all__ = ["Answer", "Endpoint", "Later", "Refused"]

_MAX_ANSWER_BYTES = 65_536
_MAX_WORDS = 300
_MAX_TOKEN_BYTES = 16_384
_LONGEST_WAIT_SECONDS = 300.0


class Later(TallyError):
    """The server cannot be reached, or takes nothing just now: the same is to be sent again.

    Args:
        why: in words.
        after_seconds: how long it asks to wait at least; 0 where it does not say.
    """

    def __init__(self, why: str, *, after_seconds: float = 0.0) -> None:
        super().__init__(why)
        self.after_seconds = after_seconds


class Refused(TallyError):
    """The server will not take this, however often it comes.

    Args:
        why: in words.
        taken: so many data points of it were taken all the same.
    """

    def __init__(self, why: str, *, taken: int = 0) -> None:
        super().__init__(why)
        self.taken = taken


class Answer(NamedTuple):
    """What a server answered: its status, headers by their lower-case names, and at most 64 KiB of its body."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def words(self) -> str:
        """Status and what is said in plain text, as Prometheus does, in one line."""
        text = ""
        if self.headers.get("content-type", "").startswith("text/plain"):
            text = self.body.decode("utf-8", "replace")[:_MAX_WORDS]
            text = "".join(sign if sign.isprintable() else " " for sign in text).strip()
        return f"HTTP {self.status} {text}".strip()

    @property
    def after_seconds(self) -> float:
        """What ``Retry-After`` says (RFC 9110 section 10.2.3: seconds or a date), 5 minutes at most; 0 where it says nothing."""
        told = self.headers.get("retry-after", "").strip()
        if told.isdecimal() and told.isascii() and len(told) < 10:
            return min(float(told), _LONGEST_WAIT_SECONDS)
        try:
            seconds = parsedate_to_datetime(told).timestamp() - time.time()
        except (ValueError, TypeError, OverflowError):
            return 0.0
        return min(max(seconds, 0.0), _LONGEST_WAIT_SECONDS)


class Endpoint:
    """Posts to one URL. For one thread.

    Args:
        settings: `url`, and what proves who we are.

    Raises:
        Malformed: a secret's file holds none.
        OSError: a file cannot be read, or is not what it should be; the message names it.
    """

    def __init__(self, settings: MetricsToSettings) -> None:
        parts = urlsplit(settings.url)
        self.name = parts.netloc
        self._host, self._port, self._path = parts.hostname or "", parts.port, parts.path
        self._timeout_seconds = settings.timeout_seconds
        self._tls = None
        if parts.scheme == "https":
            self._tls = client_tls(settings.ca_file, settings.client_certificate, settings.client_key)
        self._settings = settings
        self._agent = f"tallystick/{version('tallystick')}"
        _authorization(settings)  # a file that is missing is told at the start
        self._connection: http.client.HTTPConnection | None = None

    def post(self, body: bytes, headers: Mapping[str, str]) -> Answer:
        """Send a request; returns the answer whatever its status. Redirections are not followed. Raises `Later`: there is none."""
        try:
            proof = _authorization(self._settings)  # each time: tokens are replaced
        except (OSError, Malformed) as error:
            raise Later(str(error)) from error
        for fresh in (self._connection is None, True):
            try:
                return self._once(body, {"User-Agent": self._agent, **proof, **headers})
            except (OSError, http.client.HTTPException) as error:  # TimeoutError is an OSError
                self.close()
                # a server may close a connection that it has not heard of for a while; that says nothing about a new one
                if fresh or isinstance(error, TimeoutError):
                    raise Later(str(error) or type(error).__name__) from error
        raise AssertionError("unreachable")

    def close(self) -> None:
        """Close the connection; the next `post` opens another."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _once(self, body: bytes, headers: Mapping[str, str]) -> Answer:
        if self._connection is None:
            self._connection = self._connect()
        self._connection.request("POST", self._path, body, dict(headers))
        response = self._connection.getresponse()
        data = response.read(_MAX_ANSWER_BYTES)
        answer = Answer(response.status, {name.lower(): value for name, value in response.getheaders()}, data)
        if response.read(1):
            self.close()  # longer than anything that is worth hearing
        return answer

    def _connect(self) -> http.client.HTTPConnection:
        if self._tls is None:
            return http.client.HTTPConnection(self._host, self._port, timeout=self._timeout_seconds)
        return http.client.HTTPSConnection(self._host, self._port, timeout=self._timeout_seconds, context=self._tls)


def _authorization(settings: MetricsToSettings) -> dict[str, str]:
    if settings.token_file:
        return {"Authorization": f"Bearer {_token(settings.token_file)}"}
    if settings.user:
        pair = settings.user.encode() + b":" + read_secret(settings.password_file)
        return {"Authorization": f"Basic {base64.b64encode(pair).decode()}"}
    return {}


def _token(file: str) -> str:
    """A token, which stands in a header as it is (RFC 6750 section 2.1); longer than other secrets, where it is signed."""
    token = Path(file).read_bytes()[: _MAX_TOKEN_BYTES + 1].decode("ascii", "replace").strip()
    if not token or len(token) > _MAX_TOKEN_BYTES or not all("!" <= sign <= "~" for sign in token):
        raise Malformed(
            f"{file}: a bearer token is 1 to {_MAX_TOKEN_BYTES} printable ASCII characters", label="bad_key_file"
        )
    return token
