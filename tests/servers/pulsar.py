"""A real Pulsar on 127.0.0.1: broker, bookie and metadata in one process (standalone), killed and stopped by its process id."""

from __future__ import annotations

import base64
import hashlib
import hmac
import http.client
import json
import secrets
from typing import Any

from tests.servers import java, pulsar_home
from tests.servers.certificates import Authority
from tests.servers.kafka import free_ports
from tests.servers.process import ServerProcess

_START_SECONDS = 240.0
_ANSWER_SECONDS = 30.0

_SETTINGS = """clusterName=standalone
bindAddress=127.0.0.1
advertisedAddress=127.0.0.1
brokerServicePort={port}
brokerServicePortTls={secure}
webServicePort={web}
webSocketServiceEnabled=false
loadManagerClassName=org.apache.pulsar.broker.loadbalance.NoopLoadManager
loadBalancerEnabled=false
allowAutoTopicCreation=true
allowAutoTopicCreationType=non-partitioned
brokerDeleteInactiveTopicsEnabled=false
systemTopicEnabled=false
topicLevelPoliciesEnabled=false
transactionCoordinatorEnabled=false
activeConsumerFailoverDelayTimeMillis=0
brokerShutdownTimeoutMs=1000
numIOThreads=2
numHttpServerThreads=8
numOrderedExecutorThreads=2
numCacheExecutorThreadPoolSize=2
topicOrderedExecutorThreadNum=2
managedLedgerNumSchedulerThreads=2
managedLedgerCacheSizeMB=16
managedLedgerDefaultEnsembleSize=1
managedLedgerDefaultWriteQuorum=1
managedLedgerDefaultAckQuorum=1
bookkeeperClientNumWorkerThreads=2
bookkeeperClientNumIoThreads=2
bookkeeperNumberOfChannelsPerBookie=1
ledgerStorageClass=org.apache.bookkeeper.bookie.storage.ldb.DbLedgerStorage
dbStorage_writeCacheMaxSizeMb=16
dbStorage_readAheadCacheMaxSizeMb=16
dbStorage_rocksDB_blockCacheSize=4194304
journalMaxGroupWaitMSec=1
journalSyncData=false
diskUsageThreshold=0.99
diskUsageWarnThreshold=0.99
allowLoopback=true
authenticationEnabled=true
authenticationProviders=org.apache.pulsar.broker.authentication.AuthenticationProviderToken
anonymousUserRole=anybody
tokenSecretKey=file://{folder}/token.key
tlsCertificateFilePath={certificate}
tlsKeyFilePath={key}
tlsTrustCertsFilePath={ca}
tlsRequireTrustedClientCertOnConnect=true
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
_OPENS = (
    *("java.base/java.io", "java.base/java.nio", "java.base/java.util.zip", "java.base/jdk.internal.misc"),
    *("java.base/jdk.internal.platform", "java.management/sun.management"),
    "jdk.management/com.sun.management.internal",
)


class Pulsar(ServerProcess):
    """One node with data in a folder of its own, which `stop` removes.

    At `secure_address` it wants a certificate of `authority`. Who shows a token must show a good one (`token`).
    """

    def __init__(self) -> None:
        self._java = java.java_home(pulsar_home.JAVA_AT_LEAST)
        self._home = pulsar_home.install(self._java)
        super().__init__("pulsar")
        self.port, secure, self._web, self._bookie = free_ports(4)
        self.secure_address = f"127.0.0.1:{secure}"
        self.authority = Authority(self.folder / "tls")
        certificate, key = self.authority.issue("pulsar")
        self._key = secrets.token_bytes(32)
        (self.folder / "token.key").write_bytes(self._key)
        (self.folder / "standalone.conf").write_text(
            _SETTINGS.format(
                port=self.port,
                secure=secure,
                web=self._web,
                folder=self.folder,
                certificate=certificate,
                key=key,
                ca=self.authority.ca,
            ),
            encoding="utf-8",
        )
        (self.folder / "log4j2.yaml").write_text(_LOG4J, encoding="utf-8")

    @property
    def address(self) -> str:
        """Where it listens, in plain text."""
        return f"127.0.0.1:{self.port}"

    def token(self, subject: str = "collector") -> str:
        """A token that it takes: a JSON Web Token with HS256."""
        parts = ({"alg": "HS256", "typ": "JWT"}, {"sub": subject})
        signed = b".".join(_base64url(json.dumps(part).encode()) for part in parts)
        return (signed + b"." + _base64url(hmac.digest(self._key, signed, hashlib.sha256))).decode()

    def start(self) -> None:
        """Start it, and return when it is ready."""
        command = [
            str(self._java / "bin" / "java"),
            *("-Xms128m", "-Xmx256m", "-XX:MaxDirectMemorySize=256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"),
            *(argument for name in _OPENS for argument in ("--add-opens", f"{name}=ALL-UNNAMED")),
            *("-Djava.net.preferIPv4Stack=true", "-Dio.netty.tryReflectionSetAccessible=true"),
            f"-Djava.io.tmpdir={self.folder}",
            f"-Dlog4j2.configurationFile={self.folder / 'log4j2.yaml'}",
            *("-cp", f"{self._home / 'lib'}/*", "org.apache.pulsar.PulsarStandaloneStarter"),
            *("--config", str(self.folder / "standalone.conf"), "--no-functions-worker", "--no-stream-storage"),
            *("--metadata-dir", str(self.folder / "metadata"), "--bookkeeper-dir", str(self.folder / "bookkeeper")),
            *("--bookkeeper-port", str(self._bookie)),
        ]
        self._run(command, self._ready, seconds=_START_SECONDS)

    def _ready(self) -> bool:
        """Whether the namespace that topics are in without a name of one is there: made last."""
        try:
            return "public/default" in self.ask("GET", "/admin/v2/namespaces/public")
        except (OSError, AssertionError):
            return False

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        """Of its administration; the answer from JSON, None where there is none."""
        connection = http.client.HTTPConnection("127.0.0.1", self._web, timeout=_ANSWER_SECONDS)
        try:
            connection.request(method, path, json.dumps(body), {"content-type": "application/json"})
            answer = connection.getresponse()
            text = answer.read()
            assert answer.status < 300, f"{method} {path}: {answer.status} {text[:500]!r}"
            return json.loads(text) if text else None
        finally:
            connection.close()

    def make_topic(self, *, partitions: int = 0, name: str = "") -> str:
        """A topic that no other test has; 0 partitions: it has none. Returns its name."""
        name = name or f"t-{secrets.token_hex(6)}"
        place = f"/admin/v2/persistent/public/default/{name}"
        self.ask("PUT", f"{place}/partitions" if partitions else place, partitions or None)
        return name


def _base64url(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")
