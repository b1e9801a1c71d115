"""Filters: what is read, what is refused and where, and that any text is one or the other."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collector.errors import Malformed
from correlator.index.amounts import AmountRange
from correlator.index.condition import And, Condition, Has, HasAmount, HasKey, HasText, HasTime, Not, Or
from correlator.index.filters import FIELDS, MAX_CONDITIONS, MAX_DEPTH, MAX_FILTER, FilterError, parse_filter
from correlator.index.filtertext import filter_text
from correlator.index.times import zoned
from correlator.index.vocabulary import KINDS, STATUSES
from correlator.index.words import TextSearch
from tests.support.filters import conditions

A, B, C = (Has(field="service", values=(name,)) for name in "abc")


def amount(text: str) -> HasAmount:
    return HasAmount(range=AmountRange.parse(text))


@pytest.mark.parametrize(
    ("text", "condition"),
    [
        ("service = a", A),
        ('SERVICE="a"', A),
        ("service != a", Not(A)),
        ("service in (a, b,a)", Has(field="service", values=("a", "b"))),
        ("service not in(a)", Not(A)),
        ("service=a and service=b or service=c", Or((And((A, B)), C))),
        ("service=a and (service=b or service=c)", And((A, Or((B, C))))),
        ("NOT service=a AND service=b", And((Not(A), B))),
        ("not (service=a or not not service=b)", Not(Or((A, Not(Not(B)))))),
        ("transaction = PAY/1", Has(field="trail", values=("transaction/PAY%2F1",))),
        ("trail = key/order_id/a%2Fb", Has(field="trail", values=("key/order_id/a%2Fb",))),
        ("key.order_id = O-1", HasKey(name="order_id", values=("O-1",))),
        ('key."order id" != "a \\"b\\" \\\\"', Not(HasKey(name="order id", values=('a "b" \\',)))),
        ("key.a.b in (x, y)", HasKey(name="a.b", values=("x", "y"))),
        ('event = "in"', Has(field="event", values=("in",))),
        ("status in (failed, gap)", Has(field="status", values=("failed", "gap"))),
        ("kind = key", Has(field="kind", values=("key",))),
        ("tenant = acme", Has(field="tenant", values=("acme",))),
        ('text ~ "Refund time*"', HasText(text=TextSearch.parse("refund time*"))),
        ("time >= 2026-01-01T01:00:00+01:00", HasTime(than=">=", time="2026-01-01T00:00:00.000000000Z")),
        ('time < "2026-01-01T00:00:00.5z"', HasTime(than="<", time="2026-01-01T00:00:00.500000000Z")),
        ("amount.EUR in 10..20", amount("EUR:10..20")),
        ("amount.eur not in -5..5", Not(amount("EUR:-5..5"))),
        ("amount.EUR = 12.50", amount("EUR:12.5")),
        ("amount.EUR != 12.50", Not(amount("EUR:12.5"))),
        ("amount.EUR >= 10", amount("EUR:10..")),
        ("amount.EUR <= 10", amount("EUR:..10")),
        ("amount.EUR > 10", amount("EUR:10.00000001..")),
        ("amount.EUR < -0.5", amount("EUR:..-0.50000001")),
        ("amount.EUR > 0.99999999", amount("EUR:1..")),
    ],
)
def test_a_filter_is_read(text: str, condition: Condition) -> None:
    assert parse_filter(text) == condition


@pytest.mark.parametrize(
    ("text", "position", "message"),
    [
        ("", 1, "a condition, not, or ( is wanted, not the end"),
        ("service", 8, "=, !=, in, or not in is wanted, not the end"),
        ("service = ", 11, "a value is wanted, not the end"),
        ("service = and", 11, "a value is wanted, not and"),
        ('service = ""', 11, "not empty"),
        ("service ~ a", 9, "=, !=, in, or not in"),
        ("service = a service = b", 13, "and, or, or the end is wanted, not service"),
        ("service = a and", 16, "a condition"),
        ("(service = a", 13, ") is wanted"),
        ("service = a)", 12, "the end is wanted, not )"),
        ("service in ()", 13, "a value is wanted, not )"),
        ("service in (a b)", 15, ") is wanted, not b"),
        ("servise = a", 1, "'servise' is no field: trail, transaction"),
        ("and = a", 1, "a condition"),
        ('"service" = a', 1, "a condition"),
        ('service = "a', 11, "quote"),
        ('service = "a\\n"', 11, "backslash"),
        ("  service = a\\b", 14, "cannot stand here"),
        ("key = a", 1, "'key' is no field"),
        ("key. = a", 1, "the key's name behind the dot"),
        ("status = lost", 10, "'lost' is none of ok, error, gap, complete, incomplete, compensated, failed"),
        ("kind in (key, keys)", 15, "'keys' is none of transaction, key"),
        ("time = 2026-01-01T00:00:00Z", 6, "<, <=, > or >= is wanted"),
        (
            "time > 2026-01-01T00:00:00",
            8,
            "2026-01-01T00:00:00 does not say its time zone: write Z for UTC, or an offset",
        ),
        ("time > 2026-01-01", 8, "does not say a time of day and its time zone"),
        ("time > yesterday", 8, "not an RFC 3339 time with a zone, such as 2026-01-31T09:00:00Z"),
        ("time > 2026-13-01T00:00:00Z", 8, "a date that does not exist"),
        ("amount.EURO > 1", 1, "three letters"),
        ("amount.EUR > 1,5", 15, "and, or, or the end is wanted, not ,"),
        ("amount.EUR > x", 14, "'x' is no amount"),
        ("amount.EUR in 1", 15, "two dots between"),
        ("amount.EUR in 1..", 18, "'' is no amount"),
        ("amount.EUR in 2..1", 15, "2 is more than 1"),
        ("amount.EUR ~ 1", 12, "not in is wanted, not ~"),
        ("text ~ *", 8, "behind the beginning of a word"),
        ("text = a", 6, "~ is wanted, not ="),
        ("service = a\0", 12, "a character that no text has"),
        ("service = a or " * 80, MAX_FILTER + 1, f"at most {MAX_FILTER} characters"),
        ("(" * (MAX_DEPTH + 1), MAX_DEPTH + 1, f"at most {MAX_DEPTH} deep"),
        (f"service in ({','.join('a' * (MAX_CONDITIONS + 1))})", 13 + 2 * MAX_CONDITIONS, "at most 32 values"),
    ],
)
def test_what_is_none_is_refused_and_where(text: str, position: int, message: str) -> None:
    with pytest.raises(FilterError) as refused:
        parse_filter(text)
    assert message in str(refused.value)
    assert refused.value.position == position
    assert str(refused.value).startswith(f"at character {position}: ")


words = st.sampled_from(
    'and or not in ( ) , = != ~ < >= service key.a key. amount.EUR time 1..2 2026-01-01T00:00:00Z " "a \\ text status failed x .. é'.split()
)


@given(st.text(max_size=60) | st.lists(words, max_size=14).map(" ".join) | st.lists(words, max_size=14).map("".join))
def test_any_text_is_a_filter_or_refused(text: str) -> None:
    try:
        parse_filter(text)
        position = 1
    except FilterError as error:
        position = error.position
    assert 1 <= position <= len(text) + 1


@given(conditions, st.data())
def test_what_is_written_is_read_as_it_was_meant(condition: Condition, data: Any) -> None:
    assert parse_filter(filter_text(condition)) == condition


@given(
    st.text(max_size=40)
    | st.from_regex(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)?", fullmatch=True)
)
def test_a_time_has_its_zone_or_is_refused(text: str) -> None:
    try:
        time = zoned(text)
    except Malformed:
        return
    assert text[-1] in "Zz" or text[-6] in "+-" or text[-5] in "+-"
    assert len(time) == 30


def test_the_documentation_has_the_grammar(repo_root: Any) -> None:
    from correlator.index import filters

    page = (repo_root / "docs" / "api.md").read_text(encoding="utf-8")
    grammar = (filters.__doc__ or "").partition("    filter ")[2].partition("\n\n")[0]
    assert "filter " + "\n".join(line.removeprefix("    ") for line in grammar.splitlines()) in page
    for word in (*FIELDS, *STATUSES, *KINDS):
        assert f"`{word}`" in page, word
