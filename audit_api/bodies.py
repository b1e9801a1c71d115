"""Bodies of requests: small, of a declared type, and read only from those who may send one."""

import asyncio
from collections.abc import Collection, Mapping
from urllib.parse import parse_qsl

from starlette.requests import ClientDisconnect, Request

from audit_api.problems import Problem

__all__ = ["FORM", "has_body", "media_type_of", "parse_form", "read_body"]

FORM = "application/x-www-form-urlencoded"
_READ_SECONDS = 20.0
_MAX_FIELDS = 50
_GONE = {"Connection": "close"}  # what is still to come of it will not be read


def has_body(request: Request) -> bool:
    """Whether the request brings a body, or says that it will."""
    return request.headers.get("content-length", "0") != "0" or "transfer-encoding" in request.headers


def media_type_of(request: Request) -> str:
    """The media type that the request says its body has, in small letters, without parameters."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


async def read_body(request: Request, *, limit_bytes: int, media_types: Collection[str]) -> bytes:
    """The body, whole.

    Raises:
        Problem: ``no-body``: none may be sent; ``unsupported-media-type``; ``body-too-large``; ``bad-body``: it did not come in time.
    """
    if not has_body(request):
        return b""
    if not limit_bytes:
        raise Problem("no-body", "this takes no body", headers=_GONE)
    if media_type_of(request) not in media_types:
        raise Problem("unsupported-media-type", f"this takes {', '.join(media_types)}", headers=_GONE)
    length = request.headers.get("content-length")
    if length is not None and (not length.isdecimal() or int(length[:18]) > limit_bytes):
        raise Problem("body-too-large", f"at most {limit_bytes} bytes", headers=_GONE, limit=limit_bytes)
    body = bytearray()
    try:
        async with asyncio.timeout(_READ_SECONDS):
            async for chunk in request.stream():
                body += chunk
                if len(body) > limit_bytes:
                    raise Problem("body-too-large", f"at most {limit_bytes} bytes", headers=_GONE, limit=limit_bytes)
    except TimeoutError as error:
        raise Problem("bad-body", f"it did not come within {_READ_SECONDS:.0f} s", headers=_GONE) from error
    except ClientDisconnect as error:
        raise Problem("bad-body", "the connection was closed in the middle of it", headers=_GONE) from error
    return bytes(body)


def parse_form(body: bytes) -> Mapping[str, str]:
    """The fields of an HTML form (``application/x-www-form-urlencoded``).

    Raises:
        Problem: ``bad-body``: it is none, or a field is given twice.
    """
    try:
        pairs = parse_qsl(body.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=_MAX_FIELDS)
    except (UnicodeDecodeError, ValueError) as error:
        raise Problem("bad-body", f"no form of at most {_MAX_FIELDS} fields, percent-encoded UTF-8") from error
    fields: dict[str, str] = {}
    for name, value in pairs:
        if name in fields:
            raise Problem("bad-body", f"the field {name[:100]!r} is given twice")
        fields[name] = value
    return fields
