"""A real Kafka on 127.0.0.1: one node that is broker and controller (KRaft), killed and stopped by its process id."""

from __future__ import annotations

import socket
import subprocess
from contextlib import suppress

from tests.servers import java, kafka_home
from tests.servers.certificates import Authority
from tests.servers.opensearch_home import cache_folder
from tests.servers.process import ServerProcess

USER, PASSWORD = "tally", "open-sesame"

_START_SECONDS = 180.0

_SETTINGS = """process.roles=broker,controller
node.id=1
listeners=CLIENT://127.0.0.1:{port},SECURE://127.0.0.1:{secure},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=CLIENT://127.0.0.1:{port},SECURE://127.0.0.1:{secure}
listener.security.protocol.map=CLIENT:PLAINTEXT,SECURE:SASL_SSL,CONTROLLER:PLAINTEXT
sasl.enabled.mechanisms=SCRAM-SHA-512
listener.name.secure.scram-sha-512.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
listener.name.secure.ssl.client.auth=required
ssl.keystore.type=PEM
ssl.keystore.location={tls}/both.pem
ssl.truststore.type=PEM
ssl.truststore.location={tls}/ca.pem
inter.broker.listener.name=CLIENT
controller.listener.names=CONTROLLER
controller.quorum.bootstrap.servers=127.0.0.1:{controller}
controller.quorum.voters=1@127.0.0.1:{controller}
log.dirs={data}
offsets.topic.replication.factor=1
offsets.topic.num.partitions=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
auto.create.topics.enable=false
"""
_LOG4J = """Configuration:
  status: error
  Appenders:
    Console:
      name: out
      PatternLayout:
        pattern: "%d %p %c{1} %m%n"
  Loggers:
    Root:
      level: WARN
      AppenderRef:
        - ref: out
"""


class Kafka(ServerProcess):
    """One node with data in a folder of its own, which `stop` removes.

    At `secure_address` it wants a certificate of `authority`, and `USER` with `PASSWORD` by SCRAM-SHA-512.
    """

    def __init__(self) -> None:
        self._java = java.java_home(kafka_home.JAVA_AT_LEAST)
        self._home = kafka_home.install(self._java)
        super().__init__("kafka")
        self.port, secure, controller = free_ports(3)
        self.secure_address = f"127.0.0.1:{secure}"
        self.authority = Authority(self.folder / "tls")
        certificate, key = self.authority.issue("kafka")
        (self.folder / "tls" / "both.pem").write_bytes(key.read_bytes() + certificate.read_bytes())
        self._settings = self.folder / "server.properties"
        self._settings.write_text(
            _SETTINGS.format(
                port=self.port,
                secure=secure,
                controller=controller,
                data=self.folder / "data",
                tls=self.folder / "tls",
            ),
            encoding="utf-8",
        )
        (self.folder / "log4j2.yaml").write_text(_LOG4J, encoding="utf-8")

    @property
    def address(self) -> str:
        """Where it listens."""
        return f"127.0.0.1:{self.port}"

    def _command(self, *arguments: str) -> list[str]:
        archive = cache_folder() / "class-archives" / f"{self._home.name}.jsa"
        archive.parent.mkdir(parents=True, exist_ok=True)
        shared = [f"-XX:SharedArchiveFile={archive}", "-Xshare:auto"] if archive.exists() else []
        return [
            str(self._java / "bin" / "java"),
            "-Xms128m",
            "-Xmx256m",
            "-XX:+UseSerialGC",
            "-XX:TieredStopAtLevel=1",
            *shared,
            f"-Dlog4j2.configurationFile={self.folder / 'log4j2.yaml'}",
            "-cp",
            f"{self._home / 'lib'}/*",
            *arguments,
        ]

    def start(self) -> None:
        """Start it, and return when it takes connections."""
        if not (self.folder / "data").exists():
            cluster = "dGFsbHlzdGljay10ZXN0cw"  # 16 bytes in base64, as the storage tool wants them
            scram = f"SCRAM-SHA-512=[name={USER},password={PASSWORD}]"
            subprocess.run(
                self._command(
                    *("kafka.tools.StorageTool", "format", "-t", cluster, "-c", str(self._settings)),
                    *("--add-scram", scram),
                ),
                check=True,
                capture_output=True,
                timeout=_START_SECONDS,
            )
        command = self._command("kafka.Kafka", str(self._settings))
        self._run(command, self._listens, seconds=_START_SECONDS)

    def _listens(self) -> bool:
        with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1):
            return True
        return False


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()
