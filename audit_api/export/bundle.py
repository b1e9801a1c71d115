"""Writes bundles: reads a trail, the trails linked to it, and all their proofs, at one checkpoint.

In steps, so that a large export lets other readers in between: each `BundleExport.step` reads a bounded number of entries.
"""

from collections.abc import Sequence
from dataclasses import replace

from audit_api.evidence import Evidence, LoggedEntry, SignedTree
from collector.errors import NotFound, TallyError
from correlator.bundle import (
    MAX_BUNDLE_ENTRIES,
    MAX_TRAILS,
    BundleHeader,
    BundleLine,
    Contents,
    TrailPart,
    pack_bundle,
)
from correlator.note import Verifier
from correlator.page import with_page
from correlator.trail import RETIREMENTS, parse_trail

__all__ = ["BundleExport", "TooLarge", "export_bundle"]

STEP_ENTRIES = 50
"""Entries read in one step: what other readers wait for, at most, is a step of an export."""


MAX_EXPORT_BYTES = 256 << 20
"""Most bytes of entries and events: a bundle is made in memory."""

MAX_PAGE_BYTES = 256 << 20
"""Longest page for people: it may be many times as long as the events."""


class TooLarge(TallyError):
    """The bundle would hold more than an export may: the message says what, `limit` is how many entries (or trails, bytes, characters)."""

    def __init__(self, what: str, *, limit: int) -> None:
        super().__init__(what)
        self.limit = limit


class BundleExport:
    """One export: `step` until it says that nothing is left, then `finish`.

    The trails are read up to the checkpoint that stood when the export began.

    Args:
        evidence: the ledger.
        key: the log's public key.
        trails: the trail asked for, then those linked to it that are to come along; these are sorted by name.
        events: whether the events' bytes go in, or their entries alone.
        page: whether the page for people goes in.
        max_entries: more than so many entries is `TooLarge`.

    Raises:
        NotFound: nothing is published, or a trail does not exist below the checkpoint.
        TooLarge: found before anything was read.
    """

    def __init__(
        self,
        evidence: Evidence,
        *,
        key: Verifier,
        trails: Sequence[str],
        events: bool = True,
        page: bool = True,
        max_entries: int = 10_000,
    ) -> None:
        self._evidence = evidence
        self._key = key
        self._page = page
        self._with_events = events
        self.tree: SignedTree = evidence.tree()
        self._plan: list[tuple[str, list[int]]] = []
        self._max_entries = max_entries
        self._tell_retirements = False
        room = min(max_entries, MAX_BUNDLE_ENTRIES)
        names = (trails[0], *sorted(set(trails[1:]) - {trails[0]}))
        if len(names) > MAX_TRAILS:
            raise TooLarge(
                f"{trails[0]} has {len(names) - 1} linked trails, at most {MAX_TRAILS} go in", limit=MAX_TRAILS
            )
        for trail in names:
            leaves = list(evidence.index.leaves(trail, limit=room + 1, size=self.tree.size))
            if not leaves:
                raise NotFound(f"there is no trail {trail} below leaf {self.tree.size}")
            if len(leaves) > room:
                raise self._too_large(trails[0])
            room -= len(leaves)
            self._plan.append((trail, leaves))
        self._entries: dict[int, LoggedEntry] = {}
        self._events: dict[int, bytes] = {}
        self._proofs: dict[int, tuple[bytes, ...]] = {}
        self._headers: dict[int, BundleHeader] = {}
        self._bytes = 0
        self._todo = sorted(leaf for _, leaves in self._plan for leaf in leaves)

    def _too_large(self, trail: str) -> TooLarge:
        what = f"{trail}, and what goes with it: an export holds at most {self._max_entries} entries"
        return TooLarge(what, limit=self._max_entries)

    @property
    def entries(self) -> int:
        """How many entries the trails have."""
        return sum(len(leaves) for _, leaves in self._plan)

    @property
    def key(self) -> Verifier:
        """The log's public key, as it was given."""
        return self._key

    @property
    def head(self) -> int:
        """Leaf index of the last entry of the trail asked for."""
        return self._plan[0][1][-1]

    def step(self) -> bool:
        """Read some more; False when nothing was left.

        Raises:
            NotFound, VerificationError, Overloaded: as the log, the index and the store do.
            TooLarge: entries and events have too many bytes.
        """
        if not self._todo:
            return False
        chunk, self._todo = self._todo[:STEP_ENTRIES], self._todo[STEP_ENTRIES:]
        read = self._evidence.entries(chunk)
        if self._with_events:
            self._events |= self._evidence.events(read)
            self._tell_retirements |= any(map(self._is_retired, read))
        self._bytes += sum(len(one.data) for one in read) + sum(len(self._events.get(leaf, b"")) for leaf in chunk)
        if self._bytes > MAX_EXPORT_BYTES:
            raise TooLarge(f"an export holds at most {MAX_EXPORT_BYTES} bytes", limit=MAX_EXPORT_BYTES)
        for one in read:
            self._entries[one.leaf] = one
            self._prove(one.leaf)
        for header in self._evidence.headers([one for one in read if one.entry.kind == "event"]):
            known = self._headers.get(header.leaf)
            paths = header.paths if known is None else tuple(sorted(known.paths + header.paths))
            self._headers[header.leaf] = replace(header, paths=paths)
            self._prove(header.leaf)
        if self._tell_retirements and not self._todo:
            self._plan_retirements()
        return True

    def _is_retired(self, one: LoggedEntry) -> bool:
        """Whether the event is not here, and an entry below the checkpoint says why."""
        retired = self._evidence.retired(one) if one.leaf not in self._events else None
        return retired is not None and retired.leaf < self.tree.size

    def _plan_retirements(self) -> None:
        """What is not here because it was retired: the trail that says so comes along."""
        if any(trail == RETIREMENTS for trail, _ in self._plan):
            return
        leaves = list(self._evidence.index.leaves(RETIREMENTS, limit=self._max_entries + 1, size=self.tree.size))
        if self.entries + len(leaves) > min(self._max_entries, MAX_BUNDLE_ENTRIES):
            raise self._too_large(self._plan[0][0])
        if leaves:
            self._plan[1:] = sorted([*self._plan[1:], (RETIREMENTS, leaves)])
            self._todo = leaves

    def _prove(self, leaf: int) -> None:
        if leaf not in self._proofs:
            self._proofs[leaf] = tuple(self._evidence.reader.inclusion(leaf, self.tree.size))

    def finish(self) -> bytes:
        """The bundle. Raises ValueError when it is larger than an archive may be, `TooLarge` when its page is too long."""
        return self.seal(self.gather())

    def contents(self) -> Contents:
        """What the bundle says, page and all; all steps must have been taken. Raises `TooLarge` as `finish`."""
        return self._with_page(self.gather())

    def seal(self, contents: Contents) -> bytes:
        """The zip of what `gather` gave; reads nothing, so any thread may. Raises as `finish`."""
        return pack_bundle(self._with_page(contents))

    def _with_page(self, contents: Contents) -> Contents:
        if not self._page:
            return contents
        try:
            return with_page(contents, most_bytes=MAX_PAGE_BYTES)
        except ValueError as error:
            raise TooLarge(f"{error}: export it without one (page=false)", limit=MAX_PAGE_BYTES) from error

    def gather(self) -> Contents:
        """What the bundle says, but for its page; all steps must have been taken."""
        enrolments = {}
        for header in [*self._headers.values()]:
            enrolled = self._enrolment_of(header.leaf)
            enrolments[enrolled.leaf] = enrolled
        for trail, leaves in self._plan:
            if parse_trail(trail).kind != "stream":
                continue
            for leaf in leaves:  # the batches of a stream's own trail need their keys' enrolments too
                if self._entries[leaf].entry.kind == "batch":
                    enrolled = self._enrolment_of(leaf)
                    enrolments[enrolled.leaf] = enrolled
        for leaf in enrolments:
            self._prove(leaf)
        return Contents(
            key=self._key,
            checkpoint=self.tree.signed,
            trails=tuple(
                TrailPart(
                    trail=trail,
                    first=0,
                    lines=tuple(
                        BundleLine(leaf=leaf, entry=self._entries[leaf].data, event=self._events.get(leaf))
                        for leaf in leaves
                    ),
                )
                for trail, leaves in self._plan
            ),
            headers=tuple(self._headers[leaf] for leaf in sorted(self._headers)),
            enrolments=tuple(BundleLine(leaf=leaf, entry=enrolments[leaf].data) for leaf in sorted(enrolments)),
            proofs=self._proofs,
        )

    def _enrolment_of(self, leaf: int) -> LoggedEntry:
        header = self._evidence.open_batch(leaf).signed.header
        return self._evidence.enrolment(header.stream, header.key)


def export_bundle(
    evidence: Evidence,
    *,
    key: Verifier,
    trails: Sequence[str],
    events: bool = True,
    page: bool = True,
    max_entries: int = 10_000,
) -> bytes:
    """A whole bundle in one go: for the command line; see `BundleExport` for arguments and errors."""
    export = BundleExport(evidence, key=key, trails=trails, events=events, page=page, max_entries=max_entries)
    while export.step():
        pass
    return export.finish()
