"""Takes files into the embedded ledger, with an account that balances exactly: rows = stored + duplicates + dead-lettered."""

import random
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from collector.deadletters import DeadLetters
from collector.disk import OsDisk
from collector.errors import Malformed
from collector.extract import Extractor
from collector.fileaccount import BrokenOff, FileAccount
from collector.importer.files import ImportFile
from collector.importer.mapping import Mapping
from collector.imports import IMPORT, Importer
from collector.prepare import Preparer
from collector.protect import Protector
from collector.retry import Breaker, RetryLimits
from collector.settings import SpoolSettings
from collector.sidecar import DEAD_LETTERS
from collector.spool import SpoolLimits
from correlator.errors import Conflict
from correlator.index import TrailIndex, TrailQuery, TrailSummary
from deploy.config import Config
from deploy.indexing import open_index
from deploy.keys import collector_key, token_key
from deploy.places import Places
from deploy.sharding import shards_of
from deploy.storing import open_store
from deploy.wording import in_words
from deploy.writing import open_correlator

__all__ = ["Imported", "ImportedFile", "Total", "correlate", "hubs", "import_files", "open_importer"]

_GUESSED_ROW_BYTES = 64
"""How many bytes of a file a row is taken to be until one file was read: only the progress bar depends on it."""

_LEAST_SPOOL_BYTES = 64 * 1024**2
"""A file's spool may hold so much whatever the settings say: some groups of rows."""

_SEGMENT_BYTES = 32 * 1024**2

_HUBS_LOOKED_AT = 100_000

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportedFile:
    """What became of a file.

    Attributes:
        account: of the rows that were read; None where it could not be read at all.
        problem: why it could not be read, or not to its end; empty when it was.
        grown: it was longer behind its last row than when it was looked at: what was appended is not in the account.
    """

    path: str
    format: str = ""
    mapping: str = ""
    account: FileAccount | None = None
    problem: str = ""
    grown: bool = False


@dataclass(slots=True, kw_only=True)
class Total:
    """The sum over all files; see `collector.fileaccount.FileAccount`."""

    files: int = 0
    rows: int = 0
    stored: int = 0
    duplicates: int = 0
    dead_lettered: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    first: dict[str, str] = field(default_factory=dict)
    marks: Counter[str] = field(default_factory=Counter)

    @property
    def balances(self) -> bool:
        """Whether every row that was read is accounted for."""
        return self.rows == self.stored + self.duplicates + self.dead_lettered == self._by_reason()

    def _by_reason(self) -> int:
        return self.stored + self.duplicates + sum(self.reasons.values())

    def add(self, account: FileAccount) -> None:
        """Count a file in."""
        self.files += 1
        self.rows += account.rows
        self.stored += account.stored
        self.duplicates += account.duplicates
        self.dead_lettered += account.dead_lettered
        self.reasons.update(account.reasons)
        self.first = {**account.first, **self.first}
        self.marks.update(account.marks)


@dataclass(frozen=True, slots=True, kw_only=True)
class Imported:
    """What an import did."""

    files: tuple[ImportedFile, ...]
    total: Total


@contextmanager
def open_importer(config: Config, places: Places) -> Iterator[Importer]:
    """An importer into the embedded store.

    Raises:
        StateUnknown: another import is running, or a spool of an earlier one is damaged.
        Overloaded: the store does not answer.
    """
    places.make()
    disk = OsDisk()
    settings = config.collector
    protector = Protector(
        token_key=token_key(places),
        masked_fields=settings.protect.masked_fields,
        dropped_fields=settings.protect.dropped_fields,
    )
    preparer = Preparer(
        extractor=Extractor(settings.stitch),
        protector=protector,
        clock=None,  # a row's bytes must not depend on when it is imported
        max_event_bytes=settings.spool.max_event_bytes,
    )
    root = places.spool(IMPORT)
    disk.make_directory(root)
    dead_letters = DeadLetters(
        root / DEAD_LETTERS,
        disk=disk,
        protector=protector,
        clock=time.time_ns,
        total_bytes=settings.spool.dead_letters_max_bytes,
    )
    store = open_store(config, places)
    try:
        importer = Importer(
            root,
            ledger=config.ledger,
            store=store,
            key=collector_key(places, IMPORT),
            preparer=preparer,
            dead_letters=dead_letters,
            disk=disk,
            clock=time.time_ns,
            breaker=Breaker(RetryLimits(), uniform=random.uniform),
            journal_ids=settings.spool.journal_ids,
            limits=_limits(settings.spool),
            correlate=partial(correlate, config, places, expected_events=0),
        )
        try:
            yield importer
        finally:
            importer.close()
    finally:
        store.close()


def _limits(settings: SpoolSettings) -> SpoolLimits:
    total_bytes = max(settings.max_bytes, _LEAST_SPOOL_BYTES)
    return SpoolLimits(
        total_bytes=total_bytes,
        segment_bytes=min(_SEGMENT_BYTES, total_bytes // 8),
        keep_free_bytes=settings.keep_free_bytes,
    )


def import_files(
    importer: Importer,
    paths: Sequence[Path],
    mappings: Sequence[Mapping],
    *,
    again: bool = False,
    progress: Progress = lambda *_: None,
) -> Imported:
    """Import the files one after the other; one that cannot be read is told in its place, and the others go on.

    With `again` those that were imported before are imported once more, for the rows that were refused then.
    `progress` is told how many bytes of how many are done, as far as that can be estimated within a file.
    """
    sizes = {path: _size_bytes(path) for path in paths}
    whole = sum(sizes.values())
    done_bytes = done_rows = 0
    files: list[ImportedFile] = []
    total = Total()
    for path in paths:
        row_bytes = done_bytes / done_rows if done_rows else _GUESSED_ROW_BYTES
        rows = 0

        def taken(more: int, *, base: int = done_bytes, size: int = sizes[path], each: float = row_bytes) -> None:
            nonlocal rows
            rows += more
            progress(base + min(int(rows * each), size), whole)

        file = _imported(importer, path, mappings, taken, again=again)
        files.append(file)
        if file.account is not None:
            total.add(file.account)
            done_rows += file.account.rows
        done_bytes += sizes[path]
        progress(done_bytes, whole)
    return Imported(files=tuple(files), total=total)


def _imported(
    importer: Importer, path: Path, mappings: Sequence[Mapping], taken: Callable[[int], None], *, again: bool
) -> ImportedFile:
    problem = ""
    try:
        file = ImportFile(path, mappings)
        try:
            account = importer.run(file.sha256, file.groups(), taken, again=again)
        except BrokenOff as error:
            account, problem = error.account, in_words(error.why)
    except (Malformed, OSError, Conflict) as error:
        return ImportedFile(path=str(path), problem=in_words(error))
    return ImportedFile(
        path=str(path),
        format=file.format,
        mapping=file.mapping,
        account=account,
        problem=problem,
        grown=file.has_grown(),
    )


def _size_bytes(path: Path) -> int:
    """Of a file; 0 where that cannot be told: reading it says why."""
    try:
        return path.stat().st_size if path.is_file() else 0
    except OSError:
        return 0


def correlate(config: Config, places: Places, *, expected_events: int, progress: Progress = lambda *_: None) -> bool:
    """Take what the store holds into the log, unless another process does that already: then False.

    `progress` is told how many entries of about how many are made.
    """
    mine = True
    done = 0
    for shard in shards_of(config):
        try:
            with open_correlator(config, places, shard=shard) as correlator:
                before = correlator.size - done
                while correlator.step():
                    made = correlator.size - before
                    progress(made, max(made, expected_events))
                done = correlator.size - before
        except Conflict:
            mine = False
    return mine


def hubs(config: Config, places: Places) -> list[tuple[str, int]]:
    """The keys' trails that link too many others to mean one thing, with how many: most first."""
    found = []
    for shard in shards_of(config):
        index = open_index(config, places.of_shard(shard.name), read_only=True)
        try:
            found += [
                (summary.trail, len(summary.links) + summary.links_left_out) for summary in _keys(index) if summary.hub
            ]
        finally:
            index.close()
    return sorted(found, key=lambda one: (-one[1], one[0]))


def _keys(index: TrailIndex) -> Iterator[TrailSummary]:
    size, seen = index.size(), 0
    below: int | None = None
    while seen < _HUBS_LOOKED_AT:
        page = index.find(TrailQuery(kind="key"), size=size, below=below, limit=1_000)
        yield from page.trails
        seen += len(page.trails)
        if page.next_below is None:
            return
        below = page.next_below
