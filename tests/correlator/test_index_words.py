"""Words of names, texts of trails, and the searches that people write."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from correlator.index.words import MAX_TERMS, MAX_TEXT, TextSearch, after_prefix, name_words, texts_of

letters = st.text(st.sampled_from("aBéİßﬁ1-_. \U0010ffff\ud7ff"), max_size=8)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("payment.refundTimeout", {"payment", "refundtimeout", "refund", "timeout"}),
        ("HTTPServer v2", {"httpserver", "http", "server", "v2"}),
        ("GET /orders/{id}", {"get", "orders", "id"}),
        ("payment_settled", {"payment", "settled"}),
        ("Straße ÜBERWEISUNG", {"strasse", "überweisung"}),
        ("--", set()),
    ],
)
def test_the_words_of_a_name(name: str, words: set[str]) -> None:
    assert name_words(name) == words


def test_the_texts_of_a_trail() -> None:
    assert texts_of("tenant/ACME/transaction/PAY%201", [("order_id", "Order\t7-A")]) == {"pay", "1", "order", "7-a"}
    assert texts_of("stream/gateway/0123456789abcdef", []) == {"gateway/0123456789abcdef"}
    texts = texts_of("transaction/t", [("k", "\u0390" * 5_000)])
    assert max(map(len, texts)) == 3 * MAX_TEXT + 1, "no search asks for more"
    assert TextSearch.parse("\u0390" * (MAX_TEXT - 1) + "*").meets(texts, ())
    assert not TextSearch.parse("\u0390" * MAX_TEXT).meets(texts, ())


@given(letters | st.text(max_size=8))
def test_a_name_is_found_by_itself(name: str) -> None:
    """In whatever case it is written."""
    for text in (name, name.upper(), name.lower()):
        try:
            search = TextSearch.parse(text.replace("*", " "))
        except ValueError:
            continue
        if all(term.words for term in search.terms):
            assert search.meets((), name_words(text))
        assert search.meets(texts_of("trace/" + "a" * 32, [("k", text.replace("*", " "))]), ())


@given(letters, letters)
def test_the_end_of_a_prefix(prefix: str, text: str) -> None:
    prefix, text = (one.replace("\ud800", "") for one in (prefix, text))
    end = after_prefix(prefix)
    for one in (text, prefix + text):
        assert one.startswith(prefix) == (one >= prefix and (not end or one < end))
    end.encode()


@given(st.text(max_size=MAX_TEXT + 10) | st.text("a* -", max_size=20))
def test_any_text_is_read_or_told(text: str) -> None:
    try:
        found = TextSearch.parse(text)
    except ValueError:
        return
    assert 1 <= len(found.terms) <= MAX_TERMS
    assert all(term.text for term in found.terms)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "no word"),
        (" \t", "no word"),
        ("*", "beginning of a word"),
        ("a" * (MAX_TEXT + 1), "300 characters"),
        (" ".join(map(str, range(MAX_TERMS + 1))), "8 words"),
        ("a\udc80", "UTF-8"),
    ],
)
def test_what_is_no_search_is_told(text: str, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        TextSearch.parse(text)
