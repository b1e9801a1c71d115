"""`tally reindex`: the trail index made anew."""

import click

from deploy.session import Failure, Session, emit_json, json_option, pass_session, say


@click.command()
@json_option
@pass_session
def reindex(session: Session, *, as_json: bool) -> None:
    """Make the trail index anew from the log, which it wholly follows from. Correlator and standby must not run meanwhile.

    On OpenSearch the new index is made beside the old one, which is read until the new one takes its place.
    """
    from contextlib import ExitStack

    from correlator.errors import Conflict
    from correlator.log import LogReader
    from correlator.reindex import catch_up
    from correlator.shards import key_of_log
    from deploy.indexing import index_name, rebuild_index
    from deploy.keys import log_verifier
    from deploy.logstorage import log_storage
    from deploy.progress import progress
    from deploy.sharding import check_cut, shards_of
    from deploy.writing import hold_states

    config, places = session.config, session.places
    check_cut(config)
    verifier = log_verifier(places)
    done = 0
    for shard in shards_of(config):
        storage = log_storage(config, shard)
        mine = places.of_shard(shard.name)
        with ExitStack() as held:
            try:  # keeps the correlators of this data folder, the index's only writers, from starting meanwhile
                held.enter_context(hold_states(places, shard))
                held.callback(storage.claim().release)
            except Conflict as error:
                raise Failure("the correlator is running, and keeps the index up to date: stop it first") from error
            reader = LogReader(storage, key_of_log(verifier, shard.origin(config.ledger)))
            size = reader.tree().size
            with (
                rebuild_index(config, mine, tell=say) as index,
                progress("indexing", unit="leaves", quiet=as_json) as report,
            ):
                catch_up(index, reader, size, progress=report)
        done += size
        if not as_json:
            click.echo(f"{index_name(config, mine)}: {size:,} leaves indexed")
    if as_json:
        emit_json({"leaves": done})
