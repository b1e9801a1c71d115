"""Masks in place of what may not be written."""

from __future__ import annotations

import csv
import gzip
import hmac
import json
import random
import re
import time
import tracemalloc
from pathlib import Path
from typing import Any

import msgpack
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from collector.protect import ProtectError, Protector
from collector.protect.cardnumber import is_card, luhn_valid
from collector.protect.classify import find_cards
from collector.protect.fields import Action, Fields
from collector.protect.redact import MAX_DEPTH, MAX_PATH

CARD = "4432801561520454"
PROTECTOR = Protector(token_key=bytes(range(32)))
TOKEN = PROTECTOR.token(CARD)
ISSUED = [("4", 16), ("4", 13), ("4", 19), ("51", 16), ("2221", 16), ("37", 15), ("36", 14), ("6011", 16), ("3528", 16),
          ("62", 18), ("5018", 12), ("6759", 19), ("2200", 16), ("0604", 12)]  # fmt: skip

SEPARATORS = ["", "-", " ", "\u00a0", " - ", "\u2013", "_"]


@st.composite
def cards(draw: st.DrawFn) -> str:
    prefix, length = draw(st.sampled_from(ISSUED))
    body = prefix + draw(st.text("0123456789", min_size=length - len(prefix) - 1, max_size=length - len(prefix) - 1))
    return next(body + digit for digit in "0123456789" if luhn_valid(body + digit))


@st.composite
def written_cards(draw: st.DrawFn) -> str:
    """A card number cut into groups of four with separators of any kinds between."""
    number = draw(cards())
    groups = [number[at : at + 4] for at in range(0, len(number), 4)]
    return "".join(group + draw(st.sampled_from(SEPARATORS)) for group in groups[:-1]) + groups[-1]


PROSE = st.text(st.characters(exclude_categories=["Cs", "Nd"], exclude_characters=".-_+%&\\"), max_size=12)
TEXTS = st.one_of(
    st.text(max_size=20),
    st.builds(lambda before, card, after: f"{before}|{card}|{after}", PROSE, written_cards(), PROSE),
    st.builds(lambda card: json.dumps({"n": json.dumps({"card": int(card), "text": card})}), cards()),
    st.sampled_from(["password=hunter2", '{"cvv":672}', r"\x22cvv\x22:\x22672\x22", "Bearer abc", "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.c2ln", "\\u00a0"]),
)  # fmt: skip
KEYS = st.one_of(
    st.text(max_size=8), written_cards(), st.sampled_from(["cvv", "password", "trace_id", "span_id", "a.b"])
)
DOCUMENTS = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(-(2**63), 2**64 - 1), cards().map(int), cards().map(float),
        st.floats(allow_nan=False, allow_infinity=False), TEXTS,
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(KEYS, inner, max_size=4)),
    max_leaves=12,
)  # fmt: skip


def cards_left(value: Any) -> list[str]:
    """Every card number still in `value`, by a walk of its own."""
    if isinstance(value, dict):
        ids = {"span_id", "parent_span_id"}
        return [
            number
            for key, inner in value.items()
            for number in cards_left(key) + ([] if key in ids else cards_left(inner))
        ]
    if isinstance(value, list):
        return [number for inner in value for number in cards_left(inner)]
    if isinstance(value, bool) or value is None:
        return []
    if isinstance(value, int):
        return [str(value)] if value > 0 and is_card(str(value)) else []
    if isinstance(value, float):
        exact = 0 < value < 1e16 and value.is_integer()
        return [str(int(value))] if exact and is_card(str(int(value))) else []
    return [number for card in find_cards(value) for number in card.numbers]


@given(DOCUMENTS)
def test_no_card_survives_and_what_is_protected_stays(document: Any) -> None:
    before = msgspec.json.encode(document) if encodable(document) else None
    protected, marks = PROTECTOR.protect(document)
    assert cards_left(protected) == []
    assert PROTECTOR.protect(protected)[0] == protected
    assert (protected is document) == (not marks)
    if before is not None:
        assert msgspec.json.encode(document) == before  # nothing was changed in place
        if not PROTECTOR.needs_walk(before):
            assert protected is document


def encodable(document: Any) -> bool:
    try:
        msgspec.json.encode(document)
    except (UnicodeEncodeError, msgspec.MsgspecError, ValueError):
        return False  # lone surrogates: the encoder's caller replaces them
    return True


@given(st.text())
def test_text_without_finds_keeps_every_byte(text: str) -> None:
    masked = PROTECTOR.text(text)
    if not find_cards(text) and "=" not in text and ":" not in text:
        assert masked == text
    assert PROTECTOR.text(masked) == masked


@given(st.binary(), cards(), st.binary())
def test_no_card_survives_in_any_bytes(before: bytes, card: str, after: bytes) -> None:
    data = before + b"|" + card.encode() + b"|" + after
    masked = PROTECTOR.raw(data)
    assert card.encode() not in masked
    assert find_cards(masked.decode("utf-8", "surrogateescape")) == []


@given(st.binary())
def test_bytes_without_finds_keep(data: bytes) -> None:
    masked = PROTECTOR.raw(data)
    assert masked == data or b"[" in masked or b"***" in masked


@given(cards(), st.data())
def test_token_joins_however_the_number_is_written(card: str, data: st.DataObject) -> None:
    written = "".join(digit + data.draw(st.sampled_from(SEPARATORS)) for digit in card[:-1]) + card[-1]
    token = PROTECTOR.token(card)
    assert re.fullmatch(r"card:[a-p]{20}", token)
    assert PROTECTOR.token(written) == token
    assert PROTECTOR.token(f" {card}\n") == token
    assert token in PROTECTOR.text(f"paid with {written}.")
    if not card.startswith("0"):  # a number in JSON has no leading zero
        assert token in PROTECTOR.protect({"n": int(card)})[0]["n"]


def test_token_is_an_hmac_of_the_bare_digits() -> None:
    digest = hmac.digest(bytes(range(32)), b"tallystick/card/v1\n" + CARD.encode(), "sha256")
    letters = "".join(chr(ord("a") + (byte >> 4)) + chr(ord("a") + (byte & 15)) for byte in digest[:10])
    assert PROTECTOR.token("4432-8015-6152-0454") == f"card:{letters}"
    assert Protector(token_key=bytes(32)).token(CARD) != TOKEN


@pytest.mark.parametrize(
    "key", ["ORD-20230130-0001", "550e8400-e29b-41d4-a716-446655440000", "", "1661145504308191630"]
)
def test_other_business_keys_stay(key: str) -> None:
    assert PROTECTOR.token(key) == key


def test_business_key_with_a_card_inside_is_masked() -> None:
    assert PROTECTOR.token(f"{CARD}/7") == f"[443280******0454~{TOKEN}]/7"


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("card 4432-8015-6152-0454, ok", "card [4432-80**-****-0454~{}], ok"),
        (f"?card={CARD}&x=1", "?card=[443280******0454~{}]&x=1"),
        (f'{{\\"n\\":{CARD},\\"m\\":1}}', '{{\\"n\\":\\"[443280******0454~{}]\\",\\"m\\":1}}'),
        (rf"{{\x22n\x22:{CARD},\x22m\x22:1}}", r"{{\x22n\x22:\x22[443280******0454~{}]\x22,\x22m\x22:1}}"),
        ("4432 8015\u00a06152 0454", "[4432 80**\u00a0**** 0454~{}]"),
    ],
)
def test_card_is_masked_in_place(text: str, masked: str) -> None:
    assert PROTECTOR.text(text) == masked.format(TOKEN)


@pytest.mark.parametrize("zero", ["\uff10", "\u06f0", "\u0966"])
def test_digits_past_ascii_are_found_as_escapes_too(zero: str) -> None:
    wide = CARD.translate({ord("0") + at: ord(zero) + at for at in range(10)})
    text = json.dumps({"note": "caf\u00e9", "n": json.dumps({"card": f"to {wide}", "x": 1})})
    assert PROTECTOR.needs_walk(msgspec.json.encode({"body": text}))
    masked = PROTECTOR.text(text)
    assert PROTECTOR.text(masked) == masked
    inner = json.loads(json.loads(masked)["n"])
    assert inner == {"card": f"to [{wide[:6]}******{wide[-4:]}~{TOKEN}]", "x": 1}
    other = json.dumps({"n": wide[:-1] + zero})
    assert PROTECTOR.text(other) == other


@pytest.mark.parametrize(("number", "shown"), [("501800000009", "501*****0009"), ("4222222222222", "4222*****2222"),
                                               ("30569309025904", "30569*****5904"), ("378282246310005", "378282*****0005")])  # fmt: skip
def test_short_numbers_hide_five_digits(number: str, shown: str) -> None:
    assert PROTECTOR.text(number).startswith(f"[{shown}~card:")


def test_two_readings_show_no_digit_and_join_by_both() -> None:
    tail = next(f"{cvv:03}" for cvv in range(1000) if luhn_valid(CARD + f"{cvv:03}"))
    masked = PROTECTOR.text(f"4432 8015 6152 0454 {tail}")
    assert not any(character.isdigit() for character in masked)
    assert TOKEN in masked
    assert PROTECTOR.token(CARD + tail) in masked
    assert PROTECTOR.text(masked) == masked


def test_numbers_and_keys_are_masked_at_any_depth() -> None:
    document: Any = {"n": int(CARD), "f": float(CARD), "m": {CARD: "x"}, "t": 1661145504308191630, "neg": -int(CARD)}
    for _ in range(MAX_DEPTH - 3):
        document = [document]
    protected, marks = PROTECTOR.protect({"body": document})
    inner = protected["body"]
    while isinstance(inner, list):
        inner = inner[0]
    mask = f"[443280******0454~{TOKEN}]"
    assert inner == {"n": mask, "f": mask, "m": {mask: "x"}, "t": 1661145504308191630, "neg": -int(CARD)}
    assert marks == ("card:body.f", "card:body.m", "card:body.n")


@pytest.mark.parametrize(
    ("field", "value", "exempt"),
    [
        ("span_id", CARD, True),
        ("parent_span_id", CARD, True),
        ("trace_id", "0000" + CARD + "000000000000", True),
        ("trace_id", CARD, False),  # no trace id has that shape
        ("span_id", f"{CARD} ", False),
        ("span_id", int(CARD), False),
        ("spanId", CARD, False),
    ],
)
def test_only_hex_shaped_trace_and_span_fields_are_exempt(field: str, value: object, exempt: bool) -> None:
    protected, _ = PROTECTOR.protect({field: value})
    assert (protected == {field: value}) == exempt


def test_declared_fields() -> None:
    protector = Protector(
        token_key=bytes(32),
        masked_fields=("*.pin", "session-id", "attributes.owner"),
        dropped_fields=("body.*.face", "draft"),
    )
    event = {
        "attributes": {"owner": "Ann", "http.request.header.session_id": "s", "SessionId": None, "password": "kept"},
        "body": {"owner": "kept", "users": [{"face": b"\x00", "pin": 1234, "shipping": "kept"}], "face": "kept"},
        "draft": {"pin": 1},
    }
    assert protector.needs_walk(msgspec.json.encode(event))
    protected, marks = protector.protect(event)
    assert protected == {
        "attributes": {"owner": "***", "http.request.header.session_id": "***", "SessionId": None, "password": "kept"},
        "body": {"owner": "kept", "users": [{"pin": "***", "shipping": "kept"}], "face": "kept"},
    }
    assert marks == (
        "dropped:body.users.face",
        "dropped:draft",
        "field:attributes.http.request.header.session_id",
        "field:attributes.owner",
        "field:body.users.pin",
    )
    assert protector.protect("Ann", path="attributes.owner") == ("Ann", ())  # a name is matched where its key stands
    assert protector.text("session_id: abc; draft=1 pin=2") == "session_id: ***; draft=*** pin=2"
    assert protector.text(r"{\x22draft\x22:\x22abc\x22}") == r"{\x22draft\x22:\x22***\x22}"


@pytest.mark.parametrize("pattern", ["", "*", "**", ".", "*.*", "-_"])
def test_pattern_that_names_no_field_is_refused(pattern: str) -> None:
    with pytest.raises(ValueError, match="names no field"):
        Protector(token_key=bytes(32), masked_fields=(pattern,))


def test_pattern_without_a_name_to_search_for_always_walks() -> None:
    assert Protector(token_key=bytes(32), masked_fields=("attributes.*",)).needs_walk(b"{}")
    assert not Protector(token_key=bytes(32), masked_fields=(), dropped_fields=()).needs_walk(b'{"password":1}')


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("password=hunter2&user=ann", "password=***&user=ann"),
        ("User(userPassword=hunter2, name=ann)", "User(userPassword=***, name=ann)"),
        ("Authorization: Bearer abc.def, host: h", "Authorization: ***, host: h"),
        ("proxy-authorization=Basic QWxh", "proxy-authorization=***"),
        ("Set-Cookie: a=b; Path=/\nHost: h", "Set-Cookie: ***\nHost: h"),
        ('{"api_key":"a\\"b","x":1}', '{"api_key":"***","x":1}'),
        ('{\\"cvv\\":672,\\"x\\":1}', '{\\"cvv\\":\\"***\\",\\"x\\":1}'),
        ('{\\\\\\"card_cvc2\\\\\\": \\\\\\"672\\\\\\"}', '{\\\\\\"card_cvc2\\\\\\": \\\\\\"***\\\\\\"}'),
        ("{'clientSecret': 'it\"s', 'x': 1}", "{'clientSecret': '***', 'x': 1}"),
        (r"{\x22password\x22:\x22a\x5C\x22b\x22,\x22x\x22:1}", r"{\x22password\x22:\x22***\x22,\x22x\x22:1}"),
        (r"{\x22cvv\x22: 672,\x22x\x22:1}", r"{\x22cvv\x22: \x22***\x22,\x22x\x22:1}"),
        (r"{\u0022api_key\u0022:\u0022abc\u0022}", r"{\u0022api_key\u0022:\u0022***\u0022}"),
        (":secret => 'x'", ":secret => '***'"),
        ('"refresh_token":"cut off', '"refresh_token":"***'),
        ('"cvv":null,"password":"","secret":{"a":1}', '"cvv":null,"password":"","secret":{"a":1}'),
        ("the password is right; no cookie for you", "the password is right; no cookie for you"),
        ("http://h/eyJ.eyJ", "http://h/eyJ.eyJ"),
    ],
)
def test_declared_names_inside_texts(text: str, masked: str) -> None:
    assert PROTECTOR.text(text) == masked
    assert PROTECTOR.text(masked) == masked
    assert PROTECTOR.needs_walk(msgspec.json.encode({"body": text})) or text == masked


@pytest.mark.parametrize(
    ("pattern", "text", "masked"),
    [
        ("iban*", "iban_of_ann=DE02 x; myiban=DE03", "iban_of_ann=*** x; myiban=DE03"),
        ("card*holder", '{"Card-x_Holder": "Ann"} cardholder: Bob', '{"Card-x_Holder": "***"} cardholder: ***'),
        ("*iban*", "my_iban_no=DE02", "my_iban_no=***"),
        ("a*b*c", "a1b1c=1", "a1b1c=1"),
    ],
)
def test_stars_of_declared_names_inside_texts(pattern: str, text: str, masked: str) -> None:
    assert Protector(token_key=bytes(32), masked_fields=(pattern,)).text(text) == masked


def test_card_in_a_declared_field_of_a_text_goes_with_it() -> None:
    assert PROTECTOR.text("password=4432 8015 6152 0454") == "password=***"


def test_json_web_tokens_join_and_say_nothing() -> None:
    jwt = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9PlFUP0THsR8U"
    (first,) = re.findall(r"\[jwt:[a-p]{20}\]", PROTECTOR.text(f"USER TOKEN: {jwt} USER ID"))
    assert PROTECTOR.text(f"Bearer%20{jwt}") == f"Bearer%20{first}"
    assert PROTECTOR.text(jwt.rpartition(".")[0]) != first
    protected, marks = PROTECTOR.protect({"body": jwt})
    assert (protected, marks) == ({"body": first}, ("jwt:body",))
    assert PROTECTOR.needs_walk(msgspec.json.encode({"body": jwt}))


@pytest.mark.parametrize("value", [{1: "a"}, {"a": object()}, (1, 2), {"a": {b"k": 1}}, [1j], {"a": {1, 2}}])
def test_what_cannot_be_checked_is_refused(value: Any) -> None:
    with pytest.raises(ProtectError):
        PROTECTOR.protect(value)


def test_depth_is_limited() -> None:
    document: Any = CARD
    for _ in range(MAX_DEPTH + 1):
        document = [document]
    with pytest.raises(ProtectError, match="more than 128 levels deep"):
        PROTECTOR.protect(document)
    assert PROTECTOR.protect(document[0])[1] == ("card:",)


def test_error_never_holds_the_content() -> None:
    class Breaks(str):
        __slots__ = ()

    with pytest.raises(ProtectError) as refused:
        PROTECTOR.protect({"a": Breaks(CARD)})
    assert CARD not in str(refused.value)
    assert refused.value.__cause__ is None


def test_short_token_key_is_refused() -> None:
    with pytest.raises(ValueError, match="31 bytes"):
        Protector(token_key=bytes(31))


@pytest.mark.parametrize(
    "data",
    [
        f"\xff{CARD}\xfe".encode("latin-1"),
        "4432\u00a08015\u20136152 0454".encode() + b"\xc3",
        "4432\u00a08015\u00a06152\u00ad0454".encode("latin-1"),
        f"to {CARD} and 12 {CARD[:-1]}1".encode("utf-16-le"),
        f"pay {CARD} 12".encode("utf-16-be"),
        b"\xff\xfe" + CARD.encode("utf-16-le"),
        msgpack.packb(["tag", 1661145504, {"card": int(CARD)}]) + b"\xc1",
        msgpack.packb({"card": float(CARD), "x": b"\xff" * 20}),
    ],
)
def test_undecodable_bytes_are_masked(data: bytes) -> None:
    masked = PROTECTOR.raw(data)
    squeezed = masked.replace(b"\x00", b"")
    assert b"0454~" in squeezed
    assert TOKEN.encode() in squeezed
    assert CARD.encode() not in squeezed
    assert int(CARD).to_bytes(8, "big") not in masked
    assert PROTECTOR.raw(masked) == masked
    assert PROTECTOR.protect({"body": data})[0] == {"body": masked}


@pytest.mark.parametrize("piece", ['password="', 'password\\x22:\\x22', 'password=\\"', "passwordpassword", "cookie: a;", ".eyJ", "eyJ", "eyJaaaa.eyJaaaa",
                                   "4111111111111111,", '\\\\"cvv\\\\":1,', "authorization: bearer "])  # fmt: skip
def test_time_is_linear_in_the_text(piece: str) -> None:
    def seconds(length: int) -> float:
        text = (piece * (length // len(piece) + 1))[:length]
        started = time.process_time()
        PROTECTOR.text(text)
        return time.process_time() - started

    small, large = seconds(1 << 15), seconds(1 << 20)
    assert large < 128 * max(small, 0.02)  # as for cards: 32 times the text, and a quadratic search takes 1,024 times


def test_many_keys_from_outside_are_not_remembered_without_bound() -> None:
    protector = Protector(token_key=bytes(32))
    for at in range(3000):
        protector.protect({f"k{at}": {"x": 1}, "y": {f"z{at}": 1}})
    assert len(protector._known) <= 1024
    assert all(len(known) <= 1024 for known in protector._known.values())


def test_keys_that_may_be_personal_are_not_remembered() -> None:
    protector = Protector(token_key=bytes(32))
    for _ in range(2):
        _, marks = protector.protect({CARD: {"a": 1}, "acct 12345678": {"a": 1}, "plain": {"a": 1}})
        assert marks == ("card:",)
    assert "plain" in protector._known[""]
    remembered = [*protector._known, *(key for known in protector._known.values() for key in known)]
    assert not any(re.search(r"\d{8}", key) for key in remembered)


@pytest.mark.parametrize("name", ["." * 60_000, ".password" * 6_000, "a" * 60_000])
def test_time_is_linear_in_a_name(name: str) -> None:
    protector = Protector(
        token_key=bytes(32), masked_fields=("*password", "pin", "body.*.owner", "iban*", "card*holder")
    )
    started = time.process_time()
    protected, marks = protector.protect({"body": {name: "x", f"{name}.pin": "y"}})
    assert (
        time.process_time() - started < 0.5
    )  # a hundredth of it is enough; a search for each full stop takes many seconds
    assert protected["body"][f"{name}.pin"] == "***"
    assert len(marks) == 1 + ("password" in name)


def test_what_stands_under_a_path_too_long_is_refused() -> None:
    # each of its fields would be looked at with the whole path
    inside = {"a": CARD}
    assert PROTECTOR.protect({"b" * MAX_PATH: inside})[1] == (f"card:{'b' * MAX_PATH}.a",)
    with pytest.raises(ProtectError, match="a path of 1025 characters"):
        PROTECTOR.protect({"b" * (MAX_PATH + 1): inside})
    assert PROTECTOR.protect({"b" * 100_000: CARD})[1] == (f"card:{'b' * 100_000}",)


@pytest.mark.parametrize(
    ("pattern", "path", "holds"),
    [
        ("iban*", "body.iban_of.owner", True),
        ("iban*", "body.my_iban", False),
        ("card*holder", "body.Card.x.holder", True),
        ("card*holder", "card_holder", True),
        ("card*holder", "my_card.holder", False),
        ("body.*.owner", "body.owner", False),
        ("body.*.owner", "body..owner", True),
        ("body.*.owner", "a.body.x.owner", False),
        ("*.pin", "pin", False),
        ("*ab*ba", "aba", False),
        ("*ab*ba", "xabba", True),
        ("session", "attributes.session", True),
        ("session", "attributes.session.id", False),
        ("attributes.session", "body.attributes.session", False),
    ],
)
def test_patterns_match_paths(pattern: str, path: str, holds: bool) -> None:
    assert (Fields(masked=(pattern,), dropped=()).action(path) is Action.MASK) is holds
    assert (Fields(masked=(), dropped=(pattern,)).action(path) is Action.DROP) is holds


def test_random_documents_of_hex_ids_and_stamps_are_untouched() -> None:
    chance = random.Random(7)
    for _ in range(2000):
        event = {
            "time": "2022-08-22T05:18:24.308191630Z",
            "time_unix_nano": 1661145504308191630 + chance.getrandbits(30),
            "trace_id": f"{chance.getrandbits(128):032x}",
            "span_id": f"{chance.randrange(10**16):016d}",
            "ratio": chance.random(),
        }
        assert PROTECTOR.protect(event) == (event, ())


def read_rows(folder: Path) -> list[dict[str, str]]:
    rows = []
    for path in sorted(folder.glob("*.csv.gz")):
        with gzip.open(path, "rt", encoding="utf-8", newline="") as file:
            rows += list(csv.DictReader(file))
    return rows


def test_onlineboutique_payments_are_masked_and_nothing_else(data_dir: Path) -> None:
    masked_rows = []
    for row in read_rows(data_dir / "onlineboutique" / "log"):
        event = {**row, "trace_id": row.pop("TraceID"), "span_id": row.pop("SpanID")}
        protected, marks = PROTECTOR.protect(event)
        if marks:
            masked_rows.append((event, protected, marks))
        else:
            assert protected is event
        assert PROTECTOR.needs_walk(msgspec.json.encode(event)) or not marks
    assert len(masked_rows) == 9
    for event, protected, marks in masked_rows:
        assert "4432-8015-6152-0454" in event["Log"]
        assert marks == ("card:Log", "field:Log")
        assert {key: value for key, value in protected.items() if key != "Log"} == {
            key: value for key, value in event.items() if key != "Log"
        }
        # The JSON inside the JSON inside the JSON is JSON still, and all of it but the secrets is as it was.
        message = json.loads(json.loads(protected["Log"])["log"])["message"]
        request = json.loads(message[message.index("{") :])
        assert request["credit_card"]["credit_card_number"] == f"[4432-80**-****-0454~{TOKEN}]"
        assert request["credit_card"]["credit_card_cvv"] == "***"
        assert request["credit_card"]["credit_card_expiration_month"] == 1
        assert (
            protected["Log"]
            .replace(f"[4432-80**-****-0454~{TOKEN}]", "4432-8015-6152-0454")
            .replace('\\\\\\"***\\\\\\"', "672")
            == event["Log"]
        )


def test_trainticket_loses_its_json_web_tokens_and_nothing_else(data_dir: Path) -> None:
    kinds: dict[tuple[str, ...], int] = {}
    for row in read_rows(data_dir / "trainticket" / "log"):
        event: dict[str, Any] = {
            **row,
            "TimeUnixNano": int(row["TimeUnixNano"]),
            "trace_id": row["TraceID"],
            "span_id": row["SpanID"],
        }
        protected, marks = PROTECTOR.protect(event)
        if marks:
            kinds[marks] = kinds.get(marks, 0) + 1
            assert re.sub(r"\[jwt:[a-p]{20}\]", "", protected["Log"]) == re.sub(
                r"eyJ[\w-]+\.eyJ[\w-]+\.[\w-]+", "", event["Log"]
            )
    assert kinds == {("jwt:Log",): 228}


def test_what_is_remembered_of_senders_keys_is_bounded() -> None:
    """One that sends ever new ones would else fill the memory of a process that is never restarted."""
    protector = Protector(token_key=bytes(32))
    tracemalloc.start()
    try:
        for at in range(50):
            fields = {f"{key} {at}" + "x" * 200: "none" for key in range(1_000)}
            assert protector.protect({f"map {at}": fields})[0] == {f"map {at}": fields}
            del fields
        kept_bytes, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept_bytes < 12 * 1024**2
    masked, marks = protector.protect({"map 0": {"password": "x", "1 0" + "x" * 200: CARD}})
    assert masked["map 0"]["password"] == "***"
    assert CARD not in str(masked)
    assert len(marks) == 2
