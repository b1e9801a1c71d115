"""`tally import`: files of logs and traces, with an exact account."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from deploy.session import EXIT_FALSE, Failure, Session, emit_json, json_option, pass_session, say, show, stop
from deploy.wording import count, harmless

if TYPE_CHECKING:
    from deploy.importing import Imported, ImportedFile

MAX_FILES_SHOWN = 20
MAX_HUBS_SHOWN = 10

MARKS = {
    "time_implausible": "dated before 1970 or after 2199; kept as stated",
    "time_unusable": "with a time that cannot be read; kept among the attributes",
    "truncated": "cut short at their source",
    "surrogate_replaced": "with bytes that are not UTF-8: U+FFFD stands in their place",
    "card": "with a card number, which is masked",
    "jwt": "with a token (JWT), which is masked",
    "field": "with a field that is masked by its name",
    "dropped": "with a field that is left out by its name",
    "key_too_long": "with an identity longer than 256 bytes; kept among the attributes",
    "name_too_long": "with a name longer than 256 characters; kept whole among the attributes",
    "newest_first": "in files that run newest first",
    "body_unparsed": "whose body is not in the format that the mapping says",
    "duration_unequal": "spans whose stated duration is not end minus start",
    "end_before_start": "spans that end before they start",
    "parent_span_id_unusable": "spans whose parent's id cannot be read",
}
"""What a mark means (up to its colon), for the table; an unknown one is shown by its name."""


@click.command("import")
@click.argument(  # one that cannot be read is told in its place, and the others go on
    "files", metavar="FILE...", nargs=-1, required=True, type=click.Path(path_type=Path, readable=False)
)
@click.option(
    "--mapping",
    "mapping_files",
    multiple=True,
    type=click.Path(dir_okay=False, path_type=Path),
    help="What the columns of CSV files mean (TOML, see examples/import); may be given several times.",
)
@click.option(
    "--again",
    is_flag=True,
    help="Import files once more, for rows that were refused before: what is stored already is a duplicate.",
)
@json_option
@pass_session
def import_files(
    session: Session, *, files: tuple[Path, ...], mapping_files: tuple[Path, ...], again: bool, as_json: bool
) -> None:
    """Take in files of logs and spans: CSV, JSON lines or Docker's JSON log lines, plain or gzip.

    Each file is a stream named by its SHA-256, so that importing it again adds nothing, in whatever order, unless
    --again asks for it. Every row is stored, a duplicate, or a dead letter with its reason. Rows may name any
    service: [collector.speakers] is not asked. Exit code 1 if a file could not be read or the account does not balance.
    """
    from collector.importer.mapping import load_mappings
    from collector.imports import IMPORT
    from collector.sidecar import DEAD_LETTERS
    from deploy import importing
    from deploy.progress import progress

    config, places = session.config, session.places
    try:
        mappings = [mapping for path in mapping_files for mapping in load_mappings(path)]
    except OSError as error:
        raise Failure(f"{error.filename}: {error.strerror}", exit_code=2) from error
    with (
        progress("reading", unit="bytes", quiet=as_json) as report,
        importing.open_importer(config, places) as importer,
    ):
        done = importing.import_files(importer, _whole(files), mappings, again=again, progress=report)
    with progress("stitching", unit="entries", quiet=as_json) as report:
        mine = importing.correlate(config, places, expected_events=done.total.stored, progress=report)
    if not mine:
        say("a correlator is running: it takes in what was imported")
    hubs = importing.hubs(config, places) if mine else []
    if as_json:
        emit_json(_plain(done, hubs))
    else:
        _show(done, hubs, mapped=bool(mappings), dead_letters=places.spool(IMPORT) / DEAD_LETTERS)
    unread = any(file.problem for file in done.files)
    stop(EXIT_FALSE if unread or not done.total.balances else 0)


def _whole(files: tuple[Path, ...]) -> list[Path]:
    """The files; of a folder those in it, by name, and what in it cannot be looked into: reading that says why."""
    return [file for path in files for file in sorted(_inside(path))]


def _inside(path: Path) -> Iterator[Path]:
    """What is in a folder; of anything else the path itself, which is what cannot be walked through then."""
    closed: list[OSError] = []
    for parent, _, names in os.walk(path, onerror=closed.append):
        for name in names:
            file = Path(parent, name)
            try:
                if stat.S_ISREG(file.stat().st_mode):  # no pipe, no device
                    yield file
            except OSError:  # a link to what is gone, or closed to us
                yield file
    yield from (Path(error.filename) for error in closed)


def _name(file: "ImportedFile") -> str:
    return harmless(Path(file.path).name)


def _problem(file: "ImportedFile") -> str:
    return file.problem.removeprefix(f"{Path(file.path).name}: ")


def _notes(file: "ImportedFile", *, mapped: bool) -> list[str]:
    """What else is to be said of a file that was read; `mapped`: there are mappings that it could be read by."""
    if file.account is None:
        return []
    notes = []
    if file.problem:
        notes.append(f"broken off behind these rows: {_problem(file)}")
    if file.grown:
        notes.append("it has grown meanwhile: import it again for what was appended")
    if mapped and file.format == "csv" and not file.mapping:
        notes.append("read without a mapping: its columns are not exactly those of any")
    return notes


def _plain(done: "Imported", hubs: list[tuple[str, int]]) -> dict[str, Any]:
    return {
        "files": done.files,
        "total": done.total,
        "balances": done.total.balances,
        "hubs": [{"trail": trail, "links": links} for trail, links in hubs],
    }


def _show(done: "Imported", hubs: list[tuple[str, int]], *, mapped: bool, dead_letters: Path) -> None:
    heads = f"{'rows':>12} {'stored':>12} {'duplicates':>12} {'dead-lettered':>14}"
    shown = [
        file
        for file in done.files
        if len(done.files) <= MAX_FILES_SHOWN
        or _notes(file, mapped=mapped)
        or file.account is None
        or file.account.dead_lettered
    ]
    width = min(max((len(_name(file)) for file in shown), default=0), 48)
    width = max(width, len(count(len(done.files), "file")))
    show(f"{'file':<{width}} {heads}")
    for file in shown:
        name, account = _name(file), file.account
        if account is None:
            show(f"{name:<{width}} not read: {_problem(file)}")
            continue
        again = "  (imported before)" if account.again else ""
        if account.number > 1:
            again = f"  (import number {account.number} of it)"
        show(
            f"{name:<{width}} {account.rows:>12,} {account.stored:>12,} {account.duplicates:>12,}"
            f" {account.dead_lettered:>14,}{again}"
        )
        for note in _notes(file, mapped=mapped):
            show(f"{'':<{width}} {note}")
    total = done.total
    name = count(total.files, "file")
    show(f"{name:<{width}} {total.rows:>12,} {total.stored:>12,} {total.duplicates:>12,} {total.dead_lettered:>14,}")
    sign = "=" if total.balances else "DOES NOT BALANCE:"
    show(
        f"\n{count(total.rows, 'row')} read {sign} {total.stored:,} stored + {count(total.duplicates, 'duplicate')}"
        f" + {total.dead_lettered:,} dead-lettered"
    )
    if any(file.account and file.account.again for file in done.files):
        show(
            "What was imported before is not taken twice: of those files all rows that can be read count as duplicates."
            " `tally import --again` brings in the rows that were refused then."
        )
    for reason, number in total.reasons.most_common():
        show(f"  {number:>10,}  dead-lettered: {reason}; the first is {total.first[reason]}")
    if total.reasons:
        show(f"  {'':>10}  each, with its row and why: {dead_letters}")
    for mark, number in total.marks.most_common():
        show(f"  {number:>10,}  rows {MARKS.get(mark, f'marked {mark}')}")
    for trail, links in hubs[:MAX_HUBS_SHOWN]:
        show(f"  {links:>10,}  trails share {trail}: a hub, recorded and not followed")
    if len(hubs) > MAX_HUBS_SHOWN:
        show(f"  {len(hubs) - MAX_HUBS_SHOWN:>10,}  hubs more: tally find --kind key")
