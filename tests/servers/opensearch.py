"""Real OpenSearch servers on 127.0.0.1: started, waited for, paused, killed and stopped, each by its process id.

A `Cluster` has one to three nodes with data in a folder of its own, which `stop` removes. The servers start with little
memory and without what only long runs need; the first start on a machine takes longer than later ones, which reuse its
class archive.
"""

from __future__ import annotations

import base64
import ctypes
import http.client
import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from tests.servers import java
from tests.servers.opensearch_home import JAVA_AT_LEAST, SECURITY, cache_folder, install
from tests.servers.opensearch_security import Security

_OTHER_UID = 65_534
"""Who runs the server when root starts it: OpenSearch refuses to be root."""

_START_SECONDS = 600.0
"""A start takes 5 to 20 s on a quiet machine, and minutes on a busy one."""

_LOG4J = """status = error
appender.console.type = Console
appender.console.name = console
appender.console.layout.type = PatternLayout
appender.console.layout.pattern = [%d{ISO8601}][%-5p][%-25c{1.}] [%node_name] %m%n
rootLogger.level = info
rootLogger.appenderRef.console.ref = console
"""
_FAST_START = "-XX:+UseSerialGC\n-XX:TieredStopAtLevel=1\n"
"""Ready in half the time, and several times slower for ever: for tests, never for measuring."""

_JVM = """-Xlog:disable
-Xss1m
-Djava.awt.headless=true
-Dfile.encoding=UTF-8
-Djna.nosys=true
-Dio.netty.noUnsafe=true
-Dio.netty.noKeySetOptimization=true
-Dio.netty.recycler.maxCapacityPerThread=0
-Dio.netty.allocator.numDirectArenas=0
-Dlog4j.shutdownHookEnabled=false
-Dlog4j2.disable.jmx=true
-Dopensearch.networkaddress.cache.ttl=60
-Dopensearch.networkaddress.cache.negative.ttl=10
--enable-native-access=ALL-UNNAMED
"""


class Node:
    """One server process. Made by `Cluster`."""

    def __init__(self, cluster: Cluster, number: int) -> None:
        self._cluster = cluster
        self.number = number
        self.name = f"node{number}"
        self.folder = cluster.folder / self.name
        self.port, self.transport_port = _free_ports(2)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Where it listens: ``http://127.0.0.1:port``, or https."""
        return f"{self._cluster.scheme}://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        """The server's process id."""
        assert self._process is not None, f"{self.name} was not started"
        return self._process.pid

    def start(self) -> None:
        """Start the process; does not wait until it listens (`Cluster.wait`)."""
        assert self._process is None, f"{self.name} runs"
        config = self.folder / "config"
        for name in ("config", "data", "logs", "tmp"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        (config / "opensearch.yml").write_text(self._cluster.settings(self), encoding="utf-8")
        (config / "log4j2.properties").write_text(_LOG4J, encoding="utf-8")
        (config / "jvm.options").write_text(self._jvm_options(), encoding="utf-8")
        if self._cluster.security:
            self._cluster.security.lay_out(config)
        root = os.getuid() == 0
        if root:
            for path in (self.folder, *self.folder.rglob("*")):
                os.chown(path, _OTHER_UID, _OTHER_UID)
        home = self._cluster.home
        command = [
            str(self._cluster.java / "bin" / "java"),
            f"@{config / 'jvm.options'}",
            f"-Dopensearch.path.home={home}",
            f"-Dopensearch.path.conf={config}",
            "-Dopensearch.distribution.type=tar",
            "-Dopensearch.bundled_jdk=false",
            "-cp",
            f"{home / 'lib'}/*",
            "org.opensearch.bootstrap.OpenSearch",
        ]
        as_whom: dict[str, Any] = {"user": _OTHER_UID, "group": _OTHER_UID, "extra_groups": []} if root else {}
        with (self.folder / "stdout.log").open("ab") as log:
            self._process = subprocess.Popen(
                command,
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                preexec_fn=_die_with_parent,  # noqa: PLW1509 - one system call, no lock that another thread may hold
                **as_whom,
            )

    def _jvm_options(self) -> str:
        heap = self._cluster.heap
        folder = self.folder / "tmp"
        speed = _FAST_START if self._cluster.fast_start else "-XX:+UseG1GC\n"
        lines = f"-Xms{heap}\n-Xmx{heap}\n{speed}{_JVM}-Djava.io.tmpdir={folder}\n-Djna.tmpdir={folder}\n"
        # the agent, which rewrites classes at the start, is left out; its bootstrap classes are still asked for
        (bootstrap,) = (self._cluster.home / "agent").glob("opensearch-agent-bootstrap-*.jar")
        lines += f"-Xbootclasspath/a:{bootstrap}\n"
        archive = cache_folder() / "class-archives" / f"{self._cluster.home_name}.jsa"
        if self.number == 0 and len(self._cluster.nodes) == 1:  # one writer: it is written when the process ends
            lines += f"-XX:+AutoCreateSharedArchive\n-XX:SharedArchiveFile={archive}\n"
        elif archive.exists():
            lines += f"-XX:SharedArchiveFile={archive}\n"
        return lines

    def kill(self) -> None:
        """SIGKILL, as the kernel or a power cut would; returns when it is gone. `start` brings it back with its data."""
        self._signal(signal.SIGKILL)
        self._reap(30)

    def pause(self) -> None:
        """SIGSTOP: it holds its connections and answers nothing."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT."""
        self._signal(signal.SIGCONT)

    def stop(self) -> None:
        """SIGTERM and, if it will not go within a minute, SIGKILL. A node that does not run is left so."""
        if self._process is None or self._process.poll() is not None:
            self._process = None
            return
        self._signal(signal.SIGCONT)
        self._signal(signal.SIGTERM)
        try:
            self._reap(60)
        except subprocess.TimeoutExpired:
            self.kill()

    def alive(self) -> bool:
        """Whether its process runs."""
        return self._process is not None and self._process.poll() is None

    def log_tail(self, lines: int = 30) -> str:
        """The last lines that it printed."""
        try:
            text = (self.folder / "stdout.log").read_text(encoding="utf-8", errors="replace")
        except OSError:
            return "(no output)"
        return "\n".join(text.splitlines()[-lines:])

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(number)

    def _reap(self, seconds: float) -> None:
        assert self._process is not None
        self._process.wait(seconds)
        self._process = None


class Cluster:
    """One to three nodes. Made in a folder of its own, which `stop` removes.

    Args:
        nodes: how many.
        heap: each node's Java heap.
        fast_start: ready soon and slow afterwards; False for measuring.
        settings: lines of ``opensearch.yml`` beyond what a test server needs.
        security: the security plugin's certificates, users and roles; None: no plugin, plain HTTP.
        data: where the folder is made; None: the system's folder for temporary files.
    """

    def __init__(
        self,
        *,
        nodes: int = 1,
        heap: str = "512m",
        fast_start: bool = True,
        settings: Mapping[str, Any] | None = None,
        security: Security | None = None,
        data: Path | None = None,
    ) -> None:
        self.java = java.java_home(JAVA_AT_LEAST)
        installed = install(self.java)
        self.home_name = installed.name + ("-secured" if security else "") + ("" if fast_start else "-full")
        self.heap = heap
        self.fast_start = fast_start
        self.security = security
        self.scheme = "https" if security else "http"
        self._settings = dict(settings or {})
        archives = cache_folder() / "class-archives"
        archives.mkdir(exist_ok=True)
        self.folder = Path(tempfile.mkdtemp(prefix="tally-opensearch-", dir=data))
        self.folder.chmod(0o755)
        if os.getuid() == 0:
            os.chown(archives, _OTHER_UID, _OTHER_UID)
            os.chown(self.folder, _OTHER_UID, _OTHER_UID)
        self.home = self.folder / "home"
        self.home.mkdir()
        for name in ("lib", "agent", "modules"):
            (self.home / name).symlink_to(installed / name)
        for name in ("bin", "plugins"):  # the server makes those that are missing, where it may
            (self.home / name).mkdir()
        if security:
            (self.home / "plugins" / SECURITY).symlink_to(installed / "security" / SECURITY)
            security.prepare(java=self.java, home=installed)
        self.nodes = tuple[Node, ...]()
        self.nodes = tuple(Node(self, number) for number in range(nodes))

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def url(self) -> str:
        """The first node's address."""
        return self.nodes[0].url

    @property
    def urls(self) -> Sequence[str]:
        """Each node's address."""
        return [node.url for node in self.nodes]

    def start(self) -> None:
        """Start every node and wait until the cluster is whole."""
        for node in self.nodes:
            node.start()
        self.wait()

    def wait(self, *, seconds: float = _START_SECONDS) -> None:
        """Wait until every node that runs says that it sees all of them, and that no index waits for its primary shard.

        Each is asked, because the others may not have noticed yet that one was killed and started again.

        Raises:
            RuntimeError: a node died or time ran out; with the end of what it printed.
        """
        end = time.monotonic() + seconds
        running = [node for node in self.nodes if node.alive()]
        if not running:
            raise RuntimeError(f"no OpenSearch runs:\n{self.nodes[0].log_tail()}")
        for node in running:
            while not self._sees(node, len(running)):
                if not node.alive():
                    raise RuntimeError(f"OpenSearch died:\n{node.log_tail()}")
                if time.monotonic() > end:
                    raise RuntimeError(f"OpenSearch was not ready within {seconds:.0f} s:\n{node.log_tail()}")
                time.sleep(0.2)  # there is no event to wait for: a port that opens in another process

    def _sees(self, node: Node, nodes: int) -> bool:
        query = f"/_cluster/health?wait_for_nodes={nodes}&wait_for_status=yellow&timeout=2s"
        try:
            return not self.ask("GET", query, via=node.number)["timed_out"]
        except (OSError, http.client.HTTPException):
            return False

    def ask(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        via: int = 0,
        user: tuple[str, str] | None = None,
        timeout_seconds: float = 30.0,
    ) -> Any:
        """One request as JSON; the server's error comes as `urllib.error.HTTPError`.

        Args:
            method: GET, PUT, POST or DELETE.
            path: from the slash on.
            body: a value, sent as JSON; None: no body.
            via: the node that is asked.
            user: name and password; None: the administrator's where the cluster is secured.
            timeout_seconds: how long to wait for the answer before `TimeoutError`.
        """
        url = f"{self.nodes[via].url}{path}"
        request = urllib.request.Request(url, method=method)  # noqa: S310 - our own server's address
        request.add_header("Content-Type", "application/json")
        context: ssl.SSLContext | None = None
        if self.security:
            name, password = user or self.security.administrator
            token = base64.b64encode(f"{name}:{password}".encode()).decode()
            request.add_header("Authorization", f"Basic {token}")
            context = ssl.create_default_context(cafile=str(self.security.authority.ca))
        data = None if body is None else json.dumps(body).encode()
        opened = urllib.request.urlopen(request, data, timeout_seconds, context=context)  # noqa: S310 - as above
        with opened as answer:
            return json.load(answer)

    def stop(self) -> None:
        """Stop every node and remove its data."""
        for node in self.nodes:
            node.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def settings(self, node: Node) -> str:
        """The text of a node's ``opensearch.yml``."""
        lines: dict[str, Any] = {
            "cluster.name": "tallystick-tests",
            "node.name": node.name,
            "path.data": str(node.folder / "data"),
            "path.logs": str(node.folder / "logs"),
            "network.host": "127.0.0.1",
            "http.port": node.port,
            "transport.port": node.transport_port,
            # a shared machine's disk may be fuller than a server's should be; a test that means it sets it
            "cluster.routing.allocation.disk.threshold_enabled": False,
        }
        if len(self.nodes) == 1:
            lines["discovery.type"] = "single-node"
        else:
            lines["discovery.seed_hosts"] = [f"127.0.0.1:{one.transport_port}" for one in self.nodes]
            lines["cluster.initial_cluster_manager_nodes"] = [one.name for one in self.nodes]
        if self.security:
            lines |= self.security.settings()
        lines |= self._settings
        # every JSON value is YAML
        return "".join(f"{key}: {json.dumps(value)}\n" for key, value in lines.items())


_LIBC = ctypes.CDLL(None, use_errno=True)
_PR_SET_PDEATHSIG = 1


def _die_with_parent() -> None:
    """In the new process: let the kernel kill it when the tests are killed and cannot stop it (Linux's prctl)."""
    if sys.platform == "linux":
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _free_ports(count: int) -> list[int]:
    """Ports of 127.0.0.1 that nobody has: found by taking and releasing them, all at once so that they differ."""
    taken = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in taken]
    for one in taken:
        one.close()
    return ports
