"""Conditions of all kinds."""

from __future__ import annotations

from hypothesis import strategies as st

from correlator.index.amounts import AmountRange
from correlator.index.condition import And, Condition, Has, HasAmount, HasKey, HasText, HasTime, Not, Or
from correlator.index.words import TextSearch
from tests.support.leaves import TIME

__all__ = ["conditions"]

_NAMED = {
    "trail": ["transaction/a", "key/k/v", "tenant/x/key/k/v", "transaction/none"],
    "tenant": ["x", "y"],
    "kind": ["transaction", "key", "trace"],
    "status": ["ok", "error", "failed"],
    "service": ["s1", "s2", "or", 'a "quoted" \\ one'],
    "event": ["K.one", "oneTwo", "(in)"],
}


def _values(values: list[str]) -> st.SearchStrategy[tuple[str, ...]]:
    return st.lists(st.sampled_from(values), min_size=1, max_size=3, unique=True).map(tuple)


_leaves: st.SearchStrategy[Condition] = st.one_of(
    *(st.builds(Has, field=st.just(field), values=_values(values)) for field, values in _NAMED.items()),
    st.builds(HasKey, name=st.sampled_from(["k", "l", "a name"]), values=_values(["v", "1", "2.5"])),
    st.builds(HasTime, than=st.sampled_from([">", ">=", "<", "<="]), time=st.integers(0, 4).map(TIME.format)),
    st.sampled_from(["EUR:1..2", "USD:..0", "EUR:2.5", "EUR:1..", "EUR:-3..-3"])
    .map(AmountRange.parse)
    .map(lambda span: HasAmount(range=span)),
    st.sampled_from(["v", "one s1", "t*", "k/v"]).map(TextSearch.parse).map(lambda text: HasText(text=text)),
)


def _together(parts: st.SearchStrategy[Condition]) -> st.SearchStrategy[Condition]:
    some = st.lists(parts, min_size=2, max_size=3).map(tuple)
    return some.map(_and) | some.map(_or) | parts.map(Not)


def _and(parts: tuple[Condition, ...]) -> Condition:
    return And(parts)


def _or(parts: tuple[Condition, ...]) -> Condition:
    return Or(parts)


conditions: st.SearchStrategy[Condition] = st.recursive(_leaves, _together, max_leaves=5)
