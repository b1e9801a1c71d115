"""`tally up` with real processes on free ports: from a service's first log line to a verified trail, through a crash, to a clean stop."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import msgpack
import pytest

from correlator.shards import shard_of

CONFIG = """
[collector]
name = "side"
[collector.forward]
port = 0
[collector.http]
port = 0
[audit_api]
port = 0
"""

PATIENCE_SECONDS = 45.0


class Up:
    """A running `tally up`."""

    def __init__(self, folder: Path, config: str = CONFIG) -> None:
        self.folder = folder
        self.config = folder / "tally.toml"
        self.config.write_text(config)
        self.command = [sys.executable, "-m", "deploy.cli", "--config", str(self.config)]
        self.errors = (folder / "stderr").open("wb")
        self.process = subprocess.Popen([*self.command, "up", "--json"], stdout=subprocess.PIPE, stderr=self.errors)
        assert self.process.stdout is not None
        text = b""
        while not text.endswith(b"\n}\n"):
            line = self.process.stdout.readline()
            assert line, (folder / "stderr").read_text()
            text += line
        self.ready = {one["name"]: one for one in json.loads(text)["ready"]}

    def address(self, name: str, use: str) -> str:
        return str(self.now(name)["addresses"][use])

    def now(self, name: str) -> dict[str, Any]:
        """What the process of this name has announced last."""
        return dict(json.loads((self.folder / "tally-data" / "run" / f"{name}.json").read_text()))

    def tally(self, *arguments: str, token: str = "") -> subprocess.CompletedProcess[str]:
        environment = os.environ | {"TALLY_TOKEN": token}
        command = [*self.command, *arguments]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=60)

    def send(self, transaction: str, message: str) -> None:
        """One Fluent Forward message with a chunk id, sent until it is acknowledged."""

        def acknowledged() -> bool:
            host, _, port = self.address("collector-side", "forward").rpartition(":")
            record = {"message": message, "service": "shop", "transaction_id": transaction}
            chunk = f"{transaction}/{message}"
            try:
                with socket.create_connection((host, int(port)), timeout=5) as connection:
                    connection.sendall(msgpack.packb(["shop", [[int(time.time()), record]], {"chunk": chunk}]))
                    return bool(msgpack.unpackb(connection.recv(1_000)) == {"ack": chunk})
            except OSError:
                return False  # it is just being started again

        until(acknowledged)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(timeout=60)
            finally:
                self.process.kill()
        assert self.process.stdout is not None
        self.process.stdout.close()
        self.errors.close()


def until(condition: Callable[[], Any]) -> Any:
    """Its value, once that is true: what is awaited happens in other processes."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not (value := condition()):
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.1)
    return value


@pytest.fixture
def up(tmp_path: Path) -> Iterator[Up]:
    running = Up(tmp_path)
    yield running
    running.close()


def get(url: str, token: str = "") -> httpx.Response:
    return httpx.get(url, headers={"authorization": f"Bearer {token}"} if token else {}, timeout=10)


def test_from_the_first_log_line_to_a_verified_trail_through_a_crash(up: Up) -> None:
    assert set(up.ready) == {"collector-side", "correlator", "api", "incidents"}
    for name in up.ready:
        url = up.address(name, "http")
        until(partial(lambda url: get(f"{url}/readyz").status_code == 200, url))
        assert "tally_" in get(f"{url}/metrics").text, name
        assert get(f"{url}/livez").status_code == 200

    up.send("t-1", "before the crash")
    first = up.now("collector-side")["pid"]
    os.kill(first, signal.SIGKILL)
    until(lambda: up.now("collector-side")["pid"] != first)
    up.send("t-1", "after the crash")

    def story() -> dict[str, Any] | None:
        told = up.tally("trail", "t-1", "--json")
        found = json.loads(told.stdout) if told.stdout else {"steps": []}
        return found if len(found["steps"]) == 2 else None

    found = until(story)
    assert {step["message"] for step in found["steps"]} == {"before the crash", "after the crash"}
    assert found["proof"]["state"] == "verified"

    token = up.tally("token", "add", "ann", "--role", "auditor").stdout.strip()
    api = up.address("api", "http")
    page = until(lambda: get(f"{api}/v1/trails?transaction=t-1", token).json()["trails"])
    assert [trail["trail"] for trail in page] == ["transaction/t-1"]

    key = str(up.folder / "tally-data" / "keys" / "log.vkey")
    bundle = f"{api}/v1/exports/transaction/t-1"
    assert up.tally("verify", bundle, "--key", key, token=token).stdout.startswith("TRUE: ")
    refused = up.tally("verify", bundle, "--key", key)
    assert (refused.returncode, "401" in refused.stderr, token in refused.stderr) == (2, True, False)
    assert json.loads(up.tally("status", "--url", api, token=token).stdout)["ledger"] == "localhost/tallystick"

    file = up.folder / "day.jsonl"
    file.write_text('{"service": "shop", "transaction_id": "t-2", "message": "from a file"}\n')
    done = up.tally("import", str(file))
    assert (done.returncode, "a correlator is running" in done.stderr) == (0, True)
    until(lambda: up.tally("trail", "t-2").returncode == 0)
    refused = up.tally("reindex")
    assert (refused.returncode, "stop it first" in refused.stderr) == (1, True)

    status = json.loads(up.tally("status", "--json").stdout)
    assert {process["name"] for process in status["processes"]} == {"collector-side", "correlator", "api", "incidents"}
    assert up.tally("check").returncode == 0, "a running ledger can be checked"
    second = up.tally("up")
    assert (second.returncode, "is running already" in second.stderr) == (1, True)

    pids = [up.now(name)["pid"] for name in up.ready]
    up.process.send_signal(signal.SIGINT)
    assert up.process.wait(timeout=60) == 0
    told = (up.folder / "stderr").read_text()
    assert re.findall(r"^stopping (.+)$", told, re.MULTILINE) == ["api", "incidents", "collector-side", "correlator"]
    assert "collector-side ended with SIGKILL; starting it again in 0.5 s" in told
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
    assert list((up.folder / "tally-data" / "run").glob("*.json")) == []
    done = up.tally("check", "--json")
    assert (done.returncode, json.loads(done.stdout)["account"]["waiting"]) == (0, 0), (
        "the correlator took in all that was left"
    )


def test_an_idle_sidecar_is_small(up: Up) -> None:
    need_proc()
    status = Path(f"/proc/{up.now('collector-side')['pid']}/status").read_text()
    resident_kib = int(re.search(r"^VmRSS:\s+(\d+) kB", status, re.MULTILINE)[1])  # type: ignore[index]
    assert resident_kib < 80 * 1024


def test_idle_processes_let_the_processor_rest(up: Up) -> None:
    need_proc()

    def processor_seconds() -> dict[str, float]:
        stats = {name: Path(f"/proc/{up.now(name)['pid']}/stat").read_text() for name in up.ready}
        ticks = {name: sum(map(int, stat.rpartition(")")[2].split()[11:13])) for name, stat in stats.items()}
        return {name: used / os.sysconf("SC_CLK_TCK") for name, used in ticks.items()}

    time.sleep(2)  # let them come to rest
    before = processor_seconds()
    time.sleep(2)
    after = processor_seconds()
    busy = {name: round(after[name] - before[name], 2) for name in before if after[name] - before[name] > 0.5}
    assert busy == {}, "seconds of processor time in two idle seconds"


def need_proc() -> None:
    if not Path("/proc/self/stat").exists():
        pytest.skip("no /proc here to read a process's memory and processor time from")


def test_children_do_not_outlive_a_killed_supervisor(up: Up) -> None:
    pids = [one["pid"] for one in up.ready.values()]
    up.process.kill()
    up.process.wait()

    def gone(pid: int) -> bool:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        return Path(f"/proc/{pid}/stat").read_text().split()[2] == "Z"  # ended; its new parent has not asked yet

    until(lambda: all(gone(pid) for pid in pids))


def test_a_taken_port_is_told_and_ends_everything(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        config = tmp_path / "tally.toml"
        config.write_text(CONFIG.replace("[collector.http]\nport = 0", f"[collector.http]\nport = {port}"))
        command = [sys.executable, "-m", "deploy.cli", "--config", str(config), "up"]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 1
    assert "collector-side cannot listen: Address already in use" in done.stderr
    assert done.stderr.splitlines()[-1].startswith("tally: collector-side cannot run")


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (
            'tls_certificate = "tally.toml"\ntls_key = "tally.toml"',
            "/tally.toml are not a certificate and its key in PEM",
        ),
        ('tls_certificate = "gone.pem"\ntls_key = "gone.pem"', "/gone.pem: No such file or directory"),
        ('host = "a..b"\nunprotected = true', "No host name (while attempting to listen on a..b, port 0)"),
        ('host = "nowhere.invalid"\nunprotected = true', "while attempting to listen on nowhere.invalid, port 0)"),
    ],
)
def test_where_it_cannot_listen_ends_everything_and_says_what_to_mend(tmp_path: Path, settings: str, said: str) -> None:
    """Exit code 2 tells `tally up` that starting it again will not help; a sidecar that ended with 1 was started again for ever."""
    config = tmp_path / "tally.toml"
    config.write_text(CONFIG.replace("[collector.http]\nport = 0", f"[collector.http]\nport = 0\n{settings}"))
    command = [sys.executable, "-m", "deploy.cli", "--config", str(config), "run"]
    done = subprocess.run([*command, "collector"], capture_output=True, text=True, check=False, timeout=60)
    unresolved = "Temporary failure" in done.stderr  # where nobody answers for names it may pass, and is tried again
    assert (done.returncode, said in done.stderr) == (1 if unresolved else 2, True), done.stderr
    if "tls" in settings:
        config.write_text(CONFIG.replace("[audit_api]\nport = 0", f"[audit_api]\nport = 0\n{settings}"))
        done = subprocess.run([*command, "api"], capture_output=True, text=True, check=False, timeout=60)
        assert (done.returncode, said in done.stderr) == (2, True), done.stderr


@pytest.mark.crash
def test_a_ledger_that_is_cut_is_served_and_verified(tmp_path: Path) -> None:
    """Five processes: what a sender logged is found, read, exported and verified through the one API over three logs."""
    up = Up(tmp_path, f"{CONFIG}\n[correlator]\nshards = 3\n")
    try:
        correlators = {f"correlator-shard-{number}" for number in (1, 2, 3)}
        assert set(up.ready) == {"collector-side", "api", "incidents", *correlators}
        transactions = [f"t-{number}" for number in range(6)]
        shards = {shard_of(f"transaction/{name}", 3) for name in transactions}
        assert shards == {1, 2, 3}, "the test needs one of each"
        for name in transactions:
            up.send(name, "paid")
        token = up.tally("token", "add", "ann", "--role", "auditor").stdout.strip()
        api = up.address("api", "http")
        until(lambda: get(f"{api}/readyz").status_code == 200)

        def served() -> bool:
            page = get(f"{api}/v1/trails?kind=transaction", token)
            return page.status_code == 200 and len(page.json()["trails"]) == len(transactions)

        until(served)
        folder = up.folder / "tally-data"
        key = str(folder / "keys" / "log.vkey")
        for name in transactions:
            bundle = f"{api}/v1/exports/transaction/{name}"
            assert up.tally("verify", bundle, "--key", key, token=token).stdout.startswith("TRUE: ")

        def recorded() -> bool:
            accesses = get(f"{api}/v1/trails/transaction/t-0", token).json()["accesses"]["entries"]
            return any((one["principal"], one["action"]) == ("ann", "trail.export") for one in accesses)

        until(recorded)
        until(lambda: get(f"{api}/log/head").status_code == 200)
        note = up.folder / "statement"
        note.write_bytes(get(f"{api}/log/head").content)
        assert up.tally("verify", str(note), "--key", key).stdout.startswith("TRUE: ")
        assert json.loads(up.tally("status", "--url", api, token=token).stdout)["ledger"] == "localhost/tallystick"
        checked = up.tally("check", "--since", str(note))
        assert checked.returncode == 0, checked.stdout + checked.stderr
    finally:
        up.close()
    stopped = re.findall(r"^stopping (.+)$", (up.folder / "stderr").read_text(), re.MULTILINE)
    assert stopped[:3] == ["api", "incidents", "collector-side"]
    assert set(stopped[3:]) == correlators


def test_a_hangup_has_the_collectors_read_their_configuration_again(up: Up) -> None:
    pids = {name: up.now(name)["pid"] for name in up.ready}
    text = up.config.read_text()

    def reloads(outcome: str) -> int:
        shown = get(f"{up.address('collector-side', 'http')}/metrics").text
        return int(float(shown.partition(f'config_reloads_total{{outcome="{outcome}"}} ')[2].split()[0]))

    up.config.write_text(text + "\n[collector.beats]\nport = 0\n")
    up.process.send_signal(signal.SIGHUP)
    until(lambda: "beats" in up.now("collector-side")["addresses"])
    assert reloads("applied") == 1

    for wrong, said in (
        ("\n[collector.beat]\nport = 0\n", "collector.beat: unknown key; did you mean beats?"),
        ('\n[store]\nurls = ["http://127.0.0.1:1"]\n', "store.urls: a change of this needs a restart"),
    ):
        before = reloads("refused")
        up.config.write_text(text + wrong)
        up.process.send_signal(signal.SIGHUP)
        until(lambda before=before: reloads("refused") > before)  # type: ignore[misc]
        until(lambda said=said: said in (up.folder / "stderr").read_text())  # type: ignore[misc]
        assert up.address("collector-side", "beats"), "the one before stays in force"
    up.config.write_text(text)
    told = up.tally("status").stdout
    assert "an older configuration is in force, this one was refused: store.urls" in told

    for name in ("correlator", "api"):  # they cannot, and say so; a hangup that they do not expect would end them
        os.kill(pids[name], signal.SIGHUP)
    until(lambda: (up.folder / "stderr").read_text().count("SIGHUP: what this process is configured with") == 2)
    assert {name: up.now(name)["pid"] for name in up.ready} == pids, "nobody was started again"
