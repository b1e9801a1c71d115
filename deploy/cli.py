"""The `tally` command: finds the subcommand, and turns every error into one clear line and an exit code.

Exit codes: 0 done, and for `verify` and `check`: it holds. 1 it does not hold, or the command could not do what was asked.
2 for `verify` and `check`: could not tell; for every command: the arguments or the configuration cannot be used.
"""

import importlib
import sys
from typing import NamedTuple

import click

from collector.errors import TallyError
from deploy.wording import harmless, in_words

__all__ = ["COMMANDS", "main", "tally"]


class _Command(NamedTuple):
    module: str
    attribute: str
    text: str


COMMANDS = {
    "up": _Command("deploy.commands.up", "up", "Run everything on this machine; Ctrl-C stops it cleanly."),
    "run": _Command(
        "deploy.commands.run", "run", "Run one process: collector, correlator, api, detector, siem or incidents."
    ),
    "status": _Command("deploy.commands.status", "status", "What runs, what is stored, what lags, what is missing."),
    "import": _Command(
        "deploy.commands.imports", "import_files", "Take in files of logs and traces, with an exact account."
    ),
    "map": _Command("deploy.commands.map", "map_file", "Try mappings of records on a file."),
    "trail": _Command("deploy.commands.trail", "trail", "Tell the story of a transaction."),
    "find": _Command("deploy.commands.find", "find", "Find trails by key, service, time, status, amount or text."),
    "export": _Command("deploy.commands.export", "export", "Write a trail as a verifiable bundle, or trails as data."),
    "review": _Command("deploy.commands.review", "review", "What calls for a look: list it, and sign it off."),
    "incidents": _Command(
        "deploy.commands.incidents", "incidents", "Controls that failed: list them, and sign them off."
    ),
    "verify": _Command("deploy.commands.verify", "verify", "Verify a bundle or a ledger against the log's public key."),
    "siem": _Command("deploy.commands.siem", "siem", "Hold what a SIEM has to the log."),
    "check": _Command("deploy.commands.check", "check", "Check the whole store against the whole log."),
    "doctor": _Command("deploy.commands.doctor", "doctor", "Examine this installation; say how to mend what is wrong."),
    "reindex": _Command("deploy.commands.reindex", "reindex", "Make the trail index anew from the log."),
    "rules": _Command("deploy.commands.rules", "rules", "Try the detector's rules on what has happened."),
    "retain": _Command("deploy.commands.retain", "retain", "Let go of old months' events, as the policy says."),
    "render": _Command(
        "deploy.commands.render", "render", "Write rules, routes and boards for Prometheus and Grafana."
    ),
    "dashboards": _Command(
        "deploy.commands.dashboards", "dashboards", "Bring the boards to a Grafana, or say what differs."
    ),
    "keygen": _Command("deploy.commands.keygen", "keygen", "Make a key that signs the log."),
    "token": _Command("deploy.commands.token", "token", "Make, list and revoke the API's bearer tokens."),
    "login": _Command("deploy.commands.login", "login", "Log in at the identity provider, to call the API."),
    "config": _Command("deploy.commands.config", "config", "Print the configuration in force, or its reference."),
}


class _LazyGroup(click.Group):
    """A group that knows its commands' names and one-line texts, and imports a command when it is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002  (click's signature)
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002  (click's signature)
        entry = COMMANDS.get(cmd_name)
        if entry is None:
            return None
        command = getattr(importlib.import_module(entry.module), entry.attribute)
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        with formatter.section("Commands"):
            formatter.write_dl([(name, entry.text) for name, entry in COMMANDS.items()])


@click.group(
    cls=_LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120},
    epilog="Exit codes: 0 done, it holds. 1 it does not hold, or it could not be done. "
    "2 could not tell, or the arguments or the configuration cannot be used.",
)
@click.option(
    "--config",
    "config_file",
    type=click.Path(dir_okay=False),
    metavar="FILE",
    help="The configuration (default: $TALLY_CONFIG, else ./tally.toml if there is one).",
)
@click.version_option(package_name="tallystick", prog_name="tally", message="%(prog)s %(version)s")
@click.pass_context
def tally(ctx: click.Context, config_file: str | None) -> None:
    """A tamper-evident audit trail for microservices, which anyone can verify."""
    from deploy.session import Session  # takes a while, in which Ctrl-C must find `main` at work

    ctx.obj = Session(config_file=config_file)


def main() -> None:
    """The entry point of `tally`: runs the command of `sys.argv` and exits with its code."""
    try:
        # Without standalone mode click returns what `ctx.exit` was given.
        code = tally.main(standalone_mode=False)
        sys.exit(code if isinstance(code, int) else 0)
    except click.exceptions.Abort:
        sys.exit(130)  # 128 + SIGINT, as shells have it
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except TallyError as error:
        text, code = _explained(error)
        for line in f"tally: {text}".split("\n"):
            click.echo(harmless(line), err=True)
        sys.exit(code)
    except OSError as error:
        click.echo(harmless(f"tally: {in_words(error)}"), err=True)
        sys.exit(1)


def _explained(error: TallyError) -> tuple[str, int]:
    """The line and the exit code of an error."""
    from collector.errors import Malformed, Overloaded
    from collector.protect.keys import KeyFileError
    from deploy.config import ConfigError
    from deploy.session import Failure

    if isinstance(error, Failure):
        return str(error), error.exit_code
    if isinstance(error, Malformed):  # only settings reach us so: other input goes to the dead letters
        return f"the configuration cannot be used: {error}", 2
    if isinstance(error, Overloaded):
        return f"{error} (try again in {error.retry_after_seconds:g} s)", 1
    return str(error), 2 if isinstance(error, ConfigError | KeyFileError) else 1


if __name__ == "__main__":
    main()
