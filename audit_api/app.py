"""The application: routes from operations, the OpenAPI document, and what holds for every answer.

No globals: everything is made by `create_app` from what it is given.
"""

import asyncio
import contextlib
import socket
import ssl
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Protocol

import msgspec
import uvicorn
from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from audit_api.accesses import AccessRecorder
from audit_api.auth import Authenticator
from audit_api.cut_schemas import CUT_SCHEMAS
from audit_api.export.data import DataExports
from audit_api.export.joboperations import JOB_SCHEMAS, ExportJobs
from audit_api.export.operation import Exports
from audit_api.export.shelf import Shelf
from audit_api.gate import Gate, Operation
from audit_api.health import Health
from audit_api.identity.certificates import CertificateProtocol
from audit_api.identity.crosssite import SAFE_METHODS
from audit_api.identity.door import Bearers, Door
from audit_api.identity.login import LOGIN_SCHEMAS, Logins
from audit_api.identity.sessions import Sessions
from audit_api.incidents import INCIDENT_SCHEMAS, IncidentDesk
from audit_api.live import Live
from audit_api.log_paths import LogPaths
from audit_api.logs import Logs
from audit_api.metrics import ApiMetrics
from audit_api.openapi import DESCRIPTION, TAGS, extras_of, responses_of, security_schemes
from audit_api.overview import Overview
from audit_api.problems import Problem, problem_response
from audit_api.proofs import Proofs
from audit_api.revalidation import revalidated
from audit_api.reviews import REVIEW_SCHEMAS, Reviews
from audit_api.schemas import SCHEMAS, Schemas
from audit_api.settings import ApiSettings
from audit_api.trails import Trails
from audit_api.web.desk import Desk
from correlator.flow import Flow

__all__ = ["Provider", "create_app", "serve"]

_HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"x-frame-options", b"DENY"),
    (b"cache-control", b"no-store"),
)


class Provider(Bearers, Protocol):
    """An identity provider: `audit_api.identity.oidc.provider.OidcProvider`, which needs the extra `oidc`."""

    def operations(self, sessions: Sessions) -> Sequence[Operation]:
        """Those of a browser's log-in there."""

    async def close(self) -> None:
        """Let go of connections."""


def create_app(
    *,
    logs: Logs,
    recorder: AccessRecorder,
    authenticator: Authenticator,
    settings: ApiSettings,
    clock: Callable[[], int] = time.time_ns,
    monotonic: Callable[[], float] = time.monotonic,
    flows: Sequence[Flow] = (),
    provider: Provider | None = None,
    exports_folder: Path | None = None,
) -> FastAPI:
    """The API over one ledger. What it is given stays its caller's to close.

    Args:
        logs: the ledger's only one (`Logs.whole`), or those of its shards; used by one thread of the API alone.
        recorder: puts accesses on record; used by several threads.
        authenticator: tells who asks.
        settings: limits, and what is public.
        clock: Unix time in nanoseconds.
        monotonic: seconds that only go forward.
        flows: as they are declared, for the pages to show a story beside what was to happen.
        provider: the identity provider, if there is one; closed with the application.
        exports_folder: where export jobs and their files are kept; None: there are none.
    """
    metrics = ApiMetrics()
    sessions = Sessions(
        idle_seconds=settings.session_idle_seconds,
        absolute_seconds=settings.session_seconds,
        secure=settings.secure,
        monotonic=monotonic,
    )
    trails, overview = Trails(logs, settings), Overview(logs, authenticator)
    incidents = IncidentDesk(logs, recorder, clock=clock)
    desk = Desk(
        logs=logs,
        trails=trails,
        overview=overview,
        incidents=incidents,
        settings=settings,
        flows=flows,
        provider=provider is not None,
    )
    door = Door(authenticator=authenticator, sessions=sessions, public_url=settings.public_url, bearers=provider)
    gate = Gate(
        door=door,
        recorder=recorder,
        settings=settings,
        clock=clock,
        monotonic=monotonic,
        metrics=metrics,
        problem_page=desk.problem_page,
    )
    health = Health(gate=gate, logs=logs, metrics=metrics)
    shelf = None
    if exports_folder is not None:
        shelf = Shelf(exports_folder, clock=clock, keep_seconds=settings.export_keep_seconds)
    data = DataExports(logs, settings, shelf)
    jobs = ExportJobs.over(data, shelf, run=gate.run) if shelf is not None else None
    schemas = {
        **(CUT_SCHEMAS if logs.cut else SCHEMAS),
        **LOGIN_SCHEMAS,
        **REVIEW_SCHEMAS,
        **INCIDENT_SCHEMAS,
        **(JOB_SCHEMAS if jobs is not None else {}),
    }
    live = Live(logs, settings)
    operations = [
        *live.operations(),
        *trails.operations(),
        *Exports(logs, settings, data).operations(),
        *data.operations(),
        *(jobs.operations() if jobs is not None else ()),
        *Proofs(logs, settings.public_log).operations(),
        *LogPaths(logs, settings.public_log).operations(),
        *overview.operations(),
        *Reviews(logs, settings).operations(),
        *incidents.operations(),
        *Logins(door).operations(),
        *(provider.operations(sessions) if provider is not None else ()),
    ]
    operations = [revalidated(operation) for operation in operations]

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        if jobs is not None:
            jobs.worker.start()
        yield
        if jobs is not None:
            await jobs.worker.stop()
        await gate.close()
        if provider is not None:
            await provider.close()

    app = FastAPI(
        title="Tallystick audit API",
        summary="Trails that anyone can verify.",
        description=DESCRIPTION,
        version=_version(),
        openapi_tags=TAGS,
        docs_url=None,  # they would load scripts from elsewhere: any OpenAPI viewer shows /openapi.json
        redoc_url=None,
        openapi_url=None,  # served below, with the headers and limits of everything else
        redirect_slashes=False,
        lifespan=lifespan,
        exception_handlers={HTTPException: _no_such_path, Exception: _our_fault},
    )
    app.state.door = door
    app.state.live = live
    pages = desk.operations(operations)
    app.state.operations = (*operations, *pages)
    for operation in operations:
        _add(app, gate, operation, schemas)
    for operation in pages:
        _add_page(app, gate, operation)
    app.router.routes.extend(desk.routes())
    for path, (endpoint, about) in health.endpoints().items():
        _add_public(app, path, endpoint, about)
    _add_public(
        app, "/openapi.json", _openapi_endpoint(app, operations, schemas, sessions.cookie_name), "This document."
    )
    app.add_middleware(_EveryAnswer, secure=settings.secure)
    return app


def _add(app: FastAPI, gate: Gate, operation: Operation, schemas: Schemas) -> None:
    async def endpoint(request: Request) -> Response:
        return await gate.answer(operation, request)

    app.add_api_route(
        operation.path,
        endpoint,
        methods=[operation.method],
        operation_id=operation.operation_id,
        summary=operation.summary,
        description=operation.about,
        tags=[operation.tag],
        response_class=Response,
        response_model=None,
        status_code=operation.success,
        responses=responses_of(operation, schemas),
        openapi_extra=extras_of(operation),
    )


def _add_page(app: FastAPI, gate: Gate, operation: Operation) -> None:
    """A page is for people: the contract of the API's callers, the OpenAPI document, does not name it."""

    async def endpoint(request: Request) -> Response:
        return await gate.answer(operation, request)

    app.router.add_route(operation.path, endpoint, methods=[operation.method], include_in_schema=False)


_PUBLIC_ANSWERS = {
    "/livez": ("application/json", "Health"),
    "/readyz": ("application/json", "Health"),
    "/metrics": ("text/plain", "Metrics"),
    "/openapi.json": ("application/json", "OpenApi"),
}


def _add_public(app: FastAPI, path: str, endpoint: Callable[[Request], Any], about: str) -> None:
    media_type, schema = _PUBLIC_ANSWERS[path]
    content: dict[str, Any] = {"schema": {"$ref": f"#/components/schemas/{schema}"}}
    responses: dict[int | str, dict[str, Any]] = {200: {"description": about, "content": {media_type: content}}}
    if path == "/readyz":
        responses[503] = {"description": "Not ready; `reasons` says why.", "content": {media_type: content}}
    name = path.strip("/").partition(".")[0]
    app.add_api_route(
        path,
        endpoint,
        methods=["GET"],
        operation_id=f"get{name.capitalize()}",
        summary=about,
        tags=["operation"],
        response_class=Response,
        response_model=None,
        responses=responses,
        openapi_extra={"security": []},
    )


def _openapi_endpoint(
    app: FastAPI, operations: Sequence[Operation], schemas: Schemas, cookie_name: str
) -> Callable[[Request], Any]:
    made: list[bytes] = []

    async def endpoint(_: Request) -> Response:
        if not made:
            made.append(msgspec.json.encode(_openapi_document(app, operations, schemas, cookie_name)))
        return Response(made[0], media_type="application/json")

    return endpoint


def _openapi_document(
    app: FastAPI, operations: Sequence[Operation], schemas: Schemas, cookie_name: str
) -> dict[str, Any]:
    document = app.openapi()
    document["components"] = {
        "schemas": {**schemas, "OpenApi": {"type": "object", "additionalProperties": True}},
        "securitySchemes": security_schemes(cookie_name),
    }
    for operation in operations:  # as declared: FastAPI takes the nulls out of examples, and they mean something
        path = operation.path.replace(":path}", "}")
        responses = {str(status): answer for status, answer in responses_of(operation, schemas).items()}
        document["paths"][path][operation.method.lower()]["responses"] = responses
    return document


def _version() -> str:
    try:
        return version("tallystick")
    except PackageNotFoundError:
        return "0"


async def _no_such_path(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    kind = "method-not-allowed" if error.status_code == 405 else "no-route"
    return problem_response(Problem(kind, str(error.detail), headers=error.headers), instance=request.url.path)


async def _our_fault(request: Request, _: Exception) -> Response:
    return problem_response(Problem("internal", "an error that this process has logged"), instance=request.url.path)


class _EveryAnswer:
    """ASGI middleware: headers that every answer carries, unless it has its own of that name; and no body of a GET.

    Bodies of other methods are the gate's: it takes those that an operation declares.
    """

    def __init__(self, app: ASGIApp, *, secure: bool) -> None:
        self._app = app
        self._headers = [*_HEADERS]
        if secure:
            self._headers.append((b"strict-transport-security", b"max-age=31536000"))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = list(message.get("headers", ()))
                own = {name.lower() for name, _ in headers}
                headers += [header for header in self._headers if header[0] not in own]
                message = {**message, "headers": headers}
            await send(message)

        for name, value in scope["headers"] if scope["method"] in SAFE_METHODS else ():
            if (name == b"content-length" and value != b"0") or name == b"transfer-encoding":
                answer = problem_response(Problem("no-body", "requests take no body"), instance=scope["path"])
                answer.headers["connection"] = "close"  # what was sent will not be read
                await answer(scope, receive, send_with_headers)
                return
        await self._app(scope, receive, send_with_headers)


class _Embedded(uvicorn.Server):
    """uvicorn without its signal handlers: whoever calls `serve` owns the process."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def serve(
    app: FastAPI, settings: ApiSettings, *, stopped: asyncio.Event, ready: Callable[[str], None] = lambda _: None
) -> None:
    """Serve until `stopped` is set, then finish the answers under way.

    Args:
        app: made by `create_app`.
        settings: where to listen.
        stopped: set it to stop.
        ready: called once when it listens, with the URL.

    Raises:
        OSError: the address cannot be bound, or a PEM file is missing.
    """
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listener = socket.create_server((settings.host, settings.port), family=family, backlog=1024)
    # accepted sockets inherit it; without it an answer in two parts waits for the reader's delayed ack
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    try:
        server = _Embedded(
            uvicorn.Config(
                app,
                log_config=None,
                access_log=False,
                lifespan="on",
                http=CertificateProtocol,
                ws="none",
                server_header=False,
                proxy_headers=False,
                limit_concurrency=512,
                h11_max_incomplete_event_size=32_768,
                timeout_keep_alive=30,
                timeout_graceful_shutdown=settings.shutdown_seconds,
                ssl_certfile=settings.tls_certificate or None,
                ssl_keyfile=settings.tls_key or None,
                ssl_ca_certs=settings.tls_client_ca or None,
                ssl_cert_reqs=ssl.CERT_OPTIONAL if settings.tls_client_ca else ssl.CERT_NONE,
            )
        )
        host = f"[{settings.host}]" if family == socket.AF_INET6 else settings.host
        scheme = "https" if settings.tls_certificate else "http"
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        ready(f"{scheme}://{host}:{listener.getsockname()[1]}")
        stopping = asyncio.create_task(stopped.wait())
        await asyncio.wait({serving, stopping}, return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        app.state.live.stopping.set()  # who reads along would keep it from stopping
        server.should_exit = True
        await serving
    finally:
        listener.close()
