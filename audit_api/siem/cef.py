"""ArcSight's Common Event Format, version 0: one line of text. Pure.

https://www.microfocus.com/documentation/arcsight/arcsight-smartconnectors/pdfdoc/cef-implementation-standard/cef-implementation-standard.pdf

In the header a backslash and a pipe are escaped, in the extension a backslash, an equals sign and line ends; nothing else can be. Other control
characters, and line ends in the header, which no CEF can carry, become U+FFFD, so that a value of somebody else's begins no line and no field.
"""

import re
from collections.abc import Mapping

__all__ = ["cef_line"]

_REPLACED = "\N{REPLACEMENT CHARACTER}"
_HEADER = re.compile(r"[\\|\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_VALUE = re.compile(r"[\\=\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_KEY = re.compile(r"[A-Za-z0-9_.]+", re.ASCII)
_NAMED = {"\n": "\\n", "\r": "\\r"}


def _header(found: re.Match[str]) -> str:
    return "\\" + found[0] if found[0] in "\\|" else _REPLACED


def _value(found: re.Match[str]) -> str:
    return "\\" + found[0] if found[0] in "\\=" else _NAMED.get(found[0], _REPLACED)


def cef_line(*, version: str, signature: str, name: str, severity: int, extension: Mapping[str, object]) -> str:
    """The line, without an end.

    Args:
        version: of this program.
        signature: what kind of event it is: the same for all of its kind.
        name: what happened, for a person.
        severity: 0 to 10.
        extension: keys of CEF's dictionary (letters, digits, ``_`` and ``.``) to values; None and empty text are left out.

    Raises:
        ValueError: a severity or a key that CEF does not have.
    """
    if not 0 <= severity <= 10:
        raise ValueError(f"severity {severity} is not 0 to 10")
    header = [_HEADER.sub(_header, text) for text in ("Tallystick", "Tallystick", version, signature, name)]
    fields = []
    for key, value in extension.items():
        if _KEY.fullmatch(key) is None:
            raise ValueError(f"{key!r} is no key of CEF")
        if value is not None and value != "":
            fields.append(f"{key}={_VALUE.sub(_value, str(value))}")
    return "|".join(["CEF:0", *header, str(severity), " ".join(fields)])
