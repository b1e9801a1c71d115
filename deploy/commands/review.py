"""`tally review`: the review queue of an audit API."""

from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import click

from deploy.asking import Asked, asks
from deploy.session import Failure, Session, emit_json, json_option, pass_session, show

if TYPE_CHECKING:
    from deploy.apiclient import Api

DECISIONS = ("explained", "escalated", "corrected")
_PAGE = 200


@click.group()
def review() -> None:
    """Look at what calls for a look, and sign it off, through an audit API (--api).

    A sign-off is an entry of the log, under the principal of the token.
    """


@review.command("list")
@click.option(
    "--since", default="", metavar="TIME", help="With an event at or after this time (RFC 3339, with its zone)."
)
@click.option("--until", default="", metavar="TIME", help="With an event before this time.")
@click.option("--filter", "filter_", default="", metavar="FILTER", help="And with what this filter says.")
@click.option("--all", "everything", is_flag=True, help="Those that are signed off as well.")
@json_option
@asks
@pass_session
def list_exceptions(
    _: Session, *, since: str, until: str, filter_: str, everything: bool, source: Asked, as_json: bool
) -> None:
    """List trails that failed, are incomplete, tell of an error or have a gap, newest first."""
    from deploy.apiclient import documented

    api = _api(source)
    rows: list[dict[str, Any]] = []
    cursor = ""
    while True:
        asked = {"since": since, "until": until, "filter": filter_, "cursor": cursor, "limit": str(_PAGE)}
        page = api.document("/v1/reviews", asked)
        with documented(api):
            rows += [one for one in page["exceptions"] if everything or one["open"]]
            cursor = page["next"] or ""
        if not cursor:
            break
    if as_json:
        emit_json({"exceptions": rows})
        return
    with documented(api):
        for row in rows:
            trail, last = row["trail"], row["signed"][-1] if row["signed"] else None
            by = f"  {last['decision'] or 'signed'} by {last['principal']}: {last['note']}" if last else ""
            state = "open" if row["open"] else "done"
            show(
                f"{state}  {trail['status']:<12} {(trail['first_time'] or '')[:19]:<19}  {trail['trail']}  head {trail['last_leaf']}{by}"
            )


@review.command()
@click.argument("trail", metavar="TRAIL")
@click.option("--head", type=click.IntRange(min=0), required=True, help="The trail's last leaf as you looked at it.")
@click.option("--decision", type=click.Choice(DECISIONS), required=True, help="What came of it.")
@click.option("--note", default="", help="For who reads it later.")
@json_option
@asks
@pass_session
def sign(_: Session, *, trail: str, head: int, decision: str, note: str, source: Asked, as_json: bool) -> None:
    """Sign a trail off, up to the head that `tally review list` shows; refused when it has grown since."""
    from deploy.apiclient import documented, trail_path

    api = _api(source)
    told = api.post(trail_path("/v1/reviews", trail), {"head": head, "decision": decision, "note": note})
    if as_json:
        emit_json(told)
        return
    with documented(api):
        show(f"{told['trail']} is signed off up to leaf {told['head']}")


@review.command("days")
@click.option(
    "--until", default="", metavar="DAY", help="The newest day that is listed, such as 2026-01-31; by default today."
)
@click.option("--days", "count", type=click.IntRange(1, 31), default=14, show_default=True, help="How many.")
@json_option
@asks
@pass_session
def list_days(_: Session, *, until: str, count: int, source: Asked, as_json: bool) -> None:
    """List days (UTC), newest first: what calls for a look, what of it is open, and who has signed the day off."""
    from deploy.apiclient import documented

    api = _api(source)
    told = api.document("/v1/review-days", {"until": until, "days": str(count)})
    if as_json:
        emit_json(told)
        return
    with documented(api):
        for day in told["days"]:
            state = "signed" if day["signed"] else "open" if day["over"] else "today"
            by = "".join(f"  {one['principal']}: {one['note'] or 'no note'}" for one in day["signed"])
            more = "+" if day["more"] else ""
            show(f"{day['day']}  {state:<6}  {day['exceptions']:>5}{more} exceptions, {day['open']:>5}{more} open{by}")


@review.command("sign-day")
@click.argument("day", metavar="DAY")
@click.option(
    "--open", "still_open", type=click.IntRange(min=0), required=True, help="How many were open as you looked."
)
@click.option("--note", default="", help="For who reads it later.")
@json_option
@asks
@pass_session
def sign_day(_: Session, *, day: str, still_open: int, note: str, source: Asked, as_json: bool) -> None:
    """Sign a day off that is over; refused when more or less is open than you saw in `tally review days`."""
    from deploy.apiclient import documented

    api = _api(source)
    told = api.post(f"/v1/review-days/{quote(day, safe='')}", {"open": still_open, "note": note})
    if as_json:
        emit_json(told)
        return
    with documented(api):
        show(f"{told['day']} is signed off, with {told['open']} of {told['exceptions']} exceptions open")


def _api(source: Asked) -> "Api":
    from deploy.apiclient import remote

    api = remote(api=source["api"], token_file=source["token_file"], ca=source["ca"], purpose=source["purpose"])
    if api is None:
        raise Failure("a review goes through an audit API, which knows who signs: --api or $TALLY_API", exit_code=2)
    return api
