"""Speaks with an audit API for the command line: over TLS, with a token from a file, and never to where it is sent on to."""

import http.client
import json
import os
import stat
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

import click

from alerting.detect.exchange import NoRedirects, proxies
from collector.clienttls import client_tls
from collector.receive.listening import is_this_machine
from deploy.session import Failure
from deploy.wording import harmless

__all__ = ["Api", "ApiProblem", "Unanswered", "api_options", "documented", "remote", "trail_path"]

TIMEOUT_SECONDS = 60
MAX_BYTES = 512 * 1024 * 1024


class ApiProblem(Failure):
    """The API, or what stands before it, answered with a problem.

    Attributes:
        kind: the last word of the problem's type, empty where it said none: a proxy answered.
        status: of the answer.
    """

    def __init__(self, message: str, kind: str, *, status: int) -> None:
        super().__init__(message)
        self.kind = kind
        self.status = status


class Unanswered(Failure):
    """The API did not answer: it may do so another time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Api:
    """One audit API.

    Attributes:
        url: where it is, without a path of its own.
        token: the bearer token.
        ca: a PEM file of authorities to trust instead of the system's; empty: the system's.
        purpose: why it is read, for the record.
    """

    url: str
    token: str
    ca: str = ""
    purpose: str = ""

    def get(self, path: str, parameters: Mapping[str, str] | None = None, *, accept: str = "*/*") -> bytes:
        """The answer to GET.

        Raises:
            ApiProblem: it answered with a problem.
            Failure: it did not answer.
        """
        query = urlencode({name: value for name, value in (parameters or {}).items() if value})
        return self._sent(f"{path}{'?' if query else ''}{query}", accept=accept)

    def post(self, path: str, body: Any) -> Any:
        """The answer, of JSON, to POST of a body of JSON; raises as `get`."""
        answer = self._sent(path, accept="application/json", body=json.dumps(body).encode())
        return self._read(answer, path)

    def ask(self, method: str, path: str, parameters: Mapping[str, str] | None = None) -> Any:
        """The answer, of JSON, to a method that takes no body; raises as `get`."""
        query = urlencode({name: value for name, value in (parameters or {}).items() if value})
        return self._read(self._sent(f"{path}{'?' if query else ''}{query}", method=method), path)

    @contextmanager
    def stream(
        self, path: str, parameters: Mapping[str, str] | None = None, *, headers: Mapping[str, str] | None = None
    ) -> Iterator[http.client.HTTPResponse]:
        """The answer to GET, to be read piece by piece. An error on its way is an OSError or an `HTTPException`; raises else as `get`."""
        query = urlencode({name: value for name, value in (parameters or {}).items() if value})
        with self._opened(f"{path}{'?' if query else ''}{query}", headers=headers) as answer:
            yield answer

    def _sent(
        self, path: str, *, accept: str = "application/json", method: str = "", body: bytes | None = None
    ) -> bytes:
        with self._opened(path, method=method, headers={"Accept": accept}, body=body) as answer:
            try:
                told: bytes = answer.read(MAX_BYTES + 1)
            except (OSError, http.client.HTTPException) as error:
                raise Unanswered(f"{self.url} does not answer: {error}") from error
            missing = answer.length
        if len(told) > MAX_BYTES:
            raise Failure(f"{self.url}: an answer of more than {MAX_BYTES:,} bytes")
        if missing:  # a part must not be taken for the whole
            raise Unanswered(f"{self.url}: the answer broke off after {len(told):,} bytes")
        return told

    def _opened(
        self, path: str, *, method: str = "", headers: Mapping[str, str] | None = None, body: bytes | None = None
    ) -> http.client.HTTPResponse:
        """An answer that is no problem, open to be read; raises as `get`."""
        sent = {"Authorization": f"Bearer {self.token}", "Accept": "application/json", **(headers or {})}
        if self.purpose:
            sent["Tally-Purpose"] = self.purpose.encode("utf-8").decode("latin-1")
        if body is not None:
            sent["Content-Type"] = "application/json"
        request = urllib.request.Request(f"{self.url}{path}", data=body, headers=sent, method=method or None)  # noqa: S310 - `remote` lets http and https in alone
        handlers: list[urllib.request.BaseHandler] = [NoRedirects(), proxies()]
        try:
            if self.url.startswith("https:"):
                context = client_tls(self.ca)
                handlers.append(urllib.request.HTTPSHandler(context=context))
            answer: http.client.HTTPResponse = urllib.request.build_opener(*handlers).open(
                request, timeout=TIMEOUT_SECONDS
            )
        except urllib.error.HTTPError as error:
            with error:
                raise _problem(error.code, error.read(65_536), self.url) from None
        except (OSError, ValueError, http.client.HTTPException) as error:
            raise Unanswered(f"{self.url} does not answer: {getattr(error, 'reason', error)}") from error
        return answer

    def _read(self, text: bytes, path: str) -> Any:
        try:
            return json.loads(text)
        except (ValueError, RecursionError) as error:
            raise Failure(f"{self.url}{path}: the answer is no JSON that can be read") from error

    def document(self, path: str, parameters: Mapping[str, str] | None = None) -> Any:
        """As `get`, of JSON."""
        return self._read(self.get(path, parameters, accept="application/json"), path)

    def lines(self, path: str, parameters: Mapping[str, str] | None = None) -> Iterator[Any]:
        """The lines of a list, without the last one, which says that it is whole; raises as `get`, and when it is not."""
        rows = self.get(path, parameters, accept="application/x-ndjson").splitlines()
        decoded = [self._read(row, path) for row in rows]
        if not decoded or not isinstance(decoded[-1], dict) or decoded[-1].get("end") is not True:
            raise Failure(f"{self.url}{path}: the answer broke off")
        return iter(decoded[:-1])


@contextmanager
def documented(api: Api) -> Iterator[None]:
    """Around what reads an answer's members. Raises `Failure` when they are not there, or are something else."""
    try:
        yield
    except UnicodeError:  # of what is printed, not of the answer
        raise
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        raise Failure(f"{api.url}: an answer that is not as the API's document says") from error


def trail_path(prefix: str, trail: str) -> str:
    """The path of what is asked of a trail: its id as one segment."""
    return f"{prefix}/{quote(trail, safe='')}"


def _problem(status: int, body: bytes, url: str) -> ApiProblem:
    try:
        told = json.loads(body)
        kind, detail = str(told["type"]).rpartition(":")[2], str(told["detail"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return ApiProblem(f"{url} answered {status}, and no more", "", status=status)
    return ApiProblem(harmless(f"{kind}: {detail}"), kind, status=status)


# ------------------------------------------------------------------------------------------------------------- options


def api_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give the command the options that name an API; `remote` makes an `Api` of them."""
    options = (
        click.option(
            "--api", envvar="TALLY_API", metavar="URL", help="Ask this audit API, not the ledger's files ($TALLY_API)."
        ),
        click.option(
            "--token-file",
            envvar="TALLY_TOKEN_FILE",
            type=click.Path(dir_okay=False),
            help="The file with the API's token ($TALLY_TOKEN_FILE; else the token is in $TALLY_TOKEN).",
        ),
        click.option(
            "--ca",
            envvar="TALLY_API_CA",
            type=click.Path(dir_okay=False, exists=True),
            help="Trust the authorities in this PEM file, not the system's ($TALLY_API_CA).",
        ),
        click.option(
            "--purpose", envvar="TALLY_PURPOSE", metavar="TEXT", help="Why you read, for the record ($TALLY_PURPOSE)."
        ),
    )
    for option in reversed(options):
        command = option(command)
    return command


def remote(*, api: str | None, token_file: str | None, ca: str | None, purpose: str | None) -> Api | None:
    """The API that was named; None: the ledger's files are meant.

    Raises:
        Failure: the address, or the token, cannot be used.
    """
    if not api:
        return None
    parts = urlsplit(api)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.username or parts.query or parts.fragment:
        raise Failure("--api: write a URL such as https://audit.example", exit_code=2)
    if parts.scheme == "http" and not is_this_machine(parts.hostname):
        raise Failure("--api: a token goes to another machine over https alone", exit_code=2)
    token = _token(Path(token_file)) if token_file else os.environ.get("TALLY_TOKEN", "")
    if not token:
        raise Failure("say which token: --token-file, $TALLY_TOKEN_FILE or $TALLY_TOKEN", exit_code=2)
    if not (token.isascii() and token.isprintable() and " " not in token):
        raise Failure("the token holds what no token holds", exit_code=2)
    return Api(url=api.rstrip("/"), token=token, ca=ca or "", purpose=purpose or "")


def _token(file: Path) -> str:
    try:
        if stat.S_IMODE(file.stat().st_mode) & 0o077:
            raise Failure(f"{file}: others may read it: chmod 600", exit_code=2)
        return file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise Failure(f"{file}: {error}", exit_code=2) from error
