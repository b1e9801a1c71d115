"""Free text in an index: which words a trail has, and whether a search's terms are all among them. Pure.

Every index decides by `TextSearch.meets`, or by terms that this module made; so the same text finds the same trails in each.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

from correlator.trail import parse_trail

__all__ = ["MAX_TERMS", "MAX_TEXT", "TextSearch", "TextTerm", "after_prefix", "name_words", "texts_of", "words_of"]

MAX_TEXT = 300
"""Longest text of a search, in characters."""

MAX_TERMS = 8
"""Most terms of a search."""

_MAX_FOLDED = 3 * MAX_TEXT
"""What so many characters may become when their case is folded. No text is told apart by more: no search has more."""

_PIECE = re.compile(r"[^\W_]+")
_HUMP = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_LAST = 0x10FFFF


@lru_cache(maxsize=16_384)
def name_words(name: str) -> frozenset[str]:
    """Words of a service's or an event's name: its runs of letters and digits, and the humps of each, in folded case.

    ``payment.refundTimeout`` has payment, refundtimeout, refund and timeout.
    """
    words = set()
    for piece in _PIECE.findall(name):
        for part in (piece, *_HUMP.split(piece)):
            words.update(_PIECE.findall(part.casefold()))  # folded, a letter may come apart: İ
    return frozenset(words)


def words_of(names: Iterable[str]) -> set[str]:
    """Words of all these names."""
    return {word for name in names for word in name_words(name)}


def texts_of(trail: str, keys: Iterable[tuple[str, str]]) -> set[str]:
    """What is matched whole: the value in the trail's own id and those of the keys, in folded case, taken apart at white space only.

    Of a text that is longer than any search its beginning, which finds the same. Raises `VerificationError` when `trail` is no trail id.
    """
    return {
        text[: _MAX_FOLDED + 1]
        for value in (parse_trail(trail).value, *(value for _, value in keys))
        for text in value.casefold().split()
    }


def after_prefix(prefix: str) -> str:
    """The least text, in the order of code points, that is greater than all that begin with `prefix`; empty when there is none."""
    for at in range(len(prefix) - 1, -1, -1):
        point = ord(prefix[at])
        if point < _LAST:
            return prefix[:at] + chr(0xE000 if point == 0xD7FF else point + 1)
    return ""


@dataclass(frozen=True, slots=True, kw_only=True)
class TextTerm:
    """One term, which a trail must have.

    Attributes:
        text: in folded case; one of the trail's texts is this, or begins so.
        words: or each of these is a word of its names. Empty: no name has such a term.
        prefix: whether the beginning is enough.
    """

    text: str
    words: tuple[str, ...]
    prefix: bool = False

    @property
    def open_word(self) -> bool:
        """Whether the beginning is enough of the last word, too: so it is of ``pay*``, and not of ``pay-*``."""
        return self.prefix and bool(self.words) and self.text.endswith(self.words[-1])


@dataclass(frozen=True, slots=True, kw_only=True)
class TextSearch:
    """Terms, each of which must be found."""

    terms: tuple[TextTerm, ...]

    @classmethod
    def parse(cls, text: str) -> "TextSearch":
        """Read what a person wrote: terms with white space between; ``refund*`` is whatever begins so.

        Raises:
            ValueError: there is none, there are too many, or it is too long.
        """
        if len(text) > MAX_TEXT:
            raise ValueError(f"a text has at most {MAX_TEXT} characters")
        if any("\ud800" <= letter <= "\udfff" for letter in text):
            raise ValueError("the text is not UTF-8")
        terms = []
        for term in dict.fromkeys(text.casefold().split()):
            whole = term.removesuffix("*")
            if not whole:
                raise ValueError("* stands behind the beginning of a word")
            words = tuple(_PIECE.findall(whole))
            terms.append(TextTerm(text=whole, words=words, prefix=whole != term))
        if not terms:
            raise ValueError("there is no word in the text")
        if len(terms) > MAX_TERMS:
            raise ValueError(f"a text has at most {MAX_TERMS} words")
        return cls(terms=tuple(terms))

    def meets(self, texts: Iterable[str], words: Iterable[str]) -> bool:
        """Whether a trail with these texts and words has every term."""
        texts, words = frozenset(texts), frozenset(words)
        return all(_has(term, texts, words) for term in self.terms)


def _has(term: TextTerm, texts: frozenset[str], words: frozenset[str]) -> bool:
    if term.text in texts or (term.words and words.issuperset(term.words)):
        return True
    if term.prefix and any(text.startswith(term.text) for text in texts):
        return True
    if not term.open_word:
        return False
    *whole, last = term.words
    return words.issuperset(whole) and any(word.startswith(last) for word in words)
