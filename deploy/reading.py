"""Reads the embedded ledger's files directly, for the command line: finds a trail by what a person knows, and its story.

What is told was verified first, with the same code and of the same bytes as an exported bundle (`correlator.verify`).
"""

import time
from collections.abc import Iterable, Iterator, Sequence
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
from correlator.shards import Shard, key_of_log, shard_of
from correlator.story import StoryTrails
from correlator.story import story as story_trails
from correlator.trail import meant_trails, stream_trail
from correlator.verify import verify_bundle
from deploy.config import Config
from deploy.gaps import open_gaps
from deploy.indexing import open_index
from deploy.keys import log_verifier
from deploy.logstorage import log_storage
from deploy.narrate import narrate
from deploy.places import Places
from deploy.sharding import check_cut, shards_of
from deploy.storing import open_store
from deploy.story import Proof, ProvedTree, Story

__all__ = ["Ledger", "OpenLog", "gaps_of", "joined", "open_ledger"]

MAX_GAPS = 20
_WORSE = (("verified", "unknown"), ("verified", "false"), ("unknown", "false"))
_STREAM_CHUNK = 1_000
_CACHED_TILES, _CACHED_BUNDLES = 512, 128
"""Of each log: a command reads a place once and goes on, so what it keeps of the log would only grow with what it exports."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenLog:
    """One log of the ledger with its index, open for reading: the only one, or a shard's. `key` signs this log."""

    shard: Shard
    evidence: Evidence
    history: AccessHistory
    index: TrailIndex
    key: Verifier


@dataclass(frozen=True, slots=True, kw_only=True)
class Ledger:
    """The embedded ledger, open for reading: its logs by shard, one where it is not cut. A trail is told of from the log that it hashes to.

    `key` is the ledger's; `key_names` are the business keys and `flows` the flows that the configuration declares; a story or a bundle holds
    at most `max_entries`.
    """

    logs: tuple[OpenLog, ...]
    key: Verifier
    key_names: tuple[str, ...]
    flows: tuple[Flow, ...]
    max_entries: int

    def log_of(self, trail: str) -> OpenLog:
        """The log that a trail stands in."""
        return self.logs[shard_of(trail, len(self.logs)) - 1]

    def summary(self, trail: str) -> TrailSummary:
        """What the index tells of a trail; raises `NotFound`."""
        return self.log_of(trail).index.trail(trail)

    def search(self, query: TrailQuery, *, limit: int = 50) -> tuple[list[TrailSummary], bool]:
        """The newest trails that match, at most `limit`, and whether there are more.

        Of a cut ledger the newest of each log, those first whose events state the latest time: leaves of two logs do not compare.
        """
        found: list[TrailSummary] = []
        more = False
        for log in self.logs:
            mine, rest = _newest(log, query, limit)
            found += mine
            more = more or rest
        if len(self.logs) > 1:
            found.sort(key=lambda one: (one.last_time, one.trail), reverse=True)
        return found[:limit], more or len(found) > limit

    def find(self, text: str, *, tenant: str = "") -> list[TrailSummary]:
        """The trails that a person may mean: a whole trail id; else a transaction ID, a business key's value, or a trace id."""
        for trail in meant_trails(text, tenant):
            try:
                return [self.summary(trail)]
            except NotFound:
                continue
        found: dict[str, TrailSummary] = {}
        for name in self.key_names:
            page, _ = self.search(TrailQuery(tenant=tenant, key=(name, text)))
            found |= {summary.trail: summary for summary in page}
        # a key's own trail may hold nothing but links to the transactions that carry the key: those are what is meant
        told = [summary for summary in found.values() if summary.services]
        return told or list(found.values())

    def story(self, summary: TrailSummary) -> tuple[Story, int]:
        """The verified story of a trail, and the leaf index of its last entry in its log.

        What does not verify is told all the same where it can be read, with a proof that says so. Of a cut ledger each trail is
        verified in its own log.

        Raises:
            VerificationError: an entry of it cannot be read.
            NotFound: nothing is published yet.
        """
        trails = self.story_trails(summary.trail)
        plan, behind = self._plan(trails)
        contents, proof = self._verified(*plan[0], room=self.max_entries)
        elsewhere: list[Contents] = []
        further: list[ProvedTree] = []
        for log, names in plan[1:]:
            room = self.max_entries - sum(len(part.lines) for one in (contents, *elsewhere) for part in one.trails)
            more, proved = self._verified(log, names, room=max(room, 1))
            elsewhere.append(more)
            tree = ProvedTree(origin=proved.origin, size=proved.size, root=proved.root)
            further += [tree] if tree not in further else []
            proof = joined(proof, proved)
        if further:
            proof = replace(proof, further=tuple(further))
        gaps = self._gaps([part for one in (contents, *elsewhere) for part in one.trails]) + [
            f"{trail} is linked to it, and its shard's log is behind" for trail in behind
        ]
        told = narrate(
            contents,
            status=summary.status,
            proof=proof,
            trails=trails,
            gaps=gaps,
            accesses=[_in_words(access) for access in self._accesses(summary.trail)],
            flows=self.flows,
            elsewhere=elsewhere,
        )
        return told, contents.trails[0].lines[-1].leaf

    def export(self, summary: TrailSummary) -> tuple[bytes, int, tuple[str, ...]]:
        """A trail's story as a bundle: the zip, the leaf index of its last entry, and which of its traces are not in it.

        Those stand in other shards' logs, and each is a bundle of its own. Raises `NotFound`, `TooLarge`.
        """
        plan, behind = self._plan(self.story_trails(summary.trail))
        log, names = plan[0]
        export = self._begin(log, names, page=True, room=self.max_entries)
        while export.step():
            pass
        return export.finish(), export.head, tuple(sorted([*behind, *(name for _, far in plan[1:] for name in far)]))

    def contents(self, summary: TrailSummary, *, room: int) -> tuple[Contents, int, Verifier, tuple[str, ...]]:
        """As `export`, not packed: what a bundle of at most `room` entries holds, and the key of its log in the place of the zip."""
        plan, behind = self._plan(self.story_trails(summary.trail))
        log, names = plan[0]
        export = self._begin(log, names, page=False, room=min(room, self.max_entries))
        while export.step():
            pass
        elsewhere = tuple(sorted([*behind, *(name for _, far in plan[1:] for name in far)]))
        return export.contents(), export.head, log.key, elsewhere

    def story_trails(self, trail: str) -> StoryTrails:
        """The trails of a trail's story; raises `NotFound`."""
        return story_trails(trail, self._summary_or_none, self._is_hub)

    def is_there(self, trail: str) -> bool:
        """Whether its log has anything of the trail."""
        return self._summary_or_none(trail).entries > 0

    def _summary_or_none(self, trail: str) -> TrailSummary:
        """As `summary`; of a trail whose shard's log has nothing of it yet, though another's links to it, an empty one."""
        try:
            return self.summary(trail)
        except NotFound:
            if len(self.logs) == 1:
                raise
            return TrailSummary(trail=trail, entries=0, first_leaf=-1, last_leaf=-1)

    def _is_hub(self, trail: str) -> bool:
        try:
            return self.log_of(trail).index.is_hub(trail)
        except NotFound:
            if len(self.logs) == 1:
                raise
            return False

    def _plan(self, trails: StoryTrails) -> tuple[list[tuple[OpenLog, tuple[str, ...]]], list[str]]:
        """Which trails of a story are proved together: those of the main trail's log, then each other one alone; and those not there yet."""
        home = self.log_of(trails.main)
        near = [trail for trail in trails.traces if self.log_of(trail) is home]
        far = [trail for trail in trails.traces if self.log_of(trail) is not home]
        behind = [trail for trail in far if not self._summary_or_none(trail).entries]
        return [(home, (trails.main, *near)), *((self.log_of(one), (one,)) for one in far if one not in behind)], behind

    def _verified(self, log: OpenLog, names: Sequence[str], *, room: int) -> tuple[Contents, Proof]:
        """What can be told of these trails of one log, and what of it holds."""
        tree = log.evidence.tree()
        proof = Proof(
            state="verified",
            origin=tree.checkpoint.origin,
            size=tree.size,
            root=tree.checkpoint.root.hex(),
            key=f"{self.key.name}+{self.key.key_id.hex()}",
        )
        try:
            export = self._begin(log, names, page=False, room=room)
            while export.step():
                pass
            contents = export.contents()
            report = verify_bundle(encode_members(contents), log.key)
        except TooLarge as error:
            return self._entries_alone(log, names, tree), replace(proof, state="unknown", problem=str(error))
        except (NotFound, VerificationError) as error:
            return self._entries_alone(log, names, tree), replace(proof, state="false", problem=str(error))
        return contents, replace(proof, entries=sum(trail.entries for trail in report.trails), events=report.events)

    def _begin(self, log: OpenLog, names: Sequence[str], *, page: bool, room: int) -> BundleExport:
        return BundleExport(log.evidence, key=log.key, trails=names, page=page, max_entries=room)

    def _entries_alone(self, log: OpenLog, names: Sequence[str], tree: SignedTree) -> Contents:
        """What can be told when the events or their headers cannot be had: the entries, as the log holds them."""
        parts = []
        for trail in names:
            leaves = log.index.leaves(trail, limit=self.max_entries, size=tree.size)
            lines = tuple(BundleLine(leaf=one.leaf, entry=one.data) for one in log.evidence.entries(leaves))
            if lines:
                parts.append(TrailPart(trail=trail, first=0, lines=lines))
        if not parts:
            raise NotFound(f"the log has no entries of {names[0]} yet")
        return Contents(key=log.key, checkpoint=tree.signed, trails=tuple(parts), headers=(), enrolments=(), proofs={})

    def _gaps(self, trails: Sequence[TrailPart]) -> list[str]:
        """What is missing still from the streams that these events came by, as the logs say that the story is told from."""
        told: dict[str, None] = {}
        for log in dict.fromkeys(self.logs.index(self.log_of(part.trail)) for part in trails):
            parts = [part for part in trails if self.log_of(part.trail) is self.logs[log]]
            streams = {decode_entry(line.entry).stream for part in parts for line in part.lines} - {""}
            told |= dict.fromkeys(gaps_of(self.logs[log].index, self.logs[log].evidence.reader, sorted(streams)))
        return list(told)

    def _accesses(self, trail: str) -> list[PastAccess]:
        """Who read the trail before, oldest first; each principal's accesses stand in the log that their own trail hashes to."""
        found = [access for log in self.logs for access in log.history.of(trail)]
        return sorted(found, key=lambda access: access.time) if len(self.logs) > 1 else found


def joined(proof: Proof, other: Proof) -> Proof:
    """Of two logs: what holds of both; the first one's problem counts, and false more than unknown."""
    worst = other if (proof.state, other.state) in _WORSE else proof
    return replace(
        proof,
        state=worst.state,
        problem=worst.problem,
        entries=proof.entries + other.entries,
        events=proof.events + other.events,
    )


def _newest(log: OpenLog, query: TrailQuery, limit: int) -> tuple[list[TrailSummary], bool]:
    """The newest trails of one log that match, and whether there are more; of those that stand in each log, its own alone."""
    size = log.evidence.tree().size
    found: list[TrailSummary] = []
    below: int | None = None
    while True:
        page = log.index.find(query, size=size, below=below, limit=limit)
        found += [one for one in page.trails if log.shard.holds(one.trail)]
        if page.next_below is None or len(found) >= limit:
            return found, page.next_below is not None or len(found) > limit
        below = page.next_below


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


@contextmanager
def open_ledger(config: Config) -> Iterator[Ledger]:
    """Open the embedded ledger for reading; it may be in use.

    Raises:
        ConfigError: there is no ledger yet, its key cannot be read, or it began with another number of shards.
        NotFound: it has no store or index yet.
    """
    places = Places(Path(config.data))
    key = log_verifier(places)
    check_cut(config)
    with ExitStack() as open_files:
        store = open_store(config, places, read_only=True)
        open_files.callback(store.close)
        logs = []
        for shard in shards_of(config):
            index = open_index(config, places.of_shard(shard.name), read_only=True)
            open_files.callback(index.close)
            log_key = key_of_log(key, shard.origin(key.name))
            reader = LogReader(
                log_storage(config, shard), log_key, cached_tiles=_CACHED_TILES, cached_bundles=_CACHED_BUNDLES
            )
            evidence = Evidence(index=index, reader=reader, store=store)
            history = AccessHistory(evidence=evidence, monotonic=time.monotonic)
            logs.append(OpenLog(shard=shard, evidence=evidence, history=history, index=index, key=log_key))
        collectors = (config.collector, *config.sidecars.values())
        yield Ledger(
            logs=tuple(logs),
            key=key,
            key_names=tuple(dict.fromkeys(rule.name for settings in collectors for rule in settings.stitch.keys)),
            flows=config.correlator.flows,
            max_entries=config.audit_api.export_entries,
        )
