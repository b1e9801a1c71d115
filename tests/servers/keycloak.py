"""A real Keycloak on 127.0.0.1, its database in memory, with the realm of ``tally-realm.json``; ended by its process id."""

from __future__ import annotations

import os
import secrets
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx

from tests.servers import java, keycloak_home
from tests.servers.kafka import free_ports
from tests.servers.process import ServerProcess

REALM = "tally"
SECRETS = {"tally-page": "page-for-tests", "tally-batch": "batch-for-tests", "other-app": "other-for-tests"}
"""Of the realm's clients that have one."""

_START_SECONDS = 240.0


class Keycloak(ServerProcess):
    """One node. Users of the realm are `ann` (auditor), `sam` (sre), `ada` (admin), `tess` (auditor of the tenant acme) and `nils` (nothing)."""

    def __init__(self) -> None:
        self._java = java.java_home(keycloak_home.JAVA_AT_LEAST)
        home = keycloak_home.install(self._java)
        super().__init__("keycloak", own_session=True)
        self._home = self.folder / "home"
        shutil.copytree(home, self._home, copy_function=_link)
        realm = self._home / "data" / "import" / f"{REALM}-realm.json"
        realm.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(Path(__file__).with_name("tally-realm.json"), realm)
        (self.port, self._management) = free_ports(2)
        self._password = secrets.token_urlsafe(16)
        self._admin: httpx.Client | None = None

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def issuer(self) -> str:
        """The realm's issuer identifier."""
        return f"{self.url}/realms/{REALM}"

    def start(self) -> None:
        """Start it, and return when it answers."""
        environment = keycloak_home.environment(self._java) | {
            "KC_BOOTSTRAP_ADMIN_USERNAME": "admin",
            "KC_BOOTSTRAP_ADMIN_PASSWORD": self._password,
        }
        command = [
            *(str(self._home / "bin" / "kc.sh"), "start", "--optimized", "--import-realm", "--cache=local"),
            *("--http-enabled=true", "--http-host=127.0.0.1", f"--http-port={self.port}"),
            *(f"--http-management-port={self._management}", f"--hostname={self.url}", "--log-level=warn"),
        ]
        self._run(command, self._answers, seconds=_START_SECONDS, env=environment)

    def _answers(self) -> bool:
        with suppress(httpx.TransportError):
            return httpx.get(f"{self.issuer}/.well-known/openid-configuration", timeout=10).status_code == 200
        return False

    def token(self, client: str, **form: str) -> dict[str, Any]:
        """What its token endpoint answers to a client that has a secret."""
        answer = httpx.post(
            f"{self.issuer}/protocol/openid-connect/token",
            data={"client_id": client, "client_secret": SECRETS[client], **form},
            timeout=60,
        )
        assert answer.status_code == 200, answer.text
        told: dict[str, Any] = answer.json()
        return told

    def password_token(self, user: str, client: str = "tally-page") -> str:
        """An access token of a user, by password: the quickest way, for tests alone."""
        told = self.token(client, grant_type="password", username=user, password=f"{user}-for-tests", scope="openid")
        return str(told["access_token"])

    def administer(self, method: str, path: str, value: Any = None) -> Any:
        """A request to the realm's admin API."""
        if self._admin is None:
            token = httpx.post(
                f"{self.url}/realms/master/protocol/openid-connect/token",
                data={
                    "client_id": "admin-cli",
                    "grant_type": "password",
                    "username": "admin",
                    "password": self._password,
                },
                timeout=60,
            ).json()["access_token"]
            self._admin = httpx.Client(headers={"Authorization": f"Bearer {token}"}, timeout=60)
        answer = self._admin.request(method, f"{self.url}/admin/realms/{REALM}{path}", json=value)
        assert answer.is_success, answer.text
        return answer.json() if answer.content else None

    def stop(self) -> None:
        """End it, and remove what it kept."""
        if self._admin is not None:
            self._admin.close()
        super().stop()


def _link(source: str, target: str) -> None:
    """A second name for the same bytes, where the file system can: it reads them alone."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
