"""The application: routes from operations, the OpenAPI document, and what holds for every answer.

No globals: everything is made by `create_app` from what it is given.
"""

import contextlib
import time
from collections.abc import AsyncIterator, Callable, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Protocol

import msgspec
from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from audit_api.accesses import AccessRecorder
from audit_api.auth import Authenticator
from audit_api.cut_schemas import CUT_SCHEMAS
from audit_api.everyanswer import EveryAnswer
from audit_api.export.data import DataExports
from audit_api.export.joboperations import JOB_SCHEMAS, ExportJobs
from audit_api.export.operation import Exports
from audit_api.export.shelf import Shelf
from audit_api.gate import Gate, Operation
from audit_api.health import Health
from audit_api.identity.door import Bearers, Door
from audit_api.identity.login import LOGIN_SCHEMAS, Logins
from audit_api.identity.sessions import Sessions
from audit_api.incidents import INCIDENT_SCHEMAS, IncidentDesk
from audit_api.limits import Allowance, Limits, OwnLimits
from audit_api.live import Live
from audit_api.log_paths import LogPaths
from audit_api.logs import Logs
from audit_api.metrics import ApiMetrics
from audit_api.openapi import DESCRIPTION, TAGS, extras_of, responses_of, security_schemes
from audit_api.overview import Overview
from audit_api.problems import Problem, problem_response
from audit_api.proofs import Proofs
from audit_api.revalidation import revalidated
from audit_api.reviewdays import DAY_SCHEMAS, ReviewDays
from audit_api.reviews import REVIEW_SCHEMAS, Reviews
from audit_api.savedsearches import SEARCH_SCHEMAS, SavedSearches
from audit_api.schemas import SCHEMAS, Schemas
from audit_api.search_parameters import search_parameters
from audit_api.searchshelf import SearchShelf
from audit_api.settings import ApiSettings
from audit_api.trails import Trails
from audit_api.web.desk import Desk
from correlator.flow import Flow

__all__ = ["Provider", "create_app", "own_limits"]


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
    export_shelf: Shelf | None = None,
    limits: Limits | None = None,
    metrics: ApiMetrics | None = None,
    search_shelf: SearchShelf | None = None,
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
        export_shelf: where export jobs and their files are kept; None: there are none.
        limits: how much each principal may ask; closed with the application. None: this process's own.
        metrics: what `limits` counts in; None: new ones.
        search_shelf: where saved searches are kept; None: there are none.
    """
    metrics = metrics or ApiMetrics()
    limits = limits or own_limits(settings, monotonic=monotonic)
    sessions = Sessions(
        idle_seconds=settings.session_idle_seconds,
        absolute_seconds=settings.session_seconds,
        secure=settings.secure,
        monotonic=monotonic,
    )
    live = Live(logs, settings)
    reviews = Reviews(logs, settings)
    days = ReviewDays(reviews=reviews, logs=logs, settings=settings, clock=clock)
    trails, overview = Trails(logs, settings), Overview(logs, authenticator)
    searches = None
    if search_shelf is not None:
        searches = SavedSearches(shelf=search_shelf, parameters=search_parameters(logs, settings), settings=settings)
    incidents = IncidentDesk(logs, recorder, clock=clock)
    desk = Desk(
        logs=logs,
        trails=trails,
        overview=overview,
        searches=searches,
        reviews=reviews,
        days=days,
        live=live,
        incidents=incidents,
        settings=settings,
        keep_purpose=sessions.state_purpose,
        flows=flows,
        provider=provider is not None,
    )
    door = Door(authenticator=authenticator, sessions=sessions, public_url=settings.public_url, bearers=provider)
    gate = Gate(
        door=door,
        recorder=recorder,
        limits=limits,
        settings=settings,
        clock=clock,
        monotonic=monotonic,
        metrics=metrics,
        problem_page=desk.problem_page,
    )
    health = Health(gate=gate, logs=logs, metrics=metrics, days=days, monotonic=monotonic)
    data = DataExports(logs, settings, limits, export_shelf)
    jobs = ExportJobs.over(data, export_shelf, run=gate.reading.run_last) if export_shelf is not None else None
    schemas = {
        **(CUT_SCHEMAS if logs.cut else SCHEMAS),
        **LOGIN_SCHEMAS,
        **REVIEW_SCHEMAS,
        **DAY_SCHEMAS,
        **(SEARCH_SCHEMAS if searches is not None else {}),
        **INCIDENT_SCHEMAS,
        **(JOB_SCHEMAS if jobs is not None else {}),
    }
    operations = [
        *live.operations(),
        *trails.operations(),
        *Exports(logs, settings, data).operations(),
        *data.operations(),
        *(jobs.operations() if jobs is not None else ()),
        *Proofs(logs, settings.public_log).operations(),
        *LogPaths(logs, settings.public_log).operations(),
        *overview.operations(),
        *reviews.operations(),
        *days.operations(),
        *(searches.operations() if searches is not None else ()),
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
        await limits.close()
        if provider is not None:
            await provider.close()

    async def no_such_path(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        kind = "method-not-allowed" if error.status_code == 405 else "no-route"
        problem = Problem(kind, str(error.detail), headers=error.headers)
        return desk.lost(problem, request) or problem_response(problem, instance=request.url.path)

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
        exception_handlers={HTTPException: no_such_path, Exception: _our_fault},
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
    app.add_middleware(EveryAnswer, secure=settings.secure)
    return app


def own_limits(settings: ApiSettings, *, monotonic: Callable[[], float]) -> OwnLimits:
    """What the settings let each principal ask of this process."""
    return OwnLimits(
        requests=Allowance(per_second=settings.requests_a_second, burst=settings.burst_requests),
        exports=Allowance(per_second=settings.exports_an_hour / 3_600, burst=settings.burst_exports),
        monotonic=monotonic,
    )


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


async def _our_fault(request: Request, _: Exception) -> Response:
    return problem_response(Problem("internal", "an error that this process has logged"), instance=request.url.path)
