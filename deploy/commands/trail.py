"""`tally trail`: a transaction's story, verified, for a person or a program."""

import os
import shutil
import sys

import click

from deploy.asking import Asked, asked_ledger, asks
from deploy.session import EXIT_FALSE, EXIT_UNKNOWN, Session, emit_json, json_option, pass_session, stop


@click.command()
@click.argument("identity", metavar="ID")
@click.option("--tenant", default="", help="Look within this tenant.")
@click.option("--width", type=click.IntRange(min=60), help="Columns to fill (default: the terminal's).")
@json_option
@asks
@pass_session
def trail(session: Session, *, identity: str, tenant: str, width: int | None, source: Asked, as_json: bool) -> None:
    """Tell the story of a transaction: who did what when in which service, what is missing, and whether it is proved.

    ID is a transaction ID, the value of a declared business key, a trace id, or a whole trail id as `tally find` prints it.
    Reading is put on record in the trail access/<who>. With --api it is read through an audit API, and verified here. Exit code 0: it holds; 1: it does not; 2: could not tell.
    """
    from deploy.choice import the_one
    from deploy.story import lines

    with asked_ledger(session, source) as (ledger, record):
        summary = the_one(ledger, identity, tenant=tenant, record=record, action="trail.read")
        story, head = ledger.story(summary)
        record(action="trail.read", trail=summary.trail, head=head)
    if as_json:
        emit_json(story)
    else:
        columns = width or shutil.get_terminal_size((100, 40)).columns
        colour = sys.stdout.isatty() and "NO_COLOR" not in os.environ
        for line in lines(story, width=columns, colour=colour):
            click.echo(line)
    stop({"verified": 0, "false": EXIT_FALSE}.get(story.proof.state, EXIT_UNKNOWN))
