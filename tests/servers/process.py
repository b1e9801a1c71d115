"""What servers that a test starts for itself have in common: a folder, a process, its end."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Self

__all__ = ["ServerProcess"]


class ServerProcess:
    """One process over a folder of its own, `start`ed by a subclass; as a context manager it is stopped in the end.

    Args:
        name: begins the name of its folder.
        own_session: it starts processes itself, and all of them are ended together.
    """

    def __init__(self, name: str, *, own_session: bool = False) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix=f"{name}-"))
        self._own_session = own_session
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, and return when it answers."""
        raise NotImplementedError

    def _run(
        self,
        command: Sequence[str],
        answers: Callable[[], bool],
        *,
        seconds: float,
        env: Mapping[str, str] | None = None,
    ) -> None:
        """Start the command, and wait until it `answers`: for so many seconds at most."""
        with (self.folder / "stdout.log").open("ab") as log:
            self._process = process = subprocess.Popen(
                command,
                cwd=self.folder,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=self._own_session,
            )
        deadline = time.monotonic() + seconds
        while not answers():
            assert process.poll() is None, self.log()
            assert time.monotonic() < deadline, self.log()
            time.sleep(0.1)

    def log(self) -> str:
        """The end of what it has printed."""
        return (self.folder / "stdout.log").read_text(encoding="utf-8", errors="replace")[-4_000:]

    def kill(self) -> None:
        """SIGKILL; it can be started again."""
        assert self._process is not None
        end = os.killpg if self._own_session else os.kill
        end(self._process.pid, signal.SIGKILL)
        self._process.wait(timeout=30)
        self._process = None

    def stop(self) -> None:
        """End it, and remove what it kept."""
        if self._process is not None:
            self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
