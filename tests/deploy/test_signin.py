"""`tally login`: the device flow, service accounts, and the file that keeps the tokens."""

from __future__ import annotations

import stat
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from audit_api.identity.oidc.issuer import Issuer
from audit_api.identity.oidc.settings import OidcSettings
from collector.errors import Overloaded
from deploy.signin import (
    DeviceCode,
    SavedLogin,
    SigninError,
    access_token,
    by_credentials,
    by_device,
    read_login,
    write_login,
)
from tests.support.issuer import TestIssuer

pytestmark = pytest.mark.anyio

PENDING = (400, {"error": "authorization_pending"})
SLOW = (400, {"error": "slow_down"})
DONE = (200, {"access_token": "at-1", "refresh_token": "rt-1", "expires_in": 300, "token_type": "Bearer"})


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def provider() -> Iterator[TestIssuer]:
    with TestIssuer() as running:
        running.answers["/device"] = lambda _: (
            200,
            {
                "device_code": "dc",
                "user_code": "ABCD-EFGH",
                "verification_uri": "https://idp.example/device",
                "expires_in": 600,
            },
        )
        yield running


@pytest.fixture
def settings(provider: TestIssuer) -> OidcSettings:
    return OidcSettings(issuer=provider.url, client_id="cli")


@pytest.fixture
async def issuer(settings: OidcSettings) -> AsyncIterator[Issuer]:
    made = Issuer(settings, monotonic=lambda: 0.0)
    yield made
    await made.close()


class Waiting:
    """A clock that moves when it is slept on."""

    def __init__(self) -> None:
        self.seconds = 1_000.0
        self.slept: list[float] = []
        self.shown: list[DeviceCode] = []

    def now(self) -> float:
        return self.seconds

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.seconds += seconds


async def log_in(issuer: Issuer, settings: OidcSettings, waiting: Waiting) -> SavedLogin:
    return await by_device(issuer, settings, now=waiting.now, tell=waiting.shown.append, sleep=waiting.sleep)


def answering(provider: TestIssuer, *answers: tuple[int, Any]) -> list[Mapping[str, str]]:
    forms: list[Mapping[str, str]] = []
    left = list(answers)

    def token(form: Mapping[str, str]) -> tuple[int, Any]:
        forms.append(form)
        return left.pop(0) if len(left) > 1 else left[0]

    provider.answers["/token"] = token
    return forms


async def test_a_person_logs_in_on_another_device(provider: TestIssuer, issuer: Issuer, settings: OidcSettings) -> None:
    forms = answering(provider, PENDING, SLOW, (503, {}), PENDING, DONE)
    waiting = Waiting()
    saved = await log_in(issuer, settings, waiting)
    assert waiting.shown[0].user_code == "ABCD-EFGH"
    assert waiting.slept == [5.0, 5.0, 10.0, 20.0, 20.0]
    assert forms[0] == {
        "grant_type": "urn:ietf:params:oauth:grant-type:device_code",
        "device_code": "dc",
        "client_id": "cli",
    }
    assert (saved.access_token, saved.refresh_token, saved.expires) == ("at-1", "rt-1", 1_060.0 + 300)
    assert "at-1" not in str(waiting.shown)


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ((400, {"error": "access_denied"}), "access_denied"),
        ((400, {"error": "expired_token"}), "expired_token"),
        (PENDING, "in time"),
        ((200, {"access_token": ""}), "cannot be used"),
        ((200, {"access_token": "a", "expires_in": -1}), "cannot be used"),
        ((200, b"["), "no JSON"),
    ],
)
async def test_when_nobody_is_logged_in_that_is_said(
    provider: TestIssuer, issuer: Issuer, settings: OidcSettings, answer: tuple[int, Any], said: str
) -> None:
    answering(provider, answer)
    with pytest.raises(SigninError, match=said):
        await log_in(issuer, settings, Waiting())


async def test_a_device_endpoint_that_says_nonsense(
    provider: TestIssuer, issuer: Issuer, settings: OidcSettings
) -> None:
    for told in (
        {},
        {"device_code": 1},
        {"device_code": "a", "user_code": "b", "verification_uri": "c", "expires_in": 0},
    ):
        provider.answers["/device"] = lambda _, told=told: (200, told)  # type: ignore[misc]
        with pytest.raises(SigninError, match="cannot be used"):
            await log_in(issuer, settings, Waiting())
    provider.broken = 503
    with pytest.raises(Overloaded):
        await log_in(issuer, settings, Waiting())


async def test_a_service_account_has_its_own_secret(provider: TestIssuer, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("s3cret\n")
    settings = OidcSettings(issuer=provider.url, client_id="batch", client_secret_file=str(secret))
    forms = answering(provider, DONE)
    issuer = Issuer(settings, monotonic=lambda: 0.0)
    saved = await by_credentials(issuer, settings, now=lambda: 0.0)
    await issuer.close()
    assert saved.client_id == "batch"
    assert forms == [
        {"grant_type": "client_credentials", "scope": "openid", "client_id": "batch", "client_secret": "s3cret"}
    ]


async def test_a_token_is_refreshed_when_it_is_nearly_over(
    provider: TestIssuer, issuer: Issuer, settings: OidcSettings, tmp_path: Path
) -> None:
    file = tmp_path / "config" / "login.json"
    write_login(
        file,
        SavedLogin(issuer=provider.url, client_id="cli", access_token="at-0", refresh_token="rt-0", expires=1_000.0),
    )
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    forms = answering(provider, (200, {"access_token": "at-1", "expires_in": 300}))
    assert await access_token(file, issuer, settings, now=lambda: 969.0) == "at-0"
    assert await access_token(file, issuer, settings, now=lambda: 970.0) == "at-1"
    assert forms == [{"grant_type": "refresh_token", "refresh_token": "rt-0", "client_id": "cli"}]
    assert (read_login(file).refresh_token, read_login(file).expires) == ("rt-0", 1_270.0)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    answering(provider, (400, {"error": "invalid_grant"}))
    with pytest.raises(SigninError, match="invalid_grant"):
        await access_token(file, issuer, settings, now=lambda: 2_000.0)


async def test_a_file_that_cannot_be_trusted_is_not_used(
    provider: TestIssuer, issuer: Issuer, settings: OidcSettings, tmp_path: Path
) -> None:
    file = tmp_path / "login.json"
    with pytest.raises(SigninError, match="nobody is logged in"):
        read_login(file)
    saved = SavedLogin(issuer=provider.url, client_id="cli", access_token="at-0", expires=1.0)
    write_login(file, saved)
    file.chmod(0o640)
    with pytest.raises(SigninError, match="read by others"):
        read_login(file)
    file.chmod(0o600)
    with pytest.raises(SigninError, match="is over"):
        await access_token(file, issuer, settings, now=lambda: 0.0)
    for other in ({"issuer": "https://other.example"}, {"client_id": "shop"}):
        write_login(
            file, SavedLogin(**({"issuer": provider.url, "client_id": "cli"} | other), access_token="a", expires=9e9)
        )
        with pytest.raises(SigninError, match="another"):
            await access_token(file, issuer, settings, now=lambda: 0.0)
    for content in (b"", b"[]", b"\xff", b"{" * 70_000):
        file.write_bytes(content)
        with pytest.raises(SigninError, match="cannot be used"):
            read_login(file)
