"""The one way from a request to an answer: who asks, how often, may they, what is read, is it on record. In this order.

No answer leaves whose access is not durable: if it cannot be recorded, the answer is thrown away and a problem served.

| step                       | says no with                | that refusal is recorded                                     |
|----------------------------|-----------------------------|--------------------------------------------------------------|
| authenticate               | 401 unauthenticated         | as ``anonymous``; past so many a minute, counted             |
| ask not too often          | 429 too-many-requests       | as the principal's; past so many a minute, counted           |
| authorise                  | 403 forbidden, cross-site   | yes; without a session as ``anonymous``                      |
| understand the request     | 400, 404, 413, 415          | yes                                                          |
| read                       | 404, 422, 500, 503          | yes                                                          |
| record                     | 503 not-on-record           | no: that is why                                              |
"""

import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from audit_api.accesses import AccessRecorder, Asked
from audit_api.auth import ANONYMOUS, ROLES, Principal, Role
from audit_api.bodies import FORM, media_type_of, parse_form, read_body
from audit_api.identity.crosssite import CSRF_FIELD, CSRF_HEADER, SAFE_METHODS
from audit_api.identity.door import CHALLENGE, Asker, Door
from audit_api.identity.scope import EVERYTHING, RowScope
from audit_api.identity.sessions import Session
from audit_api.limits import Limits
from audit_api.metrics import ApiMetrics
from audit_api.parameters import Parameter, parse_query
from audit_api.problems import Problem, problem_of, problem_response, too_many
from audit_api.purpose import PURPOSE, demand_purpose, purpose_of
from audit_api.readingthread import ReadingThread
from audit_api.record import Record
from audit_api.settings import ApiSettings
from audit_api.streaming import ByteStream, answer_of
from collector.errors import TallyError

__all__ = ["Call", "Gate", "Operation", "ProblemPage", "Reading", "Runner"]

_log = logging.getLogger("tally.api")


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A request that may be answered.

    Attributes:
        principal: who asks; None only where anyone may.
        target: what the path names, as the operation's `target` found it.
        values: of all declared parameters.
        request: as it came; its body is read already.
        accept: the Accept header.
        session: the browser's, when the request came with one and not with a token: its CSRF token is for the forms of a page.
        body: whole; empty when there is none.
        form: the fields of the body, where it is an HTML form.
    """

    principal: Principal | None
    target: Mapping[str, Any]
    values: Mapping[str, Any]
    request: Request
    accept: str = ""
    session: Session | None = None
    body: bytes = field(default=b"", repr=False)
    form: Mapping[str, str] = field(default_factory=dict, repr=False)

    @property
    def scope(self) -> RowScope:
        """What of the ledger who asks may see. An operation that shows any of it, and says that it is `scoped`, shows no more."""
        return self.principal.scope if self.principal is not None else EVERYTHING

    def has_role(self, *roles: Role) -> bool:
        """Whether who asks has one of these roles."""
        return self.principal is not None and not self.principal.roles.isdisjoint(roles)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What was read, ready to be sent; and for the record, of which trail, up to which leaf.

    `status`: 0: the operation's. `asker`, `session`: for the record of a log-in: who it turned out to be, and the session's name.
    `notes`, `keys`: further attributes, and business keys, of the access event. `stream`: makes the answer's bytes in `body`'s place, from when the access is on record; closed in any case.
    """

    body: bytes = field(default=b"", repr=False)
    media_type: str = "application/json"
    headers: Mapping[str, str] = field(default_factory=dict)
    trail: str = ""
    head: int = -1
    stream: ByteStream | None = None
    notes: Mapping[str, str] = field(default_factory=dict)
    keys: Mapping[str, str] = field(default_factory=dict)
    status: int = 0
    asker: str = ""
    session: str = ""


Runner = Callable[..., Awaitable[Any]]
"""Runs a function in the thread that reads: ``await run(function, *arguments)``."""


ProblemPage = Callable[[Problem, Request, Session | None], Response | None]
"""What a browser is shown in a problem's place; None: the problem details, as everybody else."""


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
        roles: one of them is needed; empty: anyone may, and nothing is recorded but where `recorded` says so.
        scoped: it shows no more than `Call.scope` sees. Who may see but a part of the ledger is refused all that is not.
        method: GET, POST, PUT, PATCH or DELETE. All but GET are held to their origin and a CSRF token when they come from a browser.
        recorded: put on record though anyone may, such as a log-in.
        conditional: it heeds If-Match.
        export: it takes content away: held to the principal's budget of exports besides.
        secret_query: its query holds what must not be on record, such as an authorization code.
        purposeless: it shows nothing of the ledger, so nobody need say why they ask, wherever that is required.
        body_limit_bytes: a longer body is refused; 0: none is taken.
        body_types: media types that the body may have, to (schema, example). A form is parsed into `Call.form`.
        success: the status of an answer that is no problem, unless its `Reading` says another.
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
    scoped: bool = False
    method: str = "GET"
    recorded: bool = False
    conditional: bool = False
    export: bool = False
    secret_query: bool = False
    purposeless: bool = False
    body_limit_bytes: int = 0
    body_types: Mapping[str, tuple[str, Any]] = field(default_factory=dict)
    success: int = 200
    target: Callable[[Request], Mapping[str, Any]] = _no_target
    path_parameters: Mapping[str, tuple[str, Mapping[str, Any], Any]] = field(default_factory=dict)
    parameters: tuple[Parameter, ...] = ()
    answers: Mapping[str, tuple[str, Any]] = field(default_factory=dict)
    problems: tuple[str, ...] = ()

    @property
    def public(self) -> bool:
        """Whether anyone may."""
        return not self.roles

    @property
    def on_record(self) -> bool:
        """Whether its answers and refusals are put on record."""
        return self.recorded or not self.public


class Gate:
    """Answers requests. One for each application; close it when the application stops.

    Args:
        door: tells who asks.
        recorder: puts accesses on record.
        limits: how much each principal may ask; closed by its owner.
        settings: of the API.
        clock: Unix time in nanoseconds.
        monotonic: seconds that only go forward.
        metrics: where to count.
        problem_page: shows problems to browsers.

    Attributes:
        reading: the thread in which operations read.
    """

    def __init__(
        self,
        *,
        door: Door,
        recorder: AccessRecorder,
        limits: Limits,
        settings: ApiSettings,
        clock: Callable[[], int],
        monotonic: Callable[[], float],
        metrics: ApiMetrics,
        problem_page: ProblemPage | None = None,
    ) -> None:
        self._door = door
        self._problem_page = problem_page
        self._monotonic = monotonic
        self._metrics = metrics
        self._purpose_required = settings.purpose_required
        self._limits = limits
        self._record = Record(recorder, settings=settings, clock=clock, monotonic=monotonic, metrics=metrics)
        self.reading = ReadingThread(monotonic=monotonic)

    async def answer(self, operation: Operation, request: Request) -> Response:
        """The answer to a request; never raises."""
        started = self._monotonic()
        if operation.export:  # those let the others go first
            response = await self._answer(operation, request)
        else:
            with self.reading.asked():
                response = await self._answer(operation, request)
        self._metrics.request_seconds.labels(operation.operation_id, str(response.status_code)).observe(
            self._monotonic() - started
        )
        return response

    async def _answer(self, operation: Operation, request: Request) -> Response:
        asker: Asker | None = None
        problem: Problem | None = None
        reading: Reading | None = None
        target: Mapping[str, Any] = {}
        try:
            try:
                target = operation.target(request)
            except Problem as error:
                problem = error  # told only to those who may ask at all
            if operation.public:
                asker = await self._anyone(operation, request)
            else:
                asker = await self._known(request)
                await self._not_too_often(asker.principal.name)
                _authorise(operation, asker.principal)
                if operation.export and (wait := await self._limits.take("exports", asker.principal.name)):
                    raise too_many(wait, "you export more often than you may")
            if problem is not None:
                raise problem
            call = await self._understood(operation, request, asker, target)
            reading = await operation.read(call, self.reading.run_last if operation.export else self.reading.run)
            if reading.asker:  # only now is it known who asked
                await self._not_too_often(reading.asker)
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
        status = (reading.status if reading is not None else 0) or operation.success
        if operation.on_record:
            name, asked = _asked(operation, request, asker, target, reading)
            head = reading.head if reading is not None else -1
            unrecorded = await self._record.take(asked, principal=name, problem=problem, status=status, head=head)
            if unrecorded is not None:
                self._metrics.refused.labels(unrecorded.kind.name).inc()
                if reading is not None and reading.stream is not None:
                    await reading.stream.aclose()
                problem = unrecorded
        if problem is not None or reading is None:
            assert problem is not None
            return self._told(problem, request, asker)
        return answer_of(reading.stream or reading.body, status, media_type=reading.media_type, headers=reading.headers)

    def _told(self, problem: Problem, request: Request, asker: Asker | None) -> Response:
        """A problem as whoever asks can read it."""
        if self._problem_page is not None and "text/html" in request.headers.get("accept", ""):
            try:
                page = self._problem_page(problem, request, asker.session if asker is not None else None)
            except Exception:  # noqa: BLE001 - the problem is told all the same
                _log.exception("a problem could not be shown as a page")
                page = None
            if page is not None:
                return page
        return problem_response(problem, instance=request.url.path)

    # Who asks, and what -----------------------------------------------------------------------------------------------

    async def _known(self, request: Request) -> Asker:
        asker = await self._door.asker(request)
        if asker is None:
            raise Problem("unauthenticated", "this needs a token, and none was sent", headers=CHALLENGE)
        return asker

    async def _not_too_often(self, name: str) -> None:
        wait = await self._limits.take("requests", name)
        if wait:
            raise too_many(wait)

    async def _anyone(self, operation: Operation, request: Request) -> Asker | None:
        """Who asks for what anyone may have: credentials that prove nobody do no harm there."""
        if operation.method not in SAFE_METHODS:
            return await self._door.asker(request)
        session = await self._door.session_of(request)
        return Asker(principal=session.principal, session=session) if session is not None else None

    async def _understood(
        self, operation: Operation, request: Request, asker: Asker | None, target: Mapping[str, Any]
    ) -> Call:
        body = await read_body(request, limit_bytes=operation.body_limit_bytes, media_types=operation.body_types)
        form = parse_form(body) if body and media_type_of(request) == FORM else {}
        session = asker.session if asker is not None else None
        if session is not None and not operation.public and operation.method not in SAFE_METHODS:
            session.demand_token(request.headers.get(CSRF_HEADER, "") or form.get(CSRF_FIELD, ""))
        if self._purpose_required and not (operation.public or operation.purposeless):
            demand_purpose(request, session)
        return Call(
            principal=asker.principal if asker is not None and not operation.public else None,
            target=target,
            values=parse_query(request.scope.get("query_string", b""), (*operation.parameters, PURPOSE)),
            request=request,
            accept=request.headers.get("accept", ""),
            session=session,
            body=body,
            form=form,
        )

    async def close(self) -> None:
        """Record what was only counted so far, and let the threads go."""
        await self._record.close()
        self.reading.close()


def _authorise(operation: Operation, principal: Principal) -> None:
    if principal.roles.isdisjoint(operation.roles):
        needed = [role for role in ROLES if role in operation.roles]
        raise Problem("forbidden", f"this is for {', '.join(needed)}", roles=needed)
    if not operation.scoped and not principal.scope.whole:
        raise Problem("forbidden", "this shows all of the ledger, and you may see a part of it")


def _asked(
    operation: Operation, request: Request, asker: Asker | None, target: Mapping[str, Any], reading: Reading | None
) -> tuple[str, Asked]:
    """Who asked, and for what, as it goes on record."""
    asked = Asked(
        action=operation.action,
        method=request.method,
        path=request.url.path,
        query="" if operation.secret_query else request.scope.get("query_string", b"").decode("latin-1"),
        client=request.client.host if request.client else "",
        trail=(reading.trail if reading is not None else "") or str(target.get("trail", "")),
        session=asker.session.name if asker is not None and asker.session is not None else "",
        purpose=purpose_of(request, asker.session if asker is not None else None),
        notes=reading.notes if reading is not None else {},
        keys=reading.keys if reading is not None else {},
    )
    if reading is not None and reading.asker:
        return reading.asker, replace(asked, session=reading.session)
    return asker.principal.name if asker is not None else ANONYMOUS, asked
