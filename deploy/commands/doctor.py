"""`tally doctor`: is everything as it must be, and what mends it where it is not?"""

import shutil
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

import click

from deploy.config import ConfigError
from deploy.session import EXIT_FALSE, EXIT_UNKNOWN, Session, emit_json, json_option, pass_session, show, stop
from deploy.wording import count

if TYPE_CHECKING:
    from deploy.examining import Check
    from deploy.examining.whole import Verdict

_WORDS = {"ok": "ok", "warning": "warning", "failed": "FAILED", "unknown": "unknown"}
_EXIT_CODES = {"ok": 0, "warning": 0, "failed": EXIT_FALSE, "unknown": EXIT_UNKNOWN}
_OUTCOME_COLUMNS = 9
_INDENT = 24
_MOST_COLUMNS = 120


@click.command()
@click.option("--all", "everything", is_flag=True, help="Show what is fine as well, check by check.")
@click.option("--user", metavar="NAME", default="", help="Ask OpenSearch as this user what the configured one may not.")
@click.option(
    "--password-file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help="The first line is that user's password.",
)
@click.option("--write-probe", is_flag=True, help="Try object storage by one small object, which is removed again.")
@json_option
@pass_session
def doctor(
    session: Session, *, everything: bool, user: str, password_file: Path | None, write_probe: bool, as_json: bool
) -> None:
    """Examine this installation: configuration, disk, keys, certificates, OpenSearch, log, clock, processes; say how to mend what is wrong.

    Changes nothing, and may be run at any time, before the first start too: as the user that runs the processes, with their
    configuration. Exit code 0: nothing is wrong (there may be warnings); 1: something is; 2: something could not be told.
    """
    from deploy.examining.whole import Patient, examine, verdict_of

    if bool(user) != (password_file is not None):
        raise ConfigError("--user and --password-file come together")
    patient = Patient(
        config=session.config,
        source=session.source,
        user=user,
        password_file=password_file or Path(),
        write_probe=write_probe,
    )
    checks: list[Check] = []
    for chart in examine(patient):
        checks += chart.checks
        if not as_json:
            _show(chart.subject, chart.checks, everything=everything)
    verdict = verdict_of(checks)
    if as_json:
        emit_json({"verdict": verdict.verdict, "counts": verdict.counts, "checks": checks})
    else:
        _conclude(verdict)
    stop(_EXIT_CODES[verdict.verdict])


def _show(subject: str, checks: "list[Check]", *, everything: bool) -> None:
    """What is not fine, with what mends it; one line for a subject that is fine."""
    told = [check for check in checks if everything or check.outcome != "ok"]
    fine = len(checks) - len(told)
    if not told:
        _line("ok", subject, checks[0].found if fine == 1 else count(fine, "check"))
    for at, check in enumerate(told):
        _line(check.outcome, subject if at == 0 else "", f"{check.name}: {check.found}")
        for mend in check.mend:
            show(f"{'':<{_INDENT}}> {mend}")  # never wrapped: it is to be copied


def _line(outcome: str, subject: str, text: str) -> None:
    width = min(shutil.get_terminal_size((100, 24)).columns, _MOST_COLUMNS)
    lines = textwrap.wrap(text, max(width - _INDENT, 40), break_long_words=False, break_on_hyphens=False)
    show(f"{_WORDS[outcome]:<{_OUTCOME_COLUMNS}}{subject:<{_INDENT - _OUTCOME_COLUMNS - 1}} {lines[0]}")
    for line in lines[1:]:
        show(f"{'':<{_INDENT}}{line}")


def _conclude(verdict: "Verdict") -> None:
    counts = verdict.counts
    parts = [
        f"{counts['failed']} failed" if counts["failed"] else "",
        f"{counts['unknown']} could not be told" if counts["unknown"] else "",
        count(counts["warning"], "warning") if counts["warning"] else "",
        f"{counts['ok']} fine",
    ]
    show(f"\n{', '.join(part for part in parts if part)}")
