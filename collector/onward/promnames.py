"""OpenTelemetry's names as Prometheus has them: metrics with their unit and type, labels, and what two of one name become.

https://opentelemetry.io/docs/specs/otel/compatibility/prometheus_and_openmetrics/#metric-metadata-1 and following sections: other characters than
``[a-zA-Z0-9_:]`` become underscores, several of them one; the unit's long name is a suffix; a monotonic sum ends in ``_total``, a gauge of the unit
``1`` in ``_ratio``. It is what Prometheus' own OTLP receiver does by default ("UnderscoreEscapingWithSuffixes").
"""

import re
from collections.abc import Iterable

__all__ = ["float_text", "label_name", "labels_of", "metric_name", "unit_name"]

_UNITS = {
    "d": "days", "h": "hours", "min": "minutes", "s": "seconds", "ms": "milliseconds", "us": "microseconds", "ns": "nanoseconds",
    "By": "bytes", "KiBy": "kibibytes", "MiBy": "mebibytes", "GiBy": "gibibytes", "TiBy": "tibibytes",
    "KBy": "kilobytes", "MBy": "megabytes", "GBy": "gigabytes", "TBy": "terabytes",
    "m": "meters", "V": "volts", "A": "amperes", "J": "joules", "W": "watts", "g": "grams",
    "Cel": "celsius", "Hz": "hertz", "%": "percent", "1": "",
}  # fmt: skip
"""UCUM's case-sensitive codes, as the specification names them."""

_PER = {"s": "second", "m": "minute", "h": "hour", "d": "day", "w": "week", "mo": "month", "y": "year"}
_OTHER = re.compile(r"[^a-zA-Z0-9:]+")
_OTHER_IN_LABEL = re.compile(r"[^a-zA-Z0-9]+")


def unit_name(unit: str) -> str:
    """A unit's long name, such as ``seconds`` or ``bytes_per_second``; empty for none, for ``1`` and for annotations like ``{call}``."""
    return "_".join(part for part in _parts_of(unit) if part)


def _parts_of(unit: str) -> tuple[str, str]:
    """A unit's long name in front of the stroke, and ``per_…`` of what is behind it."""
    main, _, per = (side.strip() for side in unit.partition("/"))
    main = "" if "{" in main or "}" in main else _OTHER.sub("_", _UNITS.get(main, main)).strip("_")
    per = "" if "{" in per or "}" in per else _OTHER.sub("_", _PER.get(per, per)).strip("_")
    return main, f"per_{per}" if per else ""


def metric_name(name: str, unit: str, *, counter: bool = False, gauge: bool = False) -> str:
    """A metric's name; empty where nothing of it can be said in ASCII.

    Args:
        name: OpenTelemetry's.
        unit: of UCUM.
        counter: a monotonic sum.
        gauge: a gauge, or a sum that may fall.
    """
    words = [word for word in _OTHER.split(name) if word]
    if not words:
        return ""
    for part in _parts_of(unit):
        # the specification: not once more where the name says it already
        if part and f"_{part}_" not in f"_{'_'.join(words)}_":
            words.append(part)
    if counter:
        # one that is named "total" keeps it: without a name in front of the suffix it is no counter of OpenMetrics
        words = [*([word for word in words if word != "total"] or ["total"]), "total"]
    elif gauge and unit == "1":
        words = [*(word for word in words if word != "ratio"), "ratio"]
    text = "_".join(words)
    return f"_{text}" if text[0].isdigit() else text


def label_name(key: str) -> str:
    """An attribute's key as a label's name; empty where nothing of it can be said in ASCII. Never one of the reserved ``__…``."""
    text = _OTHER_IN_LABEL.sub("_", key)
    if not text.strip("_"):
        return ""
    if text[0] == "_":  # as Prometheus' receiver has it, which leaves such names to Prometheus itself
        return f"key{text}"
    return f"key_{text}" if text[0].isdigit() else text


def labels_of(attributes: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Labels of attributes' keys and values as text.

    Keys that become one name have their values joined by ``;`` in the order of the keys. An empty value is no label.
    """
    labels: dict[str, str] = {}
    for key, value in sorted(attributes):
        name = label_name(key)
        if name and value:
            labels[name] = f"{labels[name]};{value}" if name in labels else value
    return labels


def float_text(value: float) -> str:
    """A bound as the label ``le`` or ``quantile`` has it: OpenMetrics' canonical numbers, ``1.0``, ``+Inf``."""
    if value == float("inf"):
        return "+Inf"
    return "-Inf" if value == float("-inf") else repr(float(value))
