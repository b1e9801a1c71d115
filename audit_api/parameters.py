"""Parameters of requests: declared once, for reading them and for the OpenAPI document. Unknown or repeated ones are refused.

Trail ids stand in paths. They are percent-encoded and hold slashes, which servers and clients decode at will, so the path is
read from the bytes as they were sent (ASGI's ``raw_path``): either the trail id as it stands
(``/v1/trails/key/order_id/a%2Fb``) or percent-encoded once more as one segment (``/v1/trails/key%2Forder_id%2Fa%252Fb``), which
is what generated clients do. A trail id always holds a slash, so the two cannot be mistaken.
"""

import base64
import binascii
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, quote, unquote_to_bytes

from starlette.requests import Request

from audit_api.problems import Problem
from collector.errors import Malformed, VerificationError
from correlator.index.filters import FilterError
from correlator.index.times import zoned
from correlator.trail import parse_trail

__all__ = [
    "Parameter",
    "decode_bounds",
    "decode_cursor",
    "encode_bounds",
    "encode_cursor",
    "flag",
    "parse_query",
    "raw_tail",
    "time",
    "trail_of",
    "whole_number",
]

MAX_QUERY_BYTES = 4_096
MAX_VALUE = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameter:
    """A query parameter.

    Attributes:
        name: as in the URL.
        about: for the OpenAPI document.
        schema: its JSON Schema.
        parse: makes its value of the text; a ValueError or `Malformed` says what is wrong.
        default: its value when it is not given.
        example: for the OpenAPI document, and tried by the tests.
        required: whether there is no answer without it; the operation says so itself when it is not given.
    """

    name: str
    about: str
    schema: Mapping[str, Any]
    parse: Callable[[str], Any] = str
    default: Any = ""
    example: Any = None
    required: bool = False


def parse_query(query: bytes, known: Sequence[Parameter]) -> dict[str, Any]:
    """The values of all known parameters.

    Raises:
        Problem: ``bad-parameter``, naming it.
    """
    values: dict[str, Any] = {parameter.name: parameter.default for parameter in known}
    if not query:
        return values
    if len(query) > MAX_QUERY_BYTES:
        raise Problem("bad-parameter", f"a query has at most {MAX_QUERY_BYTES} bytes")
    by_name = {parameter.name: parameter for parameter in known}
    try:
        pairs = parse_qsl(query.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=50)
    except (UnicodeDecodeError, ValueError) as error:
        raise Problem("bad-parameter", "the query is not percent-encoded UTF-8") from error
    seen: set[str] = set()
    for name, text in pairs:
        parameter = by_name.get(name)
        if parameter is None:
            names = ", ".join(by_name) or "none"
            raise Problem("bad-parameter", f"unknown; known here: {names}", parameter=name[:100])
        if name in seen:
            raise Problem("bad-parameter", "it is given twice", parameter=name)
        seen.add(name)
        if len(text) > MAX_VALUE or "\0" in text:
            raise Problem("bad-parameter", f"it is longer than {MAX_VALUE} characters, or holds NUL", parameter=name)
        try:
            values[name] = parameter.parse(text)
        except (ValueError, Malformed) as error:
            where: dict[str, Any] = {"position": error.position} if isinstance(error, FilterError) else {}
            raise Problem("bad-parameter", str(error), parameter=name, **where) from error
    return values


def flag(text: str) -> bool:
    """``true`` or ``false``."""
    if text not in ("true", "false"):
        raise ValueError("it is neither true nor false")
    return text == "true"


def whole_number(least: int, most: int) -> Callable[[str], int]:
    """A decimal number within bounds."""

    def parse(text: str) -> int:
        if re.fullmatch(r"[0-9]{1,18}", text, re.ASCII) is None or not least <= int(text) <= most:
            raise ValueError(f"it is not a number from {least} to {most}")
        return int(text)

    return parse


def time(text: str) -> str:
    """An RFC 3339 time with its zone, in the form that events carry: UTC with nine digits.

    The plus of an offset that was not percent-encoded arrives as a space, and is taken for what it was meant as.
    """
    return zoned(re.sub(r"(?<=[0-9]) (?=[0-9]{2}:?[0-9]{2}$)", "+", text) if "T" in text else text)


_CURSOR = re.compile(r"1\.(0|[1-9][0-9]{0,17})\.(0|[1-9][0-9]{0,17})", re.ASCII)


def encode_cursor(size: int, below: int) -> str:
    """Where the next page of a search begins: leaf bounds, so no server keeps it, and it never goes stale."""
    return base64.urlsafe_b64encode(f"1.{size}.{below}".encode()).decode("ascii").rstrip("=")


def decode_cursor(text: str) -> tuple[int, int]:
    """The (size, below) of a cursor; ValueError when it is none of ours."""
    try:
        plain = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)).decode("ascii")
    except (binascii.Error, UnicodeError, ValueError) as error:
        raise ValueError("it is not a cursor that this API gave out") from error
    found = _CURSOR.fullmatch(plain)
    if found is None or encode_cursor(int(found[1]), int(found[2])) != text:
        raise ValueError("it is not a cursor that this API gave out")
    return int(found[1]), int(found[2])


_BOUNDS = re.compile(r"2(\.(0|[1-9a-f][0-9a-f]{0,13})){2,65}", re.ASCII)


def encode_bounds(size: int, bounds: Sequence[int]) -> str:
    """As `encode_cursor`, of a search over several logs: the leaves that it looks at in all, and a leaf bound for each log."""
    return ".".join(["2", *(f"{number:x}" for number in (size, *bounds))])


def decode_bounds(count: int) -> Callable[[str], tuple[int, tuple[int, ...]]]:
    """A parser of such cursors over `count` logs, at most 64; it raises ValueError for what is none of ours."""

    def parse(text: str) -> tuple[int, tuple[int, ...]]:
        if _BOUNDS.fullmatch(text) is None or text.count(".") != count + 1:
            raise ValueError("it is not a cursor that this API gave out")
        size, *bounds = (int(part, 16) for part in text.split(".")[1:])
        return size, tuple(bounds)

    return parse


def raw_tail(request: Request, prefix: str) -> str:
    """What follows `prefix` in the path as it was sent, still percent-encoded.

    Raises:
        Problem: it is not ASCII, or longer than any trail id, encoded once more, can be.
    """
    raw = request.scope.get("raw_path")
    if not isinstance(raw, bytes):  # a server that does not tell: the best that can be made of the decoded path
        raw = quote(request.scope["path"], safe="/:@~").encode("ascii")
    raw = raw.partition(b"?")[0]
    root = quote(request.scope.get("root_path", ""), safe="/:@~").encode("ascii")
    raw = raw.removeprefix(root)
    if not raw.startswith(prefix.encode("ascii")) or len(raw) > 4_000 or not raw.isascii():
        raise Problem("no-route", "there is no such path")
    return raw[len(prefix) :].decode("ascii")


def trail_of(tail: str) -> str:
    """The trail id in the rest of a path.

    Raises:
        Problem: ``bad-parameter``: it is none.
    """
    text = tail
    if "/" not in tail:
        try:
            text = unquote_to_bytes(tail).decode("ascii")
        except UnicodeDecodeError as error:
            raise Problem("bad-parameter", "a trail id is ASCII", parameter="trail") from error
    try:
        parse_trail(text)
    except VerificationError as error:
        raise Problem("bad-parameter", str(error), parameter="trail") from error
    return text
