"""Supervision with real processes: started, started again after a crash, stopped in order, never left behind."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from deploy import up
from deploy.processes import Running, announce, is_alive, retire, running
from deploy.up import Child, Supervisor

WELL = """
import os, signal, sys
from pathlib import Path
from deploy.processes import announce, retire
folder, name = Path(sys.argv[1]), sys.argv[2]
with open(folder / "order", "a") as order: order.write(f"start {name}\\n")
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
me = announce(folder, name, {"http": "http://127.0.0.1:1"})
signal.sigwait({signal.SIGTERM})
with open(folder / "order", "a") as order: order.write(f"stop {name}\\n")
retire(folder, me)
"""


def child(folder: Path, name: str, *, stage: int = 1, program: str = WELL) -> Child:
    return Child(name=name, command=[sys.executable, "-c", program, str(folder), name], stage=stage)


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110  (what is awaited happens in another process)
            await asyncio.sleep(0.02)


class Told:
    """What a supervisor told, and whom it called ready."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.ready = asyncio.Event()
        self.processes: list[Running] = []

    def __call__(self, line: str) -> None:
        self.lines.append(line)

    def on_ready(self, processes: object) -> None:
        assert isinstance(processes, list)
        self.processes = processes
        self.ready.set()


def test_all_start_and_stop_by_stage(tmp_path: Path) -> None:
    async def story() -> None:
        told = Told()
        children = [
            child(tmp_path, "collector", stage=1),
            child(tmp_path, "correlator", stage=2),
            child(tmp_path, "api", stage=0),
        ]
        supervisor = Supervisor(children, run_folder=tmp_path, tell=told)
        running_ = asyncio.create_task(supervisor.run(told.on_ready))
        await asyncio.wait_for(told.ready.wait(), 30)
        assert [process.name for process in told.processes] == ["collector", "correlator", "api"]
        assert all(is_alive(process.pid) for process in told.processes)
        supervisor.stop()
        assert await asyncio.wait_for(running_, 30) == ""
        assert not any(is_alive(process.pid) for process in told.processes)
        order = (tmp_path / "order").read_text().split("\n")
        assert [line for line in order if line.startswith("stop")] == ["stop api", "stop collector", "stop correlator"]
        assert running(tmp_path) == []

    asyncio.run(story())


def test_a_crashed_child_is_started_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(up, "FIRST_DELAY_SECONDS", 0.01)

    async def story() -> None:
        told = Told()
        supervisor = Supervisor([child(tmp_path, "collector")], run_folder=tmp_path, tell=told)
        task = asyncio.create_task(supervisor.run(told.on_ready))
        await asyncio.wait_for(told.ready.wait(), 30)
        first = told.processes[0].pid
        os.kill(first, signal.SIGKILL)
        await until(lambda: [p for p in running(tmp_path) if p.pid != first])
        assert told.lines == ["collector ended with SIGKILL; starting it again in 0.01 s"]
        supervisor.stop()
        await asyncio.wait_for(task, 30)
        assert running(tmp_path) == []

    asyncio.run(story())


def test_a_start_that_fails_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As when there is no process or memory left to start it with; here its log cannot be opened."""
    monkeypatch.setattr(up, "FIRST_DELAY_SECONDS", 0.01)
    logs = tmp_path / "logs"
    logs.mkdir()

    async def story() -> None:
        told = Told()
        supervisor = Supervisor([child(tmp_path, "collector")], run_folder=tmp_path, tell=told, log_folder=logs)
        task = asyncio.create_task(supervisor.run(told.on_ready))
        await asyncio.wait_for(told.ready.wait(), 30)
        first = told.processes[0].pid
        logs.rename(tmp_path / "elsewhere")
        os.kill(first, signal.SIGKILL)
        await until(lambda: any(line.startswith("collector cannot be started: ") for line in told.lines))
        (tmp_path / "elsewhere").rename(logs)
        await until(lambda: [p for p in running(tmp_path) if p.pid != first])
        supervisor.stop()
        assert await asyncio.wait_for(task, 30) == ""
        assert running(tmp_path) == []

    asyncio.run(story())


def test_a_keeper_that_fails_ends_everything(tmp_path: Path) -> None:
    async def story() -> None:
        told = Told()
        impossible = Child(name="api", command=["\0"], stage=0)
        supervisor = Supervisor([child(tmp_path, "collector"), impossible], run_folder=tmp_path, tell=told)
        with pytest.raises(ValueError, match="null"):
            await asyncio.wait_for(supervisor.run(told.on_ready), 30)
        assert running(tmp_path) == []

    asyncio.run(story())


def test_a_child_that_cannot_run_ends_everything_and_is_named(tmp_path: Path) -> None:
    async def story() -> None:
        told = Told()
        children = [child(tmp_path, "api", stage=0), child(tmp_path, "correlator", program="raise SystemExit(2)")]
        supervisor = Supervisor(children, run_folder=tmp_path, tell=told)
        reason = await asyncio.wait_for(supervisor.run(told.on_ready), 30)
        assert reason.startswith("correlator cannot run")
        assert not told.ready.is_set()
        assert running(tmp_path) == []

    asyncio.run(story())


def test_a_child_that_ran_and_cannot_for_now_ends_nobody_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(up, "FIRST_DELAY_SECONDS", 0.01)
    program = f"import os, sys\nif os.path.exists(sys.argv[1] + '/replaced'): sys.exit(2)\n{WELL}"

    async def story() -> None:
        told = Told()
        children = [child(tmp_path, "detector", stage=0, program=program), child(tmp_path, "collector")]
        supervisor = Supervisor(children, run_folder=tmp_path, tell=told)
        task = asyncio.create_task(supervisor.run(told.on_ready))
        await asyncio.wait_for(told.ready.wait(), 30)
        detector, collector = (process.pid for process in told.processes)
        (tmp_path / "replaced").touch()
        os.kill(detector, signal.SIGKILL)
        await until(lambda: any("detector ended with exit code 2; starting" in line for line in told.lines))
        (tmp_path / "replaced").unlink()
        await until(lambda: {p.name for p in running(tmp_path) if p.pid != detector} == {"detector", "collector"})
        assert is_alive(collector), "it was left alone"
        supervisor.stop()
        assert await asyncio.wait_for(task, 30) == ""

    asyncio.run(story())


def test_the_second_call_kills_a_child_that_does_not_stop(tmp_path: Path) -> None:
    deaf = WELL.replace("signal.sigwait({signal.SIGTERM})", "signal.sigwait({signal.SIGUSR1})").replace(
        "SIG_BLOCK, {signal.SIGTERM}", "SIG_BLOCK, {signal.SIGTERM, signal.SIGUSR1}"
    )

    async def story() -> None:
        told = Told()
        supervisor = Supervisor([child(tmp_path, "collector", program=deaf)], run_folder=tmp_path, tell=told)
        task = asyncio.create_task(supervisor.run(told.on_ready))
        await asyncio.wait_for(told.ready.wait(), 30)
        supervisor.stop()
        await until(lambda: told.lines == ["stopping collector"])
        supervisor.stop()
        await asyncio.wait_for(task, 30)
        assert not is_alive(told.processes[0].pid)

    asyncio.run(story())


def ended(folder: Path, program: str) -> str:
    """Why a supervisor of this child alone, which logs into the folder, ended by itself."""

    async def story() -> str:
        supervisor = Supervisor(
            [child(folder, "api", program=program)], run_folder=folder, tell=Told(), log_folder=folder
        )
        return await asyncio.wait_for(supervisor.run(lambda _: None), 30)

    return asyncio.run(story())


def test_logs_go_to_files_where_asked_for(tmp_path: Path) -> None:
    program = "import sys; print('what went wrong', file=sys.stderr); raise SystemExit(2)"

    assert ended(tmp_path, program) == "api cannot run: what went wrong"
    assert (tmp_path / "api.log").read_text() == "what went wrong\n"


def test_a_log_that_is_gone_hides_no_child_that_cannot_run(tmp_path: Path) -> None:
    program = "import os, sys; os.unlink(f'{sys.argv[1]}/api.log'); raise SystemExit(2)"

    assert ended(tmp_path, program).startswith("api cannot run (its log cannot be read: [Errno 2]")


def test_a_process_announces_itself_and_retires(tmp_path: Path) -> None:
    me = announce(tmp_path, "api", {"http": "http://127.0.0.1:8080"})
    assert running(tmp_path) == [me]
    assert me.pid == os.getpid()
    retire(tmp_path, Running(name="api", pid=me.pid + 1))
    assert running(tmp_path) == [me], "another process's file is left alone"
    retire(tmp_path, me)
    assert running(tmp_path) == []


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"name": 1}', b'{"name": "x", "pid": 0}', b"\xff"])
def test_a_strange_file_is_nobody(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "api.json").write_bytes(content)
    assert running(tmp_path) == []
