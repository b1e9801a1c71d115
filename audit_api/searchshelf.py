"""Searches that people keep under a name: one small file each, durable before anyone hears of it. They outlive the process.

The folder is the truth, also for other API processes that share it: it is looked at again whenever it may have changed. A file that cannot
be read stops the API at its start, and is named in its log later: a saved search is somebody's work, and is not passed over in silence.
"""

import logging
import os
import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import msgspec

from audit_api.durablefile import remove_durable, write_durable
from collector.errors import StateUnknown

__all__ = ["SavedSearch", "SearchShelf"]

_STALE_NS = 3_600_000_000_000
"""A file half written is another process's, unless it is as old as this."""

_SETTLED_NS = 1_000_000_000
"""A folder whose last change is older shows every later change by its time of change: file systems tell times no finer than some milliseconds."""

_log = logging.getLogger("tally.api")

_ID = re.compile(r"[0-9a-f]{32}", re.ASCII)


class SavedSearch(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One search.

    Attributes:
        id: 32 hex digits that cannot be guessed.
        principal: whose it is.
        name: unique among those of its principal.
        conditions: parameters of ``/v1/trails``, to their texts.
        shared: others may see it: those who may see `tenant`; where that is empty, those whose scope names no tenants.
        created_ns, changed_ns: Unix time.
    """

    id: str
    principal: str
    name: str
    conditions: dict[str, str]
    shared: bool = False
    tenant: str = ""
    created_ns: int
    changed_ns: int


_decode = msgspec.json.Decoder(SavedSearch).decode


class SearchShelf:
    """The folder of saved searches. Used by one thread at a time.

    Args:
        folder: made if it is not there.
        clock: Unix time in nanoseconds.
        has_card: whether a text holds a card number, which is kept nowhere in the clear (PCI DSS 4.0.1, 3.5.1).

    Raises:
        StateUnknown: a file in it is no saved search; whoever looks after the ledger mends or removes it.
    """

    def __init__(self, folder: Path, *, clock: Callable[[], int], has_card: Callable[[str], bool]) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._folder = folder
        self._clock = clock
        self.has_card = has_card
        self._kept: dict[str, SavedSearch] = {}
        self._seen: dict[str, tuple[int, int]] = {}  # of each file, by its id: when it was changed, and its inode
        self._looked_at = 0  # the folder's time of change when it was last looked at; 0: look again
        self._look(raising=True)
        for path in folder.glob("*.part"):
            with suppress(FileNotFoundError):  # another process has just put it in its place
                if clock() - path.stat().st_mtime_ns > _STALE_NS:  # from before a crash: nobody was told of it
                    path.unlink()

    def _look(self, *, raising: bool = False) -> dict[str, SavedSearch]:
        """What is in the folder now."""
        changed_ns = self._folder.stat().st_mtime_ns
        if changed_ns == self._looked_at:
            return self._kept
        self._looked_at = changed_ns if self._clock() - changed_ns > _SETTLED_NS else 0
        seen: dict[str, tuple[int, int]] = {}
        for path in sorted(self._folder.glob("*.json")):
            if not _ID.fullmatch(path.stem):
                continue
            try:
                status = path.stat()
                seen[path.stem] = (status.st_mtime_ns, status.st_ino)
                if seen[path.stem] != self._seen.get(path.stem):
                    self._kept[path.stem] = _decode(path.read_bytes())
            except FileNotFoundError:
                seen.pop(path.stem, None)  # another process has just removed it
            except (ValueError, RecursionError) as error:
                self._kept.pop(path.stem, None)
                if raising:
                    raise StateUnknown(f"{path} is no saved search ({error}): mend or remove it") from error
                _log.error("%s is no saved search (%s): mend or remove it", path, error)
        for gone in self._kept.keys() - seen.keys():
            del self._kept[gone]
        self._seen = seen
        return self._kept

    def __iter__(self) -> Iterator[SavedSearch]:
        """All of them, by name."""
        return iter(sorted(self._look().values(), key=lambda one: (one.name.casefold(), one.principal, one.id)))

    def find(self, name: str) -> SavedSearch | None:
        """The one of this id."""
        return self._look().get(name)

    def named(self, principal: str, name: str) -> SavedSearch | None:
        """The one that a principal has under this name."""
        return next((one for one in self._look().values() if (one.principal, one.name) == (principal, name)), None)

    def count(self, principal: str) -> int:
        """How many a principal has."""
        return sum(one.principal == principal for one in self._look().values())

    def add(
        self, *, principal: str, name: str, conditions: dict[str, str], shared: bool, tenant: str = ""
    ) -> SavedSearch:
        """A new one, durable on return."""
        now = self._clock()
        return self.save(
            SavedSearch(
                id=os.urandom(16).hex(),
                principal=principal,
                name=name,
                conditions=conditions,
                shared=shared,
                tenant=tenant,
                created_ns=now,
                changed_ns=now,
            )
        )

    def save(self, search: SavedSearch) -> SavedSearch:
        """Keep what it says now, in the place of what it said; durable on return."""
        write_durable(self._folder / f"{search.id}.json", msgspec.json.encode(search))
        self._looked_at = 0
        return search

    def change(
        self, search: SavedSearch, *, name: str, conditions: dict[str, str], shared: bool, tenant: str
    ) -> SavedSearch:
        """The same one with something else in it, durable on return."""
        changed = msgspec.structs.replace(
            search, name=name, conditions=conditions, shared=shared, tenant=tenant, changed_ns=self._clock()
        )
        return self.save(changed)

    def remove(self, search: SavedSearch) -> None:
        """It is gone, durably."""
        remove_durable(self._folder / f"{search.id}.json")
        self._looked_at = 0
