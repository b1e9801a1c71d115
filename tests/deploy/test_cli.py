"""The command, on real ledgers: what it answers, and how it ends."""

from __future__ import annotations

import base64
import json
import re
import stat
import subprocess
import sys
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from correlator.checkpoint import Checkpoint, sign
from correlator.note import Signer
from correlator.reader import LogReader
from deploy.cli import COMMANDS
from deploy.keys import read_signer, write_key_pair
from deploy.logstorage import log_storage
from deploy.processes import announce, retire
from tests.support.cut_bundle import cut_to

if TYPE_CHECKING:
    from tests.deploy.conftest import Cli, Workshop

TRACE = "ab" * 16
KEY = "tally-data/keys/log.vkey"


def test_help_names_every_command_and_imports_none() -> None:
    program = (
        "import sys; from deploy.cli import main\n"
        "sys.argv = ['tally', '--help']\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "print(sorted({name.split('.')[0] for name in sys.modules} & {'fastapi', 'rich', 'uvicorn', 'starlette', 'lmdb'}))"
    )
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    for name, entry in COMMANDS.items():
        assert re.search(rf"^  {name} +{re.escape(entry.text[:30])}", told, re.MULTILINE), name
    assert told.splitlines()[-1] == "[]"


def test_what_takes_time_is_imported_where_ctrl_c_is_answered() -> None:
    """Reading the settings' modules took half a second, in which Ctrl-C was answered with a traceback."""
    program = "import sys, deploy.cli; print([name for name in sys.modules if name in ('deploy.config', 'msgspec')])"
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert told == "[]\n"


def test_a_sidecar_does_not_import_the_api() -> None:
    program = (
        "import sys, collector.sidecar, deploy.commands.run; print('fastapi' in sys.modules, 'rich' in sys.modules)"
    )
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert told == "False False\n"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself(name: str, cli: Cli) -> None:
    code, out, _ = cli(name, "--help")
    assert code == 0
    assert f"tally {name}" in out.splitlines()[0]


def test_the_story_of_a_payment(ledger: Workshop, cli: Cli) -> None:
    code, out, err = cli("trail", "p1", "--width", "100")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0] == "transaction/p1  COMPLETE"
    assert lines[1] == "2023-11-14 22:13:20 UTC, 2 s · 3 events from 1 service · 2 trails"
    assert lines[2] == "order_id o1"
    assert "4111111111111111" not in re.sub(r"\D", "", lines[4])
    assert "\\x1b[2J" in lines[4], "what would steer the terminal is shown, not obeyed"
    assert "looked up" in out, "the trace's own line belongs to the story"
    assert re.search(r"^Includes  trace/(ab){16} ", out, re.MULTILINE)
    assert re.search(
        r"^Proof     verified: \d+ entries and 3 events, in the log test.example/audit of ", out, re.MULTILINE
    )
    assert "\x1b" not in out, "no colours where nobody looks"


def test_what_is_missing_is_named(ledger: Workshop, cli: Cli) -> None:
    code, out, _ = cli("trail", "p2")
    assert code == 0
    assert out.startswith("transaction/p2  INCOMPLETE\n")
    assert "Missing   paid: paid of *\n" in out


def test_the_story_as_json(ledger: Workshop, cli: Cli) -> None:
    code, out, _ = cli("trail", "p1", "--json")
    story = json.loads(out)
    assert code == 0
    assert (story["status"], story["proof"]["state"]) == ("complete", "verified")
    assert [step["name"] for step in story["steps"]] == ["received", "looked up", "paid"]


@pytest.mark.parametrize("identity", ["p1", "transaction/p1"])
def test_a_trail_is_found_by_what_a_person_has(ledger: Workshop, cli: Cli, identity: str) -> None:
    assert cli("trail", identity)[1].startswith("transaction/p1  ")


def test_a_trace_is_found_by_its_id(ledger: Workshop, cli: Cli) -> None:
    assert cli("trail", TRACE)[1].startswith(f"trace/{TRACE}  ")


def test_a_key_of_several_transactions_asks_which(ledger: Workshop, cli: Cli) -> None:
    code, out, err = cli("trail", "o1")
    assert (code, out) == (1, "")
    assert err == "tally: 'o1' is in several trails; say which:\n  transaction/p2\n  transaction/p1\n"


def test_nothing_known_is_said_and_recorded(ledger: Workshop, cli: Cli) -> None:
    code, out, err = cli("trail", "p9")
    assert (code, out) == (1, "")
    assert err.startswith("tally: nothing is known of 'p9': ")
    ledger.correlate()
    accesses = json.loads(cli("find", "--kind", "access", "--json")[1])["trails"]
    assert [trail["entries"] for trail in accesses] == [1]


def test_reading_is_on_record_before_it_is_told(ledger: Workshop, cli: Cli) -> None:
    assert "Read  " not in cli("trail", "p1")[1]
    ledger.correlate()
    assert re.search(
        r"^Read      1 time before, last by local:\S+ at \S+ \(trail.read\)$", cli("trail", "p1")[1], re.MULTILINE
    )


def test_reading_changes_nothing_that_was_read(ledger: Workshop, cli: Cli) -> None:
    before = json.loads(cli("trail", "p1", "--json")[1])
    ledger.correlate()
    after = json.loads(cli("trail", "p1", "--json")[1])
    assert (after["steps"], after["links"]) == (before["steps"], before["links"])


def test_find(ledger: Workshop, cli: Cli) -> None:
    def trails(*conditions: str) -> list[str]:
        code, out, _ = cli("find", *conditions, "--json")
        assert code == 0
        return [trail["trail"] for trail in json.loads(out)["trails"]]

    assert trails("--kind", "transaction") == ["transaction/p2", "transaction/p1"]
    assert trails("--status", "incomplete") == ["transaction/p2"]
    assert set(trails("--key", "order_id:o1")) >= {"transaction/p1", "transaction/p2"}
    assert trails("--kind", "transaction", "--until", "2023-11-14T22:13:21Z") == ["transaction/p1"]
    assert trails("--kind", "transaction", "--since", "2023-11-14T23:13:23+01:00") == ["transaction/p2"]
    assert cli("find", "--status", "incomplete")[1].split() == [
        "incomplete",
        "2023-11-14T22:13:23",
        "3",
        "transaction/p2",
        "payments",
    ]
    assert cli("find", "--service", "nobody") == (0, "", "no trail is found\n")
    assert cli("find", "--service", "nobody", "--json")[2] == ""
    code, _, err = cli("find", "--since", "yesterday")
    assert (code, "not an RFC 3339 time" in err) == (2, True)


def test_export_and_verify(ledger: Workshop, cli: Cli) -> None:
    bundle = ledger.folder / "p1.zip"
    key = str(ledger.folder / KEY)
    code, out, _ = cli("export", "p1", "-o", str(bundle))
    assert code == 0
    assert "verify it with: tally verify" in out
    assert cli("export", "p1", "-o", str(bundle))[0] == 1, "a file is not replaced unasked"
    code, out, _ = cli("verify", str(bundle), "--key", key)
    assert (code, out.splitlines()[0][:6]) == (0, "TRUE: ")
    code, out, _ = cli("verify", str(bundle), "--key", Path(key).read_text().strip(), "--json")
    assert (code, json.loads(out)["verdict"]) == (0, "true")


def test_verify_without_a_key_cannot_tell(ledger: Workshop, cli: Cli) -> None:
    bundle = ledger.folder / "p1.zip"
    cli("export", "p1", "-o", str(bundle))
    code, out, _ = cli("verify", str(bundle))
    assert code == 2
    assert out.startswith("COULD NOT TELL")
    assert "fingerprint SHA256:" in out


def test_a_bundle_without_its_trails_beginning_cannot_tell(ledger: Workshop, cli: Cli) -> None:
    bundle = ledger.folder / "p1.zip"
    cli("export", "p1", "-o", str(bundle))
    bundle.write_bytes(cut_to(bundle.read_bytes(), lambda at, _: at >= 3))
    code, out, _ = cli("verify", str(bundle), "--key", str(ledger.folder / KEY))
    assert code == 2
    assert out.startswith("COULD NOT TELL: ")
    assert "transaction/p1 (2 entries from position 3 on: 3 entries before it left out)" in out
    code, out, _ = cli("verify", str(bundle), "--key", str(ledger.folder / KEY), "--json")
    told = json.loads(out)
    assert (code, told["verdict"]) == (2, "unknown")
    assert told["doubts"] == ["the beginning of transaction/p1 is not in it: it begins at position 3"]


def test_a_remembered_checkpoint_decides(ledger: Workshop, cli: Cli) -> None:
    """Of a bundle and of a proof alike: a fork is false, what cannot be compared is not known, and a proof says that it goes on."""
    bundle, proof, since, between = (
        ledger.folder / name for name in ("p1.zip", "3.tlog-proof", "since", "between.json")
    )
    cli("export", "p1", "-o", str(bundle))
    signer = read_signer(ledger.places, ledger=ledger.config.ledger)
    log = LogReader(log_storage(ledger.config), signer.verifier)
    size = log.tree().size
    proof.write_bytes(log.proof(3, extra=log.entry(3)).encode())
    path = [base64.b64encode(one).decode() for one in log.consistency(size - 5, size)]
    between.write_text(json.dumps({"proof": path, "first": {"size": size - 5}}))
    known = ("--key", str(ledger.folder / KEY), "--since", str(since))
    of_others = ledger.folder / "of-others.json"
    of_others.write_text(json.dumps({"proof": path, "first": {"size": size - 4}, "second": {"size": size}}))
    for leaves, root, more, code, said in (
        (size, log.root(size), (), 0, "the remembered checkpoint: same"),
        (size, bytes(32), (), 1, "forked"),
        (size - 5, log.root(size - 5), (), 2, f"/v1/consistency?first={size - 5}&second={size}"),
        (size - 5, bytes(32), (), 2, "not shown"),
        (size - 5, log.root(size - 5), ("--consistency", str(between)), 0, "the remembered checkpoint: continues"),
        (size - 5, bytes(32), ("--consistency", str(between)), 1, "against the remembered one"),
        (
            size - 5,
            log.root(size - 5),
            ("--consistency", str(of_others)),
            2,
            f"/v1/consistency?first={size - 5}&second={size}",
        ),
    ):
        since.write_bytes(sign(Checkpoint(origin=signer.name, size=leaves, root=root), signer))
        for source in (bundle, proof):
            found, out, err = cli("verify", str(source), *known, *more)
            assert (found, said in out) == (code, True), (source, leaves, out, err)
            assert out.startswith(("TRUE: ", "FALSE: ", "COULD NOT TELL: ")[code])
            found, out, _ = cli("verify", str(source), *known, *more, "--json")
            assert (found, json.loads(out)["verdict"]) == (code, ("true", "false", "unknown")[code])
    code, out, err = cli("verify", str(bundle), *known, "--consistency", str(since))
    assert (code, out, "the consistency proof cannot be read" in err) == (2, "", True)
    for no_checkpoint in (
        b"another file\n",
        sign(Checkpoint(origin="other", size=size, root=bytes(32)), Signer.generate("other")),
    ):
        since.write_bytes(no_checkpoint)
        code, out, err = cli("verify", str(bundle), *known)
        assert (code, out, f"could not tell: --since {since}: " in err) == (2, "", True), (
            "nothing is said of the bundle"
        )
    assert cli("verify", str(bundle), "--consistency", str(between))[0] == 2


def test_what_is_remembered_and_cannot_be_read_says_nothing(ledger: Workshop, cli: Cli) -> None:
    """Of a bundle, of a log, and of both without a key: it is not they that are false."""
    bundle, since = ledger.folder / "p1.zip", ledger.folder / "since"
    cli("export", "p1", "-o", str(bundle))
    signed = (ledger.places.log / "checkpoint").read_bytes()
    for kept in (
        b"",
        b"no checkpoint\n",
        signed[:-30],
        signed.replace(b"test.example/audit\n", b"other.example\n"),
        None,
    ):
        since.unlink() if kept is None else since.write_bytes(kept)
        for source in (bundle, ledger.places.log):
            for more in (("--key", str(ledger.folder / KEY)), ("--json", "--key", str(ledger.folder / KEY))):
                code, out, err = cli("verify", str(source), *more, "--since", str(since))
                assert (code, out) == (2, ""), kept
                assert f"could not tell: --since {since}: " in err
    since.write_bytes(b"no checkpoint\n")
    assert cli("verify", str(bundle), "--since", str(since))[:2] == (2, "")


def test_verify_with_another_key_is_false(ledger: Workshop, cli: Cli) -> None:
    bundle = ledger.folder / "p1.zip"
    cli("export", "p1", "-o", str(bundle))
    cli("keygen", "--name", "test.example/audit", "-o", str(ledger.folder / "other.key"))
    code, out, _ = cli("verify", str(bundle), "--key", str(ledger.folder / "other.vkey"))
    assert code == 1
    assert out.startswith("FALSE: ")


def test_a_changed_bundle_is_false_and_named(ledger: Workshop, cli: Cli) -> None:
    bundle = ledger.folder / "p1.zip"
    cli("export", "p1", "-o", str(bundle))
    with zipfile.ZipFile(bundle) as archive:
        assert "trail.ndjson" in archive.namelist()
    data = bytearray(bundle.read_bytes())
    data[len(data) // 2] ^= 1
    bundle.write_bytes(data)
    code, out, _ = cli("verify", str(bundle), "--key", str(ledger.folder / KEY))
    assert code == 1
    assert out.startswith("FALSE: ")


def test_what_cannot_be_read_cannot_be_told(ledger: Workshop, cli: Cli) -> None:
    code, out, err = cli("verify", str(ledger.folder / "none.zip"), "--key", str(ledger.folder / KEY))
    assert (code, out) == (2, "")
    assert err == f"tally: could not tell: {ledger.folder}/none.zip: No such file or directory\n"
    code, _, err = cli("verify", "http://127.0.0.1:9/x.zip", "--key", str(ledger.folder / KEY))
    assert (code, err.startswith("tally: could not tell: ")) == (2, True)


def test_the_private_key_is_not_taken_for_the_public_one(ledger: Workshop, cli: Cli) -> None:
    code, _, err = cli("verify", "x.zip", "--key", str(ledger.places.log_key))
    assert (code, "private key" in err) == (2, True)
    assert ledger.places.log_key.read_text().strip() not in err


def test_a_whole_log_is_verified(ledger: Workshop, cli: Cli) -> None:
    code, out, _ = cli("verify", str(ledger.places.log), "--key", str(ledger.folder / KEY))
    assert (code, out[:6]) == (0, "TRUE: ")
    tile = next(path for path in ledger.places.log.rglob("tile/entries/**/*") if path.is_file())
    tile.write_bytes(tile.read_bytes()[:-1] + b"x")
    code, out, _ = cli("verify", str(ledger.places.log), "--key", str(ledger.folder / KEY))
    assert (code, out[:7]) == (1, "FALSE: ")


def test_keys_are_secret(ledger: Workshop, cli: Cli) -> None:
    for path in ledger.places.keys.glob("*.key"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path.name
    assert stat.S_IMODE(ledger.places.keys.stat().st_mode) == 0o700


def test_of_many_that_make_a_key_together_one_does_and_its_halves_belong_together(tmp_path: Path) -> None:
    for at in range(10):
        key, vkey = tmp_path / f"{at}.key", tmp_path / f"{at}.vkey"

        def make(key: Path = key, vkey: Path = vkey) -> bool:
            try:
                write_key_pair(Signer.generate("test.example/race"), key, vkey)
            except FileExistsError:
                return False
            return True

        with ThreadPoolExecutor(6) as pool:
            made = [one.result() for one in [pool.submit(make) for _ in range(6)]]
        assert made.count(True) == 1
        assert Signer.parse(key.read_text().strip()).verifier.vkey == vkey.read_text().strip()


def test_keygen_never_replaces_a_key(ledger: Workshop, cli: Cli) -> None:
    before = ledger.places.log_key.read_bytes()
    vkey = ledger.places.log_vkey.read_bytes()
    code, _, err = cli("keygen")
    assert (code, "exists" in err) == (1, True)
    assert (ledger.places.log_key.read_bytes(), ledger.places.log_vkey.read_bytes()) == (before, vkey)


def test_a_key_that_others_can_read_is_refused(ledger: Workshop, cli: Cli) -> None:
    from deploy.config import ConfigError

    ledger.places.log_key.chmod(0o644)
    with pytest.raises(ConfigError, match="can be read by others"):
        ledger.correlate()


def test_a_lost_key_is_not_made_anew_over_a_log(ledger: Workshop) -> None:
    from deploy.config import ConfigError

    ledger.places.log_key.unlink()
    with pytest.raises(ConfigError, match="only its own key can go on signing"):
        ledger.correlate()


def test_tokens(workshop: Workshop, cli: Cli) -> None:
    code, token, err = cli("token", "add", "ann", "--role", "auditor", "--days", "30")
    assert code == 0
    assert token.startswith("tally_")
    assert "only time" in err
    cli("token", "add", "bob", "--role", "sre", "--role", "admin", "--note", "on call")
    kept = workshop.places.tokens.read_text()
    assert token.strip() not in kept
    assert stat.S_IMODE(workshop.places.tokens.stat().st_mode) == 0o600
    listed = json.loads(cli("token", "list", "--json")[1])["tokens"]
    assert [(one["principal"], one["roles"]) for one in listed] == [("ann", ["auditor"]), ("bob", ["sre", "admin"])]
    assert cli("token", "revoke", "ann")[0] == 0
    assert [one["principal"] for one in json.loads(cli("token", "list", "--json")[1])["tokens"]] == ["bob"]
    assert cli("token", "revoke", "ann")[0] == 1
    assert cli("token", "add", "anonymous", "--role", "sre")[0] != 0
    assert cli("token", "list")[0] == 0, "a refused token leaves the file as it was"


def test_a_token_lets_in_whom_it_should(workshop: Workshop, cli: Cli) -> None:
    from audit_api.auth import TokenFile

    token = cli("token", "add", "ann", "--role", "auditor")[1].strip()
    principal = TokenFile(workshop.places.tokens, clock=lambda: 0).authenticate(f"Bearer {token}")
    assert principal is not None
    assert (principal.name, set(principal.roles)) == ("ann", {"auditor"})


def test_reindex(ledger: Workshop, cli: Cli) -> None:
    before = cli("find", "--json")[1]
    ledger.places.index.write_bytes(b"not an index at all, but long enough to look like a damaged file" * 100)
    for name in ("-wal", "-shm"):
        ledger.places.index.with_name(f"index.sqlite{name}").unlink(missing_ok=True)
    assert cli("find")[0] == 1
    code, out, _ = cli("reindex")
    assert (code, "leaves indexed" in out) == (0, True)
    assert cli("find", "--json")[1] == before


def test_status(ledger: Workshop, cli: Cli) -> None:
    code, out, _ = cli("status")
    assert code == 0
    assert out.startswith("nothing is running\n")
    assert "log      test.example/audit, " in out
    assert "trails   1 incomplete, 1 complete" in out
    assert "writer   nobody: the log is closed; epoch " in out
    found = json.loads(cli("status", "--json")[1])
    assert [stream["waiting_batches"] for stream in found["streams"]] == [0]
    assert found["problems"] == []


def test_a_sidecar_that_runs_and_does_not_answer_is_told(ledger: Workshop, cli: Cli) -> None:
    """A process that is stopped, or hangs, has its id still."""
    announced = announce(ledger.places.run, "collector-collector", {"http": "http://127.0.0.1:9"})
    told = "its sidecar runs, and does not answer"
    assert told in cli("status")[1]
    assert [
        one["mute"] for one in json.loads(cli("status", "--json")[1])["spools"] if one["collector"] == "collector"
    ] == [True]
    retire(ledger.places.run, announced)
    assert told not in cli("status")[1]


@pytest.mark.parametrize("command", [["trail", "x"], ["find"], ["export", "x", "-o", "y.zip"], ["check"], ["reindex"]])
def test_before_there_is_a_ledger_every_reader_says_so(workshop: Workshop, cli: Cli, command: list[str]) -> None:
    code, out, err = cli(*command)
    assert (code, out) == (2, "")
    assert "there is no ledger in" in err
    assert not (workshop.folder / "tally-data").exists(), "a reader makes nothing"


def test_status_before_there_is_a_ledger(workshop: Workshop, cli: Cli) -> None:
    code, out, _ = cli("status")
    assert (code, "there is no ledger in" in out) == (0, True)


def test_a_bad_configuration_is_one_line_and_exit_code_2(workshop: Workshop, cli: Cli) -> None:
    workshop.file.write_text("[collector.forward]\nprot = 1\n")
    code, out, err = cli("status")
    assert (code, out) == (2, "")
    assert err == f"tally: {workshop.file}: collector.forward.prot: unknown key; did you mean port?\n"


def test_a_rule_that_cannot_be_used_is_a_bad_configuration(workshop: Workshop, cli: Cli) -> None:
    workshop.file.write_text(
        '[[collector.stitch.keys]]\nname = "a"\npattern = "no group"\n[collector.forward]\nport = 0\n'
    )
    code, _, err = cli("run", "collector")
    assert code == 2
    assert "the pattern needs a group" in err


def test_an_unknown_collector_is_answered_with_those_there_are(workshop: Workshop, cli: Cli) -> None:
    workshop.file.write_text("[sidecars.a]\n[sidecars.b]\n")
    assert "there is no collector called c; there is: a, b" in cli("run", "collector", "--name", "c")[2]
    assert "say which with --name (a, b)" in cli("run", "collector")[2]


def test_usage_errors_are_exit_code_2(cli: Cli) -> None:
    assert cli("nope")[0] == 2
    assert cli("trail")[0] == 2
    assert cli("trail", "x", "--nope")[0] == 2


def test_a_reader_that_goes_away_is_no_error(ledger: Workshop) -> None:
    command = f"{sys.executable} -m deploy.cli --config {ledger.file} config --markdown | head -1"
    done = subprocess.run(["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True, check=False)
    assert "Traceback" not in done.stderr
    assert "Exception" not in done.stderr
