"""Canonical bytes: RFC 8785 (JSON Canonicalization Scheme) over values that are first made fit for it.

Two functions, used in this order. `normalise` turns whatever a decoder gave (MessagePack, protobuf, JSON) into the JSON
values of docs/format.md: integers beyond ±(2^53−1) become strings, NaN and ±Infinity become strings, bytes become base64,
lone surrogates become U+FFFD. `encode` writes the RFC 8785 bytes.

Speed: msgspec's encoder gives the same bytes as RFC 8785 unless a float needs ECMAScript's formatting or a key holds a
character beyond ASCII (RFC 8785 sorts by UTF-16 code units, msgspec by code points). `normalise` notices both while it
walks, so `encode` takes the exact path only for those. ``tests/collector/test_canonical.py`` proves the two paths equal to
the ``rfc8785`` package.
"""

import base64
import math
import re
import sys
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from itertools import accumulate
from typing import Any

import msgspec

from collector.errors import Malformed

__all__ = ["MAX_DEPTH", "MAX_SAFE_INTEGER", "Normaliser", "encode", "encode_exact", "is_too_deep", "number"]

MAX_SAFE_INTEGER = 2**53 - 1
"""Largest magnitude that RFC 8785 (section 3.2.2.3, I-JSON) carries without loss."""

MAX_DEPTH = 64
"""Deepest nesting of maps and lists accepted in an event; deeper input is `Malformed`."""

_fast = msgspec.json.Encoder(order="sorted").encode
_as_it_stands = msgspec.json.Encoder().encode
_LEAST_ALIKE, _MOST_ALIKE = 1e-4, 1e15  # magnitudes of fractions that msgspec writes as ECMAScript does


class Normaliser:
    """Walks one event's values; afterwards `exact` tells the encoder which path it needs, and `marks` what was changed.

    `nested` tells whether there was a map or a list among the values that `value` and `fields` were given.

    One instance an event: cheap to make, not for reuse. `redact` masks bytes before they become base64, in which no later
    scan could find a card number.

    With `canonical` the values were decoded from canonical bytes. There an integer beyond `MAX_SAFE_INTEGER` can only be a
    double that RFC 8785 wrote with all its digits, so it becomes that double again instead of a string; one that is written otherwise is refused.

    `most`: values in maps and lists that may be walked. Each takes two bytes of JSON at least, so whoever bounds the bytes can say before
    they are made that there will be too many.
    """

    __slots__ = ("_canonical", "_left", "_most", "_redact", "exact", "marks", "nested")

    def __init__(
        self, redact: Callable[[bytes], bytes] = bytes, *, canonical: bool = False, most: int = sys.maxsize
    ) -> None:
        self._redact = redact
        self._canonical = canonical
        self._most = self._left = most
        self.exact = False
        self.nested = False
        self.marks: set[str] = set()

    def fields(self, fields: dict[str, Any]) -> dict[str, Any]:
        """`value` of a map of fields; the same object when nothing in it changes, as with nearly every record."""
        for key, item in fields.items():
            kind = type(item)
            if not (
                type(key) is str
                and key.isascii()
                and (
                    (kind is str and item.isascii())
                    or (kind is int and -MAX_SAFE_INTEGER <= item <= MAX_SAFE_INTEGER)
                    or kind is bool
                    or item is None
                )
            ):
                return self._map(fields, 1)
        return fields

    def value(self, value: Any, depth: int = 0) -> Any:
        """Return `value` as a JSON value that RFC 8785 can carry.

        Raises:
            Malformed: nesting beyond `MAX_DEPTH`, more than `most` values, two keys that become the same string, a type no decoder gives, or,
                with `canonical`, an integer that RFC 8785 does not write so.
        """
        kind = type(value)
        if kind is str:
            return value if value.isascii() else self._text(value)
        if kind is int:
            return value if -MAX_SAFE_INTEGER <= value <= MAX_SAFE_INTEGER else self._large(value)
        if kind is dict:
            if depth >= MAX_DEPTH:
                raise Malformed(f"nested deeper than {MAX_DEPTH} levels", label="too_deep")
            self.nested = True
            return self._map(value, depth + 1)
        if value is None or kind is bool:
            return value
        if kind is float:
            return self._float(value)
        if kind is list or kind is tuple:
            if depth >= MAX_DEPTH:
                raise Malformed(f"nested deeper than {MAX_DEPTH} levels", label="too_deep")
            self.nested = True
            self._count(len(value))
            walk = self.value
            return [walk(item, depth + 1) for item in value]
        return self._rare(value, depth)

    def _count(self, values: int) -> None:
        self._left -= values
        if self._left < 0:
            raise Malformed(f"more than {self._most} values in an event", label="too_large")

    def _map(self, value: Mapping[Any, Any], depth: int) -> dict[str, Any]:
        self._count(len(value))
        out: dict[str, Any] = {}
        walk = self.value
        for key, item in value.items():
            if type(key) is str and key.isascii() and type(item) is str and item.isascii():
                if key in out:
                    raise Malformed("two keys of one map become the same text", label="duplicate_key")
                out[key] = item  # nearly every attribute is such a pair: it is not worth two calls
                continue
            if type(key) is not str:
                key = self._key(key)  # noqa: PLW2901 - the key is what changes
            elif not key.isascii():
                self.exact = True
                key = self._text(key)  # noqa: PLW2901 - the key is what changes
            if key in out:
                raise Malformed("two keys of one map become the same text", label="duplicate_key")
            out[key] = walk(item, depth)
        return out

    def _large(self, value: int) -> str | float:
        if not self._canonical:
            return str(value)
        self.exact = True
        try:
            double = float(value)
        except OverflowError as error:
            raise Malformed("a number beyond the largest double", label="bad_number") from error
        if number(double) != str(value):
            raise Malformed("a number that is not in canonical form (RFC 8785)", label="bad_number")
        return double

    def _text(self, text: str) -> str:
        try:
            text.encode()
        except UnicodeEncodeError:
            self.marks.add("surrogate_replaced")
            # surrogate pairs that arrived as two halves are one character; what stays alone is replaced
            return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
        return text

    def _key(self, key: Any) -> str:
        self.exact = True
        if key is None or type(key) is bool:
            return {None: "null", True: "true", False: "false"}[key]
        if isinstance(key, (bytes, bytearray, memoryview)):
            try:
                return bytes(key).decode()  # a name that was packed as binary data: what is declared of it must hold
            except UnicodeDecodeError:
                pass
        text = self.value(key, MAX_DEPTH)
        return text if type(text) is str else str(text)

    def _float(self, value: float) -> float | int | str:
        if value.is_integer():
            if -MAX_SAFE_INTEGER <= value <= MAX_SAFE_INTEGER:
                return int(value)  # ECMAScript prints 1.0 as 1 and -0.0 as 0: the integer has the same bytes
            self.exact = True
            return value
        if math.isfinite(value):
            if not _LEAST_ALIKE <= abs(value) < _MOST_ALIKE:
                self.exact = True
            return value
        if value != value:  # noqa: PLR0124 - the definition of NaN
            return "NaN"
        return "Infinity" if value > 0 else "-Infinity"

    def _base64(self, data: bytes) -> str:
        masked = self._redact(data)
        if masked != data:
            self.marks.add("bytes_masked")
        return base64.b64encode(masked).decode("ascii")

    def _rare(self, value: Any, depth: int) -> Any:
        if isinstance(value, (bytes, bytearray, memoryview)):
            return self._base64(bytes(value))
        if isinstance(value, datetime):
            aware = value if value.tzinfo else value.replace(tzinfo=UTC)
            return aware.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f") + "000Z"
        if isinstance(value, msgspec.msgpack.Ext):
            return {"ext": value.code, "data": self._base64(bytes(value.data))}
        for base in (bool, int, float, str):  # subclasses a decoder may give
            if isinstance(value, base):
                return self.value(base(value), depth)
        if isinstance(value, Mapping):
            return self.value(dict(value), depth)
        raise Malformed(f"a value of type {type(value).__name__} has no place in an event", label="bad_type")


_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"', re.DOTALL)


def is_too_deep(data: bytes) -> bool:
    """Whether JSON nests lists and objects more than `MAX_DEPTH` levels deep, told without decoding it; of what is no JSON anything may be said."""
    if data.count(b"[") + data.count(b"{") <= MAX_DEPTH:
        return False
    steps = (1 if one in b"[{" else -1 for one in _STRING.sub(b"", data) if one in b"[]{}")
    return max(accumulate(steps), default=0) > MAX_DEPTH


def number(value: float) -> str:
    """ECMAScript's text of a finite float (RFC 8785 section 3.2.2.3): shortest digits, ECMAScript's layout.

    Raises ValueError for NaN and infinities.
    """
    if not math.isfinite(value):
        raise ValueError("not a finite number")
    if value == 0:
        return "0"
    sign = "-" if value < 0 else ""
    mantissa, _, exponent = repr(abs(value)).partition("e")
    whole, _, fraction = mantissa.partition(".")
    if fraction == "0":
        fraction = ""
    digits = (whole + fraction).lstrip("0")
    # the decimal point stands `point` digits to the right of the first digit (ECMA-262, Number::toString, n)
    point = len(whole) + int(exponent or 0) - (len(whole + fraction) - len(digits))
    digits = digits.rstrip("0")
    count = len(digits)
    if count <= point <= 21:
        return f"{sign}{digits}{'0' * (point - count)}"
    if 0 < point <= 21:
        return f"{sign}{digits[:point]}.{digits[point:]}"
    if -6 < point <= 0:
        return f"{sign}0.{'0' * -point}{digits}"
    power = point - 1
    tail = f".{digits[1:]}" if count > 1 else ""
    return f"{sign}{digits[0]}{tail}e{'+' if power > 0 else '-'}{abs(power)}"


def encode_exact(value: Any) -> bytes:
    """RFC 8785 bytes of a normalised value, whatever it holds. Structs are written as their JSON objects."""
    return _as_it_stands(_exact(msgspec.to_builtins(value)))


_SAME = frozenset({str, int, bool, type(None)})  # msgspec writes these as RFC 8785 does


def _exact(value: Any) -> Any:
    """The value with its keys in order, and with the text of each number that msgspec would write otherwise."""
    kind = type(value)
    if kind is list:  # of millions of items most get no call
        if _SAME.issuperset(map(type, value)):
            return value
        return [item if type(item) in _SAME else _exact(item) for item in value]
    if kind is dict:
        names = sorted(value, key=lambda name: name.encode("utf-16-be"))
        return {name: item if type(item := value[name]) in _SAME else _exact(item) for name in names}
    if kind is float and not _LEAST_ALIKE <= abs(value) < _MOST_ALIKE:
        return msgspec.Raw(number(value).encode("ascii"))
    return value


def encode(value: Any, *, exact: bool) -> bytes:
    """RFC 8785 bytes of a value that `Normaliser` has walked; `exact` as the normaliser says."""
    return encode_exact(value) if exact else _fast(value)
