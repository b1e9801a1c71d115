"""Text cut to a length before protection looks at it, but never through a number: of a card number cut in two nothing would be found, and most of it would stay. Pure."""

import re

__all__ = ["clipped"]

_OPEN_END = re.compile(
    # digits, what may stand between them, and escapes of that (`collector.protect.escapes`), whole or cut
    r"(?>(?:\\+u[0-9a-fA-F]{0,4}|\\+x[0-9a-fA-F]{0,2}|%[0-9a-fA-F]{0,2}|&#?[0-9a-zA-Z]{0,8};?|[\W\d_])+)\Z"
)


def clipped(text: str, most: int) -> str:
    """The first `most` characters of a longer text, without the digits, and whatever else is no letter, that they end with."""
    return text if len(text) <= most else _OPEN_END.sub("", text[:most])
