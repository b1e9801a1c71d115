"""A search as SQL. The narrowest condition leads, and its index is in the order of the row id, so that nothing is sorted."""

from collections.abc import Callable, Sequence

from correlator.index import TextSearch, TrailQuery
from correlator.index.rows import STATUSES
from correlator.index.words import TextTerm, after_prefix
from correlator.trail import transaction_trail

__all__ = ["COLUMNS", "KINDS", "Lead", "leading", "search"]

KINDS = ("transaction", "key", "trace", "stream", "access", "ledger")
"""Families of trails, by the number that stands for them."""

COLUMNS = "first_leaf, trail, entries, last_leaf, first_time, last_time, status, links, services, events, keys, amounts"
"""What a search gives of each trail."""

Lead = tuple[str, list[object]]
"""A statement that gives first leaves, and what is bound in it."""

_RARE = 20_000
"""Trails up to which those that have a term are gathered; with no such term all are walked, newest first."""


def leading(text: TextSearch, count: Callable[[str, list[object]], int]) -> list[Lead]:
    """For each rare term of the text what gives the trails that may have it, and some that have not; empty when every term is frequent.

    `count` runs a statement that gives one number.
    """
    leads = map(_may_have, text.terms)
    return [
        (sql, bound)
        for sql, bound in leads
        if count(f"SELECT count(*) FROM ({sql} LIMIT {_RARE + 1})", bound) <= _RARE  # noqa: S608 - constants
    ]


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


def search(query: TrailQuery, bound: int, limit: int, *, leads: Sequence[Lead] = ()) -> tuple[str, list[object]]:
    """The SQL of a query and what is bound in it: trails with a first leaf below `bound`, newest first, at most `limit`.

    The query's text is not in it: of what is found, the caller decides. Only trails that each of `leads` gives are found.
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
