"""`tally retain`: the life of old months' events."""

from typing import TYPE_CHECKING, Any

import click

from deploy.session import EXIT_FALSE, Session, emit_json, json_option, pass_session, say, show, stop
from deploy.wording import count, size_in_words

if TYPE_CHECKING:
    from collections.abc import Sequence

    from deploy.retaining import MonthPlan, Retaining


@click.command()
@click.option("--apply", "carry_out", is_flag=True, help="Do it. Without it, only what would be done is shown.")
@click.option("--dry-run", is_flag=True, help="Show what would be done, which is the default.")
@click.option(
    "--compact", is_flag=True, help="With --apply: put together the pieces of past months that stay (OpenSearch)."
)
@click.option(
    "--despite-findings",
    is_flag=True,
    help="Let a month go although a last check found something wrong with it; how much goes on record.",
)
@click.option(
    "--wait",
    type=click.FloatRange(min=0.0, max=86_400.0),
    default=60.0,
    show_default=True,
    metavar="SECONDS",
    help="How long to wait until the log has what goes on record.",
)
@json_option
@pass_session
def retain(
    session: Session,
    *,
    carry_out: bool,
    dry_run: bool,
    compact: bool,
    despite_findings: bool,
    wait: float,
    as_json: bool,
) -> None:
    """Let go of the events of months that are older than [retention] says; show what would go, or with --apply do it.

    Headers, facts and log stay: trails go on to verify, and say that their events were retired. Before a month goes, all of it is checked
    against the log once more, and its retirement is put on record there. Exit code 0: done, or nothing to do; 1: something that is
    due has not gone.
    """
    import time

    from deploy.progress import progress
    from deploy.retaining import open_retaining

    if carry_out and dry_run:
        raise click.UsageError("--apply and --dry-run exclude each other")
    if compact and not carry_out:
        raise click.UsageError("--compact goes with --apply")
    with open_retaining(session.config) as desk:
        with progress("checking what is due", unit="leaves", quiet=as_json) as report:
            plans = desk.plan(now_ns=time.time_ns(), despite_findings=despite_findings, progress=report)
        done: list[str] = []
        compacted: list[str] = []
        undone: dict[str, str] = {one.held.month: one.kept for one in plans if one.findings and not one.goes}
        if carry_out:
            _apply(session, desk, plans, wait=wait, done=done, undone=undone)
            compacted = desk.tidy(plans, compact=compact)
    if as_json:
        emit_json(
            {"applied": carry_out, "months": [_plain(one, done, undone) for one in plans], "compacting": compacted}
        )
    else:
        _show(plans, done, undone, carry_out=carry_out)
        for month in compacted:
            show(f"{month}  is being put together")
    stop(EXIT_FALSE if undone else 0)


def _apply(
    session: Session,
    desk: "Retaining",
    plans: "list[MonthPlan]",
    *,
    wait: float,
    done: list[str],
    undone: dict[str, str],
) -> None:
    """Record, wait for the log, let go; what was not done goes into `undone` with the reason."""
    from collector.errors import Conflict
    from deploy.recording import patient_recorder

    going = [one for one in plans if one.goes]
    if not going:
        return
    if any(one.fresh for one in going):
        with patient_recorder(session.config, session.places) as recorder:
            recorded = desk.record(going, recorder)
            say(f"{count(len(recorded), 'retirement')} put on record; waiting until the log has it")
            there = desk.wait_for(recorded, seconds=wait)
        if not there:
            for one in going:
                undone[one.held.month] = (
                    "its retirement is not in the log yet: is the correlator running? Then run this again"
                )
            return
    for one in going:
        try:
            desk.carry_out(one)
        except Conflict as error:
            undone[one.held.month] = f"{error}: run this again"
        else:
            done.append(one.held.month)


def _plain(one: "MonthPlan", done: list[str], undone: dict[str, str]) -> dict[str, Any]:
    import msgspec

    month = one.held.month
    return {
        "month": month,
        "events": one.held.events,
        "bytes": one.held.size_bytes,
        "action": "gone" if month in done else "stays" if month in undone or not one.goes else "goes",
        "why": undone.get(month, one.kept),
        "findings": list(one.findings),
        "retirements": [
            {**msgspec.to_builtins(retirement), "on_record": leaf if leaf >= 0 else None}
            for retirement, leaf in zip(one.retirements, one.on_record, strict=True)
        ],
    }


def _recorded(leaves: "Sequence[int]") -> str:
    """Where it is on record, of a cut ledger for each shard's log by number; empty where it is not yet."""
    if max(leaves) < 0:
        return ""
    told = ", ".join(str(leaf) if leaf >= 0 else "none yet" for leaf in leaves)
    return f", on record at leaf {told}" if len(leaves) == 1 else f", on record in the shards' logs at leaves {told}"


def _show(plans: "list[MonthPlan]", done: list[str], undone: dict[str, str], *, carry_out: bool) -> None:
    if not plans:
        show("the store has no events")
    for one in plans:
        month = one.held.month
        what = f"{month}  {count(one.held.events, 'event'):>16}  {size_in_words(one.held.size_bytes):>8}  "
        if month in done:
            show(f"{what}gone")
        elif month in undone or not one.goes:
            show(f"{what}stays: {undone.get(month, one.kept)}")
        else:
            show(f"{what}goes{_recorded(one.on_record)}")
        for finding in one.findings:
            show(f"         {finding}")
    if not carry_out and any(one.goes for one in plans):
        show("nothing was done: --apply does it")
