"""The routes of the pages: each answered by the gate, like every operation of the API, and told in HTML whatever the answer is."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from urllib.parse import parse_qsl, urlencode

import msgspec
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from audit_api.gate import Call, Gate, Operation, Reading, Runner
from audit_api.health import Health
from audit_api.logs import Logs
from audit_api.overview import Overview
from audit_api.problems import MEDIA_TYPE, Problem, problem_response
from audit_api.settings import ApiSettings
from audit_api.trails import Trails
from audit_api.web.frame import HEADERS, PREFIX, STATIC_TYPES, Frame
from audit_api.web.locales import Manner, locale_of, zone_of
from audit_api.web.parts import Page, manner_of
from audit_api.web.search import SearchPage
from audit_api.web.storypage import StoryPage
from audit_api.web.systempage import SystemPage
from correlator.flow import Flow

__all__ = ["Desk"]

_HTML = "text/html; charset=utf-8"
_KEPT = "public, max-age=31536000, immutable"
_Endpoint = Callable[[Request], Awaitable[Response]]


class Desk:
    """All pages over one ledger.

    Args:
        gate: answers.
        logs: the ledger's.
        trails, overview, health: the operations whose answers the pages show.
        settings: limits.
        flows: as they are declared now.
    """

    def __init__(
        self,
        *,
        gate: Gate,
        logs: Logs,
        trails: Trails,
        overview: Overview,
        health: Health,
        settings: ApiSettings,
        flows: Sequence[Flow],
    ) -> None:
        self._gate = gate
        self._frame = Frame()
        self._search = SearchPage(self._frame, trails)
        self._story = StoryPage(self._frame, logs=logs, trails=trails, settings=settings, flows=flows)
        self._system = SystemPage(self._frame, overview=overview, look=health.reasons)

    def routes(self) -> list[Route]:
        """Every path of the desk, and the way to it from the root."""
        pages: list[tuple[Operation, Page]] = [
            (self._search.operation(), self._search.page),
            (self._story.operation(), self._story.page),
            (self._system.operation(), self._system.page),
        ]
        return [
            Route("/", self._to_search, methods=["GET"]),
            Route(PREFIX, self._to_search, methods=["GET"]),
            Route(f"{PREFIX}/static/{{release}}/{{name}}", self._asset, methods=["GET"]),
            *(Route(operation.path, self._endpoint(operation, page), methods=["GET"]) for operation, page in pages),
        ]

    async def _to_search(self, _: Request) -> Response:
        return RedirectResponse(f"{PREFIX}/trails", status_code=303, headers=HEADERS)

    async def _asset(self, request: Request) -> Response:
        name, release = request.path_params["name"], request.path_params["release"]
        if name not in STATIC_TYPES or release != self._frame.release:
            return problem_response(Problem("no-route", "there is no such path"), instance=request.url.path)
        headers = {**HEADERS, "Cache-Control": _KEPT}
        return Response(self._frame.assets[name], media_type=STATIC_TYPES[name], headers=headers)

    def _endpoint(self, operation: Operation, page: Page) -> _Endpoint:
        async def endpoint(request: Request) -> Response:
            given = dict(parse_qsl(request.url.query, max_num_fields=50)) if len(request.url.query) <= 4_096 else {}
            language = request.headers.get("accept-language", "")

            async def read(call: Call, run: Runner) -> Reading:
                return await page(call, run, manner_of(language, call.values), given)

            response = await self._gate.answer(replace(operation, read=read), request)
            if response.media_type != MEDIA_TYPE:
                return response
            return self._refusal(operation, request, response, given)

        return endpoint

    def _refusal(
        self, operation: Operation, request: Request, response: Response, given: Mapping[str, str]
    ) -> Response:
        """A problem for people: the way to sign in, the form again, or a page that says what is wrong."""
        told = msgspec.json.decode(bytes(response.body))
        kind = told["type"].rpartition(":")[2]
        if kind == "unauthenticated":
            asked = request.url.path + (f"?{request.url.query}" if request.url.query else "")
            address = f"{PREFIX}/login?{urlencode({'next': asked})}"
            return RedirectResponse(address, status_code=303, headers=HEADERS)
        kept = {name: value for name, value in response.headers.items() if name == "retry-after"} | dict(HEADERS)
        if operation.operation_id == "searchPage" and kind == "bad-parameter":
            body = self._search.refused(told, given, principal=None, manner=_plain_manner(request))
        else:
            body = self._frame.render("problem.html", problem=told, kind=kind, principal=None)
        return Response(body, status_code=response.status_code, media_type=_HTML, headers=kept)


def _plain_manner(request: Request) -> Manner:
    return Manner(locale=locale_of(request.headers.get("accept-language", "")), zone=zone_of("UTC"))
