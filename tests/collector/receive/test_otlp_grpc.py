"""OTLP/gRPC over real connections: the same events as over HTTP, honest answers, bounds, TLS, and an end without loss."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import socket
import tracemalloc
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import httpx
import pytest
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from prometheus_client import CollectorRegistry

from collector.receive import otlp_answer
from collector.receive.http import HttpServer, create_app
from collector.receive.otlp import OtlpReceiver
from collector.receive.otlp_export import LOGS, METRICS, TRACES, OtlpExports, Signal, Taken
from collector.receive.otlp_grpc import GrpcLimits, OtlpGrpcServer, server_credentials
from tests.servers.certificates import Authority
from tests.support.memory_intake import MemoryIntake

NOW_NS = 1_700_000_000_000_000_000


class Running:
    """A server over an intake in memory, and clients of it."""

    def __init__(self, intake: MemoryIntake, **options: Any) -> None:
        self.reasons: list[str] = []
        self.exports = OtlpExports(intake, clock=lambda: NOW_NS)
        self.server = OtlpGrpcServer(self.exports, port=0, refused=self.reasons.append, **options)
        self.address = ""

    @asynccontextmanager
    async def channel(self, credentials: grpc.ChannelCredentials | None = None) -> AsyncIterator[grpc.aio.Channel]:
        target = self.address
        if credentials is None:
            channel = grpc.aio.insecure_channel(target)
        else:
            channel = grpc.aio.secure_channel(target, credentials)
        async with channel:
            yield channel


def method(signal: Signal) -> str:
    return f"/{signal.service}/Export"


async def export(channel: grpc.aio.Channel, signal: Signal, body: bytes, **options: Any) -> bytes:
    return bytes(await channel.unary_unary(method(signal))(body, **{"timeout": 20, **options}))


async def refusal(call: Awaitable[object]) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value


def trailers_of(error: grpc.aio.AioRpcError) -> dict[str, Any]:
    return {key: value for key, value in error.trailing_metadata()}  # noqa: C416 - its keys() are not the keys in every release


def told(intake: MemoryIntake, story: Callable[[Running], Awaitable[None]], **options: Any) -> Running:
    """Run a story against a server of its own; nothing is held for anybody at its end."""
    running = None

    async def tell() -> None:
        nonlocal running
        running = Running(intake, **options)
        running.address = f"127.0.0.1:{await running.server.start()}"
        try:
            async with asyncio.timeout(30):
                await story(running)
        finally:
            await running.server.stop(1.0)
        assert running.server._room.used_bytes == 0

    asyncio.run(tell())
    assert running is not None
    return running


def logs(*bodies: str) -> bytes:
    request = ExportLogsServiceRequest()
    scoped = request.resource_logs.add().scope_logs.add()
    for body in bodies:
        scoped.log_records.add(time_unix_nano=1).body.string_value = body
    return request.SerializeToString()


def spans(*ids: int) -> bytes:
    request = ExportTraceServiceRequest()
    scoped = request.resource_spans.add().scope_spans.add()
    for number in ids:
        scoped.spans.add(trace_id=number.to_bytes(16), span_id=(number + 1).to_bytes(8), name=f"s{number}")
    return request.SerializeToString()


def measurements() -> bytes:
    request = ExportMetricsServiceRequest()
    metric = request.resource_metrics.add().scope_metrics.add().metrics.add(name="m")
    metric.sum.data_points.add(as_int=3).exemplars.add(as_int=1, trace_id=b"\1" * 16, span_id=b"\2" * 8)
    return request.SerializeToString()


def test_grpc_and_http_give_the_same_events_and_recognise_each_other_s_requests() -> None:
    bodies = [(LOGS, logs("a", "b")), (TRACES, spans(1, 2)), (METRICS, measurements())]

    async def story(running: Running) -> None:
        async with running.channel() as channel:
            for signal, body in bodies:
                await export(channel, signal, body)
        assert len(by_grpc.events) == 5
        for intake in (by_grpc, by_http):  # the second time over HTTP; the first time for the second intake
            app = create_app(
                OtlpReceiver(OtlpExports(intake, clock=lambda: NOW_NS)).routes, registry=CollectorRegistry()
            )
            server = HttpServer(app, port=0)
            url = f"http://127.0.0.1:{await server.start()}"
            async with httpx.AsyncClient(base_url=url, trust_env=False) as client:
                for signal, body in bodies:
                    answer = await client.post(
                        f"/v1/{signal.name}", content=body, headers={"content-type": "application/x-protobuf"}
                    )
                    assert answer.status_code == 200
            await server.stop(1.0)

    by_grpc, by_http = MemoryIntake(), MemoryIntake()
    told(by_grpc, story)
    assert by_grpc.events == by_http.events
    assert by_grpc.groups == by_http.groups
    assert len(by_grpc.events) == 5


def test_the_three_answers(intake: MemoryIntake) -> None:
    async def story(running: Running) -> None:
        async with running.channel() as channel:
            assert await export(channel, LOGS, logs("a")) == b""
            assert await export(channel, LOGS, b"") == b""
            answer = ExportTraceServiceResponse.FromString(await export(channel, TRACES, spans(1, 0, 2)))
            assert answer.partial_success.rejected_spans == 1
            assert answer.partial_success.error_message == "a span whose trace id is not 16 bytes, or zero"
            metrics = ExportMetricsServiceResponse.FromString(await export(channel, METRICS, measurements()))
            assert metrics.partial_success.rejected_data_points == 1
            error = await refusal(export(channel, LOGS, b"\xff\xff"))
            assert (error.code(), error.details()) == (
                grpc.StatusCode.INVALID_ARGUMENT,
                "not ExportLogsServiceRequest in protobuf",
            )
            status = Status.FromString(trailers_of(error)["grpc-status-details-bin"])
            assert (status.code, status.message) == (3, error.details())
            assert not status.details  # nothing that would invite to try again
            assert (await refusal(channel.unary_unary("/x.Y/Export")(b""))).code() == grpc.StatusCode.UNIMPLEMENTED
        assert [error.label for _, error, _ in intake.dead] == ["bad_id", "bad_otlp"]
        assert intake.dead[1][0] == b"\xff\xff"

    assert told(intake, story).reasons == []  # dead letters are counted where they are put


def test_a_call_has_one_message(intake: MemoryIntake) -> None:
    async def several(*messages: bytes) -> AsyncIterator[bytes]:
        for message in messages:
            yield message

    async def story(running: Running) -> None:
        async with running.channel() as channel:
            for messages in ((), (logs("a"), logs("b"))):
                error = await refusal(channel.stream_unary(method(LOGS))(several(*messages), timeout=20))
                assert error.code() == grpc.StatusCode.INVALID_ARGUMENT

    assert told(intake, story).reasons == ["no_message", "bad_otlp"]
    assert not intake.events


@pytest.mark.parametrize("coding", [grpc.Compression.Gzip, grpc.Compression.Deflate, grpc.Compression.NoCompression])
def test_every_coding_that_grpc_knows(intake: MemoryIntake, coding: grpc.Compression) -> None:
    async def story(running: Running) -> None:
        async with running.channel() as channel:
            for _ in range(2):
                await export(channel, LOGS, logs("x" * 10_000, "y"), compression=coding)
                await export(channel, LOGS, logs("short"), compression=coding)

    told(intake, story)
    assert [event.body for event in intake.events] == ["x" * 10_000, "y", "short"]


def test_sizes_are_bounded_as_sent_and_when_inflated(intake: MemoryIntake) -> None:
    async def story(running: Running) -> None:
        async with running.channel() as channel:
            await export(channel, LOGS, logs("x" * 30_000), compression=grpc.Compression.Gzip)  # fits when inflated
            bomb = await refusal(export(channel, LOGS, logs("x" * 50_000), compression=grpc.Compression.Gzip))
            assert bomb.code() == grpc.StatusCode.INVALID_ARGUMENT
            assert "more than 40000 bytes when decompressed" in str(bomb.details())
            long = await refusal(export(channel, LOGS, logs("x" * 10_001)))
            assert (
                long.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
            )  # the library's own, and without RetryInfo: no retry
            assert "grpc-status-details-bin" not in trailers_of(long)
            broken = await refusal(export(channel, LOGS, b"\x1f\x8b" + b"\0" * 20))
            assert broken.code() == grpc.StatusCode.INVALID_ARGUMENT
            cut = zlib.compress(logs("cut"))[:-4]
            assert (await refusal(export(channel, LOGS, cut))).code() == grpc.StatusCode.INVALID_ARGUMENT
            await export(channel, LOGS, logs("next"))

    running = told(intake, story, limits=GrpcLimits(message_bytes=10_000, inflated_bytes=40_000))
    assert [len(str(event.body)) for event in intake.events] == [30_000, 4]
    assert running.reasons[0] == "too_large"
    assert running.reasons[1] in {"no_message", "connection_lost"}  # as the library has it
    assert running.reasons[2:] == ["bad_gzip", "bad_zlib"]


def test_a_small_message_with_very_many_records_is_refused_before_they_are_made(intake: MemoryIntake) -> None:
    async def story(running: Running) -> None:
        async with running.channel() as channel:
            many = b"\x0a\x84\x80\x10\x12\x80\x80\x10" + b"\x12\x00" * 131_072
            error = await refusal(export(channel, LOGS, many, compression=grpc.Compression.Gzip))
            assert error.code() == grpc.StatusCode.INVALID_ARGUMENT
            assert "more than 131072 records" in str(error.details())

    assert told(intake, story).reasons == ["too_large"]
    assert not intake.events
    assert not intake.dead


@pytest.mark.parametrize("transport", ["grpc", "http"])
def test_what_is_refused_is_let_go_at_once(intake: MemoryIntake, transport: str) -> None:
    # an error in a cycle with its own traceback would keep the message until the next collection, gigabytes later
    body = b"\xff" * 300_000

    async def refused(running: Running) -> None:
        if transport == "grpc":
            async with running.channel() as channel:
                for _ in range(30):
                    await refusal(export(channel, LOGS, body))
                    intake.dead.clear()
            return
        server = HttpServer(create_app(OtlpReceiver(running.exports).routes, registry=CollectorRegistry()), port=0)
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{await server.start()}", trust_env=False) as client:
            for _ in range(30):
                answer = await client.post("/v1/logs", content=body, headers={"content-type": "application/x-protobuf"})
                assert answer.status_code == 400
                intake.dead.clear()
        await server.stop(1.0)

    async def story(running: Running) -> None:
        gc.collect()
        gc.disable()
        tracemalloc.start()
        try:
            await refused(running)
            held, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
            gc.enable()
        assert held < 10 * len(body)

    told(intake, story)


def test_overload_says_when_to_come_again(intake: MemoryIntake) -> None:
    async def story(running: Running) -> None:
        intake.overloaded, intake.retry_after_seconds = 1, 1.25
        async with running.channel() as channel:
            error = await refusal(export(channel, TRACES, spans(1)))
            assert (error.code(), error.details()) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "told to be")
            trailers = trailers_of(error)
            status = Status.FromString(trailers["grpc-status-details-bin"])
            assert (status.code, status.message) == (8, "told to be")
            info = RetryInfo()
            assert status.details[0].Unpack(info)
            assert (info.retry_delay.seconds, info.retry_delay.nanos) == (1, 250_000_000)
            assert RetryInfo.FromString(trailers["google.rpc.retryinfo-bin"]) == info
            await export(channel, TRACES, spans(1))
        assert [event.name for event in intake.events] == ["s1"]

    assert told(intake, story).reasons == ["overloaded"]


def test_too_many_at_a_time_hear_later_and_none_of_them_is_read(intake: MemoryIntake) -> None:
    async def story(running: Running) -> None:
        intake.hold = asyncio.Event()
        async with running.channel() as channel:
            held = asyncio.create_task(export(channel, LOGS, logs("first")))
            await intake.called.wait()
            waiting = [asyncio.create_task(export(channel, LOGS, logs(f"{n}", "x" * 900))) for n in range(3)]
            errors = [await refusal(one) for one in waiting]  # room for two, calls for three; the first goes on
            assert {error.code() for error in errors} == {grpc.StatusCode.RESOURCE_EXHAUSTED}
            assert all("google.rpc.retryinfo-bin" in trailers_of(error) for error in errors)
            assert {error.details() for error in errors} == {
                "too many calls at the moment",
                "too much is being received at the moment",
            }
            assert not intake.events
            intake.hold.set()
            await held
            await export(channel, LOGS, logs("after"))

    limits = GrpcLimits(message_bytes=1_000, reading=1, waiting=3, patience_seconds=0.2)
    running = told(intake, story, limits=limits)
    assert [event.body for event in intake.events] == ["first", "after"]
    assert running.reasons == ["overloaded"] * 3


def test_a_sender_that_is_too_slow_gives_its_room_back(intake: MemoryIntake) -> None:
    async def story(running: Running) -> None:
        go = asyncio.Event()

        async def never() -> AsyncIterator[bytes]:
            await go.wait()
            yield b""

        async with running.channel() as slow, running.channel() as channel:
            hanging = asyncio.ensure_future(slow.stream_unary(method(LOGS))(never(), timeout=20))
            await until(lambda: running.server._room.used_bytes > 0)
            await export(channel, LOGS, logs("in turn"))  # waits for the slow one's room, and gets it
            error = await refusal(hanging)
            assert error.code() == grpc.StatusCode.DEADLINE_EXCEEDED  # senders try again after it
            go.set()

    limits = GrpcLimits(message_bytes=1_000, reading=1, patience_seconds=10.0, read_seconds=1.0)
    running = told(intake, story, limits=limits)
    assert [event.body for event in intake.events] == ["in turn"]
    assert running.reasons == ["too_slow"]


async def until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110 - what the server holds and counts is not awaitable
        await asyncio.sleep(0.005)


def test_who_leaves_before_the_answer_is_counted_and_the_next_is_served(intake: MemoryIntake) -> None:
    async def story(running: Running) -> None:
        intake.hold = asyncio.Event()
        async with running.channel() as channel:
            error = await refusal(export(channel, LOGS, logs("deadline"), timeout=0.2))
            assert error.code() == grpc.StatusCode.DEADLINE_EXCEEDED
        intake.called.clear()
        async with running.channel() as channel:
            leaving = asyncio.create_task(export(channel, LOGS, logs("cut")))
            await intake.called.wait()
            await channel.close()  # the connection, with the call in it
            assert await asyncio.gather(leaving, return_exceptions=True)
        await until(lambda: len(running.reasons) == 2)
        intake.hold.set()
        async with running.channel() as channel:
            await export(channel, LOGS, logs("next"))

    assert told(intake, story).reasons == ["connection_lost"] * 2
    assert [event.body for event in intake.events] == ["next"]


def test_a_connection_that_breaks_in_the_middle_of_a_message(intake: MemoryIntake) -> None:
    async def story(running: Running) -> None:
        cut = asyncio.Event()

        # a relay between client and server lets through so many bytes and then cuts both sides
        async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            host, _, port = running.address.rpartition(":")
            answers, onward = await asyncio.open_connection(host, int(port))

            async def back() -> None:
                while piece := await answers.read(10_000):
                    writer.write(piece)

            answering = asyncio.create_task(back())
            left = 50_000
            while left > 0 and (piece := await reader.read(left)):
                onward.write(piece)
                await onward.drain()
                left -= len(piece)
            answering.cancel()
            for end in (onward, writer):
                end.transport.abort()
                with contextlib.suppress(OSError):
                    await end.wait_closed()
            cut.set()

        broker = await asyncio.start_server(relay, "127.0.0.1", 0)
        target = f"127.0.0.1:{broker.sockets[0].getsockname()[1]}"
        async with grpc.aio.insecure_channel(target) as channel:
            error = await refusal(export(channel, LOGS, logs("x" * 200_000), timeout=5))
            assert error.code() == grpc.StatusCode.UNAVAILABLE
            await cut.wait()
        broker.close()
        await broker.wait_closed()
        await until(lambda: running.server._room.used_bytes == 0)
        async with running.channel() as channel:
            await export(channel, LOGS, logs("whole"))

    told(intake, story)
    assert [event.body for event in intake.events] == ["whole"]


def test_a_stop_finishes_what_it_has_taken_and_takes_no_more(intake: MemoryIntake) -> None:
    async def story(running: Running) -> None:
        intake.hold = asyncio.Event()
        async with running.channel() as channel, running.channel() as other:
            await other.channel_ready()
            held = asyncio.create_task(export(channel, LOGS, logs("held")))
            await intake.called.wait()
            stopping = asyncio.create_task(running.server.stop(10.0))
            while True:  # until it is known to the client
                error = await refusal(export(other, LOGS, logs("late"), timeout=2))
                if error.code() == grpc.StatusCode.UNAVAILABLE:  # what a sender tries again
                    break
            assert not stopping.done()
            intake.hold.set()
            assert await held == b""
            await stopping

    told(intake, story)
    assert [event.body for event in intake.events] == ["held"]


def test_connections_are_bounded(intake: MemoryIntake) -> None:
    async def story(running: Running) -> None:
        host, _, port = running.address.rpartition(":")
        idle = [await asyncio.open_connection(host, int(port)) for _ in range(8)]
        greeted = await asyncio.gather(*(reader.read(9) for reader, _ in idle))
        assert sum(bool(frame) for frame in greeted) <= 4  # the others are closed without a word
        for _, writer in idle:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
        while True:
            try:
                async with running.channel() as channel:
                    await export(channel, LOGS, logs("served"))
                    return
            except grpc.aio.AioRpcError as error:  # the closed ones have not all been noticed yet
                assert error.code() == grpc.StatusCode.UNAVAILABLE  # noqa: PT017 - any other would be a defect

    told(intake, story, limits=GrpcLimits(connections=4))
    assert [event.body for event in intake.events] == ["served"]


@given(st.lists(st.binary(max_size=300), min_size=1, max_size=4))
@settings(max_examples=5)
def test_noise_on_the_port_disturbs_nobody(noise: list[bytes]) -> None:
    intake = MemoryIntake()
    greeting = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0"  # RFC 9113 section 3.4, and empty SETTINGS

    async def story(running: Running) -> None:
        host, _, port = running.address.rpartition(":")
        async with running.channel() as channel:
            await export(channel, LOGS, logs("before"))
            for sent in (*noise, *(greeting + one for one in noise)):
                _, writer = await asyncio.open_connection(host, int(port))
                with contextlib.suppress(OSError):
                    writer.write(sent)
                    await writer.drain()
                writer.close()
                with contextlib.suppress(OSError):
                    await writer.wait_closed()
            await export(channel, LOGS, logs("after"))

    told(intake, story)
    assert [event.body for event in intake.events] == ["before", "after"]


def test_tls_and_certificates_of_senders(intake: MemoryIntake, tmp_path: Path) -> None:
    ours, theirs = Authority(tmp_path / "ours"), Authority(tmp_path / "theirs")
    certificate, key = ours.issue("server")
    credentials = server_credentials(certificate, key, ours.ca)

    def client(authority: Authority | None) -> grpc.ChannelCredentials:
        pair = authority.issue("client") if authority else None
        return grpc.ssl_channel_credentials(
            ours.ca.read_bytes(),
            private_key=pair[1].read_bytes() if pair else None,
            certificate_chain=pair[0].read_bytes() if pair else None,
        )

    async def story(running: Running) -> None:
        async with running.channel(client(ours)) as channel:
            await export(channel, LOGS, logs("with a certificate"))
        for who in (client(None), client(theirs), None):
            async with running.channel(who) as channel:
                error = await refusal(export(channel, LOGS, logs("nobody"), timeout=5))
                assert error.code() in {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED}

    told(intake, story, credentials=credentials)
    assert [event.body for event in intake.events] == ["with a certificate"]
    told(intake, encrypted(client(None)), credentials=server_credentials(certificate, key))
    assert intake.events[-1].body == "encrypted"


def encrypted(credentials: grpc.ChannelCredentials) -> Callable[[Running], Awaitable[None]]:
    async def story(running: Running) -> None:
        async with running.channel(credentials) as channel:
            await export(channel, LOGS, logs("encrypted"))

    return story


def test_a_port_that_is_taken_is_an_error_also_when_grpc_took_it(intake: MemoryIntake) -> None:
    async def story(running: Running) -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            for port in (taken.getsockname()[1], int(running.address.rpartition(":")[2])):
                second = OtlpGrpcServer(running.exports, port=port)
                with pytest.raises(OSError, match="cannot listen"):
                    await second.start()
                await second.stop()

    told(intake, story)


def test_the_python_sdk_s_exporters_over_grpc(intake: MemoryIntake) -> None:
    from opentelemetry._logs import LogRecord
    from opentelemetry.exporter.otlp.proto.grpc._log_exporter import OTLPLogExporter
    from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk._logs import LoggerProvider
    from opentelemetry.sdk._logs.export import SimpleLogRecordProcessor
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor

    async def story(running: Running) -> None:
        options: dict[str, Any] = {"endpoint": f"http://{running.address}", "insecure": True}

        def send() -> None:
            spans, records = TracerProvider(), LoggerProvider()
            spans.add_span_processor(
                SimpleSpanProcessor(OTLPSpanExporter(**options, compression=grpc.Compression.Gzip))
            )
            records.add_log_record_processor(SimpleLogRecordProcessor(OTLPLogExporter(**options)))
            meters = MeterProvider([PeriodicExportingMetricReader(OTLPMetricExporter(**options))])
            intake.overloaded = 1  # the exporter waits as long as it is told, and sends again
            with spans.get_tracer("t").start_as_current_span("pay"):
                records.get_logger("l").emit(LogRecord(body="paid"))
                meters.get_meter("m").create_counter("payments").add(1)
            for provider in (spans, records, meters):
                provider.shutdown()

        await asyncio.to_thread(send)
        assert [event.name or event.body for event in intake.events] == ["paid", "pay", "metric.exemplar"]
        assert len({(event.trace_id, event.span_id) for event in intake.events}) == 1

    assert told(intake, story).reasons == ["overloaded"]


# ------------------------------------------------------------------------------------------------- bytes of answers
@given(st.floats(min_value=0, max_value=86_400), st.text(), st.integers(0, 2**40))
def test_what_is_written_by_hand_is_what_google_s_classes_read(seconds: float, text: str, rejected: int) -> None:
    status = Status.FromString(otlp_answer.status_protobuf(8, text, retry_after_seconds=seconds))
    info = RetryInfo()
    assert (status.code, status.message) == (8, text)
    assert status.details[0].Unpack(info)
    assert max(seconds, 0.001) <= info.retry_delay.ToTimedelta().total_seconds() + 1e-6 <= seconds + 0.002
    answer = ExportTraceServiceResponse.FromString(otlp_answer.success_protobuf(Taken(rejected=rejected, reason=text)))
    assert answer.partial_success.rejected_spans == rejected
    assert answer.partial_success.error_message == text
    assert answer.HasField("partial_success") == bool(rejected or text)
