"""`tally doctor` as it is called: what it says, how it ends, that it changes nothing, and that what it advises helps."""

from __future__ import annotations

import json
import subprocess
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from deploy.examining import Chart
from deploy.examining.whole import chart_of

if TYPE_CHECKING:
    from tests.deploy.conftest import Cli, Workshop

OF_THE_MACHINE = {"synchronised", "room", "disk for exports", "sync", "file system", "file names"}
"""What depends on the machine that the tests run on."""


def examined(cli: Cli, *more: str) -> tuple[int, list[dict[str, Any]]]:
    """Exit code, and the checks that are no matter of this machine."""
    code, out, err = cli("doctor", "--json", *more)
    assert err == ""
    told = json.loads(out)
    worst = told["verdict"]
    assert code == {"ok": 0, "warning": 0, "failed": 1, "unknown": 2}[worst]
    assert sum(told["counts"].values()) == len(told["checks"])
    assert told["counts"][worst] > 0
    return code, [check for check in told["checks"] if check["name"] not in OF_THE_MACHINE]


def tree(folder: Path) -> dict[str, str]:
    """Every file with its mode and content; without those that SQLite makes beside a file that it reads, and takes for its own."""
    return {
        str(
            path.relative_to(folder)
        ): f"{path.stat().st_mode:o} {sha256(path.read_bytes()).hexdigest() if path.is_file() else ''}"
        for path in sorted(folder.rglob("*"))
        if not path.name.endswith(("-wal", "-shm"))
    }


def test_before_the_first_start_nothing_is_wrong_and_nothing_is_made(workshop: Workshop, cli: Cli) -> None:
    before = tree(workshop.folder)
    _, checks = examined(cli)
    assert {check["outcome"] for check in checks} == {"ok"}, checks
    assert tree(workshop.folder) == before


def test_a_ledger_is_well_and_stays_as_it_is(ledger: Workshop, cli: Cli) -> None:
    before = tree(ledger.folder)
    _, checks = examined(cli)
    assert {check["outcome"] for check in checks} == {"ok"}, checks
    assert tree(ledger.folder) == before
    subjects = list(dict.fromkeys(check["subject"] for check in checks))
    assert subjects == "configuration,data folder,keys,certificates,store,index,log,clock,exports,processes".split(",")


def test_what_is_wrong_is_told_with_a_command_that_helps(ledger: Workshop, cli: Cli) -> None:
    ledger.places.log_key.chmod(0o644)
    code, out, _ = cli("doctor")
    assert code == 1
    line = next(at for at, text in enumerate(out.splitlines()) if text.startswith("FAILED   keys"))
    mend = next(text for text in out.splitlines()[line:] if text.lstrip().startswith("> "))
    subprocess.run(["sh", "-c", mend.lstrip(" >")], check=True)
    _, checks = examined(cli)
    assert {check["outcome"] for check in checks} == {"ok"}


def test_people_see_one_line_for_what_is_fine_and_all_of_it_on_request(
    ledger: Workshop, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    lines = cli("doctor")[1].splitlines()
    assert next(line for line in lines if line.startswith("ok")).split() == ["ok", "configuration", "3", "checks"]
    assert lines[-1].endswith("fine")
    every = cli("doctor", "--all")[1].splitlines()
    assert len(every) > 2 * len(lines)
    # what is to be copied, and what is one word, is never cut
    assert [line for line in every if len(line) > 80 and " > " not in line and len(line.split()) > 1] == []
    assert any("log.key: signs for test.example/audit" in line for line in every)


def test_a_subject_that_cannot_be_looked_at_is_unknown_and_the_others_are_examined() -> None:
    def closed() -> Chart:
        raise PermissionError(13, "Permission denied", "/var/lib/tally/keys/log.key")

    (check,) = chart_of("keys", closed).checks
    assert (check.subject, check.outcome) == ("keys", "unknown")
    assert check.found == "/var/lib/tally/keys/log.key cannot be looked at: Permission denied"


def test_a_damaged_index_is_told(ledger: Workshop, cli: Cli) -> None:
    ledger.places.index.write_bytes(b"not a database" * 1_000)
    code, checks = examined(cli)
    assert code == 1
    (wrong,) = [check for check in checks if check["outcome"] != "ok"]
    assert (wrong["subject"], wrong["mend"]) == ("index", ["stop the correlator, and: tally reindex"])


def test_store_and_index_on_two_clusters_are_examined_each(workshop: Workshop, cli: Cli) -> None:
    clusters = '[store]\nurls = ["http://127.0.0.1:1"]\n[index]\nurls = ["http://127.0.0.1:2"]\n'
    workshop.file.write_text(workshop.file.read_text() + clusters)
    code, checks = examined(cli)
    wrong = {check["subject"]: check["name"] for check in checks if check["outcome"] != "ok"}
    assert (code, wrong) == (1, {"store cluster": "http://127.0.0.1:1", "index cluster": "http://127.0.0.1:2"})
    one = clusters.replace("127.0.0.1:2", "127.0.0.1:1")
    workshop.file.write_text(workshop.file.read_text().replace(clusters, one))
    wrong = {check["subject"]: check["name"] for check in examined(cli)[1] if check["outcome"] != "ok"}
    assert wrong == {"OpenSearch": "http://127.0.0.1:1"}, "what is the same is asked once"


def test_half_of_a_login_is_refused(workshop: Workshop, cli: Cli) -> None:
    code, _, err = cli("doctor", "--user", "ann")
    assert (code, "come together" in err) == (2, True)
    assert cli("doctor", "--user", "ann", "--password-file", str(workshop.folder / "none"))[0] == 2


def test_a_configuration_that_cannot_be_read_is_no_patient(workshop: Workshop, cli: Cli) -> None:
    workshop.file.write_text("[stor]\n")
    code, _, err = cli("doctor")
    assert (code, "did you mean store" in err) == (2, True)
