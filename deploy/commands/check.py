"""`tally check`: the whole ledger against itself."""

from pathlib import Path

import click

from deploy.session import EXIT_FALSE, EXIT_UNKNOWN, Failure, Session, emit_json, json_option, pass_session, show, stop
from deploy.wording import count, in_words


@click.command()
@click.option(
    "--since",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="CHECKPOINT",
    help="A signed checkpoint kept from before (a copy of log/checkpoint): the log must continue it. Of a ledger that is cut into "
    "shards one of a shard's, or a joint statement (a copy of log/head).",
)
@click.option("--key", metavar="KEY|FILE", help="The log's public key (default: keys/log.vkey in the data folder).")
@click.option(
    "--textfile",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Write how the check ended as metrics, for a node exporter's textfile collector (docs/alerting.md).",
)
@json_option
@pass_session
def check(session: Session, *, since: Path | None, key: str | None, textfile: Path | None, as_json: bool) -> None:
    """Check the whole store against the whole log, and the index and the spools against both; list what is not as it must be.

    Everything may be running. What only a comparison with the past can show (a consistent rollback of everything) needs
    --since. Exit code 0: all holds; 1: findings; 2: could not tell.
    """
    from collector.errors import NotFound, Overloaded, StateUnknown, VerificationError
    from deploy.checking.whole import check_everything
    from deploy.keys import log_verifier, read_verifier
    from deploy.progress import progress
    from deploy.remembered import open_remembered

    try:
        verifier = read_verifier(key) if key else log_verifier(session.places)
        remembered = open_remembered(since.read_bytes(), verifier) if since else None
        with progress("checking", unit="leaves", quiet=as_json) as report:
            findings, account = check_everything(session.config, verifier, since=remembered, progress=report)
    except (Overloaded, StateUnknown, NotFound, OSError) as error:
        raise Failure(f"could not tell: {in_words(error)}", exit_code=EXIT_UNKNOWN) from error
    except VerificationError as error:
        raise Failure(f"could not tell: {since}: {error}", exit_code=EXIT_UNKNOWN) from error
    if textfile:
        import time

        from correlator.metrics import CheckMetrics

        gaps = sum(finding.logged for finding in findings)
        CheckMetrics().write(
            textfile,
            ledger=session.config.ledger,
            findings=len(findings) - gaps,
            gaps=gaps,
            leaves=account.leaves,
            now_seconds=time.time(),
        )
    if as_json:
        emit_json({"verdict": "false" if findings else "true", "findings": findings, "account": account})
        stop(EXIT_FALSE if findings else 0)
    for finding in findings:
        show(f"FALSE: {finding}")
    looked_at = ", ".join(
        (
            count(account.leaves, "leaf", "leaves"),
            count(account.trails, "trail"),
            count(account.streams, "stream"),
            count(account.batches, "batch", "batches"),
            count(account.events, "event"),
        )
    )
    retired = f", {account.retired:,} of them retired by policy" if account.retired else ""
    waiting = f"; {count(account.waiting, 'batch waits', 'batches wait')} for the correlator" if account.waiting else ""
    show(f"{count(len(findings), 'finding') if findings else 'TRUE: all holds'} in {looked_at}{retired}{waiting}")
    stop(EXIT_FALSE if findings else 0)
