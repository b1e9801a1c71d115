"""A search as OpenSearch's query. Nothing is scored, and newest first is a sort by a number. Pure."""

from typing import Any

from correlator.index import AmountRange, TrailQuery
from correlator.index.amounts import LEAST, MOST
from correlator.index.condition import And, Condition, Has, HasAmount, HasKey, HasText, HasTime, Not, Or
from correlator.index.opensearch.documents import key_term, trail_id
from correlator.index.words import TextTerm
from correlator.trail import transaction_trail

__all__ = ["search_of"]


def search_of(query: TrailQuery, bound: int, limit: int) -> dict[str, Any]:
    """The search for a query: trails with a first leaf below `bound`, newest first, at most `limit`."""
    conditions: list[dict[str, Any]] = [{"range": {"firstLeaf": {"lt": bound}}}]
    if query.transaction:
        conditions.append({"ids": {"values": [trail_id(transaction_trail(query.transaction, query.tenant))]}})
    terms = {"tenant": query.tenant, "kind": query.kind, "services": query.service, "status": query.status}
    if query.key is not None:
        terms["keys"] = key_term(*query.key)
    conditions += [{"term": {name: value}} for name, value in terms.items() if value]
    # a trail without a stated time has neither field, and no range meets it
    if query.since:
        conditions.append({"range": {"lastTime": {"gte": query.since}}})
    if query.until:
        conditions.append({"range": {"firstTime": {"lt": query.until}}})
    if query.amount is not None:
        conditions += _amounts(query.amount)
    conditions += [_has(term) for term in query.text.terms] if query.text is not None else []
    conditions += [_holds(query.condition)] if query.condition is not None else []
    return {
        "size": limit,
        "track_total_hits": False,
        "sort": [{"firstLeaf": "desc"}],
        "query": {"bool": {"filter": conditions}},
    }


_FIELDS = {"service": "services", "event": "events"}
_ORDERS = {">": ("lastTime", "gt"), ">=": ("lastTime", "gte"), "<": ("firstTime", "lt"), "<=": ("firstTime", "lte")}


def _holds(condition: Condition) -> dict[str, Any]:
    """A condition as a query, of which the score is not asked; what `Row.meets` says is what it means."""
    match condition:
        case And(parts):
            return {"bool": {"filter": [_holds(part) for part in parts]}}
        case Or(parts):
            return {"bool": {"should": [_holds(part) for part in parts], "minimum_should_match": 1}}
        case Not(part):
            return {"bool": {"must_not": [_holds(part)]}}
        case Has():
            return {"terms": {_FIELDS.get(condition.field, condition.field): list(condition.values)}}
        case HasKey():
            return {"terms": {"keys": [key_term(condition.name, value) for value in condition.values]}}
        case HasText():
            return {"bool": {"filter": [_has(term) for term in condition.text.terms]}}
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


def _has(term: TextTerm) -> dict[str, Any]:
    either: list[dict[str, Any]] = [{"prefix" if term.prefix else "term": {"texts": term.text}}]
    if term.words:
        named: list[dict[str, Any]] = [{"term": {"words": word}} for word in term.words[:-1]]
        last = "prefix" if term.open_word else "term"
        either.append({"bool": {"filter": [*named, {last: {"words": term.words[-1]}}]}})
    return {"bool": {"should": either, "minimum_should_match": 1}}
