"""What a search asks of a trail's keys. Pure.

A row does not hold all the keys of a trail that has very many (`correlator.index.rows.KEYS_A_PAGE`). Before an index decides whether such a
trail is meant, it looks for what is asked, and for nothing else, where it keeps the others.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from correlator.index import TrailQuery
from correlator.index.condition import And, Condition, HasKey, HasText, Not, Or
from correlator.index.words import TextTerm

__all__ = ["Asked", "asked_of"]


@dataclass(frozen=True, slots=True)
class Asked:
    """Business keys, and terms of which a key's value may be one."""

    keys: tuple[tuple[str, str], ...] = ()
    terms: tuple[TextTerm, ...] = ()


def asked_of(query: TrailQuery) -> Asked:
    """What the query's key, text and condition ask, each thing once."""
    conditions = [] if query.condition is None else list(_leaves(query.condition))
    keys = [] if query.key is None else [query.key]
    terms = [] if query.text is None else list(query.text.terms)
    for one in conditions:
        if isinstance(one, HasKey):
            keys += [(one.name, value) for value in one.values]
        elif isinstance(one, HasText):
            terms += one.text.terms
    return Asked(tuple(dict.fromkeys(keys)), tuple(dict.fromkeys(terms)))


def _leaves(condition: Condition) -> Iterator[Condition]:
    match condition:
        case And(parts) | Or(parts):
            for part in parts:
                yield from _leaves(part)
        case Not(part):
            yield from _leaves(part)
        case _:
            yield condition
