"""JSON of protobuf messages made fit for a strict decoder: nulls, and halves of surrogate pairs.

``null`` for a field means its default (https://protobuf.dev/programming-guides/json/). Half of a pair is what JavaScript's ``JSON.stringify`` makes of a text that
was cut within a character. Works on the bytes, so that mending costs little more memory than the body. Pure.
"""

import re

import msgspec

__all__ = ["mended", "restore_halves"]

_MAX_BYTES = (
    4 * 1024**2
)  # it takes a second or so for ten times that, in which nobody else has a turn; exporters send far less at a time
_HALF = "\ufdd0"  # a noncharacter, which no text of anybody's has (The Unicode Standard, section 23.7): stands for a half until it is decoded
_STAND_IN = b"\\ufdd0"
_NULL = re.compile(rb'([{,]\s*)"\w+"\s*:\s*null(?=\s*[,}])', re.ASCII)
"""A member whose value is null. Within a text no bare quote is followed by letters and another quote, so it cannot be part of one."""

_SURROGATES = re.compile(rb"\\u[dD](?:[89abAB][0-9a-fA-F]{2}(\\u[dD][c-fC-F][0-9a-fA-F]{2})?|[c-fC-F][0-9a-fA-F]{2})")


def mended(body: bytes) -> bytes | None:
    """The body without null for any field, and with a stand-in for each half of a pair (`restore_halves`).

    None when there is nothing to mend, or it is too long. What is no JSON stays none.
    """
    if len(body) > _MAX_BYTES:
        return None
    nulls = 0
    if b"null" in body:
        body, nulls = _NULL.subn(rb'\1"":0', body)  # a name that no message has, and which is passed over
    better = _SURROGATES.sub(_whole, body)
    return better if nulls or better != body else None


def restore_halves(shape: msgspec.Struct) -> None:
    """Put a lone surrogate in the place of each stand-in, in all texts of a decoded message: the intake replaces and marks it as everybody's."""
    left: list[msgspec.Struct] = [shape]
    while left:
        one = left.pop()
        for name in one.__struct_fields__:
            value = getattr(one, name)
            if isinstance(value, str):
                if _HALF in value:
                    setattr(one, name, value.replace(_HALF, "\ud800"))
            elif isinstance(value, list):
                left += value
            elif isinstance(value, msgspec.Struct):
                left.append(value)


def _whole(match: re.Match[bytes]) -> bytes:
    text, start = match.string, match.start()
    before = start
    while before and text[before - 1 : before] == b"\\":
        before -= 1
    escape, low = match[0][:6], match[1]
    if (start - before) % 2:  # the backslash is escaped itself, and what follows is letters
        return escape + _STAND_IN if low else escape
    return match[0] if low else _STAND_IN
