"""Supervision: starts the processes, starts a crashed one again, and stops them in the order that loses nothing.

Each child runs in a session of its own, so that Ctrl-C in a terminal reaches the supervisor alone, and holds the reading end
of a pipe on its stdin: when the supervisor dies, however it dies, the pipe closes and the child stops itself (`deploy.commands.run`).
"""

import asyncio
import os
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from deploy.processes import Running, running

__all__ = ["STOP_SECONDS", "Child", "Supervisor"]

UNUSABLE = 2
"""A child's exit code that says: starting me again will not help (bad configuration, a port that is taken).

From one that never ran that ends everything, so that whoever started it hears why. One that did run may meet what passes, such as
a file that is being replaced: the others go on without it, and it is started again.
"""

FIRST_DELAY_SECONDS = 0.5
LONGEST_DELAY_SECONDS = 30.0
STEADY_SECONDS = 60.0
"""A child that ran for so long is taken to be well: its next crash is answered at once again."""

STOP_SECONDS = 30.0
"""How long a child may take to stop before it is killed, unless it says more; what is acknowledged is on disk."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Child:
    """A process to keep running. `stage` gives the order of stopping, lowest first; those of a stage stop together.

    `stop_seconds`: how long it may take to stop (a collector drains its spool) before it is killed. `reloads`: whether it reads its
    configuration again on SIGHUP.
    """

    name: str
    command: Sequence[str]
    stage: int
    stop_seconds: float = STOP_SECONDS
    reloads: bool = False


class Supervisor:
    """Keeps children running until `stop` is called or one of them, that never announced itself, says that it cannot run.

    Args:
        children: whom to run.
        run_folder: where they announce themselves (`deploy.processes`).
        tell: gets a line for a person about each thing that happens.
        log_folder: where each child's stderr goes as ``<name>.log``; None: to our own stderr.
    """

    def __init__(
        self,
        children: Sequence[Child],
        *,
        run_folder: Path,
        tell: Callable[[str], None],
        log_folder: Path | None = None,
    ) -> None:
        self._children = children
        self._run_folder = run_folder
        self._tell = tell
        self._log_folder = log_folder
        self._live: dict[str, asyncio.subprocess.Process] = {}
        self._ran: set[str] = set()  # who has announced itself, in whichever of its lives
        self._asked: dict[str, int] = {}  # whom we have asked to stop, by the process id of then
        self._stopping = asyncio.Event()
        self._failed = ""

    def stop(self) -> None:
        """Ask for the end; `run` then stops the children and returns. A second call kills them."""
        if self._stopping.is_set():
            for process in self._live.values():
                _signal(process, signal.SIGKILL)
        self._stopping.set()

    def reload(self) -> None:
        """Have those children that can read their configuration again do so. Which they are stays as it is."""
        for child in self._children:
            process = self._live.get(child.name)
            if child.reloads and process is not None:
                self._tell(f"{child.name} reads its configuration again")
                _signal(process, signal.SIGHUP)

    async def run(self, ready: Callable[[Sequence[Running]], None]) -> str:
        """Run until stopped; `ready` is called once, when every child has announced itself.

        Returns:
            Why it ended by itself, empty when it was asked to.
        """
        keepers = [asyncio.create_task(self._keep(child)) for child in self._children]
        for keeper in keepers:  # none ends before us: one that fails must not leave its child dead in silence
            keeper.add_done_callback(lambda _: self._stopping.set())
        watcher = asyncio.create_task(self._watch(ready))
        await self._stopping.wait()
        watcher.cancel()
        for stage in sorted({child.stage for child in self._children}):
            await asyncio.gather(*(self._end(child) for child in self._children if child.stage == stage))
        await asyncio.gather(*keepers, return_exceptions=False)
        return self._failed

    async def _keep(self, child: Child) -> None:
        """Start the child, again and again, until we stop."""
        loop = asyncio.get_running_loop()
        delay = FIRST_DELAY_SECONDS
        while not self._stopping.is_set():
            started = loop.time()
            try:
                process = await self._start(child)
            except (OSError, RuntimeError) as error:  # no process, thread or memory is left, or no log can be opened
                said = f"{child.name} cannot be started: {error}"
            else:
                if self._stopping.is_set():  # it came up while the others were being stopped, so nobody has told it
                    self._ask_to_stop(child.name, process)
                code = await process.wait()
                self._live.pop(child.name, None)
                if self._stopping.is_set():
                    return
                if code == UNUSABLE and child.name not in self._ran:
                    self._failed = f"{child.name} cannot run{self._last_words(child)}"
                    self._stopping.set()
                    return
                if loop.time() - started > STEADY_SECONDS:
                    delay = FIRST_DELAY_SECONDS
                said = f"{child.name} ended with {_end_in_words(code)}"
            self._tell(f"{said}; starting it again in {delay:g} s{self._log_hint(child)}")
            try:
                await asyncio.wait_for(self._stopping.wait(), delay)
            except TimeoutError:
                delay = min(delay * 2, LONGEST_DELAY_SECONDS)

    async def _start(self, child: Child) -> asyncio.subprocess.Process:
        log = None if self._log_folder is None else (self._log_folder / f"{child.name}.log").open("ab")
        try:
            process = await asyncio.create_subprocess_exec(
                *child.command, stdin=asyncio.subprocess.PIPE, stderr=log or sys.stderr, start_new_session=True
            )
        finally:
            if log is not None:
                log.close()
        self._live[child.name] = process
        return process

    async def _end(self, child: Child) -> None:
        process = self._live.get(child.name)
        if process is None:
            return
        self._tell(f"stopping {child.name}")
        self._ask_to_stop(child.name, process)
        try:
            await asyncio.wait_for(process.wait(), child.stop_seconds)
        except TimeoutError:
            self._tell(
                f"{child.name} did not stop within {child.stop_seconds:g} s: killing it (what it acknowledged is on disk)"
            )
            _signal(process, signal.SIGKILL)
            await process.wait()

    def _ask_to_stop(self, name: str, process: asyncio.subprocess.Process) -> None:
        """Once: asked a second time, a process ends at once."""
        if self._asked.get(name) != process.pid:
            self._asked[name] = process.pid
            _signal(process, signal.SIGTERM)

    async def _watch(self, ready: Callable[[Sequence[Running]], None]) -> None:
        """Wait until each child's own process has announced itself."""
        while True:
            found = {process.name: process for process in running(self._run_folder)}
            mine = [
                found[child.name]
                for child in self._children
                if child.name in found
                and child.name in self._live
                and found[child.name].pid == self._live[child.name].pid
            ]
            self._ran |= {process.name for process in mine}
            if len(mine) == len(self._children):
                ready(mine)
                return
            await asyncio.sleep(0.05)  # a file of another process: there is nothing portable to await

    def _last_words(self, child: Child) -> str:
        """The last line that the child logged, where that is in a file; else it stands above."""
        if self._log_folder is None:
            return " (its message stands above)"
        try:
            with (self._log_folder / f"{child.name}.log").open("rb") as log:
                log.seek(max(log.seek(0, os.SEEK_END) - 4_096, 0))
                lines = log.read().decode("utf-8", "replace").splitlines()
        except OSError as error:
            return f" (its log cannot be read: {error})"
        return f": {lines[-1].removeprefix('tally: ')}" if lines else ""

    def _log_hint(self, child: Child) -> str:
        return f"; log: {self._log_folder / child.name}.log" if self._log_folder else ""


def _signal(process: asyncio.subprocess.Process, number: signal.Signals) -> None:
    try:
        process.send_signal(number)
    except ProcessLookupError:
        pass  # it ended by itself meanwhile


def _end_in_words(code: int) -> str:
    if code < 0:
        try:
            return signal.Signals(-code).name
        except ValueError:
            return f"signal {-code}"
    return f"exit code {code}"
