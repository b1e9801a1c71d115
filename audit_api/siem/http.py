"""Posts batches over HTTP, over a connection that is kept. An answer of 2xx is what lets the cursor move."""

import gzip
import http.client
import ssl
from collections.abc import Callable, Sequence
from email.utils import parsedate_to_datetime
from urllib.parse import urlsplit

from audit_api.siem.destination import Refused, deliver
from audit_api.siem.envelope import CONTENT_TYPES, body_of, refused_in
from audit_api.siem.forms import own_version
from audit_api.siem.record import Record
from audit_api.siem.settings import HttpSettings
from collector.errors import Overloaded

__all__ = ["HttpSender"]

_REFUSALS = frozenset({400, 413, 422})
"""What was sent is at fault: sent again it would be refused again."""
_DENIALS = frozenset({401, 403})
_MAX_ANSWER_BYTES = 8_388_608
_MAX_WAIT_SECONDS = 3_600.0
_GZIP_LEVEL = 6


class HttpSender:
    """A `Destination`.

    Args:
        settings: where it is.
        tls: for https.
        token: gives the token, or nothing; asked for each connection. It raises `Overloaded`.
        clock: Unix time in nanoseconds, for a ``Retry-After`` that is a date.
    """

    def __init__(
        self,
        settings: HttpSettings,
        *,
        tls: ssl.SSLContext | None,
        token: Callable[[], str],
        clock: Callable[[], int],
    ) -> None:
        self._settings = settings
        self._tls = tls
        self._token = token
        self._clock = clock
        self._parts = urlsplit(settings.url)
        self._path = self._parts.path or "/"
        if settings.envelope == "bulk":
            self._path += "?filter_path=errors,items.*.status"
        self._connection: http.client.HTTPConnection | None = None
        self._headers: dict[str, str] = {}

    def send(self, records: Sequence[Record]) -> None:
        """See `Destination.send`."""
        part: list[Record] = []
        held = 0
        for one in records:
            if part and held + len(one.data) > self._settings.batch_bytes:
                deliver(part, self._post)
                part, held = [], 0
            part.append(one)
            held += len(one.data)
        deliver(part, self._post)

    def close(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _post(self, records: Sequence[Record]) -> Sequence[Record]:
        settings = self._settings
        body = body_of(records, settings.envelope, source_type=f"tallystick:{settings.format}")
        headers = {"content-type": CONTENT_TYPES[settings.envelope]}
        if settings.gzip:
            body = gzip.compress(body, _GZIP_LEVEL, mtime=0)
            headers["content-encoding"] = "gzip"
        status, after, answer = self._exchange(body, headers)
        if 200 <= status < 300:
            return refused_in(answer, records) if settings.envelope == "bulk" else []
        if status in _REFUSALS:
            raise Refused(f"{settings.place} answered {status}")
        if status in _DENIALS:
            self.close()  # the next connection reads the token again
        raise Overloaded(f"{settings.place} answered {status}", retry_after_seconds=self._seconds(after))

    def _exchange(self, body: bytes, headers: dict[str, str]) -> tuple[int, str, bytes]:
        kept = self._connection is not None
        try:
            return self._ask(body, headers)
        except (OSError, http.client.HTTPException) as error:
            self.close()
            if not kept or isinstance(error, TimeoutError):
                raise Overloaded(f"{self._settings.place}: {str(error) or type(error).__name__}") from error
        try:  # it was let go of by the other side while nothing was sent
            return self._ask(body, headers)
        except (OSError, http.client.HTTPException) as error:
            self.close()
            raise Overloaded(f"{self._settings.place}: {str(error) or type(error).__name__}") from error

    def _ask(self, body: bytes, headers: dict[str, str]) -> tuple[int, str, bytes]:
        connection = self._connected()
        connection.request("POST", self._path, body, {**self._headers, **headers})
        answer = connection.getresponse()
        told = answer.read(_MAX_ANSWER_BYTES + 1)
        if len(told) > _MAX_ANSWER_BYTES or answer.will_close:
            self.close()
        return answer.status, answer.getheader("retry-after", ""), told

    def _connected(self) -> http.client.HTTPConnection:
        if self._connection is None:
            host, port, timeout = self._parts.hostname or "", self._parts.port, self._settings.timeout_seconds
            token = self._token()
            self._headers = {"user-agent": f"tallystick/{own_version()}"}
            if token:
                self._headers["authorization"] = f"{self._settings.token_scheme} {token}"
            self._connection = (
                http.client.HTTPConnection(host, port, timeout=timeout)
                if self._tls is None
                else http.client.HTTPSConnection(host, port, timeout=timeout, context=self._tls)
            )
        return self._connection

    def _seconds(self, after: str) -> float:
        """How long a ``Retry-After`` asks us to wait (RFC 9110 section 10.2.3), at most an hour; 0 where it says nothing."""
        if after.isascii() and after.isdigit():
            return min(float(after), _MAX_WAIT_SECONDS)
        try:
            until = parsedate_to_datetime(after).timestamp()
        except (ValueError, OverflowError):
            return 0.0
        return min(max(0.0, until - self._clock() / 1e9), _MAX_WAIT_SECONDS)
