"""Liveness, readiness and metrics of the API's process. They say nothing of what the ledger holds, so anyone may ask."""

import math
from collections.abc import Awaitable, Callable
from functools import partial

import msgspec
from prometheus_client.exposition import choose_encoder
from starlette.requests import Request
from starlette.responses import Response

from audit_api.gate import Gate
from audit_api.logs import Logs
from audit_api.metrics import ApiMetrics
from audit_api.reviewdays import ReviewDays
from collector.errors import TallyError

__all__ = ["Health"]


class Health:
    """The three endpoints that every process of ours has.

    Args:
        gate: whose thread reads.
        logs: the ledger's.
        metrics: what ``/metrics`` shows.
        days: tells how many days are not signed off.
        monotonic: seconds that only go forward.
    """

    def __init__(
        self, *, gate: Gate, logs: Logs, metrics: ApiMetrics, days: ReviewDays, monotonic: Callable[[], float]
    ) -> None:
        self._days = days
        self._monotonic = monotonic
        self._gate = gate
        self._logs = logs
        self._metrics = metrics
        self._sizes: dict[tuple[str, int], float] = {}
        for log in logs.all:
            metrics.watch(
                log_size=partial(self._size, "log", log.shard.number),
                indexed=partial(self._size, "index", log.shard.number),
                shard=str(log.shard.number) if logs.cut else "",
            )

    def _size(self, what: str, number: int) -> float:
        return self._sizes.get((what, number), math.nan)

    def endpoints(self) -> dict[str, tuple[Callable[[Request], Awaitable[Response]], str]]:
        """Path to endpoint and what it is for."""
        return {
            "/livez": (self.livez, "This process runs."),
            "/readyz": (self.readyz, "Log and index answer."),
            "/metrics": (self.metrics, "Prometheus metrics of this process."),
        }

    async def livez(self, _: Request) -> Response:
        """Whether the process runs: it answers, so it does."""
        return _json({"status": "alive"})

    async def readyz(self, _: Request) -> Response:
        """Whether requests can be answered now; 503 with reasons when not."""
        reasons = await self._gate.reading.run(self._look)
        if reasons:
            return _json({"status": "not ready", "reasons": reasons}, status=503)
        return _json({"status": "ready"})

    async def metrics(self, request: Request) -> Response:
        """All metrics, in the format that the scraper asks for."""
        await self._gate.reading.run(self._look)
        self._metrics.unsigned_days.set(await self._gate.reading.run(self._unsigned_days))
        encoder, content_type = choose_encoder(request.headers.get("accept", ""))
        return Response(encoder(self._metrics.registry), headers={"content-type": content_type})

    def _unsigned_days(self) -> float:
        try:
            return self._days.unsigned(self._monotonic())
        except TallyError:
            return math.nan  # whoever asks sees that it is not known; /readyz says what does not answer

    def _look(self) -> list[str]:
        reasons = []
        for log in self._logs.all:
            of = f" of shard {log.shard.number}" if self._logs.cut else ""
            looks: tuple[tuple[str, str, Callable[[], int]], ...] = (
                ("log", f"the log{of}", lambda evidence=log.evidence: evidence.tree().size),  # type: ignore[misc]  # bound now
                ("index", f"the index{of}", log.evidence.index.size),
            )
            for name, what, size in looks:
                try:
                    self._sizes[name, log.shard.number] = size()
                except TallyError as error:
                    self._sizes[name, log.shard.number] = math.nan
                    reasons.append(f"{what} does not answer: {type(error).__name__}")
        return reasons


def _json(value: dict[str, object], status: int = 200) -> Response:
    return Response(msgspec.json.encode(value), status_code=status, media_type="application/json")
