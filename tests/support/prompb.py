"""Remote-write's messages, read by the protobuf library from the published definitions: what our own encoder writes is read by other code.

Field numbers and types: https://github.com/prometheus/prometheus/tree/main/prompb (types.proto, remote.proto, io/prometheus/write/v2/types.proto).
"""

from __future__ import annotations

from functools import cache
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

_TYPES = {
    "double": 1,
    "int64": 3,
    "uint64": 4,
    "string": 9,
    "message": 11,
    "uint32": 13,
    "enum": 5,
    "sint32": 17,
    "sint64": 18,
}

_SPAN = {"BucketSpan": ["sint32 offset 1", "uint32 length 2"]}
_HISTOGRAM = [
    "uint64 count_int 1", "double count_float 2", "double sum 3", "sint32 schema 4", "double zero_threshold 5", "uint64 zero_count_int 6",
    "double zero_count_float 7", "*BucketSpan negative_spans 8", "*sint64 negative_deltas 9", "*double negative_counts 10",
    "*BucketSpan positive_spans 11", "*sint64 positive_deltas 12", "*double positive_counts 13", "enum reset_hint 14", "int64 timestamp 15",
    "*double custom_values 16",
]  # fmt: skip
_V1 = {
    "Label": ["string name 1", "string value 2"],
    "Sample": ["double value 1", "int64 timestamp 2"],
    "Exemplar": ["*Label labels 1", "double value 2", "int64 timestamp 3"],
    **_SPAN,
    "Histogram": _HISTOGRAM,
    "TimeSeries": ["*Label labels 1", "*Sample samples 2", "*Exemplar exemplars 3", "*Histogram histograms 4"],
    "MetricMetadata": ["enum type 1", "string metric_family_name 2", "string help 4", "string unit 5"],
    "WriteRequest": ["*TimeSeries timeseries 1", "*MetricMetadata metadata 3"],
}
_V2 = {
    "Sample": ["double value 1", "int64 timestamp 2", "int64 start_timestamp 3"],
    "Exemplar": ["*uint32 labels_refs 1", "double value 2", "int64 timestamp 3"],
    "Metadata": ["enum type 1", "uint32 help_ref 3", "uint32 unit_ref 4"],
    **_SPAN,
    "Histogram": [*_HISTOGRAM, "int64 start_timestamp 17"],
    "TimeSeries": [
        "*uint32 labels_refs 1", "*Sample samples 2", "*Histogram histograms 3", "*Exemplar exemplars 4", "Metadata metadata 5",
    ],
    "Request": ["*string symbols 4", "*TimeSeries timeseries 5"],
}  # fmt: skip


@cache
def _classes(version: int) -> dict[str, Any]:
    package = f"prompb_v{version}"
    file = descriptor_pb2.FileDescriptorProto(name=f"{package}.proto", package=package, syntax="proto3")
    for name, fields in {1: _V1, 2: _V2}[version].items():
        message = file.message_type.add(name=name)
        for line in fields:
            kind, field, number = line.split()
            one = message.field.add(name=field, number=int(number), label=3 if kind.startswith("*") else 1)
            kind = kind.removeprefix("*")
            one.type = _TYPES.get(kind, 11)  # type: ignore[assignment]  # the stubs have an enum of their own
            if kind not in _TYPES:
                one.type_name = f".{package}.{kind}"
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    names = {1: _V1, 2: _V2}[version]
    return {name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{package}.{name}")) for name in names}


def write_request(data: bytes) -> Any:
    """A ``prometheus.WriteRequest``."""
    return _classes(1)["WriteRequest"].FromString(data)


def request_v2(data: bytes) -> Any:
    """An ``io.prometheus.write.v2.Request``."""
    return _classes(2)["Request"].FromString(data)


def labels_v1(series: Any) -> dict[str, str]:
    """A series' labels."""
    return {label.name: label.value for label in series.labels}


def labels_v2(request: Any, series: Any) -> dict[str, str]:
    """A series' labels, or an exemplar's."""
    refs = list(series.labels_refs)
    return {request.symbols[name]: request.symbols[value] for name, value in zip(refs[::2], refs[1::2], strict=True)}
