"""`tally render`: rules, routes and boards as files."""

from pathlib import Path

import click

from deploy.session import EXIT_FALSE, Session, emit_json, json_option, pass_session, show, stop


@click.command()
@click.option(
    "-o", "--output", type=click.Path(file_okay=False, path_type=Path), required=True, help="The folder to write into."
)
@click.option(
    "--only",
    type=click.Choice(["alerts", "dashboards"]),
    help="Rules and routes alone, or boards alone (default: all).",
)
@click.option(
    "--check", is_flag=True, help="Write nothing; exit code 1 where a file there is not what would be written."
)
@json_option
@pass_session
def render(session: Session, *, output: Path, only: str | None, check: bool, as_json: bool) -> None:
    """Write what Prometheus, Alertmanager and Grafana read, from the configuration (docs/alerting.md, docs/dashboards.md).

    The same configuration gives the same files. Other files in the folder are left alone.
    """
    from deploy.rendering import rendered

    files = rendered(session.config, alerts=only != "dashboards", boards=only != "alerts")
    told = {}
    for name, text in files.items():
        path = output / name
        old = path.read_text(encoding="utf-8") if path.is_file() else None
        told[name] = "as it is" if old == text else "new" if old is None else "changed"
        if old != text and not check:
            path.parent.mkdir(parents=True, exist_ok=True)
            beside = path.with_name(f".{path.name}.tmp")
            beside.write_text(text, encoding="utf-8")
            beside.replace(path)  # whoever reads it meanwhile has the old one or the new one
    if as_json:
        emit_json({"folder": str(output), "files": told})
    else:
        for name, what in told.items():
            show(f"{what:>8}  {output / name}")
    if check and set(told.values()) != {"as it is"}:
        stop(EXIT_FALSE)
