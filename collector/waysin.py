"""Every way in that the settings ask for, and what opens it. `collector.openways` keeps them."""

from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from starlette.routing import BaseRoute

from collector.disk import Disk
from collector.errors import Malformed
from collector.metrics import CollectorMetrics
from collector.receive.amqp.settings import AmqpSettings
from collector.receive.beats import BeatsReceiver
from collector.receive.body import BodyLimits
from collector.receive.business_events import BusinessEventReceiver
from collector.receive.credentials import Credentials
from collector.receive.elasticsearch import ElasticsearchReceiver
from collector.receive.forward import ForwardReceiver
from collector.receive.forward_guard import handshake_of
from collector.receive.http import HttpServer, create_app
from collector.receive.kafka.settings import KafkaSettings
from collector.receive.leaving import Leaving
from collector.receive.listening import tls_of
from collector.receive.ndjson import NdjsonReceiver
from collector.receive.otlp import OtlpReceiver
from collector.receive.otlp_export import Onward, OtlpExports
from collector.receive.pulsar.settings import PulsarSettings
from collector.receive.syslog.receiver import SyslogReceiver
from collector.receive.syslog.settings import zone_of
from collector.receive.tail.kubernetes_api import Pods
from collector.receive.tail.tailer import Tailer
from collector.receive.turns import LoopTime, Turns
from collector.settings import CollectorSettings, ElasticsearchSettings, HttpSettings
from collector.sockets import Held, Sockets
from collector.way import Wanted, Way, mark_of

__all__ = ["POSITIONS", "WaysIn", "ways_of"]

POSITIONS = "tail"
"""Name of the folder, beside a collector's incarnations, of the positions in files that are followed."""

_FORWARD_PATIENCE_SECONDS = 10.0


def ways_of(settings: CollectorSettings) -> Sequence[str]:
    """The names of the ways in that the settings ask for."""
    own, syslog = settings, settings.syslog
    listening = {
        "forward": own.forward.port >= 0 or bool(own.forward.unix_socket),
        "http": own.http.port >= 0,
        "grpc": own.grpc.port >= 0,
        "elasticsearch": own.elasticsearch.port >= 0,
        "beats": own.beats.port >= 0,
        "syslog": max(syslog.port, syslog.tls_port, syslog.udp_port) >= 0,
        "tail": bool(own.tail),
    }
    fetched = [f"kafka {one.label}" for one in own.kafka]
    fetched += [f"amqp {one.label}" for one in own.amqp]
    fetched += [f"pulsar {one.label}" for one in own.pulsar]
    return [*(name for name, on in listening.items() if on), *fetched]


class WaysIn:
    """The ways in of one sidecar under its settings. For its event loop.

    Args:
        settings: which there are.
        root: the collector's folder.
        disk: where it lies.
        clock: Unix time in nanoseconds.
        metrics: count refusals and what is followed.
        not_ready: why the sidecar is not ready; for /readyz.
        standing: what `tally status` asks for.
        sockets: that are listened on, also by ways in of other settings.
        loop_time: of the event loop, which they share.
        leaving: counts the requests of all HTTP servers.
        onward: where data points of metrics go on to; None: they are not kept.
        routes: what else is served on the HTTP port.
    """

    def __init__(
        self,
        settings: CollectorSettings,
        *,
        root: Path,
        disk: Disk,
        clock: Callable[[], int],
        metrics: CollectorMetrics,
        not_ready: Callable[[], list[str]],
        standing: Callable[[], Mapping[str, object]],
        sockets: Sockets,
        leaving: Leaving,
        loop_time: LoopTime,
        onward: Onward | None = None,
        routes: Sequence[BaseRoute] = (),
    ) -> None:
        self._settings = settings
        self._root = root
        self._disk = disk
        self._clock = clock
        self._metrics = metrics
        self._not_ready = not_ready
        self._standing = standing
        self._sockets = sockets
        self._leaving = leaving
        self._onward = onward
        self._loop_time = loop_time
        self._routes = routes

    def _reasons(self) -> list[str]:
        return ["the collector is stopping"] * self._leaving.begun + self._not_ready()

    def wanted(self) -> dict[str, Wanted]:
        """The ways in that the settings ask for, by name.

        What opens one listens, or begins to follow files; it raises as `collector.sidecar.run_sidecar`, and what is open by then is in the `Way`.
        """
        own = self._settings
        ways: dict[str, tuple[Any, Callable[[Way], Awaitable[None]]]] = {
            "forward": (own.forward, self._forward),
            "http": (own.http, self._http),
            "grpc": (own.grpc, self._grpc),
            "elasticsearch": (own.elasticsearch, self._elasticsearch),
            "beats": (own.beats, self._beats),
            "syslog": (own.syslog, self._syslog),
            "tail": ((*own.tail, own.kubernetes), self._follow),
            **{f"kafka {kafka.label}": (kafka, partial(self._kafka, kafka)) for kafka in own.kafka},
            **{f"amqp {amqp.label}": (amqp, partial(self._amqp, amqp)) for amqp in own.amqp},
            **{f"pulsar {pulsar.label}": (pulsar, partial(self._pulsar, pulsar)) for pulsar in own.pulsar},
        }
        return {
            name: Wanted(
                mark=mark_of(own.name, own.service, *(parts if isinstance(parts, tuple) else (parts,))),
                open=partial(self._open, opens),
                alone=name in {"grpc", "tail"} or name.startswith(("kafka ", "amqp ", "pulsar ")),
            )
            for name in ways_of(own)
            for parts, opens in (ways[name],)
        }

    async def _open(self, opens: Callable[[Way], Awaitable[None]], way: Way) -> None:
        self._metrics.input_opens(way.name)
        await opens(way)

    def _tcp(self, way: Way, host: str, port: int, *, use: str = "") -> Held:
        held = self._sockets.tcp(host, port, use=use or way.name)
        way.held.append(held)
        return held

    def _turns(self, way: Way) -> Turns:
        return Turns(self._loop_time, partial(self._metrics.input_waited, way.name))

    async def _forward(self, way: Way) -> None:
        own = self._settings.forward
        forward = ForwardReceiver(
            way.intake,
            clock=self._clock,
            service=self._settings.service or None,
            handshake=handshake_of(own, hostname=self._settings.name),
            patience_seconds=_FORWARD_PATIENCE_SECONDS,
            turns=self._turns(way),
            refused=self._metrics.refused,
        )
        way.closing.append(forward.close)
        tls = tls_of(own)
        if own.port >= 0:
            held = self._tcp(way, own.host, own.port)
            for one in held.sockets:
                await forward.listen_on(one, tls=tls)
            way.addresses["forward"] = f"{own.host}:{held.port}"
            if own.udp_heartbeat:
                heartbeats = self._sockets.udp(own.host, held.port, use=way.name)
                way.held.append(heartbeats)
                for one in heartbeats.sockets:
                    await forward.answer_heartbeats(on=one)
        if own.unix_socket:
            unix = self._sockets.unix(Path(own.unix_socket))
            way.held.append(unix)
            await forward.listen_on(unix.sockets[0])
            way.addresses["forward_unix"] = own.unix_socket

    def _exports(self, way: Way) -> OtlpExports:
        passed = self._metrics.metrics_passed
        return OtlpExports(way.intake, clock=self._clock, passed=passed, onward=self._onward, turns=self._turns(way))

    async def _http(self, way: Way) -> None:
        settings, own, refused = self._settings, self._settings.http, self._metrics.refused
        limits = BodyLimits(max_body_bytes=own.max_body_bytes, max_inflated_bytes=4 * own.max_body_bytes)
        otlp = OtlpReceiver(self._exports(way), limits=limits, refused=refused)
        ndjson = NdjsonReceiver(way.intake, clock=self._clock, limits=limits, turns=self._turns(way), refused=refused)
        business = BusinessEventReceiver(
            way.intake, clock=self._clock, service=settings.service, limits=limits, refused=refused
        )
        app = create_app(
            [*otlp.routes, *ndjson.routes, *business.routes, *self._routes],
            registry=self._metrics.registry,
            not_ready=self._reasons,
            standing=self._standing,
        )
        way.addresses["http"] = self._serve(way, app, own)

    def _serve(self, way: Way, app: Any, settings: HttpSettings | ElasticsearchSettings) -> str:
        """Serve an application over HTTP; returns its address. Raises OSError: it cannot listen there; `Malformed`: a file is not what it should be."""
        tls_of(settings)  # the server reads the same files, but only once it is too late to say so
        server = HttpServer(
            self._leaving.wrap(app),
            refused=self._metrics.refused,
            tls_certificate=settings.tls_certificate,
            tls_key=settings.tls_key,
            tls_client_ca=settings.tls_client_ca,
        )
        held = self._tcp(way, settings.host, settings.port)
        server.start_on(held.sockets)
        way.serving.append(server)
        return f"{settings.host}:{held.port}"

    async def _grpc(self, way: Way) -> None:
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
            self._exports(way),
            host=own.host,
            port=own.port,
            limits=otlp_grpc.GrpcLimits(message_bytes=own.max_message_bytes, inflated_bytes=4 * own.max_message_bytes),
            credentials=credentials,
            refused=self._metrics.refused,
        )
        way.closing.append(server.stop)
        way.addresses["grpc"] = f"{own.host}:{await server.start()}"

    async def _elasticsearch(self, way: Way) -> None:
        own = self._settings.elasticsearch
        receiver = ElasticsearchReceiver(
            way.intake,
            clock=self._clock,
            product=own.product,
            version=own.version,
            name=self._settings.name,
            service=self._settings.service,
            credentials=Credentials.read(Path(own.credentials_file)) if own.credentials_file else None,
            limits=BodyLimits(max_body_bytes=own.max_body_bytes, max_inflated_bytes=4 * own.max_body_bytes),
            not_ready=self._reasons,
            turns=self._turns(way),
            refused=self._metrics.refused,
        )
        way.addresses["elasticsearch"] = self._serve(way, receiver.app, own)

    async def _beats(self, way: Way) -> None:
        own = self._settings.beats
        beats = BeatsReceiver(
            way.intake,
            clock=self._clock,
            service=self._settings.service,
            turns=self._turns(way),
            refused=self._metrics.refused,
        )
        way.closing.append(beats.close)
        tls = tls_of(own)
        held = self._tcp(way, own.host, own.port)
        for one in held.sockets:
            await beats.listen_on(one, tls=tls)
        way.addresses["beats"] = f"{own.host}:{held.port}"

    async def _syslog(self, way: Way) -> None:
        own = self._settings.syslog
        syslog = SyslogReceiver(
            way.intake,
            clock=self._clock,
            zone=zone_of(own.zone),
            service=self._settings.service,
            max_message_bytes=own.max_message_bytes,
            max_connections=own.max_connections,
            turns=self._turns(way),
            refused=self._metrics.refused,
        )
        way.closing.append(syslog.close)
        for use, port, tls in (("syslog", own.port, None), ("syslog_tls", own.tls_port, tls_of(own))):
            if port >= 0:
                held = self._tcp(way, own.host, port, use=use)
                for one in held.sockets:
                    await syslog.listen_on(one, tls=tls)
                way.addresses[use] = f"{own.host}:{held.port}"
        if own.udp_port >= 0:
            held = self._sockets.udp(own.host, own.udp_port, use=way.name)
            way.held.append(held)
            for one in held.sockets:
                await syslog.listen_udp(own.host, held.port, on=one)
            way.addresses["syslog_udp"] = f"{own.host}:{held.port}"

    async def _follow(self, way: Way) -> None:
        pods = None
        if self._settings.kubernetes.api:
            pods = Pods(self._settings.kubernetes)
            way.closing.append(lambda _: pods.close())
        way.run(
            Tailer(
                self._settings.tail,
                self._root / POSITIONS,
                intake=way.intake,
                disk=self._disk,
                clock=self._clock,
                pods=pods,
                turns=self._turns(way),
                report=self._metrics.tail,
            )
        )

    async def _kafka(self, own: KafkaSettings, way: Way) -> None:
        """Consume topics. Raises `Malformed`: the library is not installed."""
        with _extra("Kafka", "kafka"):
            from collector.receive.kafka.consumer import KafkaConsumer  # noqa: PLC0415 - comes with an extra
        way.run(
            KafkaConsumer(
                own, way.intake, clock=self._clock, service=self._settings.service, report=self._metrics.broker
            )
        )

    async def _amqp(self, own: AmqpSettings, way: Way) -> None:
        """Consume a queue. Raises `Malformed`: the library is not installed."""
        with _extra("RabbitMQ", "amqp"):
            from collector.receive.amqp.consumer import AmqpConsumer  # noqa: PLC0415 - comes with an extra
        way.run(
            AmqpConsumer(
                own, way.intake, clock=self._clock, service=self._settings.service, report=self._metrics.broker
            )
        )

    async def _pulsar(self, own: PulsarSettings, way: Way) -> None:
        """Consume a subscription. Raises `Malformed`: the library is not installed."""
        with _extra("Pulsar", "pulsar"):
            from collector.receive.pulsar.consumer import PulsarConsumer  # noqa: PLC0415 - comes with an extra
        way.run(
            PulsarConsumer(
                own, way.intake, clock=self._clock, service=self._settings.service, report=self._metrics.broker
            )
        )


@contextmanager
def _extra(title: str, name: str) -> Iterator[None]:
    """Import what comes with an extra. Raises `Malformed`: it is not installed."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise Malformed(
            f"{title} needs more than is installed: pip install 'tallystick[{name}]'", where=name
        ) from error
