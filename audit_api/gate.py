"""The one way from a request to an answer: who asks, how often, may they, what is read, is it on record. In this order.

No answer leaves whose access is not durable: if it cannot be recorded, the answer is thrown away and a problem served.

| step                       | says no with                | that refusal is recorded                                     |
|----------------------------|-----------------------------|--------------------------------------------------------------|
| authenticate               | 401 unauthenticated         | as ``anonymous``; past so many a minute, counted             |
| ask not too often          | 429 too-many-requests       | as the principal's; past so many a minute, counted           |
| authorise                  | 403 forbidden               | yes                                                          |
| understand the request     | 400, 404                    | yes                                                          |
| read                       | 404, 422, 500, 503          | yes                                                          |
| record                     | 503 not-on-record           | no: that is why                                              |
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, TypeVar

from starlette.requests import Request
from starlette.responses import Response

from audit_api.accesses import AccessRecorder, Asked, access_event, surplus_event
from audit_api.auth import ANONYMOUS, ROLES, Authenticator, Principal, Role
from audit_api.limits import RefusalBudget, TokenBuckets
from audit_api.metrics import ApiMetrics
from audit_api.parameters import Parameter, parse_query
from audit_api.problems import Problem, not_on_record, problem_of, problem_response, too_many
from audit_api.settings import ApiSettings
from audit_api.streaming import ByteStream, StreamedAnswer
from collector.errors import TallyError
from collector.event import Event

__all__ = ["Call", "Gate", "Operation", "Reading", "Runner"]

_log = logging.getLogger("tally.api")

_Result = TypeVar("_Result")


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A request that may be answered.

    Attributes:
        principal: who asks; None only where anyone may.
        target: what the path names, as the operation's `target` found it.
        values: of all declared parameters.
        accept: the Accept header.
    """

    principal: Principal | None
    target: Mapping[str, Any]
    values: Mapping[str, Any]
    accept: str = ""

    def has_role(self, *roles: Role) -> bool:
        """Whether who asks has one of these roles."""
        return self.principal is not None and not self.principal.roles.isdisjoint(roles)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What was read, ready to be sent; and for the record, of which trail, up to which leaf.

    `stream`: makes the answer's bytes in `body`'s place, where they are not to be held in memory; it is asked for the first of them once
    the access is on record, and closed in any case.
    """

    body: bytes = field(default=b"", repr=False)
    media_type: str = "application/json"
    headers: Mapping[str, str] = field(default_factory=dict)
    trail: str = ""
    head: int = -1
    stream: ByteStream | None = None


Runner = Callable[..., Awaitable[Any]]
"""Runs a function in the thread that reads: ``await run(function, *arguments)``."""


def _no_target(_: Request) -> Mapping[str, Any]:
    return {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One thing that can be asked for: everything about it, for routing, for the gate, and for the OpenAPI document.

    Attributes:
        operation_id: its name in the OpenAPI document, and as a metric's label.
        path: its path template; ``{name:path}`` takes slashes in.
        tag, summary, about: for the OpenAPI document.
        action: what its access is called on record.
        roles: one of them is needed; empty: anyone may, and nothing is recorded.
        read: answers a call; raises `Problem` or one of our errors.
        target: what the path names (a ``trail`` in it is recorded); raises `Problem`.
        path_parameters: name to (description, schema, example).
        parameters: of the query.
        answers: media type to (description, example).
        problems: names of the problems that it can answer beyond those of every operation.
    """

    operation_id: str
    path: str
    tag: str
    summary: str
    about: str
    action: str
    roles: frozenset[Role]
    read: Callable[[Call, Runner], Awaitable[Reading]]
    target: Callable[[Request], Mapping[str, Any]] = _no_target
    path_parameters: Mapping[str, tuple[str, Mapping[str, Any], Any]] = field(default_factory=dict)
    parameters: tuple[Parameter, ...] = ()
    answers: Mapping[str, tuple[str, Any]] = field(default_factory=dict)
    problems: tuple[str, ...] = ()

    @property
    def public(self) -> bool:
        """Whether anyone may."""
        return not self.roles


class Gate:
    """Answers requests. One for each application; close it when the application stops.

    Args:
        authenticator: tells who asks.
        recorder: puts accesses on record.
        settings: limits.
        clock: Unix time in nanoseconds.
        monotonic: seconds that only go forward.
        metrics: where to count.
    """

    def __init__(
        self,
        *,
        authenticator: Authenticator,
        recorder: AccessRecorder,
        settings: ApiSettings,
        clock: Callable[[], int],
        monotonic: Callable[[], float],
        metrics: ApiMetrics,
    ) -> None:
        self._authenticator = authenticator
        self._recorder = recorder
        self._clock = clock
        self._monotonic = monotonic
        self._metrics = metrics
        self._buckets = TokenBuckets(
            rate=settings.requests_a_second, burst=settings.burst_requests, monotonic=monotonic
        )
        self._refusals = RefusalBudget(per_minute=settings.anonymous_refusals_a_minute, clock=clock)
        # One thread reads: index and store are for one thread at a time, and what it does is short or done in steps.
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="tally-api-read")
        # Many record: each waits for the disk, and those that wait at once share its sync.
        self._recorders = ThreadPoolExecutor(settings.recorder_threads, thread_name_prefix="tally-api-record")

    async def run(self, function: Callable[..., _Result], *arguments: Any) -> _Result:
        """Run a function in the thread that reads."""
        return await asyncio.get_running_loop().run_in_executor(self._reader, function, *arguments)

    async def answer(self, operation: Operation, request: Request) -> Response:
        """The answer to a request; never raises."""
        started = self._monotonic()
        response = await self._answer(operation, request)
        self._metrics.request_seconds.labels(operation.operation_id, str(response.status_code)).observe(
            self._monotonic() - started
        )
        return response

    async def _answer(self, operation: Operation, request: Request) -> Response:
        path = request.url.path
        principal: Principal | None = None
        problem: Problem | None = None
        reading: Reading | None = None
        target: Mapping[str, Any] = {}
        try:
            try:
                target = operation.target(request)
            except Problem as error:
                problem = error  # told only to those who may ask at all
            if not operation.public:
                principal = self._authenticate(request)
                wait = self._buckets.take(principal.name)
                if wait:
                    raise too_many(wait)
                _authorise(operation, principal)
            if problem is not None:
                raise problem
            call = Call(
                principal=principal,
                target=target,
                values=parse_query(request.scope.get("query_string", b""), operation.parameters),
                accept=request.headers.get("accept", ""),
            )
            reading = await operation.read(call, self.run)
            problem = None
        except Problem as error:
            problem = error
        except TallyError as error:
            problem = problem_of(error)
            if problem.kind.status >= 500:  # what is merely not there is no news, and its name may be anything
                _log.warning("%s: %s", operation.operation_id, error)
        except Exception:  # noqa: BLE001 - a fault of ours: it is logged, answered without a word about it, and recorded
            _log.exception("%s failed", operation.operation_id)
            problem = Problem("internal", "an error that this process has logged")
        if problem is not None:
            self._metrics.refused.labels(problem.kind.name).inc()
        if not operation.public:
            asked = Asked(
                action=operation.action,
                method=request.method,
                path=path,
                query=request.scope.get("query_string", b"").decode("latin-1"),
                client=request.client.host if request.client else "",
                trail=str(target.get("trail", "")),
            )
            unrecorded = await self._record(asked, principal, problem, reading)
            if unrecorded is not None:
                self._metrics.refused.labels(unrecorded.kind.name).inc()
                if reading is not None and reading.stream is not None:
                    await reading.stream.aclose()
                return problem_response(unrecorded, instance=path)
        if problem is not None or reading is None:
            assert problem is not None
            return problem_response(problem, instance=path)
        if reading.stream is not None:
            return StreamedAnswer(reading.stream, media_type=reading.media_type, headers=reading.headers)
        return Response(reading.body, media_type=reading.media_type, headers=dict(reading.headers))

    # Who asks ---------------------------------------------------------------------------------------------------------

    def _authenticate(self, request: Request) -> Principal:
        credentials = request.headers.getlist("authorization")
        challenge = {"WWW-Authenticate": 'Bearer realm="tallystick"'}
        if not credentials:
            raise Problem("unauthenticated", "this needs a token, and none was sent", headers=challenge)
        principal = None
        try:
            if len(credentials) == 1:
                principal = self._authenticator.authenticate(credentials[0])
        except TallyError as error:
            _log.error("nobody is let in: %s", error)
        if principal is None:
            challenge = {"WWW-Authenticate": 'Bearer realm="tallystick", error="invalid_token"'}
            raise Problem("unauthenticated", "the token that was sent is not valid", headers=challenge)
        return principal

    # The record -------------------------------------------------------------------------------------------------------

    async def _record(
        self, asked: Asked, principal: Principal | None, problem: Problem | None, reading: Reading | None
    ) -> Problem | None:
        """Put the access or refusal on record; gives the problem when that cannot be done."""
        name = principal.name if principal is not None else ANONYMOUS
        try:
            await self.record_surplus()
            bounded = problem is not None and problem.kind.name in ("unauthenticated", "too-many-requests")
            if bounded and not self._refusals.take(name):
                self._metrics.surplus_refusals.inc()
                return None
            await self._durable(
                access_event(
                    asked,
                    principal=name,
                    status=problem.kind.status if problem is not None else 200,
                    now_ns=self._clock(),
                    trail=reading.trail if reading is not None else "",
                    head=reading.head if reading is not None else -1,
                    refused=problem.kind.name if problem is not None else "",
                )
            )
        except Exception as error:  # noqa: BLE001 - whatever it is: what is not on record is not served
            _log.error("an access could not be put on record: %s", error)
            return not_on_record(error)
        return None

    async def record_surplus(self, *, all_of_it: bool = False) -> None:
        """Record the refusals of minutes that are over; raises as the recorder does."""
        over = self._refusals.surplus(all_of_it=all_of_it)
        while over:
            try:
                await self._durable(surplus_event(over[-1], now_ns=self._clock()))
            except Exception:
                self._refusals.give_back(over)
                raise
            over.pop()

    async def _durable(self, event: Event) -> None:
        started = self._monotonic()
        await asyncio.get_running_loop().run_in_executor(self._recorders, self._recorder.record, event)
        self._metrics.accesses.inc()
        self._metrics.record_seconds.observe(self._monotonic() - started)

    async def close(self) -> None:
        """Record what was only counted so far, and let the threads go."""
        try:
            await self.record_surplus(all_of_it=True)
        except Exception as error:  # noqa: BLE001 - a stop goes on; the log of this process says what was lost
            _log.error("counted refusals could not be put on record: %s", error)
        self._reader.shutdown(wait=True)
        self._recorders.shutdown(wait=True)


def _authorise(operation: Operation, principal: Principal) -> None:
    if principal.roles.isdisjoint(operation.roles):
        needed = [role for role in ROLES if role in operation.roles]
        raise Problem("forbidden", f"this is for {', '.join(needed)}", roles=needed)
