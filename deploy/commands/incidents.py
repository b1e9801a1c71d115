"""`tally incidents`: controls that failed, as an audit API tells of them."""

from typing import TYPE_CHECKING, Any

import click

from correlator.incidents import CAUSES
from deploy.asking import Asked, asks
from deploy.session import Failure, Session, emit_json, json_option, pass_session, show

if TYPE_CHECKING:
    from deploy.apiclient import Api


@click.group()
def incidents() -> None:
    """Look at incidents, and sign them off, through an audit API (--api).

    Each is a trail of the log: `tally trail incident/ID` tells it with its proof, from the ledger's files as well.
    """


@incidents.command("list")
@click.option("--cause", type=click.Choice([*CAUSES]), help="Those of this cause alone.")
@click.option("--all", "everything", is_flag=True, help="Those that are signed off as well.")
@json_option
@asks
@pass_session
def list_incidents(_: Session, *, cause: str | None, everything: bool, source: Asked, as_json: bool) -> None:
    """List incidents that nobody has signed off, those that began last first."""
    from deploy.apiclient import documented

    asked = {"cause": cause} if cause else {}
    api = _api(source)
    told = api.document("/v1/incidents", asked)
    with documented(api):
        rows = [one for one in told["incidents"] if everything or not one["signed"]]
    if as_json:
        emit_json({"incidents": rows})
        return
    with documented(api):
        for one in rows:
            show(_line(one))
    if not rows:
        click.echo("no incident is found" if everything else "no incident is found that nobody signed off", err=True)


@incidents.command("show")
@click.argument("incident", metavar="ID")
@json_option
@asks
@pass_session
def show_incident(_: Session, *, incident: str, source: Asked, as_json: bool) -> None:
    """Tell how an incident was opened, closed and signed off."""
    from deploy.apiclient import documented, trail_path

    api = _api(source)
    told = api.document(trail_path("/v1/incidents", incident.removeprefix("incident/")))
    if as_json:
        emit_json(told)
        return
    with documented(api):
        show(_line(told["incident"]))
        for step in told["steps"]:
            show(f"  {step['time'][:19]}  {step['state']:<10}  leaf {step['leaf']}  by {step['by']}: {step['text']}")
            if step["root_cause"]:
                show(f"    root cause:  {step['root_cause']}")
                show(f"    remediation: {step['remediation']}")


@incidents.command()
@click.argument("incident", metavar="ID")
@click.option("--root-cause", required=True, help="Why the control failed.")
@click.option("--remediation", required=True, help="What was done, so that it does not happen again.")
@click.option("--comment", default="", help="What else is to be said.")
@click.option("--over", is_flag=True, help="Of an incident that is open: it has ended, by your word.")
@json_option
@asks
@pass_session
def sign(
    _: Session,
    *,
    incident: str,
    root_cause: str,
    remediation: str,
    comment: str,
    over: bool,
    source: Asked,
    as_json: bool,
) -> None:
    """Answer for an incident, once, under the principal of the token."""
    from deploy.apiclient import documented, trail_path

    api = _api(source)
    said = {"root_cause": root_cause, "remediation": remediation, "comment": comment, "over": over}
    told = api.post(trail_path("/v1/incidents", incident.removeprefix("incident/")), said)
    if as_json:
        emit_json(told)
        return
    with documented(api):
        show(f"{told['trail']} is signed off by {told['signed_by']}")


def _line(one: dict[str, Any]) -> str:
    lasted = f"{one['duration_seconds']:.0f} s" if one["duration_seconds"] is not None else "open"
    by = f"  signed off by {one['signed_by']}" if one["signed_by"] else ""
    return (
        f"{one['state']:<10}  {one['cause']:<19}  {one['began'][:19]}  {lasted:>8}  {one['id']}  {one['subject']}{by}"
    )


def _api(source: Asked) -> "Api":
    from deploy.apiclient import remote

    api = remote(api=source["api"], token_file=source["token_file"], ca=source["ca"], purpose=source["purpose"])
    if api is None:
        raise Failure("incidents are read and signed off through an audit API: --api or $TALLY_API", exit_code=2)
    return api
