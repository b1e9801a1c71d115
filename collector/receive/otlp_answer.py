"""OTLP's answers as bytes: partial success, and errors as google.rpc.Status, in protobuf and JSON.

https://opentelemetry.io/docs/specs/otlp/. They are a few fields each, so they are written here by hand: the generated classes of google.rpc
would be one more package for a sidecar.
"""

import math
from typing import Any

import msgspec

from collector.receive.otlp_export import Signal, Taken

__all__ = [
    "INVALID_ARGUMENT",
    "RESOURCE_EXHAUSTED",
    "UNAVAILABLE",
    "retry_info",
    "status_json",
    "status_protobuf",
    "success_json",
    "success_protobuf",
]

# Codes of google.rpc.Status (google/rpc/code.proto)
INVALID_ARGUMENT = 3
RESOURCE_EXHAUSTED = 8
UNAVAILABLE = 14

_RETRY_INFO = b"type.googleapis.com/google.rpc.RetryInfo"


def success_protobuf(taken: Taken) -> bytes:
    """Export…ServiceResponse: empty, or with partial_success = 1 {rejected = 1, error_message = 2}; alike for all three signals."""
    if not taken.rejected and not taken.reason:
        return b""
    rejected = b"\x08" + _varint(taken.rejected) if taken.rejected else b""
    return _field(1, rejected + _field(2, _utf8(taken.reason)))


def success_json(taken: Taken, signal: Signal) -> bytes:
    """The same in JSON."""
    partial: dict[str, Any] = {}
    if taken.rejected:
        partial[signal.rejected] = str(taken.rejected)
    if taken.reason:
        partial["errorMessage"] = taken.reason
    return msgspec.json.encode({"partialSuccess": partial} if partial else {})


def status_protobuf(code: int, message: str, *, retry_after_seconds: float | None = None) -> bytes:
    """google.rpc.Status {code = 1, message = 2, details = 3}; with a RetryInfo in its details when it says how long to wait."""
    out = b"\x08" + _varint(code) + _field(2, _utf8(message))
    if retry_after_seconds is not None:
        out += _field(3, _field(1, _RETRY_INFO) + _field(2, retry_info(retry_after_seconds)))  # google.protobuf.Any
    return out


def status_json(code: int, message: str) -> bytes:
    """The same in JSON, without details."""
    return msgspec.json.encode({"code": code, "message": message})


def retry_info(after_seconds: float) -> bytes:
    """google.rpc.RetryInfo {retry_delay = 1} with a Duration {seconds = 1, nanos = 2}; at least a millisecond."""
    seconds, nanos = divmod(math.ceil(max(after_seconds, 0.001) * 1_000) * 1_000_000, 1_000_000_000)
    return _field(1, (b"\x08" + _varint(seconds) if seconds else b"") + (b"\x10" + _varint(nanos) if nanos else b""))


def _field(number: int, data: bytes) -> bytes:
    return bytes([number << 3 | 2]) + _varint(len(data)) + data


def _utf8(text: str) -> bytes:
    return text.encode("utf-8", "replace")


def _varint(value: int) -> bytes:
    """Base-128 varint (protobuf encoding)."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
