"""`tally export`: a trail with all its proofs as one file, or as data what a search finds."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from deploy.asking import Asked, asked_ledger, asks
from deploy.conditions import Conditions, conditions
from deploy.session import Failure, Session, emit_json, json_option, pass_session, say, show
from deploy.wording import count

if TYPE_CHECKING:
    from audit_api.export.walk import Selection
    from deploy.reading import Ledger
    from deploy.remoteexport import Fetched, RemoteExport

DATA = ("ndjson", "csv", "parquet", "ecs", "ocsf")


@click.command()
@click.argument("identity", metavar="[ID]", required=False, default="")
@click.option("-o", "--output", type=click.Path(dir_okay=False, path_type=Path), required=True, help="Where to write.")
@click.option(
    "--format",
    "form",
    type=click.Choice(("bundle", "pdf", *DATA)),
    default="bundle",
    show_default=True,
    help="A bundle has all proofs, a pdf is a report; the others are data, with a manifest beside the file.",
)
@conditions
@click.option("--force", is_flag=True, help="Replace files that are there.")
@click.option(
    "--job",
    metavar="ID",
    default="",
    help="With --api: take up the export job of an earlier call, and its file where it broke off.",
)
@json_option
@asks
@pass_session
def export(
    session: Session,
    *,
    identity: str,
    output: Path,
    form: str,
    asked: Conditions,
    force: bool,
    job: str,
    source: Asked,
    as_json: bool,
) -> None:
    """Write a trail with all its proofs, or as data every trail that a search finds.

    With an ID (what `tally trail` takes) it is that trail and the traces linked to it: as a bundle, which `tally verify` checks
    offline, or in another format. Without one it is every trail that meets all conditions, each whole, in a format other than
    bundle. FILE.manifest.json says up to which checkpoint that is, how much, and the file's SHA-256.

    The export is put on record in the trail access/<who>, durably, before the file is there.

    With --api what a search finds is made there as a job, waited for and fetched; a transfer that breaks off is taken up again. The job
    is deleted there once its file is here and is what the manifest says.
    """
    manifest = output.with_name(f"{output.name}.manifest.json")
    for file in (output, manifest) if form in DATA or job else (output,):
        if file.exists() and not force:
            raise Failure(f"{file} exists; --force replaces it")
    if not output.parent.is_dir():  # before anything is read, and put on record as read
        raise Failure(f"{output.parent} is no folder that is there")
    if identity and asked.given - {"tenant"}:
        raise click.UsageError(f"an ID is one trail: it goes without --{min(asked.given - {'tenant'})}")
    if job and (not source["api"] or identity or asked.given):
        raise click.UsageError("--job is of an API, with --api, and has its conditions already")
    if form == "pdf" and not identity:
        raise click.UsageError("a pdf is of one trail: say its ID, or choose another --format")
    if job or (source["api"] and form != "bundle"):
        _from_api(session, identity, output, manifest, form=form, asked=asked, job=job, source=source, as_json=as_json)
    elif form in DATA:
        _data(session, identity, output, manifest, form=form, asked=asked, as_json=as_json)
    elif identity:
        _one(session, identity, output, tenant=asked.query.tenant, source=source, pdf=form == "pdf", as_json=as_json)
    else:
        raise click.UsageError(f"a {form} is of one trail: say its ID, or choose another --format")


def _one(
    session: Session, identity: str, output: Path, *, tenant: str, source: Asked, pdf: bool, as_json: bool
) -> None:
    from audit_api.export.printed import report_pdf
    from audit_api.export.report import MAX_ENTRIES
    from deploy.choice import the_one
    from deploy.remote import RemoteLedger

    with asked_ledger(session, source) as (ledger, record):
        summary = the_one(ledger, identity, tenant=tenant, record=record, action="trail.export")
        if pdf:
            assert not isinstance(ledger, RemoteLedger), "made by the API"
            fonts = [Path(font) for font in session.config.audit_api.report_fonts]
            contents, head, signer, elsewhere = ledger.contents(summary, room=MAX_ENTRIES)
            made = report_pdf(contents, signer, fonts=fonts)
        else:
            made, head, elsewhere = ledger.export(summary)
        record(action="trail.export", trail=summary.trail, head=head)
        key = ledger.public_key() if isinstance(ledger, RemoteLedger) else ledger.key
    with _scratch(output) as scratch:
        scratch.write_bytes(made)
        scratch.replace(output)
    if as_json:
        further = {"elsewhere": elsewhere} if session.config.correlator.shards > 1 else {}
        emit_json({"file": str(output), "trail": summary.trail, "bytes": len(made), "key": key.vkey, **further})
        return
    show(f"{output}: {summary.trail}, {len(made):,} bytes")
    for trail in elsewhere:
        show(f"{trail} belongs to it and is in another shard's log: export it by itself")
    if not pdf:
        trusted = source["log_key"] or "KEY, from a source that you trust" if source["api"] else session.places.log_vkey
        show(f"verify it with: tally verify {output} --key {trusted}")


def _from_api(
    session: Session,
    identity: str,
    output: Path,
    manifest: Path,
    *,
    form: str,
    asked: Conditions,
    job: str,
    source: Asked,
    as_json: bool,
) -> None:
    from deploy.choice import the_one
    from deploy.progress import progress
    from deploy.remote import RemoteLedger
    from deploy.remoteexport import RemoteExport

    with asked_ledger(session, source) as (ledger, record):
        assert isinstance(ledger, RemoteLedger), "an API was named"
        export = RemoteExport(api=ledger.api, output=output, manifest=manifest)
        if not identity:
            fetched = _as_job(export, form, asked, job, quiet=as_json)
        else:
            trail = the_one(ledger, identity, tenant=asked.query.tenant, record=record, action="trail.export").trail
            if form == "pdf":
                size = export.report_of(trail)
                if as_json:
                    emit_json({"file": str(output), "trail": trail, "bytes": size})
                else:
                    show(f"{output}: {trail}, {size:,} bytes")
                return
            with progress("fetching", unit="bytes", quiet=as_json) as report:
                fetched = export.of_trail(trail, form, report)
    told = fetched.manifest
    _tell(told.counts, fetched.bytes, output, manifest, as_json=as_json)
    if told.truncated is not None:
        say(f"it is not all: it ends after {told.truncated.after_rows:,} rows, as {manifest} says")


def _as_job(export: "RemoteExport", form: str, asked: Conditions, job: str, *, quiet: bool) -> "Fetched":
    """What a search finds, made by the API and fetched; said how to take it up again when it breaks off."""
    from audit_api.export.walk import told_query
    from deploy.progress import progress

    if not job:
        job = export.ordered({"format": form, **{name: str(one) for name, one in told_query(asked.query).items()}})
    try:
        with progress("the API makes it", unit="rows", quiet=quiet) as report:
            told = export.made(job, report)
        with progress("fetching", unit="bytes", quiet=quiet) as report:
            fetched = export.fetched(told, report)
    except BaseException:
        say(f"the export is job {job} there: --job {job} takes it up again")
        raise
    try:
        export.forget(job)
    except Failure as error:  # the file is whole: the job goes by itself, in its time
        say(f"job {job} stays there until its time is over: {error}")
    return fetched


def _data(
    session: Session, identity: str, output: Path, manifest: Path, *, form: str, asked: Conditions, as_json: bool
) -> None:
    from audit_api.export.making import Making
    from audit_api.export.walk import Selection, Walk, told_query
    from deploy.choice import the_one
    from deploy.reading import open_ledger
    from deploy.recording import recorded

    with (
        open_ledger(session.config) as ledger,
        recorded(session) as record,
        _scratch(output) as scratch,
        _scratch(manifest) as scratch_manifest,
    ):
        if identity:
            summary = the_one(ledger, identity, tenant=asked.query.tenant, record=record, action="trail.export")
            making = Making(Walk(ledger.logs, _story_of(ledger, summary.trail)), form, name=output.name)
            action, trail, head = "trail.export", summary.trail, min(summary.last_leaf, making.walk.head)
        else:
            selection = Selection(query=asked.query, told=told_query(asked.query))
            making = Making(Walk(ledger.logs, selection), form, name=output.name)
            action, trail, head = "trails.export", "", making.walk.head
        with scratch.open("wb") as file:
            while (rows := making.read()) is not None:
                file.write(making.shape(rows))
            file.write(making.finish())
        scratch_manifest.write_bytes(making.manifest())
        record(action=action, trail=trail, head=head)  # it was read, and nobody has it yet
        scratch.replace(output)
        scratch_manifest.replace(manifest)
    _tell(making.walk.counts, making.bytes, output, manifest, as_json=as_json)


def _story_of(ledger: "Ledger", trail: str) -> "Selection":
    """The trail and the traces of its story, but those whose shard's log is behind."""
    from audit_api.export.walk import Selection

    told = ledger.story_trails(trail)
    traces = [trace for trace in told.traces if ledger.is_there(trace)]
    behind = len(told.traces) - len(traces) + told.traces_left_out
    if behind:
        say(f"{count(behind, 'trace')} of its story left out: too many, or in a log that is behind")
    return Selection(trails=(trail, *traces), told={"trail": trail, "linked": True, "traces_left_out": behind})


def _tell(counts: Mapping[str, int], size: int, output: Path, manifest: Path, *, as_json: bool) -> None:
    if as_json:
        emit_json({"file": str(output), "manifest": str(manifest), "bytes": size, "counts": counts})
        return
    rows, trails = count(counts["rows"], "row"), count(counts["trails"], "trail")
    show(f"{output}: {rows} of {trails}, {size:,} bytes; what it is of: {manifest}")
    for what, why in (
        ("damaged", "missing or changed in the store: their rows say how, and so does `tally check`"),
        ("oversized", "too large for an export: their rows say so"),
        ("retired", "let go of by policy: their rows say with which month"),
    ):
        if counts[what]:
            say(f"{count(counts[what], 'event')} {why}")


@contextmanager
def _scratch(output: Path) -> Iterator[Path]:
    """A file beside the one that is to be, gone in the end unless it was renamed."""
    scratch = output.with_name(f"{output.name}.{os.getpid()}.new")
    try:
        yield scratch
    finally:
        scratch.unlink(missing_ok=True)
