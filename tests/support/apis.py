"""An API over a small ledger, in one process: a record that a test can look into or break, clocks that it moves."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
import httpx
from fastapi import FastAPI

from audit_api.accesses import AccessRecorder
from audit_api.app import Provider, create_app
from audit_api.auth import ROLES, TokenFile, TokenRecord, hash_token, new_token, render_tokens
from audit_api.export.shelf import Shelf
from audit_api.identity.oidc.provider import OidcProvider
from audit_api.identity.sessions import Sessions
from audit_api.logs import Logs
from audit_api.savedsearches import SEARCH_SCHEMAS
from audit_api.searchshelf import SavedSearch, SearchShelf
from audit_api.settings import ApiSettings
from collector.batch import EventRef, StreamId
from collector.event import Event, decode_event, encode_event
from collector.protect.classify import has_card
from deploy.api import open_logs
from tests.support.cut_ledger import CutLedger
from tests.support.ledgers import SIGNER, START_NS, SmallLedger


@dataclass
class KeptRecord:
    """`AccessRecorder` in a list. `failure` is raised instead, when set."""

    events: list[Event] = field(default_factory=list)
    failure: Exception | None = None

    def record(self, event: Event) -> EventRef:
        if self.failure is not None:
            raise self.failure
        self.events.append(decode_event(encode_event(event, exact=True)[0]))  # it must be fit for the spool
        return EventRef(stream=StreamId("api/00000000000000cc"), sequence=len(self.events) - 1)


@dataclass
class Clocks:
    """Both clocks, moved by the test alone."""

    seconds: float = 0.0

    def wall(self) -> int:
        return START_NS + int(self.seconds * 1e9)

    def monotonic(self) -> float:
        return self.seconds


@dataclass
class Api:
    """The application with all that it was made of."""

    app: FastAPI
    client: httpx.AsyncClient
    record: KeptRecord
    clocks: Clocks
    tokens: dict[str, str]
    token_file: Path
    small: SmallLedger | None = None

    @property
    def sessions(self) -> Sessions:
        """The browser sessions of the application."""
        found = self.app.state.door.sessions
        assert isinstance(found, Sessions)
        return found

    @property
    def ledger(self) -> SmallLedger:
        """The small ledger that it serves."""
        assert self.small is not None
        return self.small

    async def get(self, path: str, role: str | None = "auditor", **headers: str) -> httpx.Response:
        """GET as the principal of a role, or as nobody."""
        if role is not None:
            headers["Authorization"] = f"Bearer {self.tokens[role]}"
        return await self.client.get(path, headers=headers)

    async def send(self, method: str, path: str, role: str = "auditor") -> httpx.Response:
        """Another method, without a body, as the principal of a role."""
        return await self.client.request(method, path, headers={"Authorization": f"Bearer {self.tokens[role]}"})


def scope_of(api: Api, path: str, query: bytes) -> dict[str, Any]:
    """An auditor's GET as ASGI has it: for a test that is the server, and says when the reader goes."""
    return {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "root_path": "",
        "query_string": query,
        "headers": [(b"host", b"api"), (b"authorization", f"Bearer {api.tokens['auditor']}".encode())],
        "client": ("127.0.0.1", 1),
        "server": ("api", 80),
    }


def write_tokens(file: Path) -> dict[str, str]:
    """A file with one token for each role, of the principal ``<role>@example``; gives role to token."""
    tokens: dict[str, str] = {role: new_token() for role in ROLES}
    records = [
        TokenRecord(principal=f"{role}@example", roles=[role], sha256=hash_token(tokens[role])) for role in ROLES
    ]
    file.write_text(render_tokens(records))
    file.chmod(0o600)
    return tokens


def make_app(
    ledger: SmallLedger,
    *,
    recorder: AccessRecorder,
    token_file: Path,
    settings: ApiSettings,
    clocks: Clocks,
    provider: Provider | None = None,
    exports_folder: Path | None = None,
    search_shelf: SearchShelf | None = None,
) -> FastAPI:
    """The application over a small ledger; with export jobs where there is a folder for them."""
    return create_app(
        logs=Logs.whole(
            index=ledger.index,
            reader=ledger.reader,
            storage=ledger.storage,
            key=SIGNER.verifier,
            store=ledger.store,
            monotonic=clocks.monotonic,
        ),
        recorder=recorder,
        authenticator=TokenFile(token_file, clock=clocks.wall),
        settings=settings,
        clock=clocks.wall,
        monotonic=clocks.monotonic,
        provider=provider,
        export_shelf=None
        if exports_folder is None
        else Shelf(exports_folder, clock=clocks.wall, keep_seconds=settings.export_keep_seconds, has_card=has_card),
        search_shelf=search_shelf,
    )


def open_shelf(folder: Path, clock: Callable[[], int] = lambda: START_NS) -> SearchShelf:
    """The saved searches of `open_api` of this folder."""
    return SearchShelf(folder / "searches", clock=clock, has_card=has_card)


def keep_example(folder: Path) -> str:
    """Keep, where `open_api` of this folder finds it, the shared search that the OpenAPI document has for an example; gives its id."""
    told = SEARCH_SCHEMAS["SavedSearch"]["example"]
    kept = {name: told[name] for name in ("id", "name", "principal", "conditions", "shared", "tenant")}
    open_shelf(folder).save(SavedSearch(**kept, created_ns=START_NS, changed_ns=START_NS))
    return str(told["id"])


@asynccontextmanager
async def open_api(
    folder: Path,
    ledger: SmallLedger,
    settings: ApiSettings,
    recorder: AccessRecorder | None = None,
    *,
    clocks: Clocks | None = None,
    exports_folder: Path | None = None,
) -> AsyncIterator[Api]:
    """The application over a small ledger, started, with a client that is connected to it without a network.

    With an issuer in the settings that identity provider is asked, over a network.
    """
    token_file = folder / "tokens.toml"
    tokens = write_tokens(token_file)
    clocks, record = clocks or Clocks(), KeptRecord()
    provider = OidcProvider(settings, clock=clocks.wall, monotonic=clocks.monotonic) if settings.oidc.issuer else None
    app = make_app(
        ledger,
        recorder=recorder or record,
        token_file=token_file,
        settings=settings,
        clocks=clocks,
        provider=provider,
        exports_folder=exports_folder,
        search_shelf=open_shelf(folder, clocks.wall),
    )
    async with _started(app) as client:
        yield Api(
            app=app,
            client=client,
            record=record,
            clocks=clocks,
            tokens=tokens,
            token_file=token_file,
            small=ledger,
        )


@asynccontextmanager
async def open_cut_api(folder: Path, ledger: CutLedger, settings: ApiSettings | None = None) -> AsyncIterator[Api]:
    """As `open_api`, over a ledger that is cut into shards, its files opened as `tally run api` opens them."""
    token_file = folder / "tokens.toml"
    tokens = write_tokens(token_file)
    clocks, record = Clocks(), KeptRecord()
    with ExitStack() as open_files:
        logs = open_logs(ledger.config, ledger.places, open_files)
        assert logs is not None
        app = create_app(
            logs=logs,
            recorder=record,
            authenticator=TokenFile(token_file, clock=clocks.wall),
            settings=settings or ApiSettings(burst_requests=10_000),
            clock=clocks.wall,
            monotonic=clocks.monotonic,
        )
        async with _started(app) as client:
            yield Api(app=app, client=client, record=record, clocks=clocks, tokens=tokens, token_file=token_file)


@asynccontextmanager
async def _started(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
    with anyio.fail_after(60):
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=transport, base_url="http://api") as client,
        ):
            yield client
