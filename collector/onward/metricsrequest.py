"""An ExportMetricsServiceRequest as protobuf's class, whatever its encoding."""

import base64
from collections.abc import Iterator
from typing import Any

import msgspec
from google.protobuf import json_format
from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from collector.errors import Malformed

__all__ = ["read_request"]


def read_request(body: bytes, *, json: bool) -> ExportMetricsServiceRequest:
    """Decode it. Raises `Malformed`.

    OTLP/JSON is protobuf's JSON but for the ids of traces and spans, which are hexadecimal
    (https://opentelemetry.io/docs/specs/otlp/#json-protobuf-encoding); of metrics, exemplars have them.
    """
    try:
        if not json:
            return ExportMetricsServiceRequest.FromString(body)
        tree = msgspec.json.decode(body, type=dict)
        for exemplar in _exemplars(tree):
            for name in ("traceId", "spanId"):
                told = exemplar.get(name)
                if isinstance(told, str):
                    exemplar[name] = base64.b64encode(bytes.fromhex(told)).decode()  # json_format reads nothing else
        return json_format.ParseDict(tree, ExportMetricsServiceRequest(), ignore_unknown_fields=True)
    except (
        DecodeError,
        json_format.ParseError,
        msgspec.DecodeError,
        ValueError,
        TypeError,
        AttributeError,
        RecursionError,
    ) as error:
        # TypeError, AttributeError: json_format's, of JSON that has lists or numbers where objects are expected
        raise Malformed("not ExportMetricsServiceRequest", label="bad_otlp") from error


def _exemplars(node: Any) -> Iterator[dict[str, Any]]:
    todo = [node]
    while todo:
        one = todo.pop()
        if isinstance(one, list):
            todo.extend(one)
        elif isinstance(one, dict):
            exemplars = one.get("exemplars")
            if isinstance(exemplars, list):
                yield from (exemplar for exemplar in exemplars if isinstance(exemplar, dict))
            todo.extend(one.values())
