"""The sidecar: receivers, preparation, spool and shipping put together as one process's event loop.

On a stop the order keeps every promise: receivers take nothing more and finish what is in flight, the spool commits, shipping
drains, and only a stream that is wholly shipped is closed. All of it ends by one deadline; what is left is shipped after the next
start. HTTP servers close last, so that whoever asks meanwhile hears why, and that they are to come again (`collector.receive.leaving`).
"""

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from collector.clockwatch import ClockWatch
from collector.deadletters import DeadLetters
from collector.disk import Disk, OsDisk
from collector.errors import StateUnknown
from collector.extract import Extractor
from collector.intake import SpoolIntake
from collector.mapping.intake import MappedIntake
from collector.mapping.language import load_mappings
from collector.mapping.mapper import Mapper
from collector.metrics import CollectorMetrics
from collector.onward.passing import MetricsPassing
from collector.openways import OpenWays
from collector.pipeline import Pipeline, PipelineLimits
from collector.prepare import Preparer
from collector.protect import Protector
from collector.receive import Intake
from collector.receive.leaving import Leaving
from collector.receive.turns import LoopTime
from collector.reload import Asking, Reloads
from collector.settings import CollectorSettings, ProtectSettings
from collector.ship import BatchLimits
from collector.sockets import Sockets
from collector.spool import Done, Spooled, SpoolLimits, deliver_here
from collector.store import Destination
from collector.way import Wanted
from collector.waysin import WaysIn, ways_of

__all__ = ["DEAD_LETTERS", "metrics_of", "pipeline_limits", "run_sidecar"]

_log = logging.getLogger(__name__)

DEAD_LETTERS = "dead"
"""Name of the folder of dead letters beside a collector's incarnations."""

_SEGMENT_BYTES = 32 * 1024**2
_STORE_PATIENCE_SECONDS = 5.0  # less than the 10 s after which an OTLP exporter gives up by itself
_STALE_SECONDS = 60.0
_LOOK_SECONDS = 1.0
_LEAST_GRACE_SECONDS = 1.0
"""For what senders have in flight, however short the drain: an fsync takes milliseconds, and who asked for no ack would lose it."""

_OVERRUN_SECONDS = 2.0
"""How long after the deadline a store may still be heard: a batch that it has just taken need not be sent twice."""


def pipeline_limits(settings: CollectorSettings) -> PipelineLimits:
    """The pipeline's bounds as the settings have them."""
    return PipelineLimits(
        spool=SpoolLimits(
            total_bytes=settings.spool.max_bytes,
            # several of them: only what is not being written is let go of
            segment_bytes=min(_SEGMENT_BYTES, max(1, settings.spool.max_bytes // 8)),
            keep_free_bytes=settings.spool.keep_free_bytes,
            shared_bytes=settings.spool.max_bytes * settings.spool.shared_percent // 100,
            ways=len(ways_of(settings)),
        ),
        batch=BatchLimits(
            events=settings.ship.batch_events,
            size_bytes=settings.ship.batch_bytes,
            heartbeat_seconds=settings.ship.heartbeat_seconds,
        ),
        linger_seconds=settings.ship.linger_seconds,
        journal_ids=settings.spool.journal_ids,
        max_age_seconds=settings.spool.max_age_seconds,
    )


def metrics_of(settings: CollectorSettings) -> CollectorMetrics:
    """New metrics for a collector of these settings."""
    bounds = settings.requests
    return CollectorMetrics(
        collector=settings.name,
        services=bounds.max_services,
        operations=bounds.max_operations,
        spool_limit_bytes=settings.spool.max_bytes,
    )


async def run_sidecar(
    settings: CollectorSettings,
    *,
    root: Path,
    ledger: str,
    store: Destination,
    signing_key: Ed25519PrivateKey,
    token_key: bytes,
    stopped: asyncio.Event,
    ready: Callable[[Mapping[str, str]], None],
    clock: Callable[[], int] = time.time_ns,
    disk: Disk | None = None,
    metrics: CollectorMetrics | None = None,
    asking: Asking | None = None,
) -> bool:
    """Run until `stopped` is set; returns whether everything was shipped.

    Args:
        settings: of this collector.
        root: its spool folder.
        ledger: name of the ledger.
        store: where batches go.
        signing_key: signs the batch headers.
        token_key: makes tokens of card numbers.
        stopped: set it to stop.
        ready: called once when everything listens, with addresses by their use: ``forward``, ``http``, ``grpc``, ``elasticsearch``,
            ``beats``, ``syslog``, ``syslog_tls`` and ``syslog_udp`` as host:port, ``forward_unix`` as a path.
        clock: Unix time in nanoseconds.
        disk: where the spool lies; None: the real one.
        metrics: of this collector; None: new ones.
        asking: has the settings read again while it runs (`collector.reload`); `ready` is called again if addresses change by it.

    Raises:
        StateUnknown: the spool is another process's, or its disk failed and it must be opened again; or the positions in followed files
            do not read back.
        Malformed: the settings' rules, or the files with keys and certificates, cannot be used.
        OSError: a port is taken, a key file is missing.
    """
    loop = asyncio.get_running_loop()
    disk = disk or OsDisk()
    loop_thread = threading.get_ident()

    @lru_cache(1)  # of the settings in force: names of series are masked as events are
    def protector_of(protect: ProtectSettings) -> Protector:
        return Protector(
            token_key=token_key, masked_fields=protect.masked_fields, dropped_fields=protect.dropped_fields
        )

    def deliver(outcomes: Sequence[tuple[Done, Spooled | Exception]]) -> None:
        if threading.get_ident() == loop_thread:  # a quick commit
            deliver_here(outcomes)
        else:
            loop.call_soon_threadsafe(deliver_here, outcomes)

    protector = protector_of(settings.protect)
    watch = ClockWatch(settings.clock, clock=clock)
    pipeline = Pipeline(
        root,
        collector=settings.name,
        ledger=ledger,
        store=store,
        key=signing_key,
        limits=pipeline_limits(settings),
        disk=disk,
        deliver=deliver,
        clock=clock,
        measured_clock=watch.measured,
    )
    dead_letters = DeadLetters(
        root / DEAD_LETTERS,
        disk=disk,
        protector=protector,
        clock=clock,
        total_bytes=settings.spool.dead_letters_max_bytes,
    )
    metrics = metrics or metrics_of(settings)
    metrics.watch(pipeline.state)
    metrics.watch_clock(watch.measured)

    def intake_of(settings: CollectorSettings) -> Intake:
        protector = protector_of(settings.protect)
        preparer = Preparer(
            extractor=Extractor(settings.stitch),
            protector=protector,
            clock=clock,
            max_event_bytes=settings.spool.max_event_bytes,
            speakers=settings.speakers,
            requests=settings.requests.max_services > 0,
        )
        intake: Intake = SpoolIntake(
            preparer=preparer,
            pipeline=pipeline,
            dead_letters=dead_letters,
            metrics=metrics,
            protector=protector,
            store_patience_seconds=_STORE_PATIENCE_SECONDS if settings.ack == "store" else None,
        )
        return MappedIntake(intake, Mapper(load_mappings(settings.mappings))) if settings.mappings else intake

    sockets, leaving, loop_time = Sockets(), Leaving(refused=metrics.refused), LoopTime()
    passing = _passing(
        settings,
        metrics,
        lambda: protector_of(reloads.settings.protect),
        clock,
    )

    def wanted_of(settings: CollectorSettings) -> Mapping[str, Wanted]:
        return WaysIn(
            settings,
            root=root,
            disk=disk,
            clock=clock,
            metrics=metrics,
            not_ready=lambda: _not_ready(pipeline),
            standing=lambda: _standing(pipeline, reloads),
            sockets=sockets,
            leaving=leaving,
            loop_time=loop_time,
            onward=passing,
            routes=passing.routes if passing is not None else (),
        ).wanted()

    ways = OpenWays(wanted_of(settings), intake_of(settings), leaving=leaving)
    reloads = Reloads(
        settings,
        ways=ways,
        wanted_of=wanted_of,
        intake_of=intake_of,
        limits_of=pipeline_limits,
        pipeline=pipeline,
        dead_letters=dead_letters,
        metrics=metrics,
        ready=ready,
        clock=clock,
    )
    watch.start()
    pipeline.start()
    try:
        ready(await ways.open())
        await _until_stopped_or_failed(stopped, pipeline, ways, reloads, asking)
    finally:
        drained = await _drain(ways, pipeline, reloads.settings.ship.drain_seconds)
        dead_letters.close()
        watch.stop()
        if passing is not None:
            await passing.close()  # last, so that the sidecar's own metrics tell of its end
    return drained


def _passing(
    settings: CollectorSettings,
    metrics: CollectorMetrics,
    protector: Callable[[], Protector],
    clock: Callable[[], int],
) -> MetricsPassing | None:
    """Where data points of metrics go on to; None: nowhere."""
    if not settings.metrics_to.url and not settings.metrics_to.expose:
        return None
    passing = MetricsPassing(
        settings.metrics_to,
        collector=settings.name,
        registry=metrics.registry,
        counting=metrics,
        protector=protector,
        clock=clock,
    )
    metrics.watch_metrics_to(series=lambda: passing.series, waiting_bytes=lambda: passing.waiting_bytes)
    return passing


async def _drain(ways: OpenWays, pipeline: Pipeline, drain_seconds: float) -> bool:
    """Stop by the deadline: ways in first, for at most half of the time, while shipping goes on; then what is left is shipped.

    Returns whether everything was.
    """
    began = time.monotonic()
    _log.info("draining, for %g s at most", drain_seconds)
    await ways.drain(max(_LEAST_GRACE_SECONDS, drain_seconds / 2))
    left_seconds = max(0.0, began + drain_seconds - time.monotonic())
    drained = await asyncio.to_thread(pipeline.stop, drain_seconds=left_seconds, overrun_seconds=_OVERRUN_SECONDS)
    state = pipeline.state()
    if drained:
        _log.info("drained in %.1f s: everything is shipped", time.monotonic() - began)
    else:
        _log.warning(
            "drained for %.1f s; events that stay in the spool, to be shipped after the next start: %d%s",
            time.monotonic() - began,
            state.waiting_events,
            f" ({state.store_trouble})" if state.store_trouble else "",
        )
    await ways.close()
    return drained


async def _until_stopped_or_failed(
    stopped: asyncio.Event, pipeline: Pipeline, ways: OpenWays, reloads: Reloads, asking: Asking | None
) -> None:
    """Wait, and read the configuration again when asked to.

    Raises StateUnknown when the spool can take nothing more, so that the process ends and is started again; and what ended the following of files, if anything did.
    """
    while not stopped.is_set():
        ways.check()
        failed = pipeline.state().failed
        if failed:
            raise StateUnknown(failed)
        if asking is not None and asking.asked.is_set():
            asking.asked.clear()
            await reloads.reload(asking.read)
        waits = [asyncio.ensure_future(event.wait()) for event in (stopped, asking and asking.asked) if event]
        await asyncio.wait(waits, timeout=_LOOK_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        for wait in waits:
            wait.cancel()


def _not_ready(pipeline: Pipeline) -> list[str]:
    """Why the sidecar is not ready. A store that is down for a while is no reason: the spool takes events."""
    state = pipeline.state()
    if state.failed:
        return [state.failed]
    reasons = [f"the spool folder {aside.name} does not read back" for aside in state.damaged]
    if state.breaker_open and state.waiting_seconds > _STALE_SECONDS:
        reasons.append(f"the store has not taken events for {state.waiting_seconds:.0f} s: {state.last_error}")
    return reasons


def _standing(pipeline: Pipeline, reloads: Reloads) -> dict[str, object]:
    """What `tally status` asks for: whether events are taken and shipped, and if not, why."""
    state = pipeline.state()
    return {
        "waiting_events": state.waiting_events,
        "waiting_seconds": round(state.waiting_seconds, 1),
        "store_trouble": state.store_trouble,
        "refusing": state.refusing,
        "config_refused": reloads.refused,
    }
