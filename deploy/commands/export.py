"""`tally export`: a trail and all its proofs as one file."""

import os
from pathlib import Path

import click

from deploy.session import Failure, Session, emit_json, json_option, pass_session, show


@click.command()
@click.argument("identity", metavar="ID")
@click.option(
    "-o", "--output", type=click.Path(dir_okay=False, path_type=Path), required=True, help="Where to write the bundle."
)
@click.option("--tenant", default="", help="Look within this tenant.")
@click.option("--force", is_flag=True, help="Replace a file that is there.")
@json_option
@pass_session
def export(session: Session, *, identity: str, output: Path, tenant: str, force: bool, as_json: bool) -> None:
    """Write a trail, the traces linked to it and all their proofs as a bundle that `tally verify` checks offline.

    ID is what `tally trail` takes. The export is put on record in the trail access/<who>, durably, before the file is written.
    """
    from deploy.choice import the_one
    from deploy.reading import open_ledger
    from deploy.recording import recorded

    if output.exists() and not force:
        raise Failure(f"{output} exists; --force replaces it")
    with open_ledger(session.config) as ledger, recorded(session) as record:
        summary = the_one(ledger, identity, tenant=tenant, record=record, action="trail.export")
        bundle, head, elsewhere = ledger.export(summary)
        record(action="trail.export", trail=summary.trail, head=head)
        key = ledger.key
    scratch = output.with_name(f"{output.name}.{os.getpid()}.new")
    try:
        scratch.write_bytes(bundle)
        scratch.replace(output)
    finally:
        scratch.unlink(missing_ok=True)
    if as_json:
        further = {"elsewhere": elsewhere} if session.config.correlator.shards > 1 else {}
        emit_json({"file": str(output), "trail": summary.trail, "bytes": len(bundle), "key": key.vkey, **further})
        return
    show(f"{output}: {summary.trail}, {len(bundle):,} bytes")
    for trail in elsewhere:
        show(f"{trail} belongs to it and is in another shard's log: export it by itself")
    show(f"verify it with: tally verify {output} --key {session.places.log_vkey}")
