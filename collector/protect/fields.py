r"""Which fields are declared secret, by name: in the structure of an event, and as `name=value` pairs inside its texts.

A pattern is compared without regard to case, hyphens, underscores and spaces: `api_key` is also `apiKey` and `API-Key`.

- Without a full stop it is a key's name: the whole key, or its last part when it is dotted as in OpenTelemetry
  (`authorization` is also `http.request.header.authorization`). It holds at any depth, and inside texts unless it has
  more than one `*` besides those in front.
- With a full stop it is a path from the event's root, keys joined by full stops, list indexes left out:
  `attributes.session`, `body.items.owner`.
- `*` stands for any characters, full stops included: `*.pin`, `attributes.*_key`, `*secret`.
"""

import re
from collections.abc import Sequence
from enum import Enum
from itertools import groupby

from collector.protect.classify import fold

__all__ = ["DEFAULT_MASKED_FIELDS", "MASK", "Action", "Fields"]

DEFAULT_MASKED_FIELDS: tuple[str, ...] = (
    "*cvv",
    "*cvv2",
    "*cvc",
    "*cvc2",
    "*password",
    "*passwd",
    "*secret",
    "*api_key",
    "*access_token",
    "*refresh_token",
    "*authorization",
    "*cookie",
)
"""Never of use in an audit trail, always of use to a thief. A short list on purpose: classification by content comes apart."""

MASK = "***"
"""What stands for the value of a masked field."""


class Action(Enum):
    """What is to happen to a field."""

    KEEP = "keep"
    MASK = "masked"
    DROP = "dropped"


class Fields:
    """The declared patterns, compiled.

    Args:
        masked: patterns of fields whose value becomes `MASK`.
        dropped: patterns of fields that are taken out; they win over `masked`. Inside texts they are masked.

    Raises:
        ValueError: a pattern is empty or would match every field.
    """

    __slots__ = ("_dropped", "_in_text", "_marks", "_masked")

    def __init__(self, *, masked: Sequence[str], dropped: Sequence[str]) -> None:
        self._masked = _Names(masked)
        self._dropped = _Names(dropped)
        self._in_text = _pairs((*masked, *dropped))
        self._marks = _marks((*masked, *dropped))

    def may_hold(self, folded: bytes) -> bool:
        """Whether text that `fold` has folded may hold a declared name; cheap, and never wrong when it says no."""
        if self._marks is None:
            return True
        for beginning, marks in self._marks:
            if beginning in folded:
                for mark in marks:
                    if mark in folded:
                        return True
        return False

    def action(self, path: str) -> Action:
        """What happens to the field whose path from the root, its own key included, is `path`. Time is linear in its length."""
        folded = _fold_name(path)
        if self._dropped.match(folded):
            return Action.DROP
        return Action.MASK if self._masked.match(folded) else Action.KEEP

    def mask_pairs(self, text: str) -> str:
        r"""`text` with the value of each `name=value`, `name: value` and `"name":"value"` of a declared name masked.

        Quotes may be escaped any number of times, so JSON inside strings inside JSON is read as well, and stays JSON: a
        bare number becomes a quoted mask. A quoted value that never ends is masked to the end of the text. A value that
        is itself an object or a list in JSON inside a string is left alone: the names inside it speak for themselves.
        """
        parts: list[str] = []
        done = 0
        for pair in self._in_text.finditer(text):
            if pair.start() < done:
                continue  # inside the value of the pair before
            value = _value(text, pair)
            if value is None:
                continue
            start, end = value
            key_quote = pair["quote"] or ""
            bare_in_json = key_quote and start == pair.end() and text[start] != "["
            parts += (text[done:start], f"{key_quote}{MASK}{key_quote}" if bare_in_json else MASK)
            done = end
        if not parts:
            return text
        return "".join(parts) + text[done:]


def _fold_name(name: str) -> str:
    return name.translate(_FOLD_NAME)


# ASCII alone, as in `fold`: or a name that differs from a declared one in an exotic letter would pass `may_hold`.
_FOLD_NAME: dict[int, int | None] = {ord("A") + at: ord("a") + at for at in range(26)} | dict.fromkeys(map(ord, "-_ "))


class _Names:
    """Folded patterns, and whether one of them matches a folded path.

    No regular expressions: they would try every full stop of a path as the place where a name begins, and who sends an
    event chooses how many its names have.

    Raises:
        ValueError: a pattern is empty or would match every field.
    """

    __slots__ = ("_ends", "_globs", "_parts", "_paths")

    def __init__(self, patterns: Sequence[str]) -> None:
        parts: set[str] = set()  # `authorization`: the last dotted part of a path
        paths: set[str] = set()  # `attributes.session`: all of it
        ends: set[str] = set()  # `*password`, `*.pin`: what it ends with
        self._globs: list[list[str]] = []  # `body.*.owner`, `iban*`: pieces, one behind the other
        for pattern in patterns:
            folded = _fold_name(pattern)
            literal = folded.lstrip("*")
            if not folded.strip("*."):
                raise ValueError(f"field pattern {pattern!r} names no field")
            if "*" in literal:
                beginning, *rest = re.split(r"\*+", folded)
                # a name without a full stop may begin behind any of them, the one put before the path included
                anywhere = [""] if beginning and "." not in folded else []
                self._globs.append([*anywhere, f".{beginning}", *rest])
            elif literal != folded:
                ends.add(literal)
            else:
                (paths if "." in folded else parts).add(literal)
        self._parts = frozenset(parts)
        self._paths = frozenset(paths)
        self._ends = tuple(sorted(ends))

    def match(self, path: str) -> bool:
        """Whether a pattern matches the folded path; time is linear in its length."""
        return (
            path.endswith(self._ends)
            or path.rpartition(".")[2] in self._parts
            or path in self._paths
            or any(_stand_in(f".{path}", pieces) for pieces in self._globs)
        )


def _stand_in(text: str, pieces: Sequence[str]) -> bool:
    """Whether `text` is the pieces in their order, with anything between them."""
    first, *between, last = pieces
    if not text.startswith(first):
        return False
    at = len(first)
    for piece in between:
        found = text.find(piece, at)
        if found < 0:
            return False
        at = found + len(piece)
    return text.endswith(last) and len(text) - len(last) >= at


def _marks(patterns: Sequence[str]) -> tuple[tuple[bytes, tuple[bytes, ...]], ...] | None:
    """Folded pieces of names, one of which is in every text that holds a name that matches a pattern.

    Each list of pieces comes behind what all of them begin with. None when a pattern has no piece worth a search.
    """
    pieces: set[bytes] = set()
    for pattern in patterns:
        last = _fold_name(pattern).rpartition(".")[2]
        runs = re.findall(r"[a-z0-9]+", last) if last.isascii() else []
        longest = max(runs, key=len, default="")
        if len(longest) < 2:
            return None
        pieces.add(fold(longest.encode()))
    # `accesstoken` and `refreshtoken` are one search for `token`; `cvv` and `cvc` are one for `cv`, nearly always in vain.
    pieces = {piece[-5:] if sum(other.endswith(piece[-5:]) for other in pieces) > 1 else piece for piece in pieces}
    pieces = {piece for piece in pieces if not any(other != piece and other in piece for other in pieces)}
    return tuple(
        (_common_beginning(similar[0], similar[-1]), tuple(similar))
        for similar in ([*group] for _, group in groupby(sorted(pieces), key=lambda piece: piece[:2]))
    )


def _common_beginning(first: bytes, second: bytes) -> bytes:
    length = 0
    while first[: length + 1] == second[: length + 1] and length < len(first):
        length += 1
    return first[:length]


# A quote as it is, behind backslashes, and as nginx (`\x22`) and .NET (`\u0022`) write one in JSON; `\x5C` is a backslash of theirs.
_QUOTE = r"(?:\\{0,64}[\"']|\\{1,64}(?:x|u00)2[27])"
_NOT_ESCAPED = r"(?<!\\)(?<!\\x5C)(?<!\\x5c)"
_BEGINNING = r"(?:(?<![^\W_])|(?<=\\x2[27])|(?<=\\u002[27]))"


def _pairs(patterns: Sequence[str]) -> re.Pattern[str]:
    names = []
    for pattern in patterns:
        folded = _fold_name(pattern)
        literal = folded.lstrip("*")
        pieces = re.split(r"\*+", literal)
        if "." in folded or len(pieces) > 2:
            continue  # the time for more than one `*` would be a product
        # What the pattern leaves open (case, hyphen or underscore between any two letters) is left open here as well.
        spelled = r"[\w-]{0,64}".join("[-_]?".join(map(re.escape, piece)) for piece in pieces)
        names.append(spelled if folded != literal else rf"{_BEGINNING}{spelled}")
    if not names:
        return re.compile(r"(?!)(?P<name>)(?P<quote>)")
    return re.compile(
        rf"(?P<name>{'|'.join(names)})(?P<quote>{_QUOTE})?\s{{0,8}}(?:=>|[:=])\s{{0,8}}",
        re.IGNORECASE | re.ASCII,
    )


_OPENING = re.compile(_QUOTE)
_OURS = r"\[[^\[\]]{1,512}~card:[a-p]{20}(?:,card:[a-p]{20}){0,64}\]|\[jwt:[a-p]{20}\]"  # as `redact` writes them
_BARE = re.compile(rf"(?:(?:bearer|basic|digest|token)\s+)?(?:{_OURS}|[^\s\"'\\,;&|()\[\]{{}}<>])+", re.IGNORECASE)
_COOKIES = re.compile(r"[^\s\"'\\;,]+(?:;\s?[^\s\"'\\;,]+)*")
_NOTHING = frozenset({"null", "true", "false", "none"})


def _value(text: str, pair: re.Match[str]) -> tuple[int, int] | None:
    """Where the value behind a name stands, without its quotes; None when there is nothing to mask."""
    start = pair.end()
    opening = _OPENING.match(text, start)
    if opening:
        quote = opening.group()
        closing = re.compile(_NOT_ESCAPED + re.escape(quote)).search(text, opening.end())
        inside = (opening.end(), closing.start() if closing else len(text))
        return None if text[slice(*inside)] in {MASK, ""} else inside
    bare = (_COOKIES if pair["name"].lower().endswith("cookie") else _BARE).match(text, start)
    if bare is None or bare.group() == MASK or bare.group().lower() in _NOTHING:
        return None
    return bare.span()
