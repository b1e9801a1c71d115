"""International bank account numbers (ISO 13616), which payments are found by, told apart from the card numbers in them.

One in ten runs of digits passes the Luhn check; mod 97 over the whole, with the country's length, passes by chance in one of
hundreds of thousands. Lengths: the SWIFT IBAN Registry. Pure, and linear.
"""

import re
from collections.abc import Iterator

__all__ = ["ibans"]

_LENGTHS = {
    country: int(length)
    for length, countries in (
        line.split(":")
        for line in """15:NO
16:BE
18:DK FI FK FO GL NL SD
19:MK SI
20:AT BA EE KZ LT LU MN XK
21:CH HR LI LV
22:BG BH CR DE GB GE IE ME RS VA
23:AE GI IL IQ OM SO TL
24:AD CZ ES MD PK RO SA SE SK TN VG
25:LY PT ST
26:IS TR
27:BI DJ FR GR IT MC SM
28:AL AZ BY CY DO GT HN HU LB NI PL SV
29:BR EG PS QA UA
30:JO KW MU YE
31:MT SC
32:LC
33:RU""".splitlines()
    )
    for country in countries.split()
}
"""Country → characters of its IBANs."""

_BEGIN = re.compile(r"(?<![^\W_])[A-Z]{2}[0-9]{2}(?=[ 0-9A-Z])")
_GROUPED = re.compile(r"(?:[0-9A-Z]{4} )+[0-9A-Z]{1,4}")
_WHOLE = re.compile(r"[0-9A-Z]+")


def ibans(text: str) -> Iterator[tuple[int, int]]:
    """Where valid IBANs stand in the text, as offsets of the first character and after the last: unspaced, or in groups of four."""
    for found in _BEGIN.finditer(text):
        start = found.start()
        length = _LENGTHS.get(text[start : start + 2], 0)
        grouped = text[found.end()] == " "
        end = start + length + ((length - 1) // 4 if grouped else 0)
        word = text[start:end]
        if length and (_GROUPED if grouped else _WHOLE).fullmatch(word) and not text[end : end + 1].isalnum():
            word = word.replace(" ", "")
            if len(word) == length and _remainder(word) == 1:
                yield start, end


def _remainder(word: str) -> int:
    """Of ISO 7064, MOD 97-10."""
    return int("".join([str(int(character, 36)) for character in word[4:] + word[:4]])) % 97
