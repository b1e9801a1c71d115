"""Is this bundle true? Bytes in, a `Report` or `VerificationError` out. Pure: needs no log, no store, no network.

Checked; the error names the member, line, leaf and trail of the first thing that fails:

1. the zip is of its one form, with the members of a bundle (`correlator.archive`, `correlator.bundle`);
2. the checkpoint is signed by the log's key, and does not contradict a checkpoint remembered from before;
3. each trail's entries are canonical, follow each other without a gap, each naming the leaf and the hash of the one before;
4. each event's bytes have the digest in its entry, say what the facts in its entry say, and belong into that trail;
5. each event is one that a collector signed: the signed header, itself an entry of the log, commits to its facts;
6. the key of each header was enrolled for its stream by an earlier entry of the log;
7. every entry is in the tree of the checkpoint, and nothing is in the bundle that none of these checks has looked at;
8. the page for people is what the checked content renders to.

What a bundle cannot show: that its trail has no later entry in the log (only the whole log shows that, `tally check`), and
that a collector told the truth.
"""

from collections.abc import Mapping, Sequence

from collector.batch import SignedHeader
from correlator.bundle import (
    CHECKPOINT,
    ENROLMENTS,
    HEADERS,
    PAGE,
    PROOFS,
    TRAIL,
    Contents,
    TrailPart,
)
from correlator.checkpoint import Checkpoint, Verifier, open_checkpoint
from correlator.entry import Entry
from correlator.errors import VerificationError
from correlator.merkle import leaf_hash, verify_consistency, verify_inclusion
from correlator.page import has_true_page
from correlator.proof import ConsistencyProof, EntryProof
from correlator.proved import (
    EnrolledKey,
    ProvedEvent,
    check_headers_chain,
    check_placement,
    open_batch_entry,
    open_enrolment,
    open_entry,
    open_event,
)
from correlator.report import Consistency, EntryReport, Report, TrailReport
from correlator.retired import meant_for, retired_events
from correlator.shards import key_of_log, split_origin
from correlator.trail import RETIREMENTS
from correlator.unbundle import parse_members, unpack_bundle

__all__ = ["EntryReport", "Report", "TrailReport", "verify_bundle", "verify_proof"]


def verify_bundle(
    data: bytes | Mapping[str, bytes],
    verifier: Verifier | None,
    *,
    remembered: Checkpoint | None = None,
    consistency: ConsistencyProof | None = None,
) -> Report:
    """Check a bundle.

    Args:
        data: the zip, or its members by name.
        verifier: the log's public key, or its ledger's, from outside; None: check all but that, and say so in `Report.trusted`.
        remembered: a checkpoint of the same log that the caller trusts from before.
        consistency: the proof between that one and the bundle's, in either direction. One that says it is of other sizes shows nothing.

    Raises:
        VerificationError: it is not true; the message names what fails first.
    """
    contents = parse_members(unpack_bundle(data) if isinstance(data, bytes) else data)
    if verifier is not None and contents.key != key_of_log(verifier, contents.key.name):
        raise VerificationError(
            f"manifest.json: the bundle is of the key {contents.key.name} ({contents.key.fingerprint}), "
            f"not of {verifier.name} ({verifier.fingerprint})"
        )
    try:
        checkpoint = open_checkpoint(contents.checkpoint, contents.key)
    except VerificationError as error:
        raise VerificationError(f"{CHECKPOINT}: {error}") from error
    relation = _compare_checkpoints(checkpoint, remembered, consistency)
    check = _BundleCheck(contents, checkpoint)
    check.trails()
    check.enrolments()
    check.headers()
    check.proofs()
    retired = check.retired()
    if contents.page is not None and not has_true_page(contents):
        raise VerificationError(
            f"{PAGE} is not what this bundle renders to: it was changed, or another version made it"
        )
    recorded = [entry.recorded for _, entry in check.trail_entries]
    return Report(
        trusted=verifier is not None,
        ledger=checkpoint.origin,
        key=contents.key,
        checkpoint=checkpoint,
        trails=tuple(_report_of(part) for part in contents.trails),
        events=sum(line.event is not None for line in contents.entry_lines()),
        withheld=sum(event.withheld for event in check.events.values()),
        retired=retired,
        headers=len(contents.headers),
        streams=tuple(sorted(check.used_keys, key=lambda key: (key.stream, key.key))),
        recorded=(min(recorded), max(recorded)),
        consistency=relation,
        page=contents.page is not None,
    )


def verify_proof(
    data: bytes,
    verifier: Verifier,
    *,
    entry: bytes | None = None,
    remembered: Checkpoint | None = None,
    consistency: ConsistencyProof | None = None,
) -> EntryReport:
    """Check a ``.tlog-proof`` of one entry; by default of the entry that it carries as its extra data.

    `remembered` and `consistency` are as for `verify_bundle`.

    Raises:
        VerificationError: it is not true, or there is no entry to check.
    """
    proof = EntryProof.parse(data)
    claimed = proof.extra if entry is None else entry
    if claimed is None:
        raise VerificationError("the proof carries no entry, and none was given")
    key = key_of_log(verifier, proof.checkpoint.partition(b"\n")[0].decode("utf-8", "replace"))
    checkpoint = proof.verify(claimed, key)
    relation = _compare_checkpoints(checkpoint, remembered, consistency)
    where = f"the entry (leaf {proof.index})"
    opened = open_entry(claimed, where)
    if not split_origin(checkpoint.origin)[1].may_hold(opened.trail, opened.kind, meant_for(opened)):
        raise VerificationError(f"{where}: {opened.trail} belongs into another shard's log")
    return EntryReport(trusted_key=key, checkpoint=checkpoint, leaf=proof.index, entry=opened, consistency=relation)


def _report_of(part: TrailPart) -> TrailReport:
    last = part.lines[-1]
    return TrailReport(
        trail=part.trail,
        first=part.first,
        entries=len(part.lines),
        head_leaf=last.leaf,
        head_hash=leaf_hash(last.entry).hex(),
    )


def _compare_checkpoints(
    checkpoint: Checkpoint, remembered: Checkpoint | None, consistency: ConsistencyProof | None
) -> Consistency:
    if remembered is None:
        return "not asked"
    if remembered.origin != checkpoint.origin:
        raise VerificationError(
            f"checkpoint: it is of the log {checkpoint.origin!r}, the remembered one of {remembered.origin!r}"
        )
    if remembered.size == checkpoint.size:
        if remembered.root != checkpoint.root:
            raise VerificationError(
                f"checkpoint: the log was forked: two trees of {checkpoint.size} leaves have other roots"
            )
        return "same"
    older, newer = sorted((remembered, checkpoint), key=lambda one: one.size)
    if consistency is None or not consistency.may_be_of(older.size, newer.size):
        return "not shown"  # a proof between others says nothing of these
    try:
        verify_consistency(older.size, older.root, newer.size, newer.root, consistency.hashes)
    except VerificationError as error:
        raise VerificationError(f"checkpoint: against the remembered one: {error}") from error
    return "continues" if older is remembered else "precedes"


class _BundleCheck:
    """One run of the checks; the steps are called in the order in which they are written."""

    def __init__(self, contents: Contents, checkpoint: Checkpoint) -> None:
        self.contents = contents
        self.checkpoint = checkpoint
        self._ledger, self._shard = split_origin(checkpoint.origin)
        self.trail_entries: list[tuple[int, Entry]] = []
        self.events: dict[tuple[str, int], ProvedEvent] = {}
        self.used_keys: set[EnrolledKey] = set()
        self._leaves: dict[int, tuple[bytes, str, str]] = {}  # leaf -> its hash, its recorded time, where it stands
        self._enrolled: dict[tuple[str, str], tuple[int, EnrolledKey]] = {}
        self._batches: list[tuple[int, SignedHeader, str]] = []  # those in the trails: leaf, header, where it stands

    def trails(self) -> None:
        """Each trail's chain, its events, and that each further trail is one that the first links to."""
        names = [part.trail for part in self.contents.trails]
        if names[1:] != sorted(set(names[1:]) - {names[0]}):
            raise VerificationError("manifest.json: the linked trails are not sorted by name, or one is there twice")
        number = 0
        linked: set[str] = set()
        for at, part in enumerate(self.contents.trails):
            if at and part.trail not in linked and part.trail != RETIREMENTS:
                raise VerificationError(f"{TRAIL}: no entry of {names[0]} links to {part.trail}, which is here")
            before: tuple[int, bytes] | None = None
            for position, line in enumerate(part.lines, part.first):
                number += 1
                where = f"{TRAIL} line {number} (leaf {line.leaf}, {part.trail} position {position})"
                entry = open_entry(line.entry, where)
                if (entry.trail, entry.position) != (part.trail, position):
                    raise VerificationError(f"{where}: the entry says {entry.trail} position {entry.position}")
                if not self._shard.may_hold(entry.trail, entry.kind, meant_for(entry)):
                    raise VerificationError(f"{where}: {entry.trail} belongs into another shard's log")
                _check_previous(entry, line.leaf, before, where)
                before = (line.leaf, self._take(line.leaf, line.entry, entry, where))
                self.trail_entries.append((line.leaf, entry))
                if at == 0 and entry.kind == "link":
                    linked.add(str(entry.detail.get("to")))
                self._take_content(entry, line.leaf, line.event, where)

    def _take_content(self, entry: Entry, leaf: int, event: bytes | None, where: str) -> None:
        if entry.kind == "event":
            proved = open_event(entry, event, where)
            if (proved.stream, proved.sequence) in self.events:
                raise VerificationError(f"{where}: event {proved.sequence} of {proved.stream} is here twice")
            self.events[proved.stream, proved.sequence] = proved
            return
        if event is not None:
            raise VerificationError(f"{where}: an event stands beside an entry of kind {entry.kind}, which has none")
        if entry.kind == "batch":
            self._batches.append((leaf, open_batch_entry(entry, self._ledger, where), where))

    def _take(self, leaf: int, data: bytes, entry: Entry, where: str) -> bytes:
        """Note the leaf down for `proofs`; gives its hash."""
        known = self._leaves.get(leaf)
        hashed = leaf_hash(data)
        if known is not None and known[0] != hashed:
            raise VerificationError(f"{where}: {known[2]} holds another entry for the same leaf")
        if known is None:
            self._leaves[leaf] = (hashed, entry.recorded, where)
        return hashed

    def enrolments(self) -> None:
        """The entries that say which key may sign for which stream."""
        for number, line in enumerate(self.contents.enrolments, 1):
            where = f"{ENROLMENTS} line {number} (leaf {line.leaf})"
            entry = open_entry(line.entry, where)
            key = open_enrolment(entry, where)
            if (key.stream, key.key) in self._enrolled:
                raise VerificationError(f"{where}: the key of {key.stream} was enrolled by an earlier line already")
            self._enrolled[key.stream, key.key] = (line.leaf, key)
            self._take(line.leaf, line.entry, entry, where)

    def headers(self) -> None:
        """Each event was signed by its collector, with a key enrolled for its stream, and is where it belongs."""
        chain = {}
        for leaf, signed, where in self._batches:
            self._check_key(leaf, signed, where)
            chain[signed.header.stream, signed.header.number] = signed
        signed_events: set[tuple[str, int]] = set()
        for number, line in enumerate(self.contents.headers, 1):
            where = f"{HEADERS} line {number} (leaf {line.leaf})"
            entry = open_entry(line.entry, where)
            signed = open_batch_entry(entry, self._ledger, where)
            self._take(line.leaf, line.entry, entry, where)
            key = self._check_key(line.leaf, signed, where)
            name = (signed.header.stream, signed.header.number)
            if chain.setdefault(name, signed).data != signed.data:
                raise VerificationError(f"{where}: two headers say to be batch {name[1]} of {name[0]}")
            if not line.paths:
                raise VerificationError(f"{where}: batch {name[1]} of {name[0]} concerns no event here")
            for sequence, path in line.paths:
                event = self.events.get((name[0], sequence))
                if event is None or (name[0], sequence) in signed_events:
                    raise VerificationError(f"{where}: it has facts of event {sequence}, which is not one to show here")
                signed_events.add((name[0], sequence))
                _check_facts(event, signed, path, where)
                check_placement(event, key)
        for place, event in self.events.items():
            if place not in signed_events:
                raise VerificationError(f"{event.where}: {HEADERS} has no signed header for this event")
        for _, key in self._enrolled.values():
            if key not in self.used_keys:
                raise VerificationError(f"{ENROLMENTS}: the key of {key.stream} signed nothing that is here")
        check_headers_chain(chain)

    def retired(self) -> int:
        """How many events are not here because they were retired; the trail of retirements comes along for them alone."""
        retired = retired_events(self.contents)
        if not retired and any(part.trail == RETIREMENTS for part in self.contents.trails[1:]):
            raise VerificationError(f"{TRAIL}: {RETIREMENTS} is here, and retires nothing that is not")
        return len(retired)

    def _check_key(self, leaf: int, signed: SignedHeader, where: str) -> EnrolledKey:
        header = signed.header
        found = self._enrolled.get((header.stream, header.key))
        if found is None or found[0] >= leaf:
            raise VerificationError(
                f"{where}: the key {header.key} was not enrolled for {header.stream} by an earlier entry that is here"
            )
        self.used_keys.add(found[1])
        return found[1]

    def proofs(self) -> None:
        """Every entry is in the tree, once; times along the log do not go back."""
        extra = self.contents.proofs.keys() - self._leaves.keys()
        if extra:
            raise VerificationError(f"{PROOFS}: it has a path for leaf {min(extra)}, which is not in the bundle")
        last_recorded = ""
        for leaf in sorted(self._leaves):
            hashed, recorded, where = self._leaves[leaf]
            path = self.contents.proofs.get(leaf)
            if path is None:
                raise VerificationError(f"{where}: {PROOFS} has no path for this leaf")
            try:
                verify_inclusion(hashed, leaf, self.checkpoint.size, path, self.checkpoint.root)
            except VerificationError as error:
                raise VerificationError(f"{where}: it is not in the log: {error}") from error
            if recorded < last_recorded:
                raise VerificationError(f"{where}: recorded at {recorded}, before an earlier entry ({last_recorded})")
            last_recorded = recorded


def _check_facts(event: ProvedEvent, signed: SignedHeader, path: Sequence[bytes], where: str) -> None:
    header = signed.header
    try:
        verify_inclusion(
            leaf_hash(event.facts_line),
            event.sequence - header.first,
            header.count,
            path,
            bytes.fromhex(header.facts_root),
        )
    except VerificationError as error:
        raise VerificationError(
            f"{where}: batch {header.number} of {header.stream} was not signed over the facts of {event.where}: {error}"
        ) from error


def _check_previous(entry: Entry, leaf: int, before: tuple[int, bytes] | None, where: str) -> None:
    previous = entry.previous
    if (previous is None) != (entry.position == 0):
        raise VerificationError(f"{where}: only the entry at position 0 has no previous entry")
    if previous is None or before is None:  # a range that starts later: its first entry's predecessor is not here
        if previous is not None and previous.leaf >= leaf:
            raise VerificationError(f"{where}: its previous entry would be leaf {previous.leaf}, after it")
        return
    if before[0] >= leaf:
        raise VerificationError(f"{where}: its leaf does not come after that of the entry before it ({before[0]})")
    if previous.leaf != before[0]:
        raise VerificationError(
            f"{where}: the chain is broken: it names leaf {previous.leaf} as the one before, which is leaf {before[0]}"
        )
    if previous.hash != before[1].hex():
        raise VerificationError(f"{where}: the chain is broken: the entry before it has another hash than it names")
