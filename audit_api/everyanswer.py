"""What holds for every answer of the API, whoever made it: the headers that say how it is to be handled."""

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from audit_api.identity.crosssite import SAFE_METHODS
from audit_api.problems import Problem, problem_response

__all__ = ["EveryAnswer"]

_HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"x-frame-options", b"DENY"),
    (b"cache-control", b"no-store"),
)


class EveryAnswer:
    """ASGI middleware: headers that every answer carries, unless it has its own of that name; and no body of a GET.

    Bodies of other methods are the gate's: it takes those that an operation declares.
    """

    def __init__(self, app: ASGIApp, *, secure: bool) -> None:
        self._app = app
        self._headers = [*_HEADERS]
        if secure:
            self._headers.append((b"strict-transport-security", b"max-age=31536000"))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer with the headers; a GET that brings a body is refused."""
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
