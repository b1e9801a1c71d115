"""A ``_bulk`` endpoint for whatever can send to Elasticsearch or OpenSearch: Logstash, Filebeat, Vector, Fluent Bit, their clients.

A body is read whole and cut into actions (`bulk_body`), and its documents are made durable in parts of `part_documents`; the answer comes
after the last part's fsync, with an item for each action, in order. Actions ``index`` and ``create`` are events; ``update`` and ``delete``
have an error of their own, and so has a document that cannot be taken, which goes to the dead letters under a name, so that its re-send
leaves no second one.

Overload is one answer for the whole request, 429 with Retry-After, and never an item's: Fluent Bit takes an answer with one good item for
a good one, and Vector drops what failed in part, unless told otherwise (docs/decisions/0028). Of a request in several parts the first may
have been taken then; documents with an id are recognised when they come again.

Ids (docs/life-of-an-event.md): ``create`` with ``_id`` is named by index and ``_id``, since the action itself says "only if there is none".
``index`` means "whatever was there before", so there the document is part of the name: an unchanged one is a re-send, a changed one is
another event. A document without ``_id`` that says where in a file it was read is named by that (`ecs.place_id`); others are not.
"""

import hashlib
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from collector.errors import Malformed, Overloaded
from collector.event import Origin, format_time
from collector.receive import Arrival, Intake
from collector.receive.body import BodyLimits, ClientDisconnect, media_type, read_body, sender_of
from collector.receive.bulk_body import Item, items_of
from collector.receive.credentials import Credentials
from collector.receive.ecs import arrival_of_document, digest_of, place_id
from collector.receive.elasticsearch_probes import Product, probe_routes, refusal
from collector.receive.filter_path import FilterPath
from collector.receive.json_lines import object_of_line
from collector.receive.problem import json_response, retry_after
from collector.receive.room import Room
from collector.receive.turns import Turns
from collector.rejection import Rejection
from collector.sender import Sender

__all__ = ["ElasticsearchReceiver"]

_SHARDS = {"total": 1, "successful": 1, "failed": 0}
_Message = MutableMapping[str, Any]
_Send = Callable[[_Message], Awaitable[None]]
_Receive = Callable[[], Awaitable[_Message]]
_App = Callable[[_Message, _Receive, _Send], Awaitable[None]]


@dataclass(slots=True)
class _Part:
    """Of a request: what is made durable together. `places`: of the arrivals, among the items."""

    arrivals: list[Arrival] = field(default_factory=list)
    places: list[int] = field(default_factory=list)
    rejections: list[Rejection] = field(default_factory=list)


class ElasticsearchReceiver:
    """The endpoint, and the probes that senders make before they use it.

    Args:
        intake: takes the events.
        clock: Unix time in nanoseconds; stamps `observed`.
        product, version, name: what the probes are told (`elasticsearch_probes.probe_routes`).
        service: ``service.name`` of documents that name none.
        credentials: who may send; None: whoever can connect.
        limits: of one body.
        max_items: most actions in a request.
        max_document_bytes: longer documents become dead letters.
        part_documents, part_bytes: when so many documents or bytes have been decoded, they are made durable together.
        room: for the bodies of all requests together.
        not_ready: why no events can be taken just now; empty when they can.
        turns: shares of the event loop's time.
        refused: called with a reason for each refused request (``media_type``, ``too_large``, ``bad_gzip``, ``bad_encoding``, ``bad_action``,
            ``empty``, ``too_many_items``, ``filter_path``, ``overloaded``, ``connection_lost``, ``credentials``, ``unknown_request``), and
            for each action that cannot be done (``append_only``).
    """

    def __init__(
        self,
        intake: Intake,
        *,
        clock: Callable[[], int],
        product: Product = "elasticsearch",
        version: str = "",
        name: str = "tallystick",
        service: str = "",
        credentials: Credentials | None = None,
        limits: BodyLimits | None = None,
        max_items: int = 100_000,
        max_document_bytes: int = 2**20,
        part_documents: int = 8_192,
        part_bytes: int = 8 * 2**20,
        room: Room | None = None,
        not_ready: Callable[[], Sequence[str]] = tuple,
        turns: Turns | None = None,
        refused: Callable[[str], object] = lambda _reason: None,
    ) -> None:
        self._intake = intake
        self._clock = clock
        self._product = product
        self._service = service
        self._credentials = credentials
        self._limits = limits or BodyLimits()
        self._max_items = max_items
        self._max_document_bytes = max_document_bytes
        self._part_documents = part_documents
        self._part_bytes = part_bytes
        self._room = room or Room(256 * 2**20)
        self._refused = refused
        self._turns = turns or Turns()
        self._probes = probe_routes(product=product, version=version, name=name, not_ready=not_ready)

    @property
    def app(self) -> _App:
        """The application for a listener of its own: senders expect a server's whole face, from ``/`` on."""
        paths = ("/_bulk", "/_bulk/", "/{index}/_bulk", "/{index}/_bulk/")
        app = Starlette(
            routes=[*(Route(path, self.post, methods=["POST", "PUT"]) for path in paths), *self._probes],
            exception_handlers={HTTPException: self._unknown, Exception: _broken},
        )
        app.router.redirect_slashes = False  # a sender would follow it with GET
        return self._door(app)

    async def post(self, request: Request) -> Response:
        """Take a ``_bulk`` body; 200 with an item for each action, unless the request as a whole cannot be taken."""
        began_ns = self._clock()
        if "json" not in media_type(request):  # a web page in a browser on this machine can send anything else unasked
            self._refused("media_type")
            return refusal(415, "Content-Type must be application/x-ndjson or application/json")
        try:
            wanted = FilterPath(request.query_params.get("filter_path", ""))
            with self._room.claim() as claim:
                body = await read_body(request, self._limits, claim)
                items = items_of(
                    body,
                    index=request.path_params.get("index", ""),
                    max_items=self._max_items,
                    max_document_bytes=self._max_document_bytes,
                )
                answers = await self._take(items, format_time(began_ns), sender_of(request))
                took_ms = max(0, self._clock() - began_ns) // 1_000_000
                errors = any("error" in answer for one in answers for answer in one.values())
                answer = {"took": took_ms, "errors": errors, "items": answers}
                return json_response(wanted.of(answer))
        except Overloaded as error:
            self._refused("overloaded")
            return refusal(429, str(error), "es_rejected_execution_exception", **retry_after(error))
        except ClientDisconnect:
            self._refused("connection_lost")
            return Response(status_code=400)  # nobody hears it
        except Malformed as error:
            self._refused(error.label)
            status = {"too_large": 413, "too_many_items": 413, "bad_encoding": 415}.get(error.label, 400)
            return refusal(status, str(error))

    async def _take(self, items: Sequence[Item], observed: str, sender: Sender) -> list[dict[str, Any]]:
        """An answer for each item; raises Overloaded when one of the parts is not taken."""
        answers: list[dict[str, Any]] = [{} for _ in items]
        part = _Part()
        size = 0
        for at, item in enumerate(items):
            try:
                part.arrivals.append(self._arrival(item, observed))
                part.places.append(at)
            except Malformed as error:
                answers[at] = _error(item, error)
                if error.label == "append_only":  # an action that cannot be done is counted
                    self._refused(error.label)
                else:
                    name = _hash(b"letter", item.index.encode("utf-8", "surrogatepass"), item.document)
                    part.rejections.append(Rejection(item.document, error, _origin(item), name))
            size += item.end - item.start
            if len(part.arrivals) + len(part.rejections) >= self._part_documents or size >= self._part_bytes:
                await self._store(part, items, answers, sender)
                part, size = _Part(), 0
        await self._store(part, items, answers, sender)
        return answers

    async def _store(self, part: _Part, items: Sequence[Item], answers: list[dict[str, Any]], sender: Sender) -> None:
        """Make a part durable, if there is anything in it: its dead letters, then its events."""
        if not (part.arrivals or part.rejections):
            return
        await self._turns.of(sender).turn()
        await self._intake.reject(part.rejections)
        if not part.arrivals:
            return
        receipt = await self._intake.accept(part.arrivals, sender=sender)
        for place in part.places:
            answers[place] = _created(items[place])
        for at, reason in receipt.refused:
            answers[part.places[at]] = _error(items[part.places[at]], Malformed(reason))

    def _arrival(self, item: Item, observed: str) -> Arrival:
        """The event of an item. Raises Malformed when there is none."""
        if item.error is not None:
            raise item.error
        document = object_of_line(item.document)
        source_id = _source_id(item, document)
        if item.name:
            document.setdefault("_id", item.name)  # neither server takes a document that has one of its own
        return arrival_of_document(
            document, origin=_origin(item), source_id=source_id, service=self._service, observed=observed
        )

    def _door(self, app: _App) -> _App:
        """Asks for credentials where there are any, and says on every answer whose answer it is."""
        product = (b"x-elastic-product", b"Elasticsearch") if self._product == "elasticsearch" else None

        async def door(scope: _Message, receive: _Receive, send: _Send) -> None:
            async def signed(message: _Message) -> None:
                if product is not None and message["type"] == "http.response.start":
                    message["headers"] = [*message.get("headers", ()), product]
                await send(message)

            if scope["type"] == "http" and self._credentials is not None:
                given = Request(scope).headers.get("authorization", "")
                if not self._credentials.allow(given):
                    self._refused("credentials")
                    answer = refusal(401, "credentials are needed, and these are none", "security_exception",
                                     www_authenticate='Basic realm="tallystick"')  # fmt: skip
                    await answer(scope, receive, signed)
                    return
            await app(scope, receive, signed)

        return door

    async def _unknown(self, request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        self._refused("unknown_request")
        reason = f"{request.method} {request.url.path}: {error.detail}. Documents are taken at /_bulk; nothing is searched here"
        answer = refusal(error.status_code, reason)
        answer.headers.update(error.headers or {})
        return answer


async def _broken(_: Request, __: Exception) -> Response:
    return refusal(500, "internal error: see the collector's log", "exception")


def _origin(item: Item) -> Origin:
    return Origin(receiver="elasticsearch", tag=item.index)


def _source_id(item: Item, document: dict[str, Any]) -> bytes | None:
    index, name = item.index.encode("utf-8", "surrogatepass"), item.name.encode("utf-8", "surrogatepass")
    if item.name:
        return (
            _hash(b"create", index, name)
            if item.action == "create"
            else _hash(b"index", index, name, digest_of(document))
        )
    place = place_id(document)
    return place and _hash(b"place", index, place)


def _hash(*parts: bytes) -> bytes:
    return hashlib.sha256(b"".join(b"%d\0%b" % (len(part), part) for part in parts)).digest()


def _answer(item: Item, **members: Any) -> dict[str, Any]:
    named = {"_index": item.index} | ({"_id": item.name} if item.name else {})
    return {item.action: {**named, **members}}


def _created(item: Item) -> dict[str, Any]:
    # a re-send hears what the first copy would have heard
    return _answer(item, _version=1, result="created", _shards=_SHARDS, status=201)


def _error(item: Item, error: Malformed) -> dict[str, Any]:
    kind = "illegal_argument_exception" if error.label == "append_only" else "document_parsing_exception"
    return _answer(item, status=400, error={"type": kind, "reason": str(error)})
