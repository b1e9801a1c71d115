"""The way to an OpenSearch cluster: opensearch-py's transport, with bodies and answers as bytes and its errors as ours.

The transport chooses a node, and another one when the first does not answer. Ready-made bodies go through as they are, and
answers come back undecoded: `_source` must be had byte by byte, because what was hashed is in it.
"""

import logging
import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote, urlencode

import msgspec
from opensearchpy import Transport
from opensearchpy.connection import Urllib3HttpConnection
from opensearchpy.exceptions import ConnectionTimeout, OpenSearchException, SSLError, TransportError
from opensearchpy.serializer import Serializer

from collector.errors import Overloaded, StateUnknown
from collector.store.opensearch.hearing import Unheard, Watch, operation_of, word_for
from collector.store.settings import StoreSettings

__all__ = ["Connection", "Denied", "Document", "Refusal", "path_of", "pressure"]

_T = TypeVar("_T")

_MGET_DOCUMENTS = 512
_OPERATOR_SECONDS = 10.0
"""When to try again where a person must do something first."""


class Refusal(StateUnknown):
    """The cluster's definite no to one request. Where nobody expects it, we and the cluster do not fit together.

    `status` is HTTP's, `kind` the exception's type as OpenSearch names it.
    """

    def __init__(self, status: int, kind: str, reason: str) -> None:
        super().__init__(f"OpenSearch refused a request: {status} {kind}: {reason}")
        self.status = status
        self.kind = kind


class Denied(Overloaded):
    """The cluster does not know us (status 401), or not let us (403): a person must mend it, and then the same request succeeds."""

    def __init__(self, reason: str, *, status: int) -> None:
        super().__init__(reason, retry_after_seconds=_OPERATOR_SECONDS)
        self.status = status


class Document(msgspec.Struct, rename={"index": "_index", "id": "_id", "source": "_source"}):
    """One answer of a multi-get: `found`, with the document's bytes as they were written."""

    index: str
    id: str
    found: bool = False
    source: msgspec.Raw = msgspec.Raw()
    error: Any = None


class _Documents(msgspec.Struct):
    docs: list[Document]


class _Bytes(Serializer):
    """Leaves bodies and answers alone."""

    mimetype = "application/json"

    def dumps(self, data: Any) -> Any:
        return data

    def loads(self, s: str) -> Any:
        return s.encode("utf-8", "surrogatepass")  # as the transport has decoded it: the bytes that came


class _Transport(Transport):
    """Tells when a node did not answer, which the library keeps to itself while there is another one."""

    watch: Watch = Unheard()

    def mark_dead(self, connection: Any) -> None:
        self.watch.node_failed()
        super().mark_dead(connection)


class Connection:
    """Requests to one cluster. Safe to use from one thread at a time.

    Args:
        settings: where it is, and who we are. Files are read here; raises OSError when one cannot be.
        watch: is told of every request.
    """

    def __init__(self, settings: StoreSettings, *, watch: Watch | None = None) -> None:
        self.watch: Watch = watch or Unheard()
        # its log repeats the bodies of requests, which are other people's data; what fails is told by our errors
        logging.getLogger("opensearch").setLevel(logging.CRITICAL)
        self.name = ", ".join(settings.urls)
        self.patience = f"{int(settings.timeout_seconds * 800)}ms"
        """How long the server may wait for what it needs: less than we wait, so that it is the server that says why."""
        options: dict[str, Any] = {"timeout": settings.timeout_seconds, "http_compress": False}
        if settings.user:
            with Path(settings.password_file).open(encoding="utf-8") as file:
                options["http_auth"] = (settings.user, file.readline().rstrip("\r\n"))
        hosts = [_host(url) for url in settings.urls]
        for name, path in (
            ("ca_certs", settings.ca_file),
            ("client_cert", settings.client_certificate),
            ("client_key", settings.client_key),
        ):
            if path:
                Path(path).read_bytes()  # an unreadable file is the configuration's fault, told now
                options[name] = path
        self._transport = _Transport(
            hosts,
            connection_class=Urllib3HttpConnection,
            serializer=_Bytes(),
            serializers={"application/json": _Bytes(), "text/plain": _Bytes()},
            # every request of ours may be repeated: where one node does not answer, another is asked
            max_retries=len(hosts) - 1,
            retry_on_timeout=len(hosts) > 1,
            **options,
        )
        self._transport.watch = self.watch

    def close(self) -> None:
        """Close the connections."""
        self._transport.close()

    def ask(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        params: Mapping[str, str | int] | None = None,
        ndjson: bool = False,
    ) -> bytes:
        """One request; the answer's bytes.

        Args:
            method: GET, PUT, POST or DELETE.
            path: from the slash on.
            body: bytes as they are, or a value to be sent as JSON; None: no body.
            params: of the query.
            ndjson: the body is lines of JSON.

        Raises:
            Overloaded: no answer, or one that may be another one later.
            Refusal: a definite no.
        """
        data = body if body is None or isinstance(body, bytes) else msgspec.json.encode(body)
        kind = "application/x-ndjson" if ndjson else "application/json"
        # the query is ours to write: the transport would take a `timeout` in it for its own
        url = f"{path}?{urlencode(params)}" if params else path
        outcome, received, begun = "unreadable", 0, time.perf_counter()
        try:
            answer = bytes(self._transport.perform_request(method, url, body=data, headers={"content-type": kind}))
            outcome, received = "ok", len(answer)
        except TransportError as error:
            outcome = _word(error)
            raise self._ours(error) from error
        except OpenSearchException as error:  # an answer of a type that no OpenSearch gives: a proxy's page
            raise Overloaded(f"{self.name} does not answer as OpenSearch does: {error}") from error
        finally:
            seconds = time.perf_counter() - begun
            sent = len(data or b"")
            self.watch.answered(operation_of(method, path), outcome, seconds=seconds, sent=sent, received=received)
        return answer

    def json(self, kind: type[_T], method: str, path: str, body: Any = None, **more: Any) -> _T:
        """As `ask`, with the answer decoded; one that cannot be is `Overloaded`, for it was cut off or is not OpenSearch's."""
        return self._decoded(kind, self.ask(method, path, body, **more))

    def documents(
        self, wanted: Sequence[tuple[str, str]], *, retired: bool = False, at_once: int = _MGET_DOCUMENTS
    ) -> list[Document]:
        """Documents by index and id, in the order asked for, as they are at this moment (a real-time get).

        One that is not there has `found` false. Everything that keeps a document from being read is an error, not an
        absence.

        Args:
            wanted: index and id of each.
            at_once: how many to ask for in one request: few where documents are large.
            retired: an index that is not there holds nothing (a month that was let go of); else that is an error as well.

        Raises:
            Overloaded: one of them cannot be read now.
            Refusal: as in `ask`.
            StateUnknown: an index is gone.
        """
        found: list[Document] = []
        for at in range(0, len(wanted), at_once):
            some = wanted[at : at + at_once]
            body = {"docs": [{"_index": index, "_id": id_} for index, id_ in some]}
            answer = self.json(_Documents, "POST", "/_mget", body, params={"realtime": "true"}).docs
            if [(one.index, one.id) for one in answer] != list(some):
                raise Overloaded(f"{self.name} answered for other documents than were asked for")
            for one in answer:
                if one.error is not None:
                    self._explain(one, retired=retired)
            found += answer
        return found

    def _explain(self, one: Document, *, retired: bool) -> None:
        """Raises unless the error means that there is no such document."""
        detail = one.error if isinstance(one.error, dict) else {}
        kind, reason = detail.get("type", ""), detail.get("reason", "")
        if kind != "index_not_found_exception":
            self.watch.troubled("read", word_for(503, kind))
            raise Overloaded(
                f"{self.name} cannot read a document of {one.index} now: {kind}: {reason}{_hint(kind, reason)}"
            )
        if not retired:
            raise StateUnknown(f"{self.name}: the index {one.index} is gone")

    def _decoded(self, kind: type[_T], answer: bytes) -> _T:
        try:
            return msgspec.json.decode(answer, type=kind)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise Overloaded(f"{self.name} gave an answer that cannot be read: {error}") from error

    def _ours(self, error: TransportError) -> Exception:
        status = error.status_code
        if isinstance(error, SSLError):
            return Overloaded(
                f"{self.name}: no secure connection: {error.error}", retry_after_seconds=_OPERATOR_SECONDS
            )
        if isinstance(error, ConnectionTimeout):
            return Overloaded(f"{self.name} did not answer in time", retry_after_seconds=1.0)
        if not isinstance(status, int):
            # urllib3 names the object that failed; where it is in memory helps nobody
            why = re.sub(r"<[^<>]* object at 0x[0-9a-f]+>: ", "", str(error.error))
            return Overloaded(f"{self.name} cannot be reached: {why}", retry_after_seconds=1.0)
        kind, reason = _said(error)
        return pressure(self.name, status, kind, reason) or Refusal(status, kind, reason)


def pressure(name: str, status: int, kind: str, reason: str) -> Overloaded | None:
    """What an error of a request or of one of its items asks of us, if it is to wait; None: it is a definite no.

    Args:
        name: the cluster's.
        status: HTTP's.
        kind: the exception's type as OpenSearch names it.
        reason: its text.
    """
    if kind in {"cluster_block_exception", "index_create_block_exception"}:
        # 403 or 429 by version. A disk beyond its flood-stage watermark blocks writing until there is room again; when all are
        # beyond the high one, no index is made
        return Overloaded(
            f"{name} lets nothing be written: {reason} (a full disk does that, or an administrator)",
            retry_after_seconds=_OPERATOR_SECONDS,
        )
    if status == 429:
        return Overloaded(f"{name} has too much to do: {kind}: {reason}", retry_after_seconds=2.0)
    if status in {401, 403}:
        return Denied(f"{name} does not let us: {kind}: {reason} (are user, password and roles right?)", status=status)
    if status == 413:
        return Overloaded(
            f"{name} takes no request of this size: raise its http.max_content_length",
            retry_after_seconds=_OPERATOR_SECONDS,
        )
    # a node that has just closed the shard says 404, which would be a definite no
    if status >= 500 or kind == "shard_not_found_exception":
        hint = _hint(kind, reason)
        return Overloaded(f"{name} cannot do it now: {status} {kind}: {reason}{hint}", retry_after_seconds=1.0)
    return None


def _hint(kind: str, reason: str) -> str:
    """What an operator looks at first; the server does not say it once it has closed the shard."""
    if kind == "shard_not_found_exception":
        return " (a node whose disk is full closes its shards)"
    no_primary = kind == "unavailable_shards_exception" and "primary shard is not active" in reason
    if no_primary or kind == "no_shard_available_action_exception":
        return " (its node is away, or the node's disk is full)"
    return ""


def _word(error: TransportError) -> str:
    if isinstance(error, SSLError):
        return "no_tls"
    if isinstance(error, ConnectionTimeout):
        return "timeout"
    if not isinstance(error.status_code, int):
        return "unreachable"
    return word_for(error.status_code, _said(error)[0])


def _said(error: TransportError) -> tuple[str, str]:
    """Type and reason of the server's error."""
    info = error.info
    detail = info.get("error") if isinstance(info, dict) else None
    if isinstance(detail, dict):
        return str(detail.get("type", "")), str(detail.get("reason", ""))
    return str(error.error)[:200], ""


def _host(url: str) -> dict[str, Any]:
    scheme, _, rest = url.partition("://")
    name, colon, port = rest.rstrip("/").rpartition(":")
    if not colon or not port.isdigit():
        name, port = rest.rstrip("/"), "443" if scheme == "https" else "80"
    return {"host": name.strip("[]"), "port": int(port), "use_ssl": scheme == "https"}


def path_of(*parts: str) -> str:
    """A request's path of index names and ids."""
    return "/" + "/".join(quote(part, safe="") for part in parts)
