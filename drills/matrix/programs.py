"""Builds and fetches what the senders of ``tests/clients`` need: npm's packages, programs in Go, classes of Java; and starts brokers.

What takes minutes (telemetrygen, the OpenTelemetry Collector) is kept in the tests' cache folder. What is missing on the machine is told by
`tests.support.need.need`: a test skips, or fails in CI.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from contextlib import ExitStack
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Self

from tests.servers import java, maven
from tests.servers.kafka import Kafka
from tests.servers.opensearch_home import cache_folder
from tests.servers.pulsar import Pulsar
from tests.servers.rabbitmq import RabbitMq
from tests.support.need import need

__all__ = ["CLIENTS", "Programs"]

CLIENTS = Path(__file__).resolve().parents[2] / "tests" / "clients"

_JAVA_AT_LEAST = 17
_OTEL_JAVA = "1.68.0"
_OTEL_JAVA_JARS = tuple(
    f"io.opentelemetry:{name}:{_OTEL_JAVA}" for name in ("opentelemetry-sdk", "opentelemetry-exporter-otlp")
)
_TELEMETRYGEN = "v0.161.0"
_OTELCOL = "v0.160.0"
_BUILD_SECONDS = 3_600.0


class Programs:
    """Everything is made when it is first asked for. Used as a context, brokers that it started are stopped in the end.

    Args:
        folder: for what is built fast enough to be built each time; empty, or not there yet.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._brokers = ExitStack()

    def __enter__(self) -> Self:
        self._folder.mkdir(parents=True, exist_ok=True)
        return self

    def __exit__(self, *_: object) -> None:
        self._brokers.close()

    @cached_property
    def npm(self) -> Path:
        """A folder with the programs in JavaScript and the packages of the lock file."""
        need(shutil.which("node") and shutil.which("npm"), "the programs in JavaScript need node and npm")
        folder = self._folder / "npm"
        folder.mkdir()
        for name in (".npmrc", "package.json", "package-lock.json"):
            shutil.copy(CLIENTS / name, folder)
        for path in CLIENTS.glob("*.mjs"):
            shutil.copy(path, folder)
        self._built(["npm", "ci", "--ignore-scripts", "--no-progress"], folder)
        return folder

    def go(self, name: str) -> Path:
        """The binary of a folder with Go sources and their lock file; Go's own cache makes it quick the second time."""
        need(shutil.which("go"), "no Go toolchain: install Go 1.26 or newer")
        program = self._folder / name
        if not program.is_file():
            self._built(["go", "build", "-mod=readonly", "-o", str(program), "."], CLIENTS / name)
        return program

    @cached_property
    def java_otel(self) -> list[str]:
        """The command that runs the sender in Java."""
        home = java.java_home(_JAVA_AT_LEAST)
        compiler = home / "bin" / "javac"
        need(compiler.exists(), f"needs a JDK: there is no {compiler}")
        jars = cache_folder() / f"opentelemetry-java-{_OTEL_JAVA}"
        if not jars.is_dir():
            jars.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=jars.parent, prefix=".making-") as scratch:
                made = Path(scratch, "home")
                maven.copy_with_dependencies(
                    {"lib": _OTEL_JAVA_JARS}, home=made, scratch=Path(scratch, "maven"), java=home
                )
                (made / "lib").rename(jars)
        classes = self._folder / "java_otel"
        self._built(
            [str(compiler), "-cp", f"{jars}/*", "-d", str(classes), str(CLIENTS / "java_otel" / "OtelSender.java")],
            self._folder,
        )
        return [str(home / "bin" / "java"), "-Xmx256m", "-cp", f"{classes}:{jars}/*", "OtelSender"]

    @cached_property
    def telemetrygen(self) -> Path:
        """OpenTelemetry's load maker, built from source once, some 40 s of a core."""
        cache = cache_folder() / f"telemetrygen-{_TELEMETRYGEN}"
        binary = cache / "telemetrygen"
        if not binary.is_file():
            need(shutil.which("go"), "telemetrygen is built from source: install Go 1.26 or newer")
            package = "github.com/open-telemetry/opentelemetry-collector-contrib/cmd/telemetrygen"
            self._built(["go", "install", f"{package}@{_TELEMETRYGEN}"], self._folder, GOBIN=str(cache))
        return binary

    @cached_property
    def otelcol(self) -> Path:
        """The OpenTelemetry Collector with the parts of ``otelcol.yaml``, built from source once, minutes of a core."""
        parts = CLIENTS / "otelcol.yaml"  # another choice of parts is another program
        binary = cache_folder() / f"otelcol-{_OTELCOL}-{sha256(parts.read_bytes()).hexdigest()[:12]}"
        if not binary.is_file():
            need(shutil.which("go"), "the OpenTelemetry Collector is built from source: install Go 1.26 or newer")
            binary.parent.mkdir(parents=True, exist_ok=True)
            builder = f"go.opentelemetry.io/collector/cmd/builder@{_OTELCOL}"
            making = self._folder / "otelcol"
            making.mkdir()
            shutil.copy(parts, making)
            build = making / "build"
            # it ends with a tidy of its own, which fails where the one below goes on: the sources are there by then
            generate = ["go", "run", builder, "--config", parts.name, "--skip-compilation"]
            self._built(generate, making, leaves=build / "go.mod")
            # -e: modules that only tests of its parts import may not be there
            self._built(["go", "mod", "tidy", "-e"], build)
            program = making / "otelcol-made"
            self._built(["go", "build", "-trimpath", "-ldflags=-s -w", "-o", str(program), "."], build)
            shutil.move(program, binary)
        return binary

    @cached_property
    def kafka(self) -> Kafka:
        """One Kafka node, started."""
        return self._brokers.enter_context(Kafka())

    @cached_property
    def pulsar(self) -> Pulsar:
        """One Pulsar node, started."""
        return self._brokers.enter_context(Pulsar())

    @cached_property
    def rabbitmq(self) -> RabbitMq:
        """One RabbitMQ node, started."""
        return self._brokers.enter_context(RabbitMq())

    def _built(self, command: list[str], folder: Path, *, leaves: Path | None = None, **environment: str) -> None:
        """Run it in a folder; it must succeed, or leave a file there."""
        done = subprocess.run(
            command,
            cwd=folder,
            env=os.environ | environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=_BUILD_SECONDS,
        )
        made = done.returncode == 0 or (leaves is not None and leaves.is_file())
        need(made, f"{' '.join(command[:3])} did not succeed: {done.stderr[-2_000:]}")
