"""Remote-write's messages as bytes: ``prometheus.WriteRequest`` (1.0) and ``io.prometheus.write.v2.Request`` (2.0). Pure.

Written by hand, as OTLP's answers are: there is no package of their generated classes, and there are few fields. Their numbers are those of
https://github.com/prometheus/prometheus/blob/main/prompb/types.proto, …/remote.proto and …/io/prometheus/write/v2/types.proto. Fields of scalars
that have their default are written where a message would otherwise be empty, and left out elsewhere, as proto3 does.
"""

import struct
from collections.abc import Iterable, Sequence

from collector.onward.promseries import NativeHistogram, PromPoint, PromSeries

__all__ = ["request_v1", "request_v2"]

_KINDS = {"counter": 1, "gauge": 2, "histogram": 3, "summary": 5, "info": 6}
"""``MetricType``, alike in both."""

_MASK = 2**64 - 1


def request_v1(points: Iterable[PromPoint]) -> bytes:
    """A WriteRequest: each series with its one sample, and once for each family its metadata."""
    labels: dict[tuple[str, str], bytes] = {}
    out: list[bytes] = []
    metadata: dict[str, bytes] = {}
    for point in points:
        out += [_message(1, _series_v1(series, labels)) for series in point.series]
        if point.series and point.family not in metadata:
            metadata[point.family] = _message(
                3,
                _number(1, _KINDS[point.kind]) + _text(2, point.family) + _text(4, point.help) + _text(5, point.unit),
            )
    return b"".join([*out, *metadata.values()])


def _series_v1(series: PromSeries, known: dict[tuple[str, str], bytes]) -> bytes:
    parts = [_label_v1(label, known) for label in series.labels]
    if not isinstance(series.value, NativeHistogram):
        parts.append(_message(2, _double(1, series.value) + _number(2, series.ms)))
    for one in series.exemplars:
        told = b"".join(_label_v1(label, known) for label in one.labels)
        parts.append(_message(3, told + _double(2, one.value) + _number(3, one.ms)))
    if isinstance(series.value, NativeHistogram):
        parts.append(_message(4, _histogram(series.value, series.ms)))
    return b"".join(parts)


def _label_v1(label: tuple[str, str], known: dict[tuple[str, str], bytes]) -> bytes:
    encoded = known.get(label)
    if encoded is None:
        encoded = known[label] = _message(1, _text(1, label[0]) + _text(2, label[1]))
    return encoded


def request_v2(points: Iterable[PromPoint]) -> bytes:
    """A Request: texts once, as symbols, and each series with its one sample and its metadata."""
    symbols = {"": 0}

    def reference(text: str) -> int:
        return symbols.setdefault(text, len(symbols))

    def references(labels: Sequence[tuple[str, str]]) -> bytes:
        return _message(1, b"".join(_varint(reference(text)) for label in labels for text in label))

    out: list[bytes] = []
    for point in points:
        metadata = b""
        if point.series:
            about = (
                _number(1, _KINDS[point.kind]) + _number(3, reference(point.help)) + _number(4, reference(point.unit))
            )
            metadata = _message(5, about)
        for series in point.series:
            parts = [references(series.labels)]
            start = _number(3, series.start_ms)
            if isinstance(series.value, NativeHistogram):
                parts.append(_message(3, _histogram(series.value, series.ms) + _number(17, series.start_ms)))
            else:
                parts.append(_message(2, _double(1, series.value) + _number(2, series.ms) + start))
            parts += [
                _message(4, references(one.labels) + _double(2, one.value) + _number(3, one.ms))
                for one in series.exemplars
            ]
            parts.append(metadata)
            out.append(_message(5, b"".join(parts)))
    return b"".join([*(_message(4, text.encode("utf-8", "replace")) for text in symbols), *out])


def _histogram(value: NativeHistogram, ms: int) -> bytes:
    parts = [
        b"\x08" + _varint(value.observations),  # in a oneof: written though it be 0
        _double(3, value.sum),
        _number(4, _zigzag(value.schema)),
        _double(5, value.zero_threshold),
        b"\x30" + _varint(value.zero_count),
    ]
    for spans_number, deltas_number, layout in ((8, 9, value.negative), (11, 12, value.positive)):
        for gap, length in layout.spans:
            parts.append(_message(spans_number, _number(1, _zigzag(gap)) + _number(2, length)))
        if layout.deltas:
            parts.append(_message(deltas_number, b"".join(_varint(_zigzag(delta)) for delta in layout.deltas)))
    parts.append(_number(15, ms))
    return b"".join(parts)


def _message(number: int, data: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(data)) + data


def _text(number: int, text: str) -> bytes:
    return _message(number, text.encode("utf-8", "replace")) if text else b""


def _number(number: int, value: int) -> bytes:
    return _varint(number << 3) + _varint(value & _MASK) if value else b""


def _double(number: int, value: float) -> bytes:
    encoded = struct.pack("<d", value)
    return bytes([number << 3 | 1]) + encoded if any(encoded) else b""


def _zigzag(value: int) -> int:
    return value << 1 if value >= 0 else (-value << 1) - 1


def _varint(value: int) -> bytes:
    """Base-128 varint (protobuf encoding) of a number from 0."""
    if value < 0x80:
        return bytes((value,))
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
