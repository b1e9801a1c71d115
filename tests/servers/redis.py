"""A real Redis on 127.0.0.1, in memory alone; with TLS by an authority of our own and a user whom it knows by a password."""

from __future__ import annotations

import secrets
import shutil
import subprocess

from audit_api.redis_settings import RedisSettings
from tests.servers.certificates import Authority
from tests.servers.kafka import free_ports
from tests.servers.process import ServerProcess
from tests.support.need import need

_START_SECONDS = 60.0


class RedisServer(ServerProcess):
    """One server. In plain text anybody here may do everything; over TLS it wants the user `tally`, who may touch keys below `tally:` alone."""

    def __init__(self) -> None:
        found = shutil.which("redis-server")
        need(found, "needs redis-server: apt-get install redis-server")
        client = shutil.which("redis-cli")
        need(client, "needs redis-cli: apt-get install redis-tools")
        self._program, self._client = str(found), str(client)
        super().__init__("redis")
        self.port, self.tls_port = free_ports(2)
        self.authority = Authority(self.folder / "tls")
        certificate, key = self.authority.issue("redis")
        self.password = secrets.token_urlsafe(24)
        self.password_file = self.folder / "password"
        self.password_file.write_text(f"{self.password}\n", encoding="utf-8")
        self.password_file.chmod(0o600)
        (self.folder / "users.acl").write_text(
            "user default on nopass ~* &* +@all\n"
            f"user tally on >{self.password} ~tally:* resetchannels -@all +@connection +evalsha +eval +script|load +time +info"
            " +hmget +hset +pexpire +hincrby +expire +hkeys +hdel +hget +del\n",
            encoding="utf-8",
        )
        self._arguments = [
            *("--port", str(self.port), "--tls-port", str(self.tls_port), "--bind", "127.0.0.1"),
            *("--tls-cert-file", str(certificate), "--tls-key-file", str(key)),
            *("--tls-ca-cert-file", str(self.authority.ca), "--tls-auth-clients", "no"),
            *("--save", "", "--appendonly", "no", "--dir", str(self.folder)),
            *("--aclfile", str(self.folder / "users.acl"), "--daemonize", "no"),
        ]

    def settings(self, **changes: object) -> RedisSettings:
        """Of a client in plain text; `changes` replace some of them."""
        given: dict[str, object] = {"url": f"redis://127.0.0.1:{self.port}/0", "timeout_seconds": 10.0}
        return RedisSettings(**given | changes)  # type: ignore[arg-type]  # the struct checks them

    def tls_settings(self) -> RedisSettings:
        """Of the user `tally`, over TLS."""
        return RedisSettings(
            url=f"rediss://localhost:{self.tls_port}/0",
            user="tally",
            password_file=str(self.password_file),
            ca_file=str(self.authority.ca),
            timeout_seconds=10.0,
        )

    def start(self) -> None:
        """Start it, empty, and return when it answers."""
        command = [self._program, *self._arguments]
        self._run(command, lambda: self.ask("PING") == "PONG", seconds=_START_SECONDS)

    def ask(self, *words: str) -> str:
        """What it answers to a command; empty when it does not."""
        done = subprocess.run(
            [self._client, "-p", str(self.port), *words], capture_output=True, text=True, check=False, timeout=30
        )
        return done.stdout.strip()
