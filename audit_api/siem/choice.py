"""Which entries a destination is sent: by kind, flow, tenant, and by a filter in the grammar of searches, asked of one entry. Pure."""

from audit_api.identity.scope import RowScope
from audit_api.siem.settings import DestinationSettings
from collector.errors import Malformed
from correlator.entry import Entry
from correlator.index import IndexedLeaf
from correlator.index.rows import absorb

__all__ = ["Choice"]


class Choice:
    """The entries that one destination's settings ask for."""

    def __init__(self, settings: DestinationSettings) -> None:
        self._entries = frozenset(settings.entries)
        self._flows = frozenset(settings.flows)
        self._scope = RowScope(tenants=frozenset(settings.tenants) if settings.tenants else None)
        self._condition = settings.condition()

    def takes(self, entry: Entry, leaf: int) -> bool:
        """Whether it is sent.

        The filter means of an entry what it means of a trail that has this entry and no other. An entry whose facts cannot be read is
        sent: who filters must not lose what is wrong.
        """
        if self._entries and entry.kind not in self._entries:
            return False
        if self._flows and entry.kind == "verdict" and entry.detail.get("flow") not in self._flows:
            return False
        if not self._scope.sees_id(entry.trail):
            return False
        if self._condition is None:
            return True
        try:
            (row,) = absorb([IndexedLeaf(leaf=leaf, entry=entry)], lambda _: None)
        except (Malformed, KeyError, ValueError):
            return True
        return row.meets(self._condition)
