"""Business events over HTTP: CloudEvents at ``POST /v1/cloudevents``, and what Dynatrace calls business events at its own path.

CloudEvents come in all three content modes of the HTTP protocol binding
(https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/bindings/http-protocol-binding.md): binary (headers ``ce-…``), structured
(``application/cloudevents+json``) and batched (``application/cloudevents-batch+json``). ``POST /api/v2/bizevents/ingest`` takes these and plain JSON, an object or an array
of objects with ``event.type``, ``event.provider``, ``event.id`` and ``timestamp``, for senders that are made for that API.

The answer comes after the fsync. With the header ``Idempotency-Key`` a whole request sent again is recognised; each event by its own id, wherever it has one.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from collector.errors import Malformed, Overloaded, TooLarge
from collector.event import Origin, format_time
from collector.receive import Arrival, Intake
from collector.receive.body import BodyLimits, ClientDisconnect, media_type, read_body, sender_of
from collector.receive.census import check_json
from collector.receive.cloudevent import HEADER, arrival_of_cloudevent, context_of_headers, data_of_body
from collector.receive.json_lines import value_of_json
from collector.receive.problem import json_response, overloaded, problem
from collector.receive.record import FIELDS, arrival_of_record
from collector.receive.room import Room
from collector.rejection import Rejection
from collector.sender import Sender

__all__ = ["BusinessEventReceiver"]

_STRUCTURED = ("application/cloudevents+json", "application/cloudevent+json")  # the second is Dynatrace's spelling
_BATCHED = "application/cloudevents-batch+json"
_MAX_KEY_CHARACTERS = 255
_ERRORS_SHOWN = 10
_MAX_EVENTS = 131_072
"""Most in a request; as many as a message of Forward may have."""

One = tuple[bytes, Arrival | Malformed]
"""An event of a request: its bytes for the dead letters, and what it is."""


class BusinessEventReceiver:
    """The endpoints' handlers and their routes.

    Args:
        intake: takes the events.
        clock: Unix time in nanoseconds; stamps `observed`.
        service: ``service.name`` of events that name none; empty: a CloudEvent's source, a business event's provider.
        limits: of one body.
        room: for the bodies of all requests together.
        refused: called with a reason for each refused request: ``media_type``, ``too_large``, ``bad_gzip``, ``bad_encoding``, ``bad_json``,
            ``bad_cloudevent``, ``idempotency_key``, ``overloaded``, ``connection_lost``.
    """

    def __init__(
        self,
        intake: Intake,
        *,
        clock: Callable[[], int],
        service: str = "",
        limits: BodyLimits | None = None,
        room: Room | None = None,
        refused: Callable[[str], object] = lambda _reason: None,
    ) -> None:
        self._intake = intake
        self._clock = clock
        self._service = service
        self._limits = limits or BodyLimits()
        self._room = room or Room(128 * 2**20)
        self._refused = refused

    @property
    def routes(self) -> list[Route]:
        """The routes to mount."""
        return [
            Route("/v1/cloudevents", self.post, methods=["POST"]),
            Route("/api/v2/bizevents/ingest", self.ingest, methods=["POST"]),
        ]

    async def post(self, request: Request) -> Response:
        """Take CloudEvents; answers 200 with the account, also when some of a batch became dead letters."""
        return await self._answer(request, self._cloudevents, json_response)

    async def ingest(self, request: Request) -> Response:
        """Take business events; answers as that API does: 202 when all are taken, 400 when some were refused and the others are taken."""

        def told(account: Mapping[str, Any]) -> Response:
            if not account["dead_lettered"]:
                return Response(status_code=202)
            return problem(400, "Some events were refused; the others are taken", **account)

        return await self._answer(request, self._business_events, told)

    async def _answer(
        self,
        request: Request,
        decode: Callable[[Request, bytes, str], Sequence[One]],
        told: Callable[[Mapping[str, Any]], Response],
    ) -> Response:
        key = request.headers.get("idempotency-key", "")
        if len(key) > _MAX_KEY_CHARACTERS:
            self._refused("idempotency_key")
            return problem(400, "Bad request", f"Idempotency-Key has more than {_MAX_KEY_CHARACTERS} characters")
        try:
            with self._room.claim() as claim:
                body = await read_body(request, self._limits, claim)
                check_json(body)
                return told(
                    await self._take(
                        decode(request, body, format_time(self._clock())), key.encode("latin-1"), sender_of(request)
                    )
                )
        except Overloaded as error:
            self._refused("overloaded")
            return overloaded(error)
        except ClientDisconnect:
            self._refused("connection_lost")
            return Response(status_code=400)  # nobody hears it
        except Malformed as error:
            self._refused(error.label)
            status = {"too_large": 413, "bad_encoding": 415, "media_type": 415}.get(error.label, 400)
            return problem(status, "Nothing was taken", str(error))

    async def _take(self, events: Sequence[One], key: bytes, sender: Sender) -> dict[str, Any]:
        """Make all durable: what cannot be read first, so that a request sent again finds its dead letters."""
        arrivals: list[Arrival] = []
        places: list[int] = []
        errors: list[dict[str, Any]] = []
        rejections: list[Rejection] = []
        for at, (raw, one) in enumerate(events):
            if isinstance(one, Arrival):
                arrivals.append(one)
                places.append(at)
                continue
            name = b"business\0" + hashlib.sha256(raw).digest()
            rejections.append(Rejection(raw, one, Origin(receiver="cloudevents"), name))
            errors.append({"event": at, "reason": str(one)})
        await self._intake.reject(rejections)
        account = {"events": len(events), "stored": 0, "duplicates": 0, "dead_lettered": len(errors)}
        if arrivals:
            receipt = await self._intake.accept(arrivals, group_id=_group_id(key, events), sender=sender)
            account["stored"], account["duplicates"] = receipt.stored, receipt.duplicates
            account["dead_lettered"] += receipt.dead_lettered
            errors += [{"event": places[at], "reason": reason} for at, reason in receipt.refused]
        return {**account, "errors": errors[:_ERRORS_SHOWN]}

    def _cloudevents(self, request: Request, body: bytes, observed: str) -> Sequence[One]:
        media = media_type(request)
        headers = {name.lower(): value for name, value in request.headers.items()}
        if media in _STRUCTURED:
            return [self._cloudevent(value_of_json(body), body, observed)]
        if media == _BATCHED:
            return [self._cloudevent(one, _json(one), observed) for one in _array(value_of_json(body))]
        if f"{HEADER}specversion" in headers:
            context = context_of_headers(headers)
            data = data_of_body(body, headers.get("content-type", ""))
            return [self._cloudevent({**context, "data": data}, body, observed)]
        raise Malformed(
            f"send CloudEvents as {_STRUCTURED[0]}, {_BATCHED}, or with headers {HEADER}specversion, {HEADER}id …",
            label="media_type",
        )

    def _business_events(self, request: Request, body: bytes, observed: str) -> Sequence[One]:
        if media_type(request) != "application/json" or f"{HEADER}specversion" in request.headers:
            return self._cloudevents(request, body, observed)
        value = value_of_json(body)
        return [self._business_event(one, observed) for one in (_array(value) if isinstance(value, list) else [value])]

    def _cloudevent(self, value: Any, raw: bytes, observed: str) -> One:
        try:
            if not isinstance(value, dict):
                raise Malformed("not a JSON object", label="bad_cloudevent")
            origin = Origin(receiver="cloudevents")
            return raw, arrival_of_cloudevent(value, origin=origin, service=self._service, observed=observed)
        except Malformed as error:
            return raw, error

    def _business_event(self, value: Any, observed: str) -> One:
        raw = _json(value)
        if not isinstance(value, dict):
            return raw, Malformed("not a JSON object", label="bad_json")
        kind, provider, identity = (value.get(f"event.{name}") for name in ("type", "provider", "id"))
        record, others = dict(value), {}
        if type(kind) is str and kind:
            # it is the event's name, whatever else is called so: that stays an attribute
            others = {name: record.pop(name) for name in FIELDS["event_name"] if name in record}
            record["event.name"] = record.pop("event.type")
        service = self._service or (provider if type(provider) is str else "")
        origin = Origin(receiver="bizevents")
        arrival = arrival_of_record(record, origin=origin, service=service, observed=observed)
        arrival.event.attributes.update(others)
        if arrival.source_id is None and type(identity) is str and identity:
            digest = hashlib.sha256(_json([provider, identity])).digest()
            arrival = Arrival(event=arrival.event, source_id=b"biz\0" + digest)
        return raw, arrival


def _array(value: Any) -> Sequence[Any]:
    if not isinstance(value, list):
        raise Malformed("not a JSON array", label="bad_json")
    if len(value) > _MAX_EVENTS:
        raise TooLarge(f"more than {_MAX_EVENTS} events in a request: send them in several")
    return value


def _json(value: Any) -> bytes:
    """An event's bytes, as the dead letters and ids have them: lone surrogates and NaN stay what they were."""
    try:
        return msgspec.json.encode(value)
    except (msgspec.EncodeError, UnicodeEncodeError, ValueError, RecursionError):
        return repr(value).encode("utf-8", "backslashreplace")


def _group_id(key: bytes, events: Sequence[One]) -> bytes | None:
    """By what is said, too: other events under the same key are no re-send of these."""
    if not key:
        return None
    said = hashlib.sha256()
    for raw, one in events:
        name = (one.source_id if isinstance(one, Arrival) else None) or b""  # in binary mode it stands in headers
        said.update(b"%d\0%b%d\0%b" % (len(raw), raw, len(name), name))
    return hashlib.sha256(b"business\0%d\0%b%b" % (len(key), key, said.digest())).digest()
