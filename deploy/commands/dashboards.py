"""`tally dashboards`: the boards in a Grafana."""

from typing import TYPE_CHECKING

import click

from deploy.session import EXIT_FALSE, EXIT_UNKNOWN, Failure, Session, emit_json, json_option, pass_session, show, stop
from deploy.wording import count

if TYPE_CHECKING:
    from dashboards.apply import Change

_secrets = click.option(
    "--secrets", is_flag=True, help="The data source's password, too: Grafana does not tell whether it is the same."
)


@click.group()
def dashboards() -> None:
    """Bring folder, permissions, data sources and boards to the Grafana of [dashboards], or say what differs there."""


@dashboards.command("diff")
@_secrets
@json_option
@pass_session
def diff(session: Session, *, secrets: bool, as_json: bool) -> None:
    """Say what is not as the configuration wants it. Changes nothing.

    Exit code 0: nothing; 1: something; 2: it could not be told.
    """
    changes = _changes(session, secrets=secrets, apply=False)
    _tell(changes, as_json, done=False)
    stop(EXIT_FALSE if changes else 0)


@dashboards.command("apply")
@_secrets
@json_option
@pass_session
def apply(session: Session, *, secrets: bool, as_json: bool) -> None:
    """Make it as the configuration wants it. A second time does nothing.

    Deletes nothing: boards of ours that are made no more are named, for a person to delete.
    """
    _tell(_changes(session, secrets=secrets, apply=True), as_json, done=True)


def _changes(session: Session, *, secrets: bool, apply: bool) -> "list[Change]":
    from collector.secretfile import read_secret
    from deploy.rendering import boards_of, without_extra

    settings = session.config.dashboards
    if not settings.grafana_url or not settings.token_file:
        raise Failure("set grafana_url and token_file in [dashboards]", exit_code=2)
    boards = boards_of(session.config)
    try:
        from dashboards.apply import Grafana, GrafanaTrouble
    except ModuleNotFoundError as error:
        raise without_extra(error, "grafana") from error
    password = settings.opensearch_password_file
    grafana = Grafana(
        settings,
        token=read_secret(settings.token_file).decode("ascii", "replace"),
        boards=boards,
        opensearch_password=read_secret(password).decode() if password else "",
    )
    try:
        with grafana:
            return grafana.apply(resend_secrets=secrets) if apply else grafana.differences(resend_secrets=secrets)
    except GrafanaTrouble as error:
        raise Failure(str(error), exit_code=EXIT_FALSE if apply else EXIT_UNKNOWN) from error


def _tell(changes: "list[Change]", as_json: bool, *, done: bool) -> None:
    if as_json:
        emit_json({"changes": changes})
        return
    for change in changes:
        more = " …" if len(change.where) > 5 else ""
        show(f"{change.action:>9}  {change.kind} {change.name}: {', '.join(change.where[:5])}{more}".rstrip(": "))
    left = sum(change.action == "left over" for change in changes)
    if left:
        show(f"{count(left, 'board')} left over: delete by hand what nobody needs")
    if len(changes) > left:
        show(f"{count(len(changes) - left, 'thing')} {'made as it must be' if done else 'to change'}")
    elif not changes:
        show("all is as it must be")
