"""The commands' reference page, docs/commands.md, made from what `--help` says."""

from collections.abc import Iterator

import click

__all__ = ["markdown"]

_WIDTH = 100
_HEAD = """\
# Commands

<!-- Made by `tally config --commands`; a test compares. -->

Every command takes `--help`. With `--json` the answer is JSON for programs on stdout; progress, and what is only for people to
know, is on stderr. An error is one line on stderr.

| exit code | meaning |
|---|---|
| 0 | done; for `verify` and `check`: it holds; for `doctor`: nothing is wrong |
| 1 | it does not hold; or what was asked could not be done |
| 2 | could not tell (`verify`, `check`, `trail`, `doctor`); or the arguments or the configuration cannot be used |
| 130 | interrupted |
"""


def markdown(root: click.Command) -> str:
    """The page for a command and everything below it."""
    pages = (
        f"\n## {context.command_path}\n\n```text\n{context.command.get_help(context)}\n```\n"
        for context in _contexts(root, "tally", None)
    )
    return "".join((_HEAD, *pages))


def _contexts(command: click.Command, name: str, parent: click.Context | None) -> Iterator[click.Context]:
    # as the command line makes them, so that the help is the same whoever asks for it first (click keeps it)
    context = click.Context(
        command,
        info_name=name,
        parent=parent,
        help_option_names=["-h", "--help"],
        max_content_width=_WIDTH,
        terminal_width=_WIDTH,
    )
    yield context
    if isinstance(command, click.Group):
        for below_name in command.list_commands(context):
            below = command.get_command(context, below_name)
            if below is not None and not below.hidden:
                yield from _contexts(below, below_name, context)
