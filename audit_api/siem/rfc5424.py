"""Syslog messages (RFC 5424) and their framing (RFC 5425 section 4.3, RFC 6587 section 3.4.1). Pure."""

import re
from collections.abc import Mapping

__all__ = ["SEVERITIES", "framed", "message", "structured"]

SEVERITIES = {"error": 3, "warning": 4, "notice": 5, "informational": 6}
"""Names of section 6.2.1's severities that we use."""

_NOT_PRINTABLE = re.compile(r"[^\x21-\x7e]")
_PARAM = re.compile(r'[\\"\]]')
_UNSENDABLE = re.compile(r"[\ud800-\udfff]")
_NAME = re.compile(r"[!#-<>-\\^-~]{1,32}", re.ASCII)
_NIL = "-"


def _word(text: str, longest: int) -> str:
    """Printable ASCII of a bounded length: what cannot be carried becomes a question mark."""
    return _NOT_PRINTABLE.sub("?", text)[:longest] or _NIL


def structured(name: str, parameters: Mapping[str, str]) -> str:
    r"""One element of structured data (section 6.3): in values ``"``, ``\`` and ``]`` are escaped. Raises `ValueError` for a bad name."""
    for one in (name, *parameters):
        if _NAME.fullmatch(one) is None:
            raise ValueError(f"{one!r} is no name of structured data")
    told = "".join(
        f' {key}="{_PARAM.sub(lambda found: chr(92) + found[0], value)}"' for key, value in parameters.items()
    )
    return f"[{name}{told}]"


def message(
    *, facility: int, severity: int, time: str, hostname: str, message_id: str, elements: str, text: bytes
) -> bytes:
    """One SYSLOG-MSG of the application ``tallystick``. Its MSG has no byte order mark (MSG-ANY): readers of CEF and JSON stumble over one.

    Args:
        facility: 0 to 23.
        severity: 0 to 7.
        time: RFC 3339, UTC, nine digits; section 6.2.3 has room for six. Empty: not known.
        hostname: at most 255 characters of printable ASCII are carried.
        message_id: as `hostname`, 32.
        elements: of structured data; empty: none.
        text: the MSG, UTF-8.
    """
    short = f"{time[:26]}Z" if len(time) == 30 else _NIL
    head = (
        f"<{facility * 8 + severity}>1 {short} {_word(hostname, 255)} tallystick - {_word(message_id, 32)}"
        f" {_UNSENDABLE.sub('?', elements) or _NIL} "
    )
    return head.encode() + text


def framed(one: bytes) -> bytes:
    """With its length before it: octet counting, which lets a message hold anything."""
    return b"%d %b" % (len(one), one)
