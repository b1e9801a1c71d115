"""What is a card number, once its digits are known: an issuer's prefix, a length that it issues, and the Luhn check. Pure."""

from bisect import bisect_right
from functools import cache

__all__ = ["ISSUERS", "MAX_DIGITS", "MIN_DIGITS", "is_card", "issuers", "lengths", "luhn_valid"]

MIN_DIGITS = 12
MAX_DIGITS = 19

ISSUERS: tuple[tuple[str, str, str], ...] = (
    ("visa", "4", "13 16 18 19"),
    ("mastercard", "51-55 2221-2720", "16"),
    ("american express", "34 37", "15"),
    ("diners club", "300-305 3095 36 38-39", "14-19"),
    ("discover", "6011 644-649 65 622126-622925", "16-19"),
    ("jcb", "3528-3589", "16-19"),
    ("jcb", "35", "16"),  # outside 3528-3589 only Faker's test cards
    ("jcb", "1800 2131", "15"),  # withdrawn, yet Faker and older systems still make them
    ("unionpay", "62 81", "14-19"),
    ("maestro", "50 56-58 63 67", "12-19"),
    ("maestro", "0604", "12"),  # only Faker's and other generators' test cards
    ("mir", "2200-2204", "16-19"),
    ("elo", "401178-401179 431274 438935 451416 457393 457631-457632 504175 506699-506778 509000-509999", "16"),
    ("elo", "627780 636297 636368 650031-650033 650035-650051 650405-650439 650485-650538 650541-650598", "16"),
    ("elo", "650700-650718 650720-650727 650901-650978 651652-651679 655000-655019 655021-655058", "16"),
    ("hiper", "637095 63737423 63743358 637568 637599 637609 637612", "16"),
    ("hipercard", "606282", "16"),
    ("rupay", "353 356 508 60 65 81 82", "16"),
    ("troy", "65 9792", "16"),
    ("verve", "506099-506198 507865-507964 650002-650027", "16 18 19"),
    ("interpayment", "636", "16-19"),
    ("instapayment", "637-639", "16"),
    ("switch", "4903 4905 4911 4936 564182 633110 6333 6759", "16 18 19"),
    ("naranja", "589562", "16"),
    ("borica", "2205", "16"),
    ("uzcard", "8600 5614", "16"),
    ("humo", "9860", "16"),
)
"""Issuer, prefixes (or ranges of them) and the lengths they issue.

Sources: the tables "Issuer identification number" of Wikipedia's "Payment card number" and of braintree/credit-card-type
(src/lib/card-types.ts), merged; for Maestro the ranges that Mastercard uses, not all of 6. Where sources disagree the wider
reading stands: a number masked in vain costs less than a card on disk. UATP (15 digits, prefix 1) is left out: it would take
in every other 15-digit identifier that starts with 1.
"""


def luhn_valid(digits: str) -> bool:
    """Whether ASCII `digits` pass the Luhn check (ISO/IEC 7812-1, annex B)."""
    values = digits.encode().translate(_VALUES)
    return (sum(values[-1::-2]) + sum(values[-2::-2].translate(_DOUBLED))) % 10 == 0


_VALUES = bytes(byte - 0x30 if 0x30 <= byte <= 0x39 else 0 for byte in range(256))
_DOUBLED = bytes.maketrans(bytes(range(10)), b"\0\2\4\6\x08\1\3\5\7\x09")  # nine taken off when it has two digits


@cache
def _intervals() -> tuple[list[int], list[dict[str, frozenset[int]]]]:
    """Disjoint intervals of eight-digit prefixes: their lower bounds, and for each the lengths of every issuer in it."""
    ranges: list[tuple[int, int, str, frozenset[int]]] = []  # lowest and highest prefix, issuer, its lengths
    for name, prefixes, lengths in ISSUERS:
        counts: set[int] = set()
        for part in lengths.split():
            low, _, high = part.partition("-")
            counts.update(range(int(low), int(high or low) + 1))
        for part in prefixes.split():
            low, _, high = part.partition("-")
            ranges.append((int(low.ljust(8, "0")), int((high or low).ljust(8, "9")), name, frozenset(counts)))
    bounds = sorted({0} | {low for low, *_ in ranges} | {high + 1 for _, high, *_ in ranges})
    issued: list[dict[str, frozenset[int]]] = []
    for bound in bounds:
        here: dict[str, frozenset[int]] = {}
        for lowest, highest, issuer, issued_lengths in ranges:
            if lowest <= bound <= highest:
                here[issuer] = here.get(issuer, frozenset()) | issued_lengths
        issued.append(here)
    return bounds, issued


@cache
def _lengths() -> tuple[list[int], list[frozenset[int]]]:
    """Of the same intervals their lower bounds, and the lengths that any issuer issues in each."""
    bounds, issued = _intervals()
    return bounds, [frozenset().union(*here.values()) for here in issued]


def issuers(digits: str) -> tuple[str, ...]:
    """The issuers whose prefix ASCII `digits` (eight or more) start with and who issue that length; often none."""
    bounds, issued = _intervals()
    here = issued[bisect_right(bounds, int(digits[:8])) - 1]
    return tuple(name for name, lengths in here.items() if len(digits) in lengths)


def lengths(digits: str) -> frozenset[int]:
    """The lengths of card numbers that start with the first eight of ASCII `digits`; often none."""
    bounds, issued = _lengths()
    return issued[bisect_right(bounds, int(digits[:8])) - 1]


def is_card(digits: str) -> bool:
    """Whether ASCII `digits`, nothing else, are a card number: length, issuer and Luhn."""
    return MIN_DIGITS <= len(digits) <= MAX_DIGITS and len(digits) in lengths(digits) and luhn_valid(digits)
