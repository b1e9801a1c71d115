"""Every way in that the settings ask for, in front of one intake: opened together, watched, and closed together."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from collector.disk import Disk
from collector.errors import Malformed
from collector.metrics import CollectorMetrics
from collector.receive import Intake
from collector.receive.beats import BeatsReceiver
from collector.receive.body import BodyLimits
from collector.receive.business_events import BusinessEventReceiver
from collector.receive.credentials import Credentials
from collector.receive.elasticsearch import ElasticsearchReceiver
from collector.receive.forward import ForwardReceiver
from collector.receive.forward_guard import handshake_of
from collector.receive.http import HttpServer, create_app
from collector.receive.listening import tls_of
from collector.receive.ndjson import NdjsonReceiver
from collector.receive.otlp import OtlpReceiver
from collector.receive.otlp_export import OtlpExports
from collector.receive.otlp_onward import MetricsServer
from collector.receive.syslog.receiver import SyslogReceiver
from collector.receive.syslog.settings import zone_of
from collector.receive.tail.kubernetes_api import Pods
from collector.receive.tail.tailer import Tailer
from collector.settings import CollectorSettings, ElasticsearchSettings, HttpSettings

__all__ = ["POSITIONS", "WaysIn"]

_log = logging.getLogger("tally.collector")

POSITIONS = "tail"
"""Name of the folder, beside a collector's incarnations, of the positions in files that are followed."""

_FORWARD_PATIENCE_SECONDS = 10.0
_TAIL_GRACE_SECONDS = 10.0
_BROKER_GRACE_SECONDS = 20.0


class Consuming(Protocol):
    """A way in that connects to a broker."""

    async def run(self) -> None:
        """Consume until `stop`."""

    def stop(self) -> None:
        """Let `run` end after what is in hand."""


class WaysIn:
    """The ways in of one sidecar. For its event loop.

    Args:
        settings: which there are.
        intake: takes what comes.
        root: the collector's folder.
        disk: where it lies.
        clock: Unix time in nanoseconds.
        metrics: count refusals and what is followed.
        not_ready: why the sidecar is not ready; for /readyz.
        standing: what `tally status` asks for.
    """

    def __init__(
        self,
        settings: CollectorSettings,
        intake: Intake,
        *,
        root: Path,
        disk: Disk,
        clock: Callable[[], int],
        metrics: CollectorMetrics,
        not_ready: Callable[[], list[str]],
        standing: Callable[[], Mapping[str, object]],
    ) -> None:
        self._settings = settings
        self._intake = intake
        self._root = root
        self._disk = disk
        self._clock = clock
        self._metrics = metrics
        self._not_ready = not_ready
        self._standing = standing
        self._closing: list[Callable[[], Awaitable[object]]] = []
        self._onward: MetricsServer | None = None
        self._tailer: Tailer | None = None
        self._following: asyncio.Task[None] | None = None
        self._consuming: list[tuple[Consuming, asyncio.Task[None]]] = []

    async def open(self) -> dict[str, str]:
        """Listen, and begin to follow files; returns the addresses by their use, see `collector.sidecar.run_sidecar`.

        Raises as `run_sidecar`; what is open by then is closed by `close`.
        """
        addresses: dict[str, str] = {}
        for way in (self._forward, self._http_and_grpc, self._elasticsearch, self._beats, self._syslog):
            addresses |= await way()
        self._follow()
        self._consume()
        return addresses

    def check(self) -> None:
        """Raises what ended the following of files, or a consumer, if anything did."""
        for _, task in self._consuming:
            if task.done():
                task.result()
        if self._following is not None and self._following.done():
            self._following.result()

    async def close(self) -> None:
        """Take nothing more in, finish and acknowledge what is in flight, for a bounded time."""
        if self._tailer is not None and self._following is not None:
            await _end_of_following(self._tailer, self._following)
        await asyncio.gather(
            *(close() for close in self._closing), *(_end_of_consuming(one, task) for one, task in self._consuming)
        )
        if self._onward is not None:
            self._onward.close()

    async def _forward(self) -> dict[str, str]:
        own = self._settings.forward
        addresses: dict[str, str] = {}
        if own.port < 0 and not own.unix_socket:
            return addresses
        forward = ForwardReceiver(
            self._intake,
            clock=self._clock,
            service=self._settings.service or None,
            handshake=handshake_of(own, hostname=self._settings.name),
            patience_seconds=_FORWARD_PATIENCE_SECONDS,
            refused=self._metrics.refused,
        )
        self._closing.append(forward.close)
        if own.port >= 0:
            port = await forward.listen_tcp(own.host, own.port, tls=tls_of(own))
            addresses["forward"] = f"{own.host}:{port}"
            if own.udp_heartbeat:
                await forward.answer_heartbeats(own.host, port)
        if own.unix_socket:
            await forward.listen_unix(Path(own.unix_socket))
            addresses["forward_unix"] = own.unix_socket
        return addresses

    async def _http_and_grpc(self) -> dict[str, str]:
        settings, own, refused = self._settings, self._settings.http, self._metrics.refused
        addresses: dict[str, str] = {}
        onward = None
        if settings.otlp.metrics_to:
            onward = MetricsServer(settings.otlp.metrics_to, counted=self._metrics.metrics_sent_on)
            self._onward = onward
        exports = OtlpExports(self._intake, clock=self._clock, passed=self._metrics.metrics_passed, onward=onward)
        if own.port >= 0:
            limits = BodyLimits(max_body_bytes=own.max_body_bytes, max_inflated_bytes=4 * own.max_body_bytes)
            otlp = OtlpReceiver(exports, limits=limits, refused=refused)
            ndjson = NdjsonReceiver(self._intake, clock=self._clock, limits=limits, refused=refused)
            business = BusinessEventReceiver(
                self._intake, clock=self._clock, service=settings.service, limits=limits, refused=refused
            )
            app = create_app(
                [*otlp.routes, *ndjson.routes, *business.routes],
                registry=self._metrics.registry,
                not_ready=self._not_ready,
                standing=self._standing,
            )
            server = _server(app, own, refused)
            self._closing.append(server.stop)
            addresses["http"] = f"{own.host}:{await server.start()}"
        if settings.grpc.port >= 0:
            addresses["grpc"] = await self._grpc(exports)
        return addresses

    async def _grpc(self, exports: OtlpExports) -> str:
        """Serve OTLP over gRPC. Raises `Malformed`: its library is not installed."""
        try:
            from collector.receive import otlp_grpc  # noqa: PLC0415 - 12 MB that a sidecar without gRPC does not need
        except ModuleNotFoundError as error:
            raise Malformed(
                "gRPC needs more than is installed: pip install 'tallystick[grpc]'", where="grpc.port"
            ) from error
        own = self._settings.grpc
        credentials = None
        if own.tls_certificate:
            client_ca = Path(own.tls_client_ca) if own.tls_client_ca else None
            credentials = otlp_grpc.server_credentials(Path(own.tls_certificate), Path(own.tls_key), client_ca)
        server = otlp_grpc.OtlpGrpcServer(
            exports,
            host=own.host,
            port=own.port,
            limits=otlp_grpc.GrpcLimits(message_bytes=own.max_message_bytes, inflated_bytes=4 * own.max_message_bytes),
            credentials=credentials,
            refused=self._metrics.refused,
        )
        self._closing.append(server.stop)
        return f"{own.host}:{await server.start()}"

    async def _elasticsearch(self) -> dict[str, str]:
        own = self._settings.elasticsearch
        if own.port < 0:
            return {}
        receiver = ElasticsearchReceiver(
            self._intake,
            clock=self._clock,
            product=own.product,
            version=own.version,
            name=self._settings.name,
            service=self._settings.service,
            credentials=Credentials.read(Path(own.credentials_file)) if own.credentials_file else None,
            limits=BodyLimits(max_body_bytes=own.max_body_bytes, max_inflated_bytes=4 * own.max_body_bytes),
            not_ready=self._not_ready,
            refused=self._metrics.refused,
        )
        server = _server(receiver.app, own, self._metrics.refused)
        self._closing.append(server.stop)
        return {"elasticsearch": f"{own.host}:{await server.start()}"}

    async def _beats(self) -> dict[str, str]:
        own = self._settings.beats
        if own.port < 0:
            return {}
        beats = BeatsReceiver(
            self._intake, clock=self._clock, service=self._settings.service, refused=self._metrics.refused
        )
        self._closing.append(beats.close)
        return {"beats": f"{own.host}:{await beats.listen(own.host, own.port, tls=tls_of(own))}"}

    async def _syslog(self) -> dict[str, str]:
        own = self._settings.syslog
        addresses: dict[str, str] = {}
        if max(own.port, own.tls_port, own.udp_port) < 0:
            return addresses
        syslog = SyslogReceiver(
            self._intake,
            clock=self._clock,
            zone=zone_of(own.zone),
            service=self._settings.service,
            max_message_bytes=own.max_message_bytes,
            max_connections=own.max_connections,
            refused=self._metrics.refused,
        )
        self._closing.append(syslog.close)
        if own.port >= 0:
            addresses["syslog"] = f"{own.host}:{await syslog.listen_tcp(own.host, own.port)}"
        if own.tls_port >= 0:
            port = await syslog.listen_tcp(own.host, own.tls_port, tls=tls_of(own))
            addresses["syslog_tls"] = f"{own.host}:{port}"
        if own.udp_port >= 0:
            addresses["syslog_udp"] = f"{own.host}:{await syslog.listen_udp(own.host, own.udp_port)}"
        return addresses

    def _follow(self) -> None:
        if not self._settings.tail:
            return
        pods = None
        if self._settings.kubernetes.api:
            pods = Pods(self._settings.kubernetes)
            self._closing.append(pods.close)
        self._tailer = Tailer(
            self._settings.tail,
            self._root / POSITIONS,
            intake=self._intake,
            disk=self._disk,
            clock=self._clock,
            pods=pods,
            report=self._metrics.tail,
        )
        self._following = asyncio.create_task(self._tailer.run())

    def _consume(self) -> None:
        """Consume what brokers hold. Raises `Malformed`: a library is not installed."""
        consumers: list[Consuming] = []
        further: dict[str, Any] = {
            "clock": self._clock,
            "service": self._settings.service,
            "report": self._metrics.broker,
        }
        if self._settings.kafka:
            try:
                from collector.receive.kafka.consumer import KafkaConsumer  # noqa: PLC0415 - comes with an extra
            except ModuleNotFoundError as error:
                raise Malformed(
                    "Kafka needs more than is installed: pip install 'tallystick[kafka]'", where="kafka"
                ) from error
            consumers += [KafkaConsumer(own, self._intake, **further) for own in self._settings.kafka]
        if self._settings.amqp:
            try:
                from collector.receive.amqp.consumer import AmqpConsumer  # noqa: PLC0415 - comes with an extra
            except ModuleNotFoundError as error:
                raise Malformed(
                    "RabbitMQ needs more than is installed: pip install 'tallystick[amqp]'", where="amqp"
                ) from error
            consumers += [AmqpConsumer(own, self._intake, **further) for own in self._settings.amqp]
        self._consuming = [(one, asyncio.create_task(one.run())) for one in consumers]


def _server(app: Any, settings: HttpSettings | ElasticsearchSettings, refused: Callable[[str], None]) -> HttpServer:
    return HttpServer(
        app,
        refused=refused,
        host=settings.host,
        port=settings.port,
        tls_certificate=settings.tls_certificate,
        tls_key=settings.tls_key,
        tls_client_ca=settings.tls_client_ca,
    )


async def _end_of_following(tailer: Tailer, following: asyncio.Task[None]) -> None:
    """Let the tail take its turns to their end, and write its positions."""
    tailer.stop()
    _, late = await asyncio.wait([following], timeout=_TAIL_GRACE_SECONDS)
    for task in late:
        task.cancel()
    await asyncio.wait([following])
    if not following.cancelled() and (error := following.exception()) is not None:
        _log.error("the tail ended: %s: %s", type(error).__name__, error)


async def _end_of_consuming(consumer: Consuming, task: asyncio.Task[None]) -> None:
    """Let a consumer finish what it has in hand, tell its broker, and leave."""
    consumer.stop()
    _, late = await asyncio.wait([task], timeout=_BROKER_GRACE_SECONDS)
    for one in late:
        one.cancel()
    await asyncio.wait([task])
    if not task.cancelled() and (error := task.exception()) is not None:
        _log.error("a consumer ended: %s: %s", type(error).__name__, error)
