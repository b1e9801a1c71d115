"""What services have measured, for Prometheus to scrape: the newest value of each series, in OpenMetrics or the text format."""

import threading
import time
from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector
from prometheus_client.samples import Exemplar, Sample

from collector.onward.promseries import NativeHistogram, PromPoint, PromSeries, is_stale

__all__ = ["Exposition"]

_Labels = tuple[tuple[str, str], ...]


class Exposition(Collector):
    """The newest sample of each series. Safe for several threads.

    What goes in are points that a `SeriesTable` has let through, and the ends of series that it forgets. Samples are shown without their time, so that
    Prometheus takes a series that is no longer shown for ended.

    Args:
        most: series at most, of Prometheus: a histogram is one for each bucket, and two; a point beyond them is not shown.
        stale_seconds: a ``target_info`` that has not come again for so long is no longer shown.
        monotonic: seconds that only rise.
    """

    def __init__(self, *, most: int, stale_seconds: float, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._lock = threading.Lock()
        self._most = most
        self._shown = 0
        self._stale_seconds = stale_seconds
        self._monotonic = monotonic
        self._targets: dict[_Labels, float] = {}  # in the order of when they came last
        self._families: dict[str, tuple[str, str, dict[_Labels, PromSeries]]] = {}  # name -> type, help, series
        self._registry = CollectorRegistry()
        self._registry.register(self)

    def update(self, point: PromPoint) -> int:
        """Take a point translated without native histograms; returns how many data points cannot be shown: 1, or 0.

        A family has one type, that of its first point; one whose name cannot be said has no series.
        """
        if not point.series:
            return point.points
        with self._lock:
            kind, _, known = self._families.get(point.family) or (point.kind, point.help, {})
            more = sum(series.labels not in known for series in point.series if not is_stale(series.value))
            if kind != point.kind or (more and self._shown + more > self._most):
                return point.points
            self._families[point.family] = kind, point.help, known
            for series in point.series:
                if is_stale(series.value):
                    self._hide(known, series.labels)
                else:
                    self._shown += series.labels not in known
                    known[series.labels] = series
                    if point.kind == "info":
                        self._targets.pop(series.labels, None)
                        self._targets[series.labels] = self._monotonic()
            if point.kind == "info":
                self._forget_targets(known)
            if not known:
                del self._families[point.family]
        return 0

    def describe(self) -> list[Metric]:
        """Nothing: what is shown is not known beforehand."""
        return []

    def collect(self) -> Iterator[Metric]:
        """The families, each with its series."""
        with self._lock:
            if "target" in self._families:
                self._forget_targets(self._families["target"][2])
            shown = [
                (name, kind, text, list(known.values()))
                for name, (kind, text, known) in self._families.items()
                if known
            ]
        for name, kind, text, series in sorted(shown, key=lambda family: family[0]):
            metric = Metric(name, text, kind)
            metric.samples = [_sample(dict(one.labels), one) for one in sorted(series, key=_order)]
            yield metric

    def _forget_targets(self, known: dict[_Labels, PromSeries]) -> None:
        while self._targets:
            labels, since = next(iter(self._targets.items()))
            if self._monotonic() - since <= self._stale_seconds:
                return
            del self._targets[labels]
            self._hide(known, labels)

    def _hide(self, known: dict[_Labels, PromSeries], labels: _Labels) -> None:
        self._shown -= known.pop(labels, None) is not None

    def render(self, accept: str) -> tuple[bytes, str]:
        """A scrape's answer and its content type, by the header ``Accept``."""
        encoder, content_type = choose_encoder(accept)
        return encoder(self._registry), content_type


def _order(series: PromSeries) -> tuple[_Labels, str, float]:
    """Histograms together, their buckets by their bounds, as OpenMetrics has it."""
    labels = dict(series.labels)
    name = labels.pop("__name__")
    bound = labels.pop("le", "") if name.endswith("_bucket") else ""
    try:
        return tuple(labels.items()), name, float(bound or 0)
    except ValueError:  # an attribute of that name, on something that is no histogram
        return tuple(labels.items()), name, 0.0


def _sample(labels: dict[str, str], series: PromSeries) -> Sample:
    name = labels.pop("__name__")
    assert not isinstance(series.value, NativeHistogram)
    exemplar = None
    if series.exemplars:
        last = series.exemplars[-1]
        exemplar = Exemplar(dict(last.labels), last.value, last.ms / 1_000)
    return Sample(name, labels, series.value, None, exemplar)
