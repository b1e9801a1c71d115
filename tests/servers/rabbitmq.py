"""A real RabbitMQ on 127.0.0.1, with everything that it keeps in a folder of its own; killed and stopped by its process ids."""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Any

from tests.servers.certificates import Authority
from tests.servers.kafka import free_ports
from tests.servers.process import ServerProcess
from tests.support.need import need

_PROGRAMS = Path("/usr/lib/rabbitmq/bin")
_START_SECONDS = 120.0


class RabbitMq(ServerProcess):
    """One node without plugins, whose user is `guest`; with TLS it wants a certificate of `authority`. `stop` ends it and its epmd, and removes what it kept."""

    def __init__(self) -> None:
        found = shutil.which("rabbitmq-server", path=f"{_PROGRAMS}:/usr/sbin:{os.environ.get('PATH', '')}")
        need(found, "needs rabbitmq-server: apt-get install rabbitmq-server")
        epmd = shutil.which("epmd")
        need(epmd, "needs epmd, which comes with Erlang")
        self._program, self._epmd_program = str(found), str(epmd)
        super().__init__("rabbitmq", own_session=True)
        self.port, self.tls_port, self._distribution, self._names = free_ports(4)
        self.authority = Authority(self.folder / "tls")
        certificate, key = self.authority.issue("rabbitmq")
        self._node = f"tally{secrets.token_hex(4)}@localhost"
        self._epmd: subprocess.Popen[bytes] | None = None
        (self.folder / "rabbitmq.conf").write_text(
            f"listeners.tcp.1 = 127.0.0.1:{self.port}\nlisteners.ssl.1 = 127.0.0.1:{self.tls_port}\n"
            f"ssl_options.cacertfile = {self.authority.ca}\nssl_options.certfile = {certificate}\n"
            f"ssl_options.keyfile = {key}\nssl_options.verify = verify_peer\nssl_options.fail_if_no_peer_cert = true\n"
            "log.console = true\nlog.console.level = warning\nlog.file = false\n",
            encoding="utf-8",
        )
        (self.folder / "plugins").write_text("[].\n", encoding="utf-8")

    def start(self) -> None:
        """Start it, and return when it speaks AMQP."""
        environment = {
            "PATH": os.environ.get("PATH", "/usr/bin:/bin"),
            "LANG": "C.UTF-8",
            "HOME": str(self.folder),  # of Erlang's cookie
            "ERL_EPMD_PORT": str(self._names),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODENAME": self._node,
            "RABBITMQ_DIST_PORT": str(self._distribution),
            "RABBITMQ_CONFIG_FILE": str(self.folder / "rabbitmq.conf"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self.folder / "plugins"),
            "RABBITMQ_MNESIA_BASE": str(self.folder / "data"),
            "RABBITMQ_LOG_BASE": str(self.folder / "log"),
            "RABBITMQ_PID_FILE": str(self.folder / "pid"),
            "RABBITMQ_CONF_ENV_FILE": str(self.folder / "none"),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+S 1:1 +sbwt none -kernel inet_dist_use_interface {127,0,0,1}",
        }
        whose: dict[str, Any] = {"env": environment, "cwd": self.folder, "stdin": subprocess.DEVNULL}
        if self._epmd is None:  # else the node would start one that outlives it
            self._epmd = subprocess.Popen(
                [self._epmd_program, "-port", str(self._names), "-address", "127.0.0.1"],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                **whose,
            )
        self._run([self._program], self._speaks, seconds=_START_SECONDS, env=environment)

    def _speaks(self) -> bool:
        with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1) as connection:
            connection.sendall(b"AMQP\0\0\x09\1")
            connection.settimeout(5)
            return connection.recv(1) == b"\1"  # connection.start comes in a method frame
        return False

    def stop(self) -> None:
        """End it and its epmd, and remove what it kept."""
        super().stop()
        if self._epmd is not None:
            self._epmd.kill()
            self._epmd.wait(timeout=30)
