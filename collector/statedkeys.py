"""The keys that an event itself states: which it can have, and in which form."""

import re
from collections.abc import Mapping

from collector.amounts import amount_text, is_amount

__all__ = ["MAX_KEY_BYTES", "bounded", "is_key_name", "stated_keys"]

MAX_KEY_BYTES = 256
"""Longest transaction ID, key value, tenant or actor taken; a longer one is left in the event and marked `key_too_long`."""

_KEY_NAME = re.compile(r"[a-z][a-z0-9_.]{0,63}", re.ASCII)


def is_key_name(name: str) -> bool:
    """Whether a key can be called so: lower-case letters, digits, dots and underscores; from a letter, at most 64."""
    return _KEY_NAME.fullmatch(name) is not None


def bounded(value: str, marks: list[str]) -> str:
    """The value; empty, and marked, when it is longer than `MAX_KEY_BYTES`."""
    if len(value) <= MAX_KEY_BYTES // 4 or len(value.encode("utf-8", "surrogatepass")) <= MAX_KEY_BYTES:
        return value
    marks.append("key_too_long")
    return ""


def stated_keys(keys: Mapping[str, str], marks: list[str]) -> tuple[dict[str, str], dict[str, str]]:
    """The keys that an event can have of those that it states, an amount in its one form; and those that it cannot have."""
    taken: dict[str, str] = {}
    refused: dict[str, str] = {}
    for name, value in keys.items():
        text = value
        if not is_key_name(name):
            marks.append("key_name_unusable")
            text = ""
        elif is_amount(name):
            text = amount_text(value)
            if not text:
                marks.append("amount_unusable")
        text = bounded(text, marks)
        if text or (not value and is_key_name(name)):
            taken[name] = text
        else:
            refused[name] = value
    return taken, refused
