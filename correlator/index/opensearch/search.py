"""A search as OpenSearch's query. Nothing is scored, and newest first is a sort by a number. Pure.

A trail has a key or a text if its document has it, or one of its pages (`correlator.index.opensearch.documents.KeyPage`): so a search is asked
for trails first, then for pages, and again where there were pages that it did not know of.
"""

from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias

from correlator.index import AmountRange, TrailQuery
from correlator.index.amounts import LEAST, MOST
from correlator.index.condition import And, Condition, Has, HasAmount, HasKey, HasText, HasTime, Not, Or
from correlator.index.opensearch.documents import key_term, trail_id
from correlator.index.words import TextTerm
from correlator.trail import transaction_trail

__all__ = ["MAX_TURNED", "Turned", "pages_search", "search_of"]

Turned: TypeAlias = Mapping[tuple[str, str] | TextTerm, Iterable[str]]
"""For keys and terms, the trails on whose pages they are found."""

MAX_TURNED = 10_000
"""Trails that one key or term may be found by on pages."""


def pages_search(asked: Iterable[tuple[str, str] | TextTerm], *, trail: str = "") -> dict[str, Any]:
    """The search for pages, of one trail or of all: for each key and term, by its number, the trails that have it on one."""
    leaves = [_text(one) if isinstance(one, TextTerm) else _key(*one) for one in asked]
    # few documents pass: their values are counted as they are, or the server would number all trails of the index anew after each refresh
    trails = {"trails": {"terms": {"field": "trail", "size": MAX_TURNED, "execution_hint": "map"}}}
    return {
        "size": 0,
        "track_total_hits": False,
        "query": {
            "bool": {
                "filter": [_any(leaves), *_of([trail] if trail else ())],
                "must_not": [{"exists": {"field": "firstLeaf"}}],
            }
        },
        "aggs": {str(at): {"filter": leaf, "aggs": trails} for at, leaf in enumerate(leaves)},
    }


def search_of(query: TrailQuery, bound: int, limit: int, turned: Turned) -> dict[str, Any]:
    """The search for a query: trails with a first leaf below `bound`, newest first, at most `limit`."""
    conditions: list[dict[str, Any]] = [{"range": {"firstLeaf": {"lt": bound}}}]
    if query.transaction:
        conditions.append({"ids": {"values": [trail_id(transaction_trail(query.transaction, query.tenant))]}})
    terms = {"tenant": query.tenant, "kind": query.kind, "services": query.service, "status": query.status}
    if query.key is not None:
        conditions.append(_any([_key(*query.key), *_of(turned.get(query.key, ()))]))
    conditions += [{"term": {name: value}} for name, value in terms.items() if value]
    # a trail without a stated time has neither field, and no range meets it
    if query.since:
        conditions.append({"range": {"lastTime": {"gte": query.since}}})
    if query.until:
        conditions.append({"range": {"firstTime": {"lt": query.until}}})
    if query.amount is not None:
        conditions += _amounts(query.amount)
    conditions += [_has(term, turned) for term in query.text.terms] if query.text is not None else []
    conditions += [_holds(query.condition, turned)] if query.condition is not None else []
    return {
        "size": limit,
        "track_total_hits": False,
        "sort": [{"firstLeaf": "desc"}],
        "query": {"bool": {"filter": conditions}},
    }


_FIELDS = {"service": "services", "event": "events"}
_ORDERS = {">": ("lastTime", "gt"), ">=": ("lastTime", "gte"), "<": ("firstTime", "lt"), "<=": ("firstTime", "lte")}


def _holds(condition: Condition, turned: Turned) -> dict[str, Any]:
    """A condition as a query, of which the score is not asked; what `Row.meets` says is what it means."""
    match condition:
        case And(parts):
            return {"bool": {"filter": [_holds(part, turned) for part in parts]}}
        case Or(parts):
            return _any([_holds(part, turned) for part in parts])
        case Not(part):
            return {"bool": {"must_not": [_holds(part, turned)]}}
        case Has():
            return {"terms": {_FIELDS.get(condition.field, condition.field): list(condition.values)}}
        case HasKey():
            keys = [(condition.name, value) for value in condition.values]
            found = {trail for key in keys for trail in turned.get(key, ())}
            return _any([{"terms": {"keys": [key_term(*key) for key in keys]}}, *_of(found)])
        case HasText():
            return {"bool": {"filter": [_has(term, turned) for term in condition.text.terms]}}
        case HasAmount():
            return {"bool": {"filter": _amounts(condition.range)}}
        case HasTime():
            field, than = _ORDERS[condition.than]
            return {"range": {field: {than: condition.time}}}


def _amounts(amount: AmountRange) -> list[dict[str, Any]]:
    # within one currency's terms: each list has at most one of them
    least = {"gte": f"{amount.currency}={LEAST}", "lte": f"{amount.currency}={amount.most}"}
    most = {"gte": f"{amount.currency}={amount.least}", "lte": f"{amount.currency}={MOST}"}
    return [{"range": {"amountLeast": least}}, {"range": {"amountMost": most}}]


def _has(term: TextTerm, turned: Turned) -> dict[str, Any]:
    either = [_text(term), *_of(turned.get(term, ()))]
    if term.words:
        named: list[dict[str, Any]] = [{"term": {"words": word}} for word in term.words[:-1]]
        last = "prefix" if term.open_word else "term"
        either.append({"bool": {"filter": [*named, {last: {"words": term.words[-1]}}]}})
    return _any(either)


def _any(queries: list[dict[str, Any]]) -> dict[str, Any]:
    return {"bool": {"should": queries, "minimum_should_match": 1}} if len(queries) > 1 else queries[0]


def _key(name: str, value: str) -> dict[str, Any]:
    return {"term": {"keys": key_term(name, value)}}


def _text(term: TextTerm) -> dict[str, Any]:
    return {"prefix" if term.prefix else "term": {"texts": term.text}}


def _of(trails: Iterable[str]) -> list[dict[str, Any]]:
    named = sorted(trails)
    return [{"terms": {"trail": named}}] if named else []
