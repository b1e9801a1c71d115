"""`tally config`: what is in force, and the reference."""

import click
import msgspec

from deploy.session import Session, emit_json, json_option, pass_session


@click.command()
@click.option(
    "--default", "shape", flag_value="default", help="Print a tally.toml with every key, its default and its meaning."
)
@click.option("--markdown", "shape", flag_value="markdown", help="Print the same as a page (docs/configuration.md).")
@click.option("--commands", "shape", flag_value="commands", help="Print the commands' reference (docs/commands.md).")
@click.option(
    "--templates", "shape", flag_value="templates", help="Print OpenSearch's index templates for [store], as JSON."
)
@json_option
@pass_session
@click.pass_context
def config(context: click.Context, session: Session, *, shape: str | None, as_json: bool) -> None:
    """Print the configuration in force, as TOML; or its reference."""
    from deploy import reference

    if shape == "default":
        click.echo(reference.toml(), nl=False)
    elif shape == "markdown":
        click.echo(reference.markdown(), nl=False)
    elif shape == "commands":
        from deploy.manual import markdown

        click.echo(markdown(context.find_root().command), nl=False)
    elif shape == "templates":
        from collector.store.opensearch.layout import Layout

        store = session.config.store
        emit_json(Layout(prefix=store.prefix, shards=store.shards, replicas=store.replicas).templates())
    elif as_json:
        emit_json({"file": str(session.source) if session.source else None, "config": session.config})
    else:
        click.echo(f"# {session.source or 'no file: the defaults'}")
        click.echo(reference.dump(msgspec.to_builtins(session.config)), nl=False)
