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
_OF_PART = {"histogram": "le", "summary": "quantile"}
_Known = dict[_Labels, tuple[PromSeries, ...]]
"""What the newest point of each labels became, those of its buckets and quantiles left out."""


class Exposition(Collector):
    """The newest data point of each series of OpenTelemetry. Safe for several threads.

    What goes in are points that a `SeriesTable` has let through, and the ends of series that it forgets. Samples are shown without their time, so that
    Prometheus takes a series that is no longer shown for ended. A point replaces the one before as a whole: buckets that it has not are no longer shown.

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
        self._families: dict[str, tuple[str, str, _Known]] = {}  # name -> type, help, series
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
            labels = _around(point)
            ended = is_stale(point.series[0].value)
            more = 0 if ended else len(point.series) - len(known.get(labels, ()))
            if kind != point.kind or (more > 0 and self._shown + more > self._most):
                return point.points
            self._families[point.family] = kind, point.help, known
            self._hide(known, labels)
            if not ended:
                self._shown += len(point.series)
                known[labels] = point.series
            if point.kind == "info":
                self._targets.pop(labels, None)
                self._targets[labels] = self._monotonic()
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
                (name, kind, text, [one for point in known.values() for one in point])
                for name, (kind, text, known) in self._families.items()
                if known
            ]
        for name, kind, text, series in sorted(shown, key=lambda family: family[0]):
            metric = Metric(name, text, kind)
            metric.samples = [_sample(dict(one.labels), one) for one in sorted(series, key=_order)]
            yield metric

    def _forget_targets(self, known: _Known) -> None:
        while self._targets:
            labels, since = next(iter(self._targets.items()))
            if self._monotonic() - since <= self._stale_seconds:
                return
            del self._targets[labels]
            self._hide(known, labels)

    def _hide(self, known: _Known, labels: _Labels) -> None:
        self._shown -= len(known.pop(labels, ()))

    def render(self, accept: str) -> tuple[bytes, str]:
        """A scrape's answer and its content type, by the header ``Accept``."""
        encoder, content_type = choose_encoder(accept)
        return encoder(self._registry), content_type


def _around(point: PromPoint) -> _Labels:
    """What the series of a point share: those of its first one, which is no bucket and no quantile, without what an attribute may have named so."""
    own = {"__name__", _OF_PART.get(point.kind, "")}
    return tuple(label for label in point.series[0].labels if label[0] not in own)


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
