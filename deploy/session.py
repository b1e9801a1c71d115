"""What every subcommand starts from: the configuration, read once and only when it is asked for, and the output's shape."""

import os
import sys
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import click
import msgspec

from collector.errors import TallyError
from deploy.config import Config, load
from deploy.places import Places
from deploy.wording import harmless

__all__ = ["Failure", "Session", "emit_json", "json_option", "pass_session", "say", "show", "stop"]

F = TypeVar("F", bound=Callable[..., Any])

EXIT_FALSE = 1
"""It does not hold, or it could not be done."""
EXIT_UNKNOWN = 2
"""It could not be told."""


class Failure(TallyError):
    """Ends a command with one line on stderr and an exit code."""

    def __init__(self, message: str, *, exit_code: int = EXIT_FALSE) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class Session:
    """One call of `tally`."""

    def __init__(self, *, config_file: str | None) -> None:
        self.config_file = Path(config_file) if config_file else None

    @cached_property
    def _loaded(self) -> tuple[Config, Path | None]:
        return load(self.config_file, environ=os.environ, folder=Path.cwd())

    @property
    def config(self) -> Config:
        """The configuration in force; raises `ConfigError`."""
        return self._loaded[0]

    def read_again(self) -> Config:
        """The configuration as its file says it now; the one in force stays. Raises `ConfigError`."""
        return load(self.source or self.config_file, environ=os.environ, folder=Path.cwd())[0]

    @property
    def source(self) -> Path | None:
        """The file that the configuration came from; None: the defaults."""
        return self._loaded[1]

    @property
    def places(self) -> Places:
        """Where everything is kept."""
        return Places(Path(self.config.data))


pass_session = click.make_pass_decorator(Session)


def json_option(command: F) -> F:
    """Give the command ``--json``: stable output for programs on stdout."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")(command)


def emit_json(value: Any) -> None:
    """Print a value as one indented JSON document on stdout; bytes as base64, structs and dataclasses as objects."""
    click.echo(msgspec.json.format(msgspec.json.encode(value), indent=2).decode())


def show(text: str) -> None:
    """Lines of the answer for a person, on stdout: without any character that would steer the terminal (`deploy.wording`)."""
    for line in text.split("\n"):
        click.echo(harmless(line))


def say(text: str = "") -> None:
    """A line for a person about what goes on, on stderr: stdout is for the answer."""
    click.echo(text, err=True)


def stop(code: int) -> NoReturn:
    """Leave the command with this exit code."""
    sys.stdout.flush()
    raise click.exceptions.Exit(code)
