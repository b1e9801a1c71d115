"""Progress of long work, on stderr: a bar on a terminal, nothing otherwise, so that logs and pipes stay clean."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

__all__ = ["Report", "progress"]


class Report(Protocol):
    """Told how far the work has come."""

    def __call__(self, done: int, total: int) -> None:
        """`done` of `total` units; the total may change while the work goes on, and is 0 while nobody knows it."""


@contextmanager
def progress(what: str, *, unit: str, quiet: bool = False) -> Iterator[Report]:
    """Show a bar while the block runs, if stderr is a terminal and `quiet` is not set."""
    if quiet or not sys.stderr.isatty():
        yield lambda done, total: None  # noqa: ARG005 - a report that goes nowhere
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    shape = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(unit),
        TimeRemainingColumn(),
    )
    with Progress(*shape, console=Console(stderr=True), transient=True) as shown:
        task = shown.add_task(what, total=None)

        def report(done: int, total: int) -> None:
            shown.update(task, completed=done, total=total or None)

        yield report
