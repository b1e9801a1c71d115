"""`tally reindex`: the trail index made anew."""

import click

from deploy.session import Failure, Session, emit_json, json_option, pass_session, say


@click.command()
@json_option
@pass_session
def reindex(session: Session, *, as_json: bool) -> None:
    """Make the trail index anew from the log, which it wholly follows from. Correlator and standby must not run meanwhile."""
    from contextlib import ExitStack

    from correlator.errors import Conflict, StateUnknown
    from correlator.index.sqlite import SqliteIndex
    from correlator.log import LogReader
    from correlator.reindex import reindex as rebuild
    from deploy.keys import log_verifier
    from deploy.logstorage import log_storage
    from deploy.progress import progress
    from deploy.writing import hold_states

    places = session.places
    verifier = log_verifier(places)
    storage = log_storage(session.config)
    with ExitStack() as held:
        try:  # keeps the correlators of this data folder, the index's only writers, from starting meanwhile
            held.enter_context(hold_states(places))
            held.callback(storage.claim().release)
        except Conflict as error:
            raise Failure("the correlator is running, and keeps the index up to date: stop it first") from error
        try:
            index = SqliteIndex(places.index, hub_links=session.config.correlator.hub_links)
        except StateUnknown as error:
            say(f"{error}: starting with an empty file")
            for name in (places.index, *places.index.parent.glob(f"{places.index.name}-*")):
                name.unlink(missing_ok=True)
            index = SqliteIndex(places.index, hub_links=session.config.correlator.hub_links)
        try:
            reader = LogReader(storage, verifier)
            size = reader.tree().size
            with progress("indexing", unit="leaves", quiet=as_json) as report:
                rebuild(index, reader, size, progress=report)
        finally:
            index.close()
    if as_json:
        emit_json({"leaves": size})
    else:
        click.echo(f"{places.index}: {size:,} leaves indexed")
