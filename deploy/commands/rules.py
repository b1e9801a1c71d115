"""`tally rules`: the detector's rules, tried on what has happened."""

from collections.abc import Iterator

import click

from alerting.detect.backtest import Backtest, Score, try_rules
from deploy.session import Failure, Session, emit_json, json_option, pass_session, show

_CHUNK = 2_048


@click.group()
def rules() -> None:
    """The detector's rules."""


@rules.command()
@click.option("--since", default="", metavar="TIME", help="Payments made at or after this time (RFC 3339).")
@click.option("--until", default="", metavar="TIME", help="Payments made before this time (RFC 3339).")
@click.option(
    "--label",
    metavar="PATH",
    help="Where an event says whether it was fraud: true, 1, yes or fraud; else it was not. Gives precision and recall.",
)
@json_option
@pass_session
def backtest(session: Session, *, since: str, until: str, label: str | None, as_json: bool) -> None:
    """Show every payment in the log to the rules of the configuration, as if they had been there from the start.

    Nothing is recorded but that this was asked, and nobody is told. Rules remember what came before --since all the same.
    """
    from contextlib import ExitStack

    from alerting.detect.logged import LoggedPayments
    from alerting.detect.metrics import DetectorMetrics
    from alerting.detect.payment import Payment
    from collector.errors import Malformed
    from collector.event import parse_time
    from collector.paths import compile_path
    from deploy.api import open_logs
    from deploy.detecting import engine_of, followed, readers_of
    from deploy.recording import recorded

    try:
        first_ns = parse_time(since) if since else -(1 << 63)
        end_ns = parse_time(until) if until else 1 << 63
    except Malformed as error:
        raise Failure(f"--since, --until: {error}", exit_code=2) from error
    try:
        labelled = compile_path(label).get if label else None
    except Malformed as error:
        raise click.BadParameter(str(error), param_hint="--label") from error
    engine, readers = engine_of(session.config.detector), readers_of(session.config.detector)
    with ExitStack() as open_files:
        logs = open_logs(session.config, session.places, open_files)
        if logs is None:
            raise Failure("there is no ledger here yet")
        record = open_files.enter_context(recorded(session))
        payments = LoggedPayments(logs.store, readers, DetectorMetrics())
        head = max((log.size() for log in logs.all), default=0) - 1
        record(action="rules.backtest", trail="", head=head)

        def history() -> Iterator[tuple[Payment, bool | None]]:
            for log in logs.all:
                of = followed(log)
                size = log.size()
                for start in range(0, size, _CHUNK):
                    for payment, event in payments.between(of, start, min(size, start + _CHUNK)):
                        if not first_ns <= payment.time_ns < end_ns:
                            engine.look(payment)
                            continue
                        yield payment, None if labelled is None else is_fraud(labelled(event))

        found = try_rules(engine, history())

    def told(name: str, score: Score) -> dict[str, object]:
        share = score.told / found.payments if found.payments else 0.0
        row = {"rule": name, "told": score.told, "share": round(share, 6)}
        if found.fraud is not None:
            row |= {"precision": found.precision(score), "recall": found.recall(score)}
        return row | {"examples": [{"leaf": leaf, "reason": reason} for leaf, reason in score.examples]}

    if as_json:
        rows = [told(name, score) for name, score in found.rules.items()]
        emit_json(
            {
                "payments": found.payments,
                "fraud": found.fraud,
                "rules": rows,
                "any_rule": told("any rule", found.any_rule),
            }
        )
        return
    _print(found)


def is_fraud(value: object) -> bool:
    """What a label says."""
    return str(value).strip().lower() in {"true", "1", "yes", "fraud"}


def _print(found: Backtest) -> None:
    known = "" if found.fraud is None else f", {found.fraud:,} of them fraud"
    show(f"{found.payments:,} payments{known}")
    width = max(len(name) for name in (*found.rules, "any rule"))
    for name, score in (*found.rules.items(), ("any rule", found.any_rule)):
        share = score.told / found.payments if found.payments else 0.0
        line = f"{name:<{width}}  told {score.told:>7,} ({share:7.3%})"
        if (precision := found.precision(score)) is not None:
            line += f"  precision {precision:.3f}"
        if (recall := found.recall(score)) is not None:
            line += f"  recall {recall:.3f}"
        show(line)
        for leaf, reason in score.examples:
            show(f"{'':<{width}}    leaf {leaf}: {reason}")
