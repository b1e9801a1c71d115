"""A search as SQL. The narrowest condition leads, and its index is in the order of the row id, so that nothing is sorted."""

from correlator.index import TrailQuery
from correlator.index.rows import STATUSES
from correlator.trail import transaction_trail

__all__ = ["COLUMNS", "KINDS", "search"]

KINDS = ("transaction", "key", "trace", "stream", "access", "ledger")
"""Families of trails, by the number that stands for them."""

COLUMNS = "first_leaf, trail, entries, last_leaf, first_time, last_time, status, links, services, keys, amounts"
"""What a search gives of each trail."""


def search(query: TrailQuery, bound: int, limit: int) -> tuple[str, list[object]]:
    """The SQL of a query and what is bound in it: trails with a first leaf below `bound`, newest first, at most `limit`."""
    tables = "trails"
    where: list[str] = []
    arguments: list[object] = []
    lead = "trails.first_leaf"
    if query.key is not None:
        tables = "keys CROSS JOIN trails ON trails.first_leaf = keys.first_leaf"
        where.append("keys.name = (SELECT id FROM names WHERE name = ?) AND keys.value = ?")
        arguments += query.key
        lead = "keys.first_leaf"
    elif query.service:
        tables = "services CROSS JOIN trails ON trails.first_leaf = services.first_leaf"
        where.append("services.service = (SELECT id FROM names WHERE name = ?)")
        arguments.append(query.service)
        lead = "services.first_leaf"
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
        if lead == "trails.first_leaf":
            where.append(f"trails.first_leaf IN (SELECT amounts.first_leaf FROM amounts WHERE {meets})")  # noqa: S608 - constants
        else:  # few trails are left: each is asked
            where.append(f"EXISTS (SELECT 1 FROM amounts WHERE amounts.first_leaf = trails.first_leaf AND {meets})")  # noqa: S608 - constants
        arguments += (query.amount.currency, query.amount.least, query.amount.most)
    where.append(f"{lead} < ?")
    columns = ", ".join(f"trails.{column}" for column in COLUMNS.split(", "))
    sql = f"SELECT {columns} FROM {tables} WHERE {' AND '.join(where)} ORDER BY {lead} DESC LIMIT ?"  # noqa: S608 - constants; values are bound
    return sql, [*arguments, bound, limit]
