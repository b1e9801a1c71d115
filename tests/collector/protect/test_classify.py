"""What is a card number, and what only looks like one."""

from __future__ import annotations

import csv
import gzip
import json
import random
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collector.protect.cardnumber import ISSUERS, is_card, issuers, luhn_valid
from collector.protect.classify import find_cards, fold, has_card, may_hold_card, with_digits
from collector.protect.iban import ibans

CARD = "4432801561520454"


def numbers(text: str) -> list[str]:
    return [number for card in find_cards(text) for number in card.numbers]


def with_check_digit(payload: str) -> str:
    return next(payload + digit for digit in "0123456789" if luhn_valid(payload + digit))


@st.composite
def card_numbers(draw: st.DrawFn) -> str:
    """Any number that some issuer of the table issues."""
    _, prefixes, lengths = draw(st.sampled_from(ISSUERS))
    low, _, high = draw(st.sampled_from(prefixes.split())).partition("-")
    prefix = str(draw(st.integers(int(low), int(high or low)))).rjust(len(low), "0")
    low, _, high = draw(st.sampled_from(lengths.split())).partition("-")
    length = draw(st.integers(int(low), int(high or low)))
    body = length - len(prefix) - 1
    return with_check_digit(prefix + draw(st.text("0123456789", min_size=body, max_size=body)))


def with_check_digits(country: str, account: str) -> str:
    number = int("".join(str(int(character, 36)) for character in f"{account}{country}00"))
    return f"{country}{98 - number % 97:02}{account}"


def in_fours(word: str) -> str:
    return " ".join(word[at : at + 4] for at in range(0, len(word), 4))


@st.composite
def iban_texts(draw: st.DrawFn) -> str:
    """Valid IBANs with cards in them, broken ones and cards, beside each other in every way."""
    parts = []
    for _ in range(draw(st.integers(1, 5))):
        card = draw(st.sampled_from([CARD, "4111111111111111", "378282246310005", "4000000000001000"]))
        kind = draw(st.sampled_from(["iban", "spaced", "card", "cut", "digits"]))
        country, length = draw(st.sampled_from([("DE", 22), ("AT", 20), ("FR", 27), ("MT", 31)]))
        iban = with_check_digits(country, card.rjust(length - 4, draw(st.sampled_from("01A"))))
        if draw(st.booleans()):
            iban = with_check_digits(country, card.ljust(length - 4, draw(st.sampled_from("01A"))))
        parts.append(
            {"iban": iban, "spaced": in_fours(iban), "card": card, "cut": in_fours(iban)[:-2], "digits": "4111 11"}[
                kind
            ]
        )
        parts.append(draw(st.sampled_from(["", " ", "-", "%20", ",", "x", r"\u00a0", "\n"])))
    return "".join(parts)


def naive_luhn(digits: str) -> bool:
    total = 0
    for place, digit in enumerate(reversed(digits)):
        doubled = int(digit) * (1 + place % 2)
        total += doubled // 10 + doubled % 10
    return total % 10 == 0


@given(st.text("0123456789", min_size=1, max_size=40))
def test_luhn_is_the_sum_of_digits_of_the_standard(digits: str) -> None:
    assert luhn_valid(digits) == naive_luhn(digits)


@given(card_numbers(), st.integers(0, 18), st.integers(1, 9))
def test_one_changed_digit_is_no_card(number: str, at: int, by: int) -> None:
    assert is_card(number)
    at %= len(number)
    assert not is_card(number[:at] + str((int(number[at]) + by) % 10) + number[at + 1 :])


@pytest.mark.parametrize(
    ("number", "issuer"),
    [
        ("4111111111111111", "visa"),
        ("4222222222222", "visa"),
        ("2221000000000009", "mastercard"),
        ("2720990000000007", "mastercard"),
        ("5555555555554444", "mastercard"),
        ("378282246310005", "american express"),
        ("30569309025904", "diners club"),
        ("6011111111111117", "discover"),
        ("3530111333300000", "jcb"),
        ("62123456789002", "unionpay"),
        ("8141618644273338", "unionpay"),
        ("501800000009", "maestro"),
        ("6799990100000000019", "maestro"),
        ("2200000000000004", "mir"),
        ("5066991111111118", "elo"),
        ("6370950000000005", "hiper"),
        ("6062820524845321", "hipercard"),
        ("9792100000000001", "troy"),
    ],
)
def test_issuers_are_known_by_prefix_and_length(number: str, issuer: str) -> None:
    assert issuer in issuers(number)
    assert numbers(number) == [number]


@pytest.mark.parametrize(
    "number",
    [
        "34343434343434",  # American Express, a digit short
        "41111111111116",  # Visa issues no 14
        "2721000000000004",  # past Mastercard's range
        "1661145504308191630",  # nanoseconds
        "4111111111111112",  # fails Luhn
        "41111111111111110000",  # twenty digits
        "00000000000000000000",
        "0000000000000000",
    ],
)
def test_other_numbers_are_no_cards(number: str) -> None:
    assert numbers(number) == []


@pytest.mark.parametrize(
    "text",
    [
        "4432-8015-6152-0454",
        "4432 8015-6152_0454",
        "4432 - 8015 - 6152 - 0454",
        "4432.8015.6152.0454",
        "4432+8015+6152+0454",
        "44328015 61520454",
        "4432 801561 520454",
        "4432\u20668015\u20696152\ufe0f0454",
        "4432\u061c8015\u034f6152\ufffd0454",
        "4432%E2%88%928015%EF%BC%8D6152%C2%B70454",
        "4432%E2%81%A08015%E3%80%806152%A00454",
        r"4432\xe2\x88\x928015\xef\xbb\xbf6152\u20690454",
        "4432 \uf8ff8015 \uf8ff6152 \uf8ff0454",
        "4 4 3 2 8 0 1 5 6 1 5 2 0 4 5 4",
        "44-32-80-15-61-52-04-54",
        "4432\u00a08015\u202f6152\u20110454",
        "4432\u20138015\u2212\u200b6152\u200b0454",
        "４４３２８０１５６１５２０４５４",
        "٤٤٣٢٨٠١٥٦١٥٢٠٤٥٤",
        "4\x004\x003\x002\x008\x000\x001\x005\x006\x001\x005\x002\x000\x004\x005\x004\x00",
        r"4432\u00a08015\\u20136152\\\u20110454",
        "4432%208015%2D6152%C2%A00454",
        "4432&nbsp;8015&#160;6152&nbsp;0454",
        "%204432801561520454%20",
        r"\u003d4432801561520454\u0026",
        "card%3D4432801561520454",
        r"{\x22card\x22:\x224432801561520454\x22}",  # nginx's default escaping
        r"\x224432-8015-6152-0454\x22",
        r"4432\x208015\\x206152\xC2\xA00454",
        r"4432\xe2\x80\x938015\xa06152\0400454",
        r"\0424432801561520454\042",
        r"\04432801561520454\0",  # `\044` is a dollar sign, `\0` ends a text: both can be meant
        r"\\x00" + CARD,
        f"card{CARD}",
        f"cc{CARD}",
        f"{CARD}abc",
        f"_{CARD}_",
        f"+{CARD}",
        f"{CARD}.0",
        f"{CARD}D25121011234567890F",  # track 2 of the magnetic stripe
        f"a deed{CARD}.",
        f"12 {CARD} 2039",
        "12 4432 8015 6152 0454 01/39",
        f"1.2.3.{CARD}",
        f"123\n{CARD}\n456",
    ],
)
def test_card_is_found_however_it_is_written(text: str) -> None:
    assert numbers(text) == [CARD]
    encoded = text.encode()
    assert may_hold_card(encoded, fold(encoded))


@pytest.mark.parametrize(
    "text",
    [
        f"0.{CARD}",  # a fraction
        f"[0.25,3.{CARD},1]",
        "4.432801561520454",
        f"4{CARD}",
        f"{CARD}0",
        f"{CARD[:8]}\n{CARD[8:]}",
        f"{CARD[:8]},{CARD[8:]}",
        f"{CARD[:8]}:{CARD[8:]}",
        "44 3280 1561 52 0454 7",  # grouped like no card, and not alone
        "12345678-4432-8015-6152-0454aaaaaaaa",
        f"4bf92f3577b34da6a3ce{CARD[4:]}045a",
        f"00-4bf92f3577b34da6a3ce929d0e0e4736-{CARD}-01",
        "SpanID: e71b599400227808",
        "SpanID: 65b4568430199812",
        "550e8400-e29b-41d4-a716-501800000009",
        "2022-08-22T05:18:24.308191630Z",
        "5412.75 5712.75 1234.56",
        "1661145504308191630 1661145504308191638",
    ],
)
def test_what_is_no_card_is_left_alone(text: str) -> None:
    assert numbers(text) == []


def test_digits_that_read_as_two_numbers_are_one_find_with_both() -> None:
    tail = next(f"{cvv:03}" for cvv in range(1000) if luhn_valid(CARD + f"{cvv:03}"))
    (card,) = find_cards(f"4432 8015 6152 0454 {tail}")
    assert card.numbers == (CARD, CARD + tail)
    assert len(card.digits_at) == 19


def test_neighbouring_cards_are_all_found() -> None:
    text = "4000 0000 0000 1000 4012 8888 8888 1881.5105105105105100"
    assert numbers(text) == ["4000000000001000", "4012888888881881", "5105105105105100"]


@given(st.text(st.sampled_from("0123456789 -.aF\\ux%20\u00a0４\x00"), max_size=60))
def test_finds_are_ordered_apart_and_true(text: str) -> None:
    done = -1
    for card in find_cards(text):
        assert done < card.start < card.end <= len(text)
        assert all(is_card(number) for number in card.numbers)
        assert all(text[at].isdecimal() for at in card.digits_at)
        done = card.end - 1
    assert has_card(text) == bool(find_cards(with_digits(text)))
    encoded = text.encode()
    if find_cards(text):
        assert may_hold_card(encoded, fold(encoded))


@pytest.mark.parametrize(
    "piece",
    ["1", "1 ", "\\", "\\u00a04", "\\x204", "\\xc2", "\\04", "%20", "&#160;1", "４ ", "4\u00a0", "4111 ", "4111111111111111 ", "a4111111111111111",
     "4111111111111111.", "0.4111111111111111 ", "a1b2c3d4", "4 111 111 ", "58 ", "1" + " " * 50, "4-4.4_",
     "AT614111111111111111 ", "AT61 ", "AT524432801561520454 ", "AT52 4432 8015 6152 0454 "],
)  # fmt: skip
def test_time_is_linear_in_the_text(piece: str) -> None:
    def seconds(length: int) -> float:
        text = (piece * (length // len(piece) + 1))[:length]
        started = time.process_time()
        find_cards(text)
        return time.process_time() - started

    small, large = seconds(1 << 15), seconds(1 << 20)
    # 32 times the text; a busy machine's caches make it up to 70 times as long. A quadratic search takes 1,024 times.
    assert large < 128 * max(small, 0.02)


def calls(function: Callable[[str], object], text: str) -> int:
    """How much work it is, on every machine the same."""
    count = 0

    def see(_: FrameType, event: str, __: object) -> None:
        nonlocal count
        count += event in {"call", "c_call"}

    sys.setprofile(see)
    try:
        function(text)
    finally:
        sys.setprofile(None)
    return count


@pytest.mark.parametrize("group", ["4002-", "4002.", "４００２ "])
def test_digits_that_read_as_a_card_at_every_place_cost_little_each(group: str) -> None:
    # four of these groups are a Visa number, wherever one begins: a mebibyte of them is a few kilobytes of gzip, and kept everybody waiting
    text = group * 2_000
    assert len(find_cards(text)) == 1
    assert calls(find_cards, text) < 40 * 2_000
    assert calls(has_card, text) < 5 * 2_000  # the first is enough


def test_braintree_numbers_by_brand(data_dir: Path) -> None:
    known = json.loads((data_dir / "pii" / "braintree_pan_by_brand.json").read_text())
    assert len(known) == 63
    short = {"34343434343434"}  # an American Express prefix on 14 digits: a test of prefixes, no card number
    for entry in known:
        number = entry["number"]
        assert bool(issuers(number)) == (number not in short), number
        assert numbers(number) == ([number] if entry["luhn"] and number not in short else []), number


def test_presidio_sentences(data_dir: Path) -> None:
    sentences = json.loads((data_dir / "pii" / "presidio_research_generated_large.json").read_text())
    found, missed, false = 0, [], []
    for sentence in sentences:
        text = sentence["full_text"]
        cards = {
            (span["start_position"], span["end_position"])
            for span in sentence["spans"]
            if span["entity_type"] == "CREDIT_CARD"
        }
        finds = {(card.start, card.end) for card in find_cards(text)}
        found += len(cards & finds)
        missed += [text[slice(*span)] for span in cards - finds]
        false += [text[slice(*span)] for span in finds - cards]
    assert (found, missed) == (212, [])
    assert false == ["62928788557186"]  # a driver's licence that is a UnionPay number by every rule


def test_sparkov_cards_of_six_lengths(data_dir: Path) -> None:
    with (data_dir / "txn" / "sparkov" / "customers.csv").open(newline="") as file:
        rows = list(csv.DictReader(file, delimiter="|"))
    cards = {row["cc_num"] for row in rows}
    assert {len(card) for card in cards} == {12, 13, 14, 15, 16, 19}
    assert [card for card in cards if numbers(card) != [card]] == []
    assert [row["acct_num"] for row in rows if numbers("|".join(row.values())) != [row["cc_num"]]] == []


@pytest.mark.parametrize(
    ("written", "of_thousand"),
    [
        ("+49151{:08}", 100),
        ("+49 1512 3{:06}", 100),
        ("+4917612{:06}", 100),
        ("+49171{:07}", 0),
        ("0151{:08}", 0),
        ("0049151{:08}", 0),
        ("+49 (0)151 {:08}", 0),
        ("+62812{:09}", 100),
        ("+62812{:08}", 0),
        ("63871234{:010}", 100),
        ("1700000000{:06}", 0),
    ],
)
def test_how_many_numbers_of_other_kinds_are_masked_as_the_threat_model_says(written: str, of_thousand: int) -> None:
    assert sum(bool(numbers(written.format(at))) for at in range(1_000)) == of_thousand


@pytest.mark.parametrize("name", ["trainticket", "onlineboutique"])
def test_no_nanosecond_stamp_is_a_card(data_dir: Path, name: str) -> None:
    luhn, stamps = 0, 0
    for path in sorted((data_dir / name).rglob("*.csv.gz")):
        with gzip.open(path, "rt", encoding="utf-8", errors="replace", newline="") as file:
            reader = csv.DictReader(file)
            columns = [column for column in reader.fieldnames or () if column.endswith("TimeUnixNano")]
            for row in reader if columns else ():
                for column in columns:
                    stamp = row[column]
                    stamps += 1
                    luhn += luhn_valid(stamp.lstrip("-"))
                    assert find_cards(stamp) == [], stamp
    assert stamps > 400_000
    assert 0.09 < luhn / stamps < 0.11  # so Luhn alone would have masked every tenth


def test_random_trace_and_span_ids_are_no_cards() -> None:
    chance = random.Random(20240101)
    ids = [f"{chance.getrandbits(128):032x}" for _ in range(100_000)]
    assert [word for word in ids if find_cards(word)] == []
    ids = [f"{chance.getrandbits(64):016x}" for _ in range(100_000)]
    mixed = [word for word in ids if not word.strip("abcdef").isdecimal()]
    assert len(mixed) > 99_000
    assert [word for word in mixed if find_cards(word)] == []


def test_what_is_part_of_a_valid_iban_is_no_card() -> None:
    iban = with_check_digits("DE", f"0A{CARD}")
    for text in (iban, in_fours(iban), f"from {in_fours(iban)} 500 EUR to", f"({iban})", f'{{"iban":"{iban}"}}'):
        assert numbers(text) == []
    for text in (
        f"{iban[:2]}{(int(iban[2:4]) + 1) % 97:02}0A{CARD}",
        f"de{iban[2:]}",
        f"{iban}x",
        f"x{iban}",
        f"DE {iban[2:]}",
    ):
        assert numbers(text) == [CARD]
    assert numbers(f"{in_fours(iban)} 4111 1111 1111 1111") == ["4111111111111111"]


def test_a_number_of_an_iban_that_stands_elsewhere_as_a_card_is_found_in_both_places() -> None:
    iban = with_check_digits("DE", f"0A{CARD}")
    assert numbers(f"{iban} {CARD}") == [CARD, CARD]
    assert numbers(f"{iban}, {in_fours(iban)}") == []


@given(iban_texts())
def test_only_whole_ibans_are_left_in_clear(text: str) -> None:
    found = find_cards(text)
    assert has_card(text) == bool(find_cards(with_digits(text)))
    spans = list(ibans(text))
    rest = text
    for card in reversed(found):
        rest = f"{rest[: card.start]}[*]{rest[card.end :]}"
    assert find_cards(rest) == []  # what is left is the same when it is looked at again
    for start, end in reversed(spans):
        text = f"{text[:start]}{'I' * (end - start)}{text[end:]}"
    assert {number for card in find_cards(text) for number in card.numbers} <= {
        n for card in found for n in card.numbers
    }


@pytest.mark.parametrize("between", ["%20", r"\x20", r"\u00a0", "&nbsp;", "%C2%A0"])
def test_a_number_behind_an_escape_is_found_whatever_stands_before_it(between: str) -> None:
    text = f"5630 9412 4691 5732{between}4111 1111 1111 1111{between}4111111111111111"
    assert [card.numbers[0] for card in find_cards(text)] == ["5630941246915732", *2 * ["4111111111111111"]]
