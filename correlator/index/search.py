"""A search as SQL. The narrowest condition leads, and its index is in the order of the row id, so that nothing is sorted."""

from collections.abc import Callable, Sequence
from dataclasses import replace

from correlator.index import TrailQuery
from correlator.index.condition import And, Condition, Has, HasAmount, HasKey, HasText, HasTime, Or, conjuncts
from correlator.index.vocabulary import KINDS, STATUSES
from correlator.index.words import TextTerm, after_prefix
from correlator.trail import transaction_trail

__all__ = ["COLUMNS", "Lead", "key_asked", "leading", "narrowed", "search", "term_asked"]

COLUMNS = "first_leaf, trail, entries, last_leaf, first_time, last_time, status, links, services, events, keys, amounts"
"""What a search gives of each trail."""

Lead = tuple[str, list[object]]
"""A statement that gives first leaves, and what is bound in it."""

_RARE = 20_000
"""Trails up to which those that have a term are gathered; with no such term all are walked, newest first."""


def narrowed(query: TrailQuery) -> TrailQuery:
    """The same query, with what its `condition` demands in any case said by the other fields, as far as they are free to say it."""
    if query.condition is None:
        return query
    said: dict[str, object] = {}
    rest: list[Condition] = []
    for part in conjuncts(query.condition):
        field, value = _field_of(part)
        if field in ("since", "until"):
            known = str(said.get(field) or getattr(query, field))
            said[field] = value if not known else max(known, str(value)) if field == "since" else min(known, str(value))
        elif field == "tenant" and query.transaction:
            # as a field it would say which trail that transaction is, not only demand something of it
            rest.append(part)
        elif field and field not in said and not getattr(query, field):
            said[field] = value
        else:
            rest.append(part)
    condition = And(tuple(rest)) if len(rest) > 1 else rest[0] if rest else None
    return replace(query, condition=condition, **said)  # type: ignore[arg-type]  # `_field_of` gives fields and their values


def _field_of(part: Condition) -> tuple[str, object]:
    """The field of a `TrailQuery` that says the same, and its value; empty when there is none."""
    match part:
        case Has(field=("tenant" | "kind" | "status" | "service") as field, values=(value,)):
            return field, value
        case HasKey(name=name, values=(value,)):
            return "key", (name, value)
        case HasTime(than=">=", time=time):
            return "since", time
        case HasTime(than="<", time=time):
            return "until", time
        case HasAmount(range=amount):
            return "amount", amount
        case HasText(text=text):
            return "text", text
    return "", None


def leading(query: TrailQuery, count: Callable[[str, list[object]], int]) -> list[Lead]:
    """What gives the trails that may have what the text and the condition demand, and some that have not: of what few trails have.

    Empty when all of it is frequent. `count` runs a statement that gives one number.
    """
    leads = [_may_have(term) for term in query.text.terms] if query.text is not None else []
    if query.condition is not None:
        leads += [lead for part in conjuncts(query.condition) if (lead := _may_meet(part)) is not None]
    return [
        (sql, bound)
        for sql, bound in leads
        if count(f"SELECT count(*) FROM ({sql} LIMIT {_RARE + 1})", bound) <= _RARE  # noqa: S608 - constants
    ]


def _may_meet(condition: Condition) -> Lead | None:
    """What gives at least the trails that meet a condition; None: nothing but looking at each of them does."""
    match condition:
        case Or(parts):
            leads = [_may_meet(part) for part in parts]
            found = [lead for lead in leads if lead is not None]
            if len(found) < len(leads):
                return None
            return " UNION ALL ".join(sql for sql, _ in found), [value for _, bound in found for value in bound]
        case And(parts):
            return next((lead for part in parts if (lead := _may_meet(part)) is not None), None)
        case HasText(text=text):
            return _may_have(text.terms[0])
        case HasKey(name=name, values=values):
            where = f"name = (SELECT id FROM names WHERE name = ?) AND value IN ({_marks(values)})"  # noqa: S608 - constants
            return f"SELECT first_leaf FROM keys WHERE {where}", [name, *values]  # noqa: S608 - constants
        case Has(field=("service" | "event") as field, values=values):
            named = f"(SELECT id FROM names WHERE name IN ({_marks(values)}))"  # noqa: S608 - constants
            return f"SELECT first_leaf FROM {field}s WHERE {field} IN {named}", list(values)  # noqa: S608 - constants
        case Has(field=("trail" | "tenant") as field, values=values):
            where = f"{field} IN ({_marks(values)})" + (" AND tenant <> ''" if field == "tenant" else "")
            return f"SELECT first_leaf FROM trails WHERE {where}", list(values)  # noqa: S608 - constants
        case Has(field="status", values=values) if "ok" not in values:
            numbers: list[object] = [STATUSES.index(value) for value in values if value in STATUSES]
            where = f"status IN ({_marks(numbers)}) AND status > 0"
            return f"SELECT first_leaf FROM trails WHERE {where}", numbers  # noqa: S608 - constants
        case _:
            return None


def _marks(values: Sequence[object]) -> str:
    return ", ".join("?" * len(values))


def _may_have(term: TextTerm) -> Lead:
    where, arguments = _equal("text", term.text, prefix=term.prefix)
    sql = f"SELECT first_leaf FROM texts WHERE {where}"  # noqa: S608 - constants
    if term.words:
        word = term.words[-1]  # of several words one is enough here
        where, bound = _equal("word", word, prefix=term.open_word)
        named = f"(SELECT name FROM words WHERE {where})"  # noqa: S608 - constants
        sql += f" UNION ALL SELECT first_leaf FROM services WHERE service IN {named}"  # noqa: S608 - constants
        sql += f" UNION ALL SELECT first_leaf FROM events WHERE event IN {named}"  # noqa: S608 - constants
        arguments += [*bound, *bound]
    return sql, arguments


def _equal(column: str, text: str, *, prefix: bool) -> Lead:
    if not prefix:
        return f"{column} = ?", [text]
    end = after_prefix(text)
    return (f"{column} >= ? AND {column} < ?", [text, end]) if end else (f"{column} >= ?", [text])


def key_asked(key: tuple[str, str], first_leaves: Sequence[int]) -> Lead:
    """What gives the first leaves of those of the trails that have the key."""
    where = f"name = (SELECT id FROM names WHERE name = ?) AND value = ? AND first_leaf IN ({_marks(first_leaves)})"  # noqa: S608 - constants
    return f"SELECT first_leaf FROM keys WHERE {where}", [*key, *first_leaves]  # noqa: S608 - constants


def term_asked(term: TextTerm, first_leaves: Sequence[int]) -> Lead:
    """What gives the first leaves of those of the trails that have a text that the term finds, with one such text."""
    where, bound = _equal("text", term.text, prefix=term.prefix)
    where += f" AND first_leaf IN ({_marks(first_leaves)})"
    return f"SELECT first_leaf, min(text) FROM texts WHERE {where} GROUP BY first_leaf", [*bound, *first_leaves]  # noqa: S608 - constants


def search(query: TrailQuery, bound: int, limit: int, *, leads: Sequence[Lead] = ()) -> tuple[str, list[object]]:
    """The SQL of a query and what is bound in it: trails with a first leaf below `bound`, newest first, at most `limit`.

    The query's text and condition are not in it: of what is found, the caller decides. Only trails that each of `leads` gives are found.
    """
    tables = "trails"
    where: list[str] = []
    arguments: list[object] = []
    order = "trails.first_leaf"
    if query.key is not None:
        tables = "keys CROSS JOIN trails ON trails.first_leaf = keys.first_leaf"
        where.append("keys.name = (SELECT id FROM names WHERE name = ?) AND keys.value = ?")
        arguments += query.key
        order = "keys.first_leaf"
    elif query.service:
        tables = "services CROSS JOIN trails ON trails.first_leaf = services.first_leaf"
        where.append("services.service = (SELECT id FROM names WHERE name = ?)")
        arguments.append(query.service)
        order = "services.first_leaf"
    if query.key is not None and query.service:
        where.append(
            "EXISTS (SELECT 1 FROM services WHERE services.first_leaf = trails.first_leaf"
            " AND services.service = (SELECT id FROM names WHERE name = ?))"
        )
        arguments.append(query.service)
    if query.transaction:
        where.append("trails.trail = ?")
        arguments.append(transaction_trail(query.transaction, query.tenant))
    if query.tenant:
        where.append("trails.tenant = ? AND trails.tenant <> ''")
        arguments.append(query.tenant)
    if query.kind:
        where.append("trails.kind = ?")
        arguments.append(KINDS.index(query.kind) if query.kind in KINDS else -1)
    if query.status:
        where.append("trails.status = ?" if query.status == "ok" else "trails.status = ? AND trails.status > 0")
        arguments.append(STATUSES.index(query.status) if query.status in STATUSES else -1)
    if query.since or query.until:
        where.append("trails.last_time <> '' AND trails.last_time >= ?")
        arguments.append(query.since)
        if query.until:
            where.append("trails.first_time < ?")
            arguments.append(query.until)
    if query.amount is not None:
        meets = "amounts.currency = ? AND amounts.most >= ? AND amounts.least <= ?"
        if order == "trails.first_leaf":
            where.append(f"trails.first_leaf IN (SELECT amounts.first_leaf FROM amounts WHERE {meets})")  # noqa: S608 - constants
        else:  # few trails are left: each is asked
            where.append(f"EXISTS (SELECT 1 FROM amounts WHERE amounts.first_leaf = trails.first_leaf AND {meets})")  # noqa: S608 - constants
        arguments += (query.amount.currency, query.amount.least, query.amount.most)
    for statement, its_arguments in leads:
        where.append(f"trails.first_leaf IN ({statement})")
        arguments += its_arguments
    where.append(f"{order} < ?")
    columns = ", ".join(f"trails.{column}" for column in COLUMNS.split(", "))
    sql = f"SELECT {columns} FROM {tables} WHERE {' AND '.join(where)} ORDER BY {order} DESC LIMIT ?"  # noqa: S608 - constants; values are bound
    return sql, [*arguments, bound, limit]
