"""`tally export --api` as data and as a report: the same files as from the ledger's own, over a network that breaks off and an API that lies."""

from __future__ import annotations

import json
import re
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest

from deploy import remoteexport
from deploy.apiclient import Api

if TYPE_CHECKING:
    from tests.deploy.conftest import Cli, Workshop


class Wire:
    """A way to the API on which answers with an export's file are cut off after `cut` bytes, `times` times, or come with a flipped byte.

    With `away` its proxy answers in their place, `times` times, what begins so.
    """

    def __init__(self, target: str, *, cut: int = 0, times: int = 0, flip: int = -1, away: bytes = b"") -> None:
        parts = urlsplit(target)
        self._target = (parts.hostname or "", parts.port or 0)
        self._cut, self._times, self._flip, self._away = cut, times, flip, away
        self.ranges: list[str] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with connection, suppress(OSError):
                self._pass_on(connection)

    def _pass_on(self, connection: socket.socket) -> None:
        head = b""
        while b"\r\n\r\n" not in head:
            head += connection.recv(65_536)
        if self._away and head.startswith(self._away) and self._times > 0:
            self._times -= 1
            connection.sendall(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 5\r\nConnection: close\r\n\r\n<html")
            return
        is_file = b"/file HTTP" in head
        if is_file:
            found = re.search(rb"(?i)\r\nrange: ([^\r]*)", head)
            self.ranges.append(found[1].decode() if found else "")
        with socket.create_connection(self._target) as there:
            there.sendall(head)
            answer = b""
            while data := there.recv(65_536):
                answer += data
        start = answer.index(b"\r\n\r\n") + 4
        if is_file and self._flip >= 0:
            at = start + self._flip
            answer = answer[:at] + bytes([answer[at] ^ 1]) + answer[at + 1 :]
        if is_file and self._cut and self._times > 0:
            self._times -= 1
            answer = answer[: start + self._cut]
        connection.sendall(answer)

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(30)


@contextmanager
def wire(target: str, *, cut: int = 0, times: int = 0, flip: int = -1, away: bytes = b"") -> Iterator[Wire]:
    made = Wire(target, cut=cut, times=times, flip=flip, away=away)
    try:
        yield made
    finally:
        made.close()


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remoteexport, "_LONGEST_PAUSE_SECONDS", 0.01)
    monkeypatch.setattr(remoteexport, "_POLL_SECONDS", 0.01)


def through(options: list[str], way: Wire) -> list[str]:
    return ["--api", way.url, *options[2:]]


def jobs(options: list[str]) -> list[dict[str, Any]]:
    found = Api(url=options[1], token=Path(options[3]).read_text().strip()).document("/v1/export-jobs")["jobs"]
    assert isinstance(found, list)
    return found


@pytest.mark.parametrize("form", ["ndjson", "csv", "ecs", "parquet"])
def test_what_a_search_finds_is_the_same_file(
    remote: list[str],
    cli: Cli,
    tmp_path: Path,
    form: str,
) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    conditions = ("--kind", "transaction", "--filter", "not status = complete", "--format", form)
    assert cli("export", "-o", str(here), *conditions)[0] == 0
    code, out, err = cli("export", "-o", str(there), *conditions, *remote)
    assert code == 0, err
    assert out.startswith(f"{there}: ")
    assert there.read_bytes() == here.read_bytes()
    told = [json.loads(path.with_name(f"{path.name}.manifest.json").read_bytes()) for path in (here, there)]
    assert told[0]["counts"] == told[1]["counts"]
    assert told[0]["selection"] == told[1]["selection"]
    assert jobs(remote) == [], "it is deleted once it is here"
    assert sorted(path.name for path in tmp_path.iterdir() if path.name.endswith((".part", ".new"))) == []
    assert cli("export", "-o", str(there), *conditions, *remote)[0] == 1, "a file that is there is not replaced"


def test_a_transfer_that_breaks_off_is_taken_up_where_it_did(
    remote: list[str],
    cli: Cli,
    tmp_path: Path,
) -> None:
    here, there = tmp_path / "here.csv", tmp_path / "there.csv"
    conditions = ("--kind", "transaction", "--format", "csv")
    assert cli("export", "-o", str(here), *conditions)[0] == 0
    with wire(remote[1], cut=100, times=3) as way:
        code, _, err = cli("export", "-o", str(there), *conditions, *through(remote, way))
        assert code == 0, err
        assert way.ranges == ["", "bytes=100-", "bytes=200-", "bytes=300-"]
    assert there.read_bytes() == here.read_bytes()


@pytest.mark.parametrize("asked", [b"GET /v1/export-jobs/", b"DELETE "])
def test_a_proxy_whose_api_restarts_ends_no_export(
    remote: list[str],
    cli: Cli,
    tmp_path: Path,
    asked: bytes,
) -> None:
    file = tmp_path / "out.csv"
    with wire(remote[1], times=2, away=asked) as way:
        code, _, err = cli("export", "-o", str(file), "--format", "csv", *through(remote, way))
    assert code == 0, err
    assert file.exists()
    assert ("stays there until its time is over" in err, len(jobs(remote))) == (
        (True, 1) if asked == b"DELETE " else (False, 0)
    )


def test_a_later_call_takes_up_what_an_earlier_one_gave_up(
    remote: list[str],
    cli: Cli,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    file = tmp_path / "out.ndjson"
    monkeypatch.setattr(remoteexport, "_TRIES", 2)
    with wire(remote[1], cut=50, times=9) as way:
        code, _, err = cli("export", "-o", str(file), "--format", "ndjson", *through(remote, way))
    assert code == 1
    assert "broke off after 100 of" in err
    assert not file.exists()
    (job,) = jobs(remote)
    assert f"--job {job['id']} takes it up again" in err
    part = tmp_path / f"out.ndjson.{job['id']}.part"
    assert (part.stat().st_size, oct(part.stat().st_mode)[-3:]) == (100, "600")
    with wire(remote[1]) as way:
        code, _, err = cli("export", "-o", str(file), "--job", job["id"], *through(remote, way))
        assert code == 0, err
        assert way.ranges == ["bytes=100-"]
    assert len(file.read_bytes().splitlines()) == job["rows"]
    assert jobs(remote) == []
    assert not part.exists()


def test_a_byte_that_changed_on_its_way_is_noticed(
    remote: list[str],
    cli: Cli,
    tmp_path: Path,
) -> None:
    with wire(remote[1], flip=60) as way:
        code, _, err = cli("export", "-o", str(tmp_path / "out"), "--format", "csv", *through(remote, way))
    assert (code, "SHA-256" in err) == (1, True)
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith("out")] == []
    assert len(jobs(remote)) == 1, "what was made there is still there"


def test_one_trail_as_data_and_as_a_report(
    ledger: Workshop,
    remote: list[str],
    cli: Cli,
    tmp_path: Path,
) -> None:
    here, there, report = tmp_path / "here.csv", tmp_path / "there.csv", tmp_path / "p1.pdf"
    assert cli("export", "p1", "--format", "csv", "-o", str(here))[0] == 0
    code, _, err = cli("export", "p1", "--format", "csv", "-o", str(there), *remote)
    assert code == 0, err
    assert there.read_bytes() == here.read_bytes()
    code, out, err = cli("export", "p1", "--format", "pdf", "-o", str(report), "--json", *remote)
    assert code == 0, err
    assert json.loads(out)["trail"] == "transaction/p1"
    assert report.read_bytes().startswith(b"%PDF-")
    assert json.loads(out)["bytes"] == report.stat().st_size
    assert not [path for path in ledger.folder.iterdir() if path.suffix in (".part", ".new")]


def test_a_job_that_fails_is_told(
    remote: list[str],
    cli: Cli,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from audit_api.export.worker import Worker
    from collector.errors import VerificationError

    async def fail(*_: object) -> None:
        raise VerificationError("leaf 7 is not what was signed")

    monkeypatch.setattr(Worker, "_make", fail)
    code, _, err = cli("export", "-o", str(tmp_path / "out"), "--format", "csv", *remote)
    assert (code, "the export failed: leaf 7 is not what was signed" in err) == (1, True)


def test_options_that_do_not_go_together(remote: list[str], cli: Cli, tmp_path: Path) -> None:
    out = ("-o", str(tmp_path / "out"))
    assert cli("export", *out, "--job", "0" * 32)[0] == 2
    assert cli("export", *out, "--job", "0" * 32, "--kind", "trace", *remote)[0] == 2
    assert cli("export", "p1", *out, "--job", "0" * 32, *remote)[0] == 2
    assert cli("export", *out, "--format", "pdf", *remote)[0] == 2
    code, _, err = cli("export", *out, "--job", "0" * 32, *remote)
    assert (code, "not-found" in err) == (1, True)
