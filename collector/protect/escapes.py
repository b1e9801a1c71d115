r"""Escapes in texts, read as what they stand for: of JSON, of C (``\x20``, ``\040``: nginx, Go, Python), percent and HTML. Pure."""

import re
from collections.abc import Iterator
from html import unescape
from urllib.parse import unquote

__all__ = ["PAD", "SEPARATOR", "digits_written_out", "readings"]

PAD = "\uf8ff"
"""Private use: fills an escape that stands for a separator to its length, so that offsets hold."""

SEPARATOR = (
    r"[ \-._+\x00\xa0\xad\u00b7\u034f\u061c\u1680\u180e\u2000-\u2015\u202a-\u202f\u205f-\u206f\u2212\u3000"
    rf"\ufe00-\ufe0f\ufe58\ufe63\ufeff\uff0b\uff0d\uff0e\uff3f\ufffd\udca0\udcad]{PAD}*+"
)
"""A regular expression: what may stand between the digits of a card number, see `collector.protect.classify`."""

_BOUNDARY = "|"
_ONE_SEPARATOR = re.compile(SEPARATOR)
_ESCAPE = re.compile(  # bytes as far as they are one character: two or three of UTF-8, else one
    r"(?<!\\)\\++(?:u[0-9a-fA-F]{4}|[0-3][0-7]{2}"
    r"|x(?:[cdCD][0-9a-fA-F]\\++x[89abAB][0-9a-fA-F]|[eE][0-9a-fA-F](?:\\++x[89abAB][0-9a-fA-F]){2}|[0-9a-fA-F]{2}))"
    r"|%[cdCD][0-9a-fA-F]%[89abAB][0-9a-fA-F]|%[eE][0-9a-fA-F](?:%[89abAB][0-9a-fA-F]){2}|%[0-9a-fA-F]{2}"
    r"|&#?[0-9a-zA-Z]{1,8};"
)
_BACKSLASHED = re.compile(r"\\[ux0-3]")  # most backslashes stand before a quote or an n
_NUL = re.compile(r"(?<!\\)\\++0")  # before a number its digits would be read as those of the escape: `\0` + `4111…`
_PAST_LATIN = re.compile(r"\\u(?!00)")  # a look that is cheap, because texts are full of `\u003d` and the like
_CHARACTER = re.compile(r"(?<!\\)\\++u(?!00)([0-9a-fA-F]{4})")


def readings(text: str) -> Iterator[str]:
    """`text` with each escape as a separator, filled up with `PAD`, or as a boundary; offsets hold. Nothing where it has none."""
    if "%" in text or "&" in text or ("\\" in text and _BACKSLASHED.search(text)):
        for escape in (_ESCAPE, _NUL) if "\\0" in text else (_ESCAPE,):
            reading = escape.sub(_unescaped, text)
            if reading != text:
                yield reading


def digits_written_out(text: str) -> str:
    r"""`text` with digits past ASCII in place of their escapes (``\uff14``), as JSON inside texts has them."""
    return _CHARACTER.sub(_digit, text) if _PAST_LATIN.search(text) else text


def _digit(match: re.Match[str]) -> str:
    character = chr(int(match[1], 16))
    return character if character.isdecimal() else match.group()


def _unescaped(match: re.Match[str]) -> str:
    escape = match.group()
    if escape[0] == "\\":
        code = escape.lstrip("\\")
        if code[0] == "x":  # bytes: one of Latin-1, or those of a character's UTF-8
            data = bytes.fromhex(code.replace("\\", "").replace("x", ""))
            character = data.decode("latin-1" if len(data) == 1 else "utf-8", "replace")
        else:
            character = chr(int(code[1:], 16) if code[0] == "u" else int(code, 8))
    elif escape[0] == "%":
        character = unquote(escape, errors="replace")
    else:
        character = unescape(escape)
    separates = _ONE_SEPARATOR.fullmatch(character) is not None
    return character.ljust(len(escape), PAD) if separates else _BOUNDARY * len(escape)
