"""Where are they? Payment card numbers in text, told apart from time stamps, hashes, UUIDs and other long numbers.

A card number is 12 to 19 digits that start with the prefix of an issuer which issues that length, pass the Luhn check
(ISO/IEC 7812-1, annex B) and are not part of a longer run of digits. Pure functions: text in, spans out, linear time.

Words: a *run* is digits with up to three separators between neighbours; a *group* is digits without a separator; a
*window* is whole neighbouring groups of one run. A window may be a card when

- it is one group (``4432801561520454``), or
- it is grouped as people group card numbers: first group four digits or more, inner groups three or more
  (``4432-8015-6152-0454``, ``3782 822463 10005``), or
- it is the whole run, however it is cut (``4 4 3 2 8 0 1 5 6 1 5 2 0 4 5 4``).

Other windows are left alone, or every table of small numbers would hold "cards". Separators are spaces, hyphens,
underscores, plus signs and their Unicode kin, zero-width characters, NUL, U+FFFD (what a decoder makes of Latin-1's
no-break space), and the same things as `escapes`, since JSON inside strings is common in logs. A full stop separates
only when nothing else does and there are at least two: ``4111.1111.1111.1111``, not ``5412.75``. Line breaks, tabs, commas and colons do not separate.
What is part of a valid IBAN (`iban`) is no card, unless the same number stands elsewhere in the text.
"""

import re
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import accumulate, chain, starmap
from string import ascii_letters

import msgspec

from collector.protect.cardnumber import MAX_DIGITS, MIN_DIGITS, is_card, lengths, luhn_valid
from collector.protect.escapes import PAD, SEPARATOR, digits_written_out, readings
from collector.protect.iban import ibans

__all__ = ["Card", "find_cards", "fold", "has_card", "may_hold_card", "with_digits"]

_FOLD = bytes(
    0x30
    if 0x30 <= byte <= 0x39
    else byte + 32
    if 0x41 <= byte <= 0x5A
    else 0x01
    if byte >= 0x80 or byte in b"%&"
    else byte
    for byte in range(256)
)

_MAY_BEGIN_A_DIGIT = (
    b"\xd9\xdb\xdf\xe0\xe1\xea\xef\xf0"  # first UTF-8 byte of every character of category Nd past ASCII
)
_UNFOLDED = b" -._+\x00" + bytes(byte for byte in range(0x80, 0x100) if byte not in _MAY_BEGIN_A_DIGIT)


def fold(encoded: bytes) -> bytes:
    """UTF-8 text with what does not tell names and long numbers apart taken out, for cheap questions of `in`.

    Digits become `0`, letters lower case; separators of `classify` and of names are gone, as are all characters that are
    not ASCII. 0x01 stands where one of them may be a digit, and where an escape by percent or ampersand may begin.
    """
    return encoded.translate(_FOLD, _UNFOLDED)


_LONG_RUN = b"0" * MIN_DIGITS
# What 0x01 may mean in earnest: an escape, the first bytes of a digit past ASCII, a separator that begins like one.
_ODD = re.compile(
    rb"[%&\xd9\xdb\xdf\xe0\xe1]|\xea[\x98-\xaf]|\xf0(?:[\x90-\x9e]|\x9f\xaf)"
    rb"|\xef(?:\xbc[\x8b\x8d\x8e\x90-\x99\xbf]|\xbb\xbf|\xb9[\x98\xa3]|\xb8[\x80-\x8f]|\xbf\xbd|\xa3\xbf)"
)
_C_ESCAPE = re.compile(rb"\\[ux0-3]")


def may_hold_card(encoded: bytes, folded: bytes) -> bool:
    """Whether `find_cards` may find something in the text whose UTF-8 is `encoded`, and that `fold` made `folded` of.

    Cheap, and never wrong when it says no; also of JSON, for all texts and numbers in it.
    """
    return (
        _LONG_RUN in folded
        or (b"\x01" in folded and _ODD.search(encoded) is not None)
        or (b"\\" in encoded and _C_ESCAPE.search(encoded) is not None)
    )


class Card(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be masked in a text.

    `digits_at` are the offsets of its digits in the text, ascending; between them stand separators. `numbers` are the
    card numbers read there as ASCII digits, the likeliest first: more than one when the digits can be read in two ways
    that overlap (a card with its check value behind it, say), and none of them may survive.
    """

    digits_at: tuple[int, ...]
    numbers: tuple[str, ...]

    @property
    def start(self) -> int:
        """Offset of the first digit."""
        return self.digits_at[0]

    @property
    def end(self) -> int:
        """Offset after the last digit."""
        return self.digits_at[-1] + 1


# The lookbehind after the first digit is one at its start: the set of first characters is what makes the search fast,
# and the lookahead turns most digits away before the costly part.
_ASCII_RUN = re.compile(r"[0-9](?=[0-9 \-._+\x00]{11})(?<![0-9][0-9])(?:[ \-._+\x00]{0,3}+[0-9]){11,}+")
_RUN = re.compile(rf"\d(?<!\d\d)(?:(?:{SEPARATOR}){{0,3}}+\d){{11,}}+")
_GROUP = re.compile(r"\d+")
_NO_DIGIT = "|"  # nor a separator

# A run inside one of these is an identifier whose letters happen to stand elsewhere: RFC 9562 UUIDs, W3C traceparent, b3.
_HEX_ID = re.compile(
    r"(?<![0-9A-Za-z])(?:[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}"
    r"|[0-9a-fA-F]{2}-[0-9a-fA-F]{32}-[0-9a-fA-F]{16}-[0-9a-fA-F]{2}|[0-9a-fA-F]{32}-[0-9a-fA-F]{16}(?:-[01d])?)"
    r"(?![0-9A-Za-z])"
)
_LONGEST_HEX_ID = 56
_LONGEST_HEX_WORD = 128  # SHA-512
_WORD = re.compile(r"[0-9A-Za-z]*")
_HEX_LETTERS = "abcdefABCDEF"
_LETTERS = re.compile(r"[a-f]+|[A-F]+")
_GOES_ON = frozenset(ascii_letters + "0123456789-")  # what stands beside digits that are part of such a word

_LENGTHS_BY_LIKELIHOOD = (16, 15, 19, 18, 17, 14, 13, 12)


def find_cards(text: str) -> list[Card]:
    """Every card number in `text`, in order, none overlapping another. Time is linear in the length of `text`."""
    cards = _outside_ibans(text, _cards_of(text))
    for reading in readings(text):
        rest = list(reading)  # a number behind an escape would be read together with them, and passed over
        for card in cards:
            rest[card.start : card.end] = _NO_DIGIT * (card.end - card.start)
        cards = _outside_ibans(text, sorted(cards + _cards_of("".join(rest)), key=lambda card: card.digits_at))
    return cards


def _outside_ibans(text: str, cards: list[Card]) -> list[Card]:
    """The cards without those that are part of a valid IBAN and stand nowhere else.

    An IBAN counts while nothing in it is masked: a card that reaches out of it, or that stands elsewhere too, gives all of its cards back,
    and these their like in other IBANs. So what is left is the same when it is looked at once more.
    """
    if not cards or not (spans := list(ibans(text))):
        return cards
    inside: dict[int, list[Card]] = {}  # index of the IBAN → its cards
    where: dict[str, list[int]] = {}  # number → indices of the IBANs that it is in
    void: list[int] = []
    masked: list[Card] = []
    starts = [start for start, _ in spans]
    for card in cards:
        last = bisect_right(starts, card.end - 1) - 1
        if last >= 0 and spans[last][0] <= card.start and card.end <= spans[last][1]:
            inside.setdefault(last, []).append(card)
            for number in card.numbers:
                where.setdefault(number, []).append(last)
            continue
        masked.append(card)
        while last >= 0 and card.start < spans[last][1]:
            void.append(last)
            last -= 1
    void += [at for card in masked for number in card.numbers for at in where.pop(number, ())]
    while void:
        for card in inside.pop(void.pop(), ()):
            masked.append(card)
            void += [at for number in card.numbers for at in where.pop(number, ())]
    return sorted(masked, key=lambda card: card.digits_at)


def with_digits(text: str) -> str:
    """`text`; with the digits past ASCII that stand in it as escapes written out, if there are card numbers in it then.

    `find_cards` leaves each character where it stands, so to it an escape is no digit.
    """
    written = digits_written_out(text)
    return written if written != text and find_cards(written) else text


def has_card(text: str) -> bool:
    """Whether there is a card number in `text`, also one whose digits stand in it as escapes."""
    written = digits_written_out(text)
    return _holds_card(written) or (written != text and _holds_card(text))


def _holds_card(text: str) -> bool:
    """Whether `find_cards` finds something; where no IBAN stands in the text, the first card is enough to know it."""
    if next(ibans(text), None) is not None:
        return bool(find_cards(text))
    return any(
        _lone(one, run) if run.group().isdecimal() else _Run(one, *run.span()).holds_card()
        for one in chain([text], readings(text))
        for run in _runs(one)
    )


def _cards_of(text: str) -> list[Card]:
    cards: list[Card] = []
    for run in _runs(text):
        cards += _lone(text, run) if run.group().isdecimal() else _Run(text, *run.span()).cards()
    return cards


def _runs(text: str) -> Iterator[re.Match[str]]:
    return (_ASCII_RUN if text.isascii() else _RUN).finditer(text)


def _lone(text: str, run: re.Match[str]) -> Sequence[Card]:
    """The card that a run of one group is, the common case."""
    start, end = run.span()
    if end - start <= MAX_DIGITS:
        digits = _ascii_digits(run.group())
        if is_card(digits) and not _inside_hex(text, start, end):
            return (Card(digits_at=tuple(range(start, end)), numbers=(digits,)),)
    return ()


def _ascii_digits(digits: str) -> str:
    return digits if digits.isascii() else "".join([str(int(digit)) for digit in digits])


def _inside_hex(text: str, start: int, end: int) -> bool:
    """Whether `text[start:end]` is part of a hexadecimal identifier: a UUID, a hash, a trace id."""
    if text[start - 1 : start] not in _GOES_ON and text[end : end + 1] not in _GOES_ON:
        return False
    for found in _HEX_ID.finditer(text, max(0, start - _LONGEST_HEX_ID), end + _LONGEST_HEX_ID + 1):
        if found.start() <= start and end <= found.end() and _LETTERS.search(found.group()):
            return True
    left = start
    while left > 0 and start - left <= _LONGEST_HEX_WORD and text[left - 1].isascii() and text[left - 1].isalnum():
        left -= 1
    found_word = _WORD.match(text, left, left + _LONGEST_HEX_WORD + 1)
    assert found_word is not None  # it matches the empty string
    word = found_word.group()
    if left > 0 and text[left - 1] == "\\":
        word = word[1:]  # the letter of an escape (`\b`, `\f`), not of the word
        left += 1
    if len(word) > _LONGEST_HEX_WORD or left + len(word) < end or word.strip("0123456789" + _HEX_LETTERS):
        return False
    if word != word.lower() and word != word.upper():
        return False
    # Letters in three separate places: `cc4111…` has one, the track data of a magnetic stripe (`4111…D2512…F`) two. At the
    # lengths of span ids, MD5, SHA-1 and SHA-256 one place between digits is enough, unless it is the track's separator.
    between = _LETTERS.findall(word.strip(_HEX_LETTERS))
    return len(_LETTERS.findall(word)) >= 3 or (len(word) in {16, 32, 40, 64} and between not in ([], ["d"], ["D"]))


_LEAST_FIRST, _LEAST_INNER = 4, 3  # digits of groups as people group card numbers; the last one may have fewer
_Window = tuple[int, int, str]
"""Index of the first group, index after the last, and the ASCII digits of all of them."""


class _Run:
    """One run of `text`: its groups as offsets there, and its digits without what stands between them."""

    __slots__ = ("digits", "groups", "has_stops", "places", "text")

    def __init__(self, text: str, start: int, end: int) -> None:
        self.text = text
        self.groups = [group.span() for group in _GROUP.finditer(text, start, end)]
        self.digits = _ascii_digits("".join([text[at:to] for at, to in self.groups]))
        # of each group where its first digit stands in `digits`, and behind them the length of these
        self.places = list(accumulate([to - at for at, to in self.groups], initial=0))
        self.has_stops = text.find(".", start, end) >= 0

    def holds_card(self) -> bool:
        """Whether `cards` finds one."""
        return next(self._windows(0, len(self.groups)), None) is not None

    def cards(self) -> list[Card]:
        """The cards in the run. What a found card leaves beside it is a run of its own, as it is once that is masked."""
        found: list[Card] = []
        todo = [(0, len(self.groups))]
        while todo:
            low, high = todo.pop()
            rest = low
            for cluster in _clusters(self._windows(low, high)):
                first, last = min(window[0] for window in cluster), max(window[1] for window in cluster)
                found.append(self._card(cluster, first, last))
                if rest < first:
                    todo.append((rest, first))
                rest = last
            if low < rest < high:
                todo.append((rest, high))
        found.sort(key=lambda card: card.digits_at)
        return found

    def _card(self, cluster: Sequence[_Window], first: int, last: int) -> Card:
        likeliest = min(cluster, key=lambda window: _LENGTHS_BY_LIKELIHOOD.index(len(window[2])))
        if likeliest[:2] == (first, last):
            numbers = [likeliest[2]]
        else:
            numbers = [likeliest[2], *(window[2] for window in cluster if window is not likeliest)]
        offsets = chain.from_iterable(starmap(range, self.groups[first:last]))
        return Card(digits_at=tuple(offsets), numbers=tuple(dict.fromkeys(numbers)))

    def _windows(self, low: int, high: int) -> Iterator[_Window]:
        """Windows of the groups from `low` to before `high` that hold a card number, by their first group.

        Of a long run every place may be one: what is asked most often costs least, and what an issuer issues is asked once a first group.
        """
        digits, places = self.digits, self.places
        is_short = high - low <= MAX_DIGITS
        for first in range(low, high):
            start = places[first]
            whole = is_short and first == low
            grouped = True
            issued: frozenset[int] | None = None
            least = _LEAST_FIRST
            for last in range(first, high):
                count = places[last + 1] - start
                if count > MAX_DIGITS:
                    break
                if count >= MIN_DIGITS and (grouped or last + 1 == high):
                    if issued is None:
                        issued = lengths(digits[start : start + MIN_DIGITS])
                    if (
                        count in issued
                        and luhn_valid(digits[start : start + count])
                        and (not self.has_stops or self._may_be_card(first, last, low, high))
                        and not self._is_hex(first, last)
                    ):
                        yield first, last + 1, digits[start : start + count]
                if grouped and count - (places[last] - start) < least:
                    if not whole:
                        break
                    grouped = False
                least = _LEAST_INNER

    def _may_be_card(self, first: int, last: int, low: int, high: int) -> bool:
        """Whether full stops in and before the window are no decimal points."""
        if first < last:
            inside = [self._between(at) for at in range(first, last)]
            return "." not in "".join(inside) or (len(inside) > 1 and set(inside) == {"."})
        is_fraction = first > low and self._between(first - 1) == "."
        return (
            not is_fraction
            or (first - 1 > low and self._between(first - 2) == ".")
            or (first + 1 < high and self._between(first) == ".")
        )

    def _is_hex(self, first: int, last: int) -> bool:
        """Whether the window is part of a hexadecimal identifier. Its letters stand beside the run: far from both ends it is none."""
        groups = self.groups
        start, end = groups[first][0], groups[last][1]
        reach = _LONGEST_HEX_WORD if first == last else _LONGEST_HEX_ID
        return (start - groups[0][0] <= reach or groups[-1][1] - end <= reach) and _inside_hex(self.text, start, end)

    def _between(self, at: int) -> str:
        """What separates a group from the next. A full stop alone is told apart from all else: it may be a decimal point."""
        return self.text[self.groups[at][1] : self.groups[at + 1][0]].rstrip(PAD)


def _clusters(windows: Iterator[_Window]) -> Iterator[list[_Window]]:
    """`windows`, ordered by their first group, in lists whose members overlap."""
    cluster: list[_Window] = []
    reach = -1
    for window in windows:
        if cluster and window[0] >= reach:
            yield cluster
            cluster = []
            reach = -1
        cluster.append(window)
        reach = max(reach, window[1])
    if cluster:
        yield cluster
