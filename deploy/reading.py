"""Reads the embedded ledger's files directly, for the command line: finds a trail by what a person knows, and its story.

What is told was verified first, with the same code and of the same bytes as an exported bundle (`correlator.verify`).
"""

import re
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from msgspec.structs import replace

from audit_api.accesses import AccessHistory, PastAccess
from audit_api.evidence import Evidence, SignedTree
from audit_api.export.bundle import BundleExport, TooLarge
from collector.errors import NotFound
from correlator.bundle import BundleLine, Contents, TrailPart, encode_members
from correlator.entry import Entry, decode_entry
from correlator.errors import VerificationError
from correlator.flow import Flow
from correlator.index import TrailIndex, TrailQuery, TrailSummary
from correlator.log import LogReader
from correlator.note import Verifier
from correlator.story import StoryTrails
from correlator.story import story as story_trails
from correlator.trail import parse_trail, stream_trail, trace_trail, transaction_trail
from correlator.verify import verify_bundle
from deploy.config import Config
from deploy.gaps import open_gaps
from deploy.indexing import open_index
from deploy.keys import log_verifier
from deploy.logstorage import log_storage
from deploy.narrate import narrate
from deploy.places import Places
from deploy.storing import open_store
from deploy.story import Proof, Story

__all__ = ["Ledger", "gaps_of", "open_ledger"]

MAX_GAPS = 20
_STREAM_CHUNK = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Ledger:
    """The embedded ledger, open for reading.

    `key_names` are the business keys and `flows` the flows that the configuration declares; a story or a bundle holds at most `max_entries`.
    """

    evidence: Evidence
    history: AccessHistory
    index: TrailIndex
    key: Verifier
    key_names: tuple[str, ...]
    flows: tuple[Flow, ...]
    max_entries: int

    def find(self, text: str, *, tenant: str = "") -> list[TrailSummary]:
        """The trails that a person may mean: a whole trail id; else a transaction ID, a business key's value, or a trace id."""
        size = self.evidence.tree().size
        for trail in _guesses(text, tenant):
            try:
                return [self.index.trail(trail)]
            except NotFound:
                continue
        found: dict[str, TrailSummary] = {}
        for name in self.key_names:
            page = self.index.find(TrailQuery(tenant=tenant, key=(name, text)), size=size)
            found |= {summary.trail: summary for summary in page.trails}
        # a key's own trail may hold nothing but links to the transactions that carry the key: those are what is meant
        told = [summary for summary in found.values() if summary.services]
        return told or list(found.values())

    def story(self, summary: TrailSummary) -> tuple[Story, int]:
        """The verified story of a trail, and the leaf index of its last entry.

        What does not verify is told all the same where it can be read, with a proof that says so.

        Raises:
            VerificationError: an entry of it cannot be read.
            NotFound: nothing is published yet.
        """
        tree = self.evidence.tree()
        proof = Proof(
            state="verified",
            origin=tree.checkpoint.origin,
            size=tree.size,
            root=tree.checkpoint.root.hex(),
            key=f"{self.key.name}+{self.key.key_id.hex()}",
        )
        trails = story_trails(summary.trail, self.index.trail)
        try:
            contents = self._contents(trails)
            report = verify_bundle(encode_members(contents), self.key)
        except TooLarge as error:
            contents = self._entries_alone(trails, tree)
            proof = replace(proof, state="unknown", problem=str(error))
        except (NotFound, VerificationError) as error:
            contents = self._entries_alone(trails, tree)
            proof = replace(proof, state="false", problem=str(error))
        else:
            proof = replace(proof, entries=sum(trail.entries for trail in report.trails), events=report.events)
        gaps = self._gaps(contents)
        told = narrate(
            contents,
            status=summary.status,
            proof=proof,
            trails=trails,
            gaps=gaps,
            accesses=[_in_words(access) for access in self.history.of(summary.trail)],
            flows=self.flows,
        )
        return told, contents.trails[0].lines[-1].leaf

    def export(self, summary: TrailSummary) -> tuple[bytes, int]:
        """The bundle of a trail's story as a zip, and the leaf index of its last entry; raises `NotFound`, `TooLarge`."""
        export = self._begin(story_trails(summary.trail, self.index.trail), page=True)
        while export.step():
            pass
        return export.finish(), export.head

    def _contents(self, trails: StoryTrails) -> Contents:
        export = self._begin(trails, page=False)
        while export.step():
            pass
        return export.contents()

    def _begin(self, trails: StoryTrails, *, page: bool) -> BundleExport:
        return BundleExport(
            self.evidence, key=self.key, trails=(trails.main, *trails.traces), page=page, max_entries=self.max_entries
        )

    def _entries_alone(self, trails: StoryTrails, tree: SignedTree) -> Contents:
        """What can be told when the events or their headers cannot be had: the entries, as the log holds them."""
        parts = []
        for trail in (trails.main, *trails.traces):
            leaves = self.index.leaves(trail, limit=self.max_entries, size=tree.size)
            lines = tuple(BundleLine(leaf=one.leaf, entry=one.data) for one in self.evidence.entries(leaves))
            if lines:
                parts.append(TrailPart(trail=trail, first=0, lines=lines))
        if not parts:
            raise NotFound(f"the log has no entries of {trails.main} yet")
        return Contents(key=self.key, checkpoint=tree.signed, trails=tuple(parts), headers=(), enrolments=(), proofs={})

    def _gaps(self, contents: Contents) -> list[str]:
        """What is missing still from the streams that these events came by."""
        streams = {decode_entry(line.entry).stream for line in contents.entry_lines()} - {""}
        return gaps_of(self.index, self.evidence.reader, sorted(streams))


def gaps_of(index: TrailIndex, reader: LogReader, streams: Iterable[str]) -> list[str]:
    """What is missing still from these streams, in sentences; at most 20, and then that there is more."""
    told: list[str] = []
    for stream in streams:
        trail = stream_trail(stream)
        try:
            if index.trail(trail).status == "gap":
                told += open_gaps(stream, _entries(index, reader, trail))
        except NotFound:
            continue
    if len(told) > MAX_GAPS:
        told[MAX_GAPS:] = [f"and {len(told) - MAX_GAPS:,} more: `tally check` lists them"]
    return told


def _entries(index: TrailIndex, reader: LogReader, trail: str) -> Iterator[tuple[int, Entry]]:
    start = 0
    while leaves := index.leaves(trail, start=start, limit=_STREAM_CHUNK):
        for leaf in leaves:
            yield leaf, decode_entry(reader.entry(leaf))
        start += len(leaves)


def _in_words(access: PastAccess) -> str:
    refused = f", refused: {access.refused}" if access.refused else ""
    return f"by {access.principal} at {access.time[:19]}Z ({access.action}{refused})"


def _guesses(text: str, tenant: str) -> Iterator[str]:
    """The trail ids that `text` may stand for, likeliest first."""
    try:
        parse_trail(text)
    except VerificationError:
        pass
    else:
        yield text
    yield transaction_trail(text, tenant)
    if re.fullmatch(r"[0-9a-f]{32}", text):
        yield trace_trail(text, tenant)


@contextmanager
def open_ledger(config: Config) -> Iterator[Ledger]:
    """Open the embedded ledger for reading; it may be in use.

    Raises:
        ConfigError: there is no ledger yet, or its key cannot be read.
        NotFound: it has no store or index yet.
    """
    places = Places(Path(config.data))
    key = log_verifier(places)
    with ExitStack() as open_files:
        index = open_index(config, places, read_only=True)
        open_files.callback(index.close)
        store = open_store(config, places, read_only=True)
        open_files.callback(store.close)
        reader = LogReader(log_storage(config), key)
        evidence = Evidence(index=index, reader=reader, store=store)
        collectors = (config.collector, *config.sidecars.values())
        yield Ledger(
            evidence=evidence,
            history=AccessHistory(evidence=evidence, monotonic=time.monotonic),
            index=index,
            key=key,
            key_names=tuple(dict.fromkeys(rule.name for settings in collectors for rule in settings.stitch.keys)),
            flows=config.correlator.flows,
            max_entries=config.audit_api.export_entries,
        )
