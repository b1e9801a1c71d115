"""`tally siem`: what a SIEM holds, held to the log."""

from typing import BinaryIO

import click

from deploy.session import EXIT_FALSE, EXIT_UNKNOWN, Failure, Session, emit_json, json_option, pass_session, show, stop
from deploy.wording import count


@click.group()
def siem() -> None:
    """What a SIEM holds."""


@siem.command()
@click.argument("records", metavar="FILE", type=click.File("rb"))
@json_option
@pass_session
def verify(session: Session, *, records: BinaryIO, as_json: bool) -> None:
    """Hold records that a SIEM gives back to this ledger's log: JSON lines in the formats json, ecs or ocsf; - is standard input.

    Exit code 0: each entry stands at its leaf, and the log continues what it was sent under. 1: false; the first record that does
    not hold is named. 2: could not tell.
    """
    from audit_api.siem.held import read_held, verify_held
    from collector.errors import Malformed, NotFound, Overloaded, StateUnknown, VerificationError
    from correlator.reader import LogReader
    from correlator.shards import key_of_log
    from deploy.keys import log_verifier
    from deploy.logstorage import log_storage
    from deploy.sharding import shards_of

    key = log_verifier(session.places)
    readers = {
        shard.origin(key.name): LogReader(log_storage(session.config, shard), key_of_log(key, shard.origin(key.name)))
        for shard in shards_of(session.config)
    }
    verified = compared = 0
    try:
        for number, line in enumerate(records, 1):
            if not line.strip():
                continue
            try:
                held = read_held(line)
            except Malformed as error:
                raise Failure(f"line {number}: {error}", exit_code=EXIT_UNKNOWN) from error
            if held.log not in readers:
                raise VerificationError(f"{held.id} is of the log {held.log[:300]!r}, which is none of this ledger's")
            verify_held(held, readers[held.log])
            verified += 1
            compared += held.entry is not None
    except VerificationError as error:
        if as_json:
            emit_json({"verdict": "false", "problem": str(error), "verified": verified, "compared": compared})
        else:
            show(f"FALSE: {error}")
        stop(EXIT_FALSE)
    except (Overloaded, StateUnknown, NotFound) as error:
        raise Failure(f"could not tell: {error}", exit_code=EXIT_UNKNOWN) from error
    if not verified:
        raise Failure("there are no records in it", exit_code=EXIT_UNKNOWN)
    if as_json:
        emit_json({"verdict": "true", "verified": verified, "compared": compared})
        return
    named = verified - compared
    also = f"; of {named:,}, in ECS or OCSF, no other field was compared" if named else ""
    show(f"TRUE: {count(verified, 'record')} name entries that stand in the log{also}")
