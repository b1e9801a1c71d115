"""Entity tags (RFC 9110 section 8.8.3) of answers, and 304 for who has the answer already (section 13.1.2). Both are on record like any other.

A tag is strong: a hash of the very bytes. It says nothing that the answer does not say, and it is made of an answer that was read in
full, so that a 304 is as good a reading as a 200.
"""

import base64
import re
from collections.abc import Sequence
from dataclasses import replace
from hashlib import sha256

from audit_api.gate import Call, Operation, Reading, Runner

__all__ = ["entity_tag", "has_already", "revalidated"]

_TAG = re.compile(r'(?:W/)?("[\x21\x23-\x7e\x80-\xff]*")')


def revalidated(operation: Operation) -> Operation:
    """The same operation, with an ETag on its answers and heed paid to If-None-Match; other methods than GET as they are."""
    if operation.method != "GET":
        return operation

    async def read(call: Call, run: Runner) -> Reading:
        reading = await operation.read(call, run)
        if reading.stream is not None or reading.status:
            return reading
        tag = entity_tag(reading.body, reading.media_type)
        headers = {**reading.headers, "ETag": tag}
        if has_already(call.request.headers.getlist("if-none-match"), tag):
            return replace(reading, body=b"", status=304, headers=headers)
        return replace(reading, headers=headers)

    return replace(operation, read=read)


def entity_tag(body: bytes, media_type: str) -> str:
    """The strong tag of an answer, of 128 bits."""
    digest = sha256(media_type.encode() + b"\0" + body).digest()[:16]
    return f'"{base64.urlsafe_b64encode(digest).decode("ascii").rstrip("=")}"'


def has_already(fields: Sequence[str], tag: str) -> bool:
    """Whether one of the tags in If-None-Match is this one; ``*`` is any. Compared weakly, as section 13.1.2 says."""
    return any(field.strip() == "*" or tag in _TAG.findall(field) for field in fields)
