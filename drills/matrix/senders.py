"""The table of senders. Each is other people's program or library, unmodified; what numbers their events stands in ``tests/clients``."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from drills.matrix.programs import CLIENTS, Programs
from drills.matrix.sender import Place, Sender
from tests.servers.kafka import free_ports
from tests.support.kafka_topics import make_topic
from tests.support.need import need

__all__ = ["senders"]


def senders(programs: Programs) -> Mapping[str, Sender]:
    """All of them, by name; `programs` builds what they need when their command is asked for."""
    rows = (*_forward(programs), *_otlp(programs), *_elastic(programs), *_files(), *_brokers(programs))
    return {row.name: row for row in rows}


def _python(script: str, *before: str, way: str) -> Callable[[Place], list[str]]:
    return lambda place: [sys.executable, str(CLIENTS / script), *before, place.addresses[way], str(place.events)]


def _node(programs: Programs, script: str, *, way: str) -> Callable[[Place], list[str]]:
    return lambda place: ["node", str(programs.npm / script), place.addresses[way], str(place.events)]


def _forward(programs: Programs) -> tuple[Sender, ...]:
    way = "Forward"
    return (
        Sender(
            name="fluent-org",
            title="npm `@fluent-org/logger`, acks",
            way=way,
            command=_node(programs, "fluent_org.mjs", way="forward"),
        ),
        Sender(
            name="fluent-logger-js",
            title="npm `fluent-logger`, acks",
            way=way,
            command=_node(programs, "fluent_logger.mjs", way="forward"),
        ),
        Sender(
            name="fluent-logger-py",
            title="PyPI `fluent-logger`, which knows no acks",
            way=way,
            command=_python("fluent_sender.py", way="forward"),
            tells=False,
            acked=False,
            ids="never",
        ),
    )


def _otlp(programs: Programs) -> tuple[Sender, ...]:
    return (
        Sender(
            name="otel-python-http",
            title="OpenTelemetry SDK, Python: logs, spans",
            way="OTLP/HTTP",
            command=_python("otel_sender.py", way="http"),
            gives_up=True,
        ),
        Sender(
            name="otel-python-grpc",
            title="OpenTelemetry SDK, Python: logs, spans, exemplars",
            way="OTLP/gRPC",
            command=_python("otel_grpc_sender.py", way="grpc"),
            gives_up=True,
        ),
        Sender(
            name="otel-js-http",
            title="OpenTelemetry SDK, JavaScript: logs, spans",
            way="OTLP/HTTP",
            command=_node(programs, "otel.mjs", way="http"),
            gives_up=True,
        ),
        Sender(
            name="otel-js-grpc",
            title="OpenTelemetry SDK, JavaScript: logs, spans",
            way="OTLP/gRPC",
            command=_node(programs, "otel_grpc.mjs", way="grpc"),
            gives_up=True,
        ),
        Sender(
            name="otel-java",
            title="OpenTelemetry SDK, Java: logs, spans, exemplars",
            way="OTLP/HTTP",
            command=lambda place: [*programs.java_otel, place.addresses["http"], str(place.events)],
            gives_up=True,
        ),
        Sender(
            name="otel-go",
            title="OpenTelemetry SDK, Go: logs, spans, exemplars",
            way="OTLP/gRPC",
            command=lambda place: [str(programs.go("go_otel")), place.addresses["grpc"], str(place.events)],
            gives_up=True,
        ),
        *(
            Sender(
                name=f"telemetrygen-{signal}",
                title=f"OpenTelemetry's `telemetrygen`: {signal}",
                way="OTLP/gRPC",
                command=lambda place, signal=signal: [  # type: ignore[misc]
                    *(sys.executable, str(CLIENTS / "telemetrygen_sender.py"), str(programs.telemetrygen)),
                    *(place.addresses["grpc"], signal, str(place.events)),
                ],
                tells=False,
                gives_up=True,
                numbered=False,
                in_ci=False,
            )
            for signal in ("logs", "traces")
        ),
        Sender(
            name="otelcol",
            title="OpenTelemetry Collector: a file, its queue on disk",
            way="OTLP/HTTP",
            command=lambda place: [
                *(sys.executable, str(CLIENTS / "otelcol_sender.py"), str(programs.otelcol)),
                *(place.addresses["http"], str(place.events)),
            ],
            tells=False,
            in_ci=False,
        ),
    )


def _elastic(programs: Programs) -> tuple[Sender, ...]:
    return (
        Sender(
            name="opensearch-py",
            title="`opensearch-py`, `helpers.streaming_bulk`",
            way="`_bulk`",
            command=_python("bulk_sender.py", "opensearchpy", way="elasticsearch"),
        ),
        Sender(
            name="elasticsearch-py",
            title="`elasticsearch-py`, `helpers.streaming_bulk`",
            way="`_bulk`",
            command=_python("bulk_sender.py", "elasticsearch", way="elasticsearch"),
        ),
        Sender(
            name="go-lumber",
            title="Elastic's `go-lumber`",
            way="Beats",
            command=lambda place: [str(programs.go("go_lumber")), place.addresses["beats"], str(place.events)],
        ),
    )


def _files() -> tuple[Sender, ...]:
    def rsyslog(place: Place) -> list[str]:
        need(Path("/usr/sbin/rsyslogd").exists(), "rsyslogd: apt-get install rsyslog")
        return [sys.executable, str(CLIENTS / "rsyslog_sender.py"), place.addresses["syslog"], str(place.events)]

    def logrotate(place: Place) -> list[str]:
        need(Path("/usr/sbin/logrotate").exists(), "logrotate: apt-get install logrotate")
        return [sys.executable, str(CLIENTS / "logrotate_sender.py"), str(place.events), "20"]

    return (
        Sender(
            name="rsyslog",
            title="rsyslog 8, which knows no acks",
            way="syslog/TCP",
            command=rsyslog,
            settings=lambda _: f"[collector.syslog]\nport = {free_ports(1)[0]}\n",
            tells=False,
            acked=False,
            ids="never",
        ),
        Sender(
            name="logrotate",
            title="two files that `logrotate` rotates, one with `copytruncate`",
            way="tail",
            command=logrotate,
            settings=lambda place: f'[[collector.tail]]\npaths = ["{place.folder}/logs/*.log*"]\npoll_seconds = 0.1\n',
        ),
    )


def _brokers(programs: Programs) -> tuple[Sender, ...]:
    def topic(place: Place) -> str:
        return f"matrix-{place.folder.parent.name}"

    def kafka(place: Place) -> str:
        asyncio.run(make_topic(programs.kafka.address, partitions=3, name=topic(place)))
        return (
            f'[[collector.kafka]]\nbrokers = ["{programs.kafka.address}"]\ntopics = ["{topic(place)}"]\n'
            f'group = "{topic(place)}"\ninstance = "one"\nsession_timeout_seconds = 6.0\nbatch_messages = 200\n'
        )

    def pulsar(place: Place) -> str:
        programs.pulsar.make_topic(partitions=3, name=topic(place))
        return (
            f'[[collector.pulsar]]\nbrokers = ["{programs.pulsar.address}"]\ntopics = ["{topic(place)}"]\n'
            "batch_messages = 200\nprefetch = 200\n"
        )

    return (
        Sender(
            name="kafka",
            title="Kafka 4.4, `aiokafka`'s producer",
            way="Kafka",
            command=lambda place: [
                *(sys.executable, str(CLIENTS / "kafka_sender.py"), programs.kafka.address),
                *(topic(place), str(place.events)),
            ],
            settings=kafka,
        ),
        Sender(
            name="rabbitmq",
            title="RabbitMQ 3.10, `aio-pika` with confirms",
            way="AMQP",
            command=lambda place: [
                *(sys.executable, str(CLIENTS / "amqp_sender.py"), str(programs.rabbitmq.port)),
                *(topic(place), str(place.events)),
            ],
            settings=lambda place: (
                f'[[collector.amqp]]\nqueue = "{topic(place)}"\nport = {programs.rabbitmq.port}\ndeclare = true\nprefetch = 200\n'
            ),
        ),
        Sender(
            name="pulsar",
            title="Pulsar 4.0, `pulsar-client`'s producer",
            way="Pulsar",
            command=lambda place: [
                *(sys.executable, str(CLIENTS / "pulsar_sender.py"), programs.pulsar.address),
                *(topic(place), str(place.events)),
            ],
            settings=pulsar,
        ),
    )
