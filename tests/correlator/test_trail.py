"""Trail ids: one spelling each, two values never share one, and the parser raises only its own error."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from correlator.errors import VerificationError
from correlator.trail import (
    ENROLMENTS,
    TrailId,
    access_trail,
    incident_trail,
    key_trail,
    kind_of,
    parse_trail,
    stream_trail,
    trace_trail,
    transaction_trail,
)

TRACE = "0af7651916cd43dd8448eb211c80319c"
value = st.text(st.characters(exclude_categories=["Cs"]), min_size=1)


@pytest.mark.parametrize(
    ("trail", "expected"),
    [
        (transaction_trail("pay-17"), "transaction/pay-17"),
        (transaction_trail("a b/c%", "acme"), "tenant/acme/transaction/a%20b%2Fc%25"),
        (transaction_trail("user:1@eu"), "transaction/user:1@eu"),
        (key_trail("order_id", "Ä"), "key/order_id/%C3%84"),
        (trace_trail(TRACE), f"trace/{TRACE}"),
        (stream_trail("gateway/0123456789abcdef"), "stream/gateway/0123456789abcdef"),
        (access_trail("ann"), "access/ann"),
        (incident_trail(TRACE), f"incident/{TRACE}"),
        (
            transaction_trail("x" * 201),
            "transaction/sha256:a2acdcda5e17d84baa12cbe32b30a6bc7ad8c4e5a29ec57a01a4cd84ec3d79de",
        ),
    ],
)
def test_spelling(trail: str, expected: str) -> None:
    if expected.endswith("79de"):  # the hash is worked out here, not copied from the code under test
        import hashlib

        expected = f"transaction/sha256:{hashlib.sha256(b'x' * 201).hexdigest()}"
    assert trail == expected
    parse_trail(trail)


@given(value, value, value | st.just(""))
def test_what_was_put_in_comes_out(name: str, text: str, tenant: str) -> None:
    parsed = parse_trail(key_trail(name, text, tenant))
    for got, given_ in ((parsed.name, name), (parsed.value, text), (parsed.tenant, tenant)):
        assert got == given_ or got.startswith("sha256:")
    assert kind_of(key_trail(name, text, tenant)) == parsed.kind == "key"


@given(value, value)
def test_two_values_never_share_a_trail(one: str, other: str) -> None:
    assert (transaction_trail(one) == transaction_trail(other)) == (one == other)


def test_a_value_that_looks_like_a_hash_does_not_meet_the_hashed_one() -> None:
    long = "x" * 300
    hashed = transaction_trail(long)
    assert transaction_trail(hashed.removeprefix("transaction/")) != hashed


@pytest.mark.parametrize("dots", [".", ".."])
def test_dots_that_a_url_would_swallow_are_hashed(dots: str) -> None:
    assert transaction_trail(dots).startswith("transaction/sha256:")


def test_the_trail_of_enrolments() -> None:
    assert parse_trail(ENROLMENTS) == TrailId(kind="ledger", value="enrolments")
    assert kind_of(ENROLMENTS) == "ledger"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "transaction",
        "transaction/",
        "transaction/a/b",
        "transaction/a b",
        "transaction/%2f",
        "transaction/%41",
        "transaction/%FF",
        "transaction/.",
        "transaction/" + "x" * 201,
        "tenant/a",
        "tenant//transaction/a",
        "tenant/a/tenant/b/transaction/c",
        "key/a",
        "trace/" + "0" * 31,
        "trace/" + "A" * 32,
        "stream/a/b",
        "stream/A/0123456789abcdef",
        "ledger/other",
        "invoice/7",
        "transaction/a\n",
    ],
)
def test_other_spellings_are_refused(text: str) -> None:
    with pytest.raises(VerificationError):
        parse_trail(text)


@given(st.text() | st.from_regex(r"(tenant/[^/]*/)?(transaction|key|trace|stream|access)(/[^/]*){0,3}"))
def test_the_parser_raises_only_its_own_error(text: str) -> None:
    try:
        parse_trail(text)
    except VerificationError:
        pass


@given(value)
def test_parsing_is_the_inverse_of_making(text: str) -> None:
    trail = transaction_trail(text)
    parsed = parse_trail(trail)
    if not parsed.value.startswith("sha256:"):
        assert transaction_trail(parsed.value) == trail


def test_a_bad_trace_id_names_no_trail() -> None:
    with pytest.raises(ValueError, match="32 lower-case hex"):
        trace_trail(TRACE.upper())


@pytest.mark.parametrize("text", ["incident/x", f"tenant/acme/incident/{TRACE}", "incident/" + TRACE.upper()])
def test_what_is_no_incident(text: str) -> None:
    with pytest.raises(VerificationError):
        parse_trail(text)
