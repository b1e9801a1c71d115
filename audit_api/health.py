"""Liveness, readiness and metrics of the API's process. They say nothing of what the ledger holds, so anyone may ask."""

import math
from collections.abc import Awaitable, Callable

import msgspec
from prometheus_client.exposition import choose_encoder
from starlette.requests import Request
from starlette.responses import Response

from audit_api.evidence import Evidence
from audit_api.gate import Gate
from audit_api.metrics import ApiMetrics
from collector.errors import TallyError

__all__ = ["Health"]


class Health:
    """The three endpoints that every process of ours has.

    Args:
        gate: whose thread reads.
        evidence: the ledger.
        metrics: what ``/metrics`` shows.
    """

    def __init__(self, *, gate: Gate, evidence: Evidence, metrics: ApiMetrics) -> None:
        self._gate = gate
        self._evidence = evidence
        self._metrics = metrics
        self._sizes = {"log": math.nan, "index": math.nan}
        metrics.watch(log_size=lambda: self._sizes["log"], indexed=lambda: self._sizes["index"])

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
        reasons = await self._gate.run(self._look)
        if reasons:
            return _json({"status": "not ready", "reasons": reasons}, status=503)
        return _json({"status": "ready"})

    async def metrics(self, request: Request) -> Response:
        """All metrics, in the format that the scraper asks for."""
        await self._gate.run(self._look)
        encoder, content_type = choose_encoder(request.headers.get("accept", ""))
        return Response(encoder(self._metrics.registry), headers={"content-type": content_type})

    def _look(self) -> list[str]:
        reasons = []
        looks: tuple[tuple[str, str, Callable[[], int]], ...] = (
            ("log", "the log", lambda: self._evidence.tree().size),
            ("index", "the index", self._evidence.index.size),
        )
        for name, what, size in looks:
            try:
                self._sizes[name] = size()
            except TallyError as error:
                self._sizes[name] = math.nan
                reasons.append(f"{what} does not answer: {type(error).__name__}")
        return reasons


def _json(value: dict[str, object], status: int = 200) -> Response:
    return Response(msgspec.json.encode(value), status_code=status, media_type="application/json")
