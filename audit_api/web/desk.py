"""The desk: its pages as operations of the gate, what browsers are shown in a problem's place, and the assets."""

from collections.abc import Callable, Sequence
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from audit_api.gate import Operation
from audit_api.identity.crosssite import local_path
from audit_api.identity.sessions import Session
from audit_api.incidents import IncidentDesk
from audit_api.live import Live
from audit_api.logs import Logs
from audit_api.overview import Overview
from audit_api.problems import Problem, problem_response
from audit_api.reviewdays import ReviewDays
from audit_api.reviews import Reviews
from audit_api.savedsearches import SavedSearches
from audit_api.settings import ApiSettings
from audit_api.trails import Trails
from audit_api.web.exports import offered
from audit_api.web.frame import HEADERS, PREFIX, STATIC_TYPES, Frame
from audit_api.web.incidentpages import IncidentPages
from audit_api.web.livepage import LivePage
from audit_api.web.parts import HTML, asked_path, given, page
from audit_api.web.purposepage import PurposePage
from audit_api.web.reviewpage import ReviewPage
from audit_api.web.search import SearchPage
from audit_api.web.searches import SearchForms
from audit_api.web.storypage import StoryPage
from audit_api.web.systempage import SystemPage
from correlator.flow import Flow

__all__ = ["Desk"]

_KEPT = "public, max-age=31536000, immutable"
_LOGIN = f"{PREFIX}/login"


class Desk:
    """All pages over one ledger.

    Args:
        logs: the ledger's.
        trails, overview, incidents: the operations whose answers the pages show.
        reviews, days: those on exceptions and on days.
        live: tells what happens.
        searches: those on saved searches, where there are any.
        settings: limits.
        keep_purpose: keeps why somebody reads with the session of a request.
        flows: as they are declared now.
        provider: there is an identity provider to sign in at.
    """

    def __init__(
        self,
        *,
        logs: Logs,
        trails: Trails,
        overview: Overview,
        searches: SavedSearches | None,
        reviews: Reviews,
        days: ReviewDays,
        live: Live,
        incidents: IncidentDesk,
        settings: ApiSettings,
        keep_purpose: Callable[[Request, str], None],
        flows: Sequence[Flow],
        provider: bool = False,
    ) -> None:
        self._provider = provider
        self._frame = Frame()
        self._forms = SearchForms(searches=searches) if searches is not None else None
        self._search = SearchPage(self._frame, trails, self._forms)
        self._reviews = ReviewPage(self._frame, reviews=reviews, days=days)
        self._live = LivePage(self._frame, live)
        self._story = StoryPage(
            self._frame, logs=logs, trails=trails, settings=settings, flows=flows, reviews=self._reviews
        )
        self._system = SystemPage(self._frame, overview=overview)
        self._incidents = IncidentPages(self._frame, incidents)
        self._purpose = PurposePage(self._frame, keep_purpose)

    def operations(self, api: Sequence[Operation]) -> list[Operation]:
        """The pages that show what the ledger holds; they offer what the API's own operations can do."""
        return [
            self._search.operation(),
            self._story.operation(offered(api)),
            self._system.operation(),
            self._live.operation(),
            *self._reviews.operations(),
            *(self._forms.operations() if self._forms is not None else ()),
            *self._incidents.operations(),
            *self._purpose.operations(),
        ]

    def routes(self) -> list[Route]:
        """What shows nothing of the ledger: the way in, the form to sign in with, the assets."""
        return [
            Route("/", self._to_search, methods=["GET"], include_in_schema=False),
            Route(PREFIX, self._to_search, methods=["GET"], include_in_schema=False),
            Route(_LOGIN, self._login, methods=["GET"], include_in_schema=False),
            Route(f"{PREFIX}/static/{{release}}/{{name}}", self._asset, methods=["GET"], include_in_schema=False),
        ]

    def problem_page(self, problem: Problem, request: Request, session: Session | None) -> Response | None:
        """A problem for a browser: the way to sign in, the form again, or a page that says what is wrong."""
        kind = problem.kind.name
        if kind == "unauthenticated" and request.method == "GET":
            following = local_path(asked_path(request))
            return RedirectResponse(f"{_LOGIN}?{urlencode({'next': following})}", status_code=303, headers=HEADERS)
        if request.url.path == "/login" and kind in ("unauthenticated", "bad-body"):
            return self._login_form(f"{PREFIX}/trails", message="wrong", status=401)
        if kind == "purpose-needed" and session is not None:
            body = self._purpose.asked_instead(request, session)
        elif request.url.path == self._search.operation().path and kind == "bad-parameter":
            body = self._search.refused(problem, request, session)
        else:
            told = {"title": problem.kind.title, "detail": problem.detail, "status": problem.kind.status}
            principal = session.principal if session is not None else None
            body = page(self._frame, "problem.html", session, principal, problem=told, kind=kind)
        kept = {name: value for name, value in problem.headers.items() if name.lower() in ("retry-after", "allow")}
        return Response(body, status_code=problem.kind.status, media_type=HTML, headers={**kept, **HEADERS})

    def lost(self, problem: Problem, request: Request) -> Response | None:
        """A page for a browser at an address below ours that is none; None for anybody else. It knows no session."""
        ours = request.url.path.startswith(f"{PREFIX}/") and "text/html" in request.headers.get("accept", "")
        return self.problem_page(problem, request, None) if ours else None

    async def _to_search(self, _: Request) -> Response:
        return RedirectResponse(f"{PREFIX}/trails", status_code=303, headers=HEADERS)

    async def _login(self, request: Request) -> Response:
        asked = given(request)
        following = local_path(asked.get("next", "/"))
        message = "out" if asked.get("out") == "true" else ""
        return self._login_form(following if following != "/" else f"{PREFIX}/trails", message=message)

    def _login_form(self, following: str, *, message: str, status: int = 200) -> Response:
        body = page(self._frame, "login.html", None, None, next=following, message=message, single=self._provider)
        return Response(body, status_code=status, media_type=HTML, headers=HEADERS)

    async def _asset(self, request: Request) -> Response:
        name, release = request.path_params["name"], request.path_params["release"]
        if name not in STATIC_TYPES or release != self._frame.release:
            return problem_response(Problem("no-route", "there is no such path"), instance=request.url.path)
        headers = {**HEADERS, "Cache-Control": _KEPT, "Content-Type": STATIC_TYPES[name]}
        return Response(self._frame.assets[name], headers=headers)
