"""`tally find`, `trail` and `export` through an audit API: the same output as from the ledger's files, and no trust in who answers."""

from __future__ import annotations

import json
import re
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from audit_api.export.bundle import BundleExport
from correlator.archive import pack
from correlator.bundle import encode_members
from correlator.unbundle import parse_members, unpack_bundle
from correlator.verify import verify_bundle
from deploy.apiclient import Api, Unanswered
from deploy.reading import open_ledger
from deploy.remoteexport import RemoteExport
from tests.deploy.conftest import event
from tests.support.cut_bundle import cut_to
from tests.support.ledgers import SIGNER
from tests.support.webhooks import mumbler

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.deploy.conftest import Cli, Workshop


def without_accesses(story: dict[str, Any]) -> dict[str, Any]:
    """Each reading is an access, and makes the log grow."""
    proof = {name: value for name, value in story["proof"].items() if name not in ("size", "root")}
    return {**story, "accesses": [], "proof": proof}


def test_the_same_output_as_from_the_files(ledger: Workshop, remote: list[str], cli: Cli, tmp_path: Path) -> None:
    for arguments in (
        ("find",),
        ("find", "--kind", "transaction", "--limit", "1"),
        ("find", "--filter", "key.order_id = o1 and not status = complete"),
        ("find", "--text", "received", "--json"),
        ("find", "--key", "order_id:o1", "--since", "2023-11-14T22:13:21Z"),
    ):
        assert cli(*arguments, *remote) == cli(*arguments), arguments
    for identity in ("p1", "transaction/p2", "ab" * 16):
        here, there = (cli("trail", identity, "--json", *more) for more in ([], remote))
        assert here[0] == there[0] == 0, there
        assert without_accesses(json.loads(there[1])) == without_accesses(json.loads(here[1]))
    ambiguous = cli("trail", "o1", *remote)
    assert ambiguous[0] == 1
    assert ambiguous == cli("trail", "o1")
    assert cli("trail", "nobody", *remote)[0] == 1
    told = [cli("trail", "p1", "--width", "100", *more)[1].partition("Read")[0] for more in ([], remote)]
    assert len({re.sub(r"of [\d,]+ leaves", "", text) for text in told}) == 1
    bundle = tmp_path / "p1.zip"
    code, out, err = cli("export", "p1", "-o", str(bundle), *remote)
    assert code == 0, err
    assert "verify it with: tally verify" in out
    assert cli("verify", str(bundle), "--key", str(ledger.places.log_vkey))[0] == 0


def test_without_a_key_nothing_is_called_verified(ledger: Workshop, remote: list[str], cli: Cli) -> None:
    code, out, _ = cli("trail", "p1", "--json", *remote[:4])
    proof = json.loads(out)["proof"]
    assert (code, proof["state"]) == (2, "unknown")
    assert "say --log-key" in proof["problem"]


def test_who_may_have_no_bundle_hears_where_they_may_look(
    remote: list[str], tokens: dict[str, str], cli: Cli, tmp_path: Path
) -> None:
    token = tmp_path / "sre.token"
    token.write_text(tokens["sre"])
    token.chmod(0o600)
    code, out, err = cli("trail", "p1", "--api", remote[1], "--token-file", str(token))
    assert (code, out) == (1, "")
    assert "forbidden: this is for auditor, admin: what is told here is proved by a bundle of transaction/p1" in err
    assert f"{remote[1]}/desk/trails/transaction/p1 shows what your role may see of it" in err


def test_another_ledgers_key_is_told(ledger: Workshop, remote: list[str], cli: Cli) -> None:
    code, out, _ = cli("trail", "p1", "--json", *remote[:4], "--log-key", SIGNER.verifier.vkey)
    assert (code, json.loads(out)["proof"]["state"]) == (1, "false")


def without_beginning(data: bytes) -> bytes:
    return cut_to(data, lambda at, entries: at >= max(i for i, one in enumerate(entries) if one.kind == "event"))


def without_verdict(data: bytes) -> bytes:
    return cut_to(data, lambda at, entries: at < next(i for i, one in enumerate(entries) if one.kind == "verdict"))


@pytest.fixture
def answering(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[str], str], Callable[[bytes], bytes]], None]:
    """Has the API lie: which path it answers for, and what it does to the bundles that it gives out."""
    real = Api.get

    def lie(path_of: Callable[[str], str], change: Callable[[bytes], bytes]) -> None:
        def get(self: Api, path: str, parameters: Any = None, *, accept: str = "*/*") -> bytes:
            data = real(self, path_of(path), parameters, accept=accept)
            return change(data) if path == "/v1/exports/transaction%2Fp1" else data

        monkeypatch.setattr(Api, "get", get)

    return lie


def test_a_trail_without_its_beginning_is_false(
    ledger: Workshop, remote: list[str], cli: Cli, answering: Any, tmp_path: Path
) -> None:
    answering(lambda path: path, without_beginning)
    code, out, _ = cli("trail", "p1", "--json", *remote)
    proof = json.loads(out)["proof"]
    assert (code, proof["state"]) == (1, "false")
    assert "transaction/p1 begins at position 3 there" in proof["problem"]
    code, _, err = cli("export", "p1", "-o", str(tmp_path / "p1.zip"), *remote)
    assert (code, (tmp_path / "p1.zip").exists()) == (1, False)
    assert "transaction/p1 begins at position 3 there" in err


def test_another_trails_bundle_is_no_answer(
    ledger: Workshop, remote: list[str], cli: Cli, answering: Any, tmp_path: Path
) -> None:
    answering(
        lambda path: path.replace("/v1/exports/transaction%2Fp1", "/v1/exports/transaction%2Fp2"), lambda data: data
    )
    for arguments in (("trail", "p1"), ("export", "p1", "-o", str(tmp_path / "p1.zip"))):
        code, out, err = cli(*arguments, *remote)
        assert (code, out) == (1, "")
        assert "asked for transaction/p1, it exports another trail, transaction/p2" in err
    assert not (tmp_path / "p1.zip").exists()
    answering(lambda path: path.replace("transaction%2Fp1", "transaction%2Fp2"), lambda data: data)
    code, out, err = cli("trail", "p1", *remote)
    assert (code, out) == (1, "")
    assert "asked for transaction/p1, it tells of another trail" in err


def test_the_status_is_that_of_the_proved_entries(
    ledger: Workshop, remote: list[str], cli: Cli, answering: Any
) -> None:
    """And the newest entries are missed, where the API itself says that there are more."""
    answering(lambda path: path, without_verdict)
    code, out, _ = cli("trail", "p1", "--json", *remote)
    story = json.loads(out)
    assert (code, story["status"], story["proof"]["state"]) == (2, "ok", "unknown")
    assert "goes on to leaf" in story["proof"]["problem"]


@pytest.fixture
def telling(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, Callable[[Any], Any]], None]:
    """Has the API lie in what it answers as JSON to one path."""
    real = Api.get

    def lie(of: str, change: Callable[[Any], Any]) -> None:
        def get(self: Api, path: str, parameters: Any = None, *, accept: str = "*/*") -> bytes:
            data = real(self, path, parameters, accept=accept)
            return json.dumps(change(json.loads(data))).encode() if path == of else data

        monkeypatch.setattr(Api, "get", get)

    return lie


def test_what_no_entry_links_to_is_no_part_of_the_story(
    ledger: Workshop, remote: list[str], cli: Cli, telling: Any
) -> None:
    """Another transaction's events are true, and not this one's: the story is told without them, and the lie is."""

    def adding(told: dict[str, Any]) -> dict[str, Any]:
        told["story"]["traces"].append("transaction/p2")
        return told

    honest = json.loads(cli("trail", "p1", "--json", *remote)[1])
    telling("/v1/trails/transaction%2Fp1", adding)
    for more in (remote, remote[:4]):
        code, out, _ = cli("trail", "p1", "--json", *more)
        story = json.loads(out)
        assert (code, story["proof"]["state"]) == (1, "false")
        assert "the API makes transaction/p2 part of it" in story["proof"]["problem"]
        assert (story["steps"], story["links"]) == (honest["steps"], honest["links"])
        assert any("transaction/p2 is said to be part of it" in one for one in story["gaps"])


def test_what_is_left_out_of_a_story_is_told(ledger: Workshop, remote: list[str], cli: Cli, telling: Any) -> None:
    def more(told: dict[str, Any]) -> dict[str, Any]:
        told["story"]["related_left_out"] = 1_300
        return told

    telling("/v1/trails/transaction%2Fp1", more)
    assert "and 1,300 more that were not looked at" in " ".join(cli("trail", "p1", *remote)[1].split())
    assert json.loads(cli("trail", "p1", "--json", *remote)[1])["related_left_out"] == 1_300


def test_more_traces_than_a_story_may_have_are_told_and_left_out(
    ledger: Workshop, remote: list[str], cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The API gives out no bundle of some of them, and each by itself would be an export for each."""
    ledger.collect([event("paid", "p1", trace_id=f"{number:032x}") for number in (1, 2)])
    ledger.correlate()
    monkeypatch.setattr("correlator.story.MAX_STORY_TRACES", 2)
    code, out, err = cli("trail", "p1", "--json", *remote)
    assert (code, err) == (0, "")
    story = json.loads(out)
    assert (story["proof"]["state"], story["traces_left_out"]) == ("verified", 3)
    assert not [one for one in story["links"] if one.get("followed")]
    assert "not 3 traces more: too many to be one story" in " ".join(cli("trail", "p1", *remote)[1].split())
    assert json.loads(cli("trail", "p1", "--json")[1])["traces_left_out"] == 1, "the files give out two of them"


def test_a_trail_that_is_only_related_is_no_part_of_the_story(
    ledger: Workshop, remote: list[str], cli: Cli, tmp_path: Path, answering: Any
) -> None:
    """Its entries are linked to, so that a bundle of both is true; whose events they are is another matter."""
    with open_ledger(ledger.config) as opened:
        (log,) = opened.logs
        export = BundleExport(
            log.evidence, key=log.key, trails=["transaction/p1", "key/order_id/o1"], page=False, max_entries=100
        )
        while export.step():
            pass
        both = export.finish()
    assert verify_bundle(both, log.key).exit_code == 0
    answering(lambda path: path, lambda _: both)
    code, out, err = cli("trail", "p1", *remote)
    assert (code, out) == (1, "")
    assert "it adds key/order_id/o1, which is no part of the story of transaction/p1" in err


def test_false_outweighs_what_could_not_be_told(
    ledger: Workshop, remote: list[str], cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a story of two bundles, as of a ledger that is cut: the one is behind, or there is no key; the other was changed."""
    real = Api.get

    def get(self: Api, path: str, parameters: Any = None, *, accept: str = "*/*") -> bytes:
        data = real(self, path, parameters, accept=accept)
        if path == "/v1/exports/transaction%2Fp1":
            return cut_to(data, lambda *_: True)
        if not path.startswith("/v1/exports/trace"):
            return data
        contents = parse_members(unpack_bundle(data))
        return pack(encode_members(replace(contents, proofs=dict.fromkeys(contents.proofs, ()))))

    monkeypatch.setattr(Api, "get", get)
    for more in (remote, remote[:4]):
        code, out, _ = cli("trail", "p1", "--json", *more)
        proof = json.loads(out)["proof"]
        assert (code, proof["state"]) == (1, "false")
        assert "it is not in the log" in proof["problem"]


@pytest.mark.parametrize(
    "answer",
    [b"[" * 200_000, b"[]", b"{}", b"5", b'{"trails":[5],"next":null}', b'{"trails":[],"next":5}', b'{"searches":[5]}'],
)
def test_an_answer_of_another_shape_is_told(
    remote: list[str], cli: Cli, monkeypatch: pytest.MonkeyPatch, answer: bytes, tmp_path: Path
) -> None:
    monkeypatch.setattr(Api, "_sent", lambda *_, **__: answer)
    for arguments in (
        ("find",),
        ("trail", "p1"),
        ("find", "--saved", "mine"),
        ("export", "p1", "-o", str(tmp_path / "p1.zip")),
    ):
        code, out, err = cli(*arguments, *remote)
        assert (code, out) == (1, ""), arguments
        assert "that is not as the API's document says" in err or "no JSON that can be read" in err


@pytest.mark.parametrize(
    "answer",
    [
        b"[]",
        b"{}",
        b"5",
        b'{"exceptions":[5],"incidents":[5],"days":[5],"incident":5,"next":null}',
        b'{"exceptions":[{"open":true}],"incidents":[{"signed":null}],"days":[{}],"incident":{},"next":null}',
        b'{"exceptions":5,"incidents":5,"days":5,"next":5}',
    ],
)
def test_a_review_or_an_incident_of_another_shape_is_told(
    remote: list[str], cli: Cli, monkeypatch: pytest.MonkeyPatch, answer: bytes
) -> None:
    monkeypatch.setattr(Api, "_sent", lambda *_, **__: answer)
    api = remote[:4]
    for arguments in (
        ("review", "list"),
        ("review", "sign", "p1", "--head", "1", "--decision", "explained"),
        ("review", "days"),
        ("review", "sign-day", "2026-01-01", "--open", "0"),
        ("incidents", "list"),
        ("incidents", "show", "x"),
        ("incidents", "sign", "x", "--root-cause", "a", "--remediation", "b"),
    ):
        code, out, err = cli(*arguments, *api)
        assert (code, out, "that is not as the API's document says" in err) == (1, "", True), arguments


@pytest.mark.parametrize(
    ("name", "value"), [("last_leaf", "x"), ("last_leaf", 1e300), ("keys", [5]), ("links", 5), ("services", [[]])]
)
def test_a_summary_of_another_shape_is_told(
    remote: list[str], cli: Cli, telling: Any, name: str, value: object
) -> None:
    telling("/v1/trails/transaction%2Fp1", lambda told: {**told, "summary": {**told["summary"], name: value}})
    code, out, err = cli("trail", "p1", *remote)
    assert (code, out) == (1, "")
    assert "that is not as the API's document says" in err


def test_a_problem_of_the_api_is_told(ledger: Workshop, remote: list[str], tokens: dict[str, str], cli: Cli) -> None:
    Path(remote[3]).write_text(tokens["sre"])
    assert cli("find", "--kind", "transaction", *remote)[0] == 0
    code, _, err = cli("trail", "p1", *remote)
    assert code == 1
    assert "forbidden: this is for auditor, admin" in err
    Path(remote[3]).write_text("tally_nobodys")
    code, _, err = cli("find", *remote)
    assert code == 1
    assert "unauthenticated" in err


def test_a_saved_search_is_run_by_its_name(
    ledger: Workshop, remote: list[str], url: str, tokens: dict[str, str], cli: Cli
) -> None:
    ours, theirs = (Api(url=url, token=tokens[role]) for role in ("auditor", "sre"))
    kept = {"name": "of o1", "conditions": {"key": "order_id:o1", "kind": "transaction"}}
    ours.post("/v1/searches", kept)
    theirs.post("/v1/searches", kept | {"conditions": {"kind": "access"}, "shared": True})
    plain = cli("find", "--key", "order_id:o1", "--kind", "transaction")
    assert plain[1]
    assert cli("find", "--saved", "of o1", *remote) == plain, "one's own comes first"
    for arguments, message in (
        (("--saved", "of o1", "--status", "ok", *remote), "--saved goes without --status"),
        (("--saved", "no such", *remote), "no search 'no such' is saved there"),
        (("--saved", "of o1"), "saved searches are in an audit API"),
    ):
        code, _, told = cli("find", *arguments)
        assert (code, message in told) == (2, True), told


def test_what_calls_is_listed_and_signed_off(ledger: Workshop, remote: list[str], cli: Cli) -> None:
    code, out, err = cli("review", "list", "--filter", "kind = transaction", "--json", *remote)
    assert code == 0, err
    (one,) = json.loads(out)["exceptions"]
    assert (one["trail"]["trail"], one["open"]) == ("transaction/p2", True)
    head = str(one["trail"]["last_leaf"])
    sign = ("review", "sign", "transaction/p2", "--decision", "explained", "--note", "case 7", *remote)
    code, _, err = cli(*sign, "--head", "0")
    assert code == 1
    assert "changed-since" in err
    assert cli(*sign, "--head", head)[:2] == (0, f"transaction/p2 is signed off up to leaf {head}\n")
    ledger.correlate()
    code, out, _ = cli("review", "list", "--all", "--filter", "kind = transaction", *remote)
    assert (code, out.count("\n")) == (0, 1)
    assert "incomplete" in out
    assert cli("review", "list")[0] == 2


def test_a_day_is_listed_and_signed_off(ledger: Workshop, remote: list[str], cli: Cli) -> None:
    code, out, err = cli("review", "days", "--until", "2023-11-14", "--days", "1", "--json", *remote)
    assert code == 0, err
    (day,) = json.loads(out)["days"]
    assert (day["day"], day["over"], day["signed"]) == ("2023-11-14", True, [])
    assert day["open"] >= 1
    wrong = cli("review", "sign-day", "2023-11-14", "--open", "77", *remote)
    assert wrong[0] == 1
    assert "changed-since" in wrong[2]
    code, out, err = cli("review", "sign-day", "2023-11-14", "--open", str(day["open"]), "--note", "case 8", *remote)
    assert (code, out.partition(",")[0]) == (0, "2023-11-14 is signed off"), err
    end = time.monotonic() + 60.0
    while "case 8" not in out:  # the API ships what it records a moment later
        assert time.monotonic() < end, out
        ledger.correlate()
        code, out, err = cli("review", "days", "--until", "2023-11-14", "--days", "2", *remote)
        assert code == 0, err
    first, second = out.splitlines()
    assert "signed" in first
    assert "case 8" in first
    assert second.startswith("2023-11-13  open")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--api", "http://audit.example"], "over https alone"),
        (["--api", "ftp://audit.example"], "write a URL"),
        (["--api", "https://ann:secret@audit.example"], "write a URL"),
        (["--api", "http://127.0.0.1:1"], "say which token"),
        (["--api", "http://127.0.0.1:1", "--token-file", "OPEN"], "others may read it"),
        (["--api", "http://127.0.0.1:1", "--token-file", "none"], "none"),
        (["--api", "http://127.0.0.1:1", "--token-file", "TOKEN"], "does not answer"),
    ],
)
def test_what_cannot_be_asked_is_refused(cli: Cli, tmp_path: Path, arguments: list[str], message: str) -> None:
    files = {"OPEN": 0o644, "TOKEN": 0o600}
    for name, mode in files.items():
        (tmp_path / name).write_text("tally_x")
        (tmp_path / name).chmod(mode)
    given = [str(tmp_path / one) if one in files else one for one in arguments]
    code, out, err = cli("find", *given)
    assert code != 0
    assert out == ""
    assert message in err


def test_the_shell_completes_commands_and_options(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    from click.shell_completion import BashComplete

    from deploy.cli import tally

    complete = BashComplete(tally, {}, "tally", "_TALLY_COMPLETE")
    assert {"find", "trail", "export"} <= {one.value for one in complete.get_completions([], "")}
    assert "--filter" in {one.value for one in complete.get_completions(["find"], "--")}
    assert [one.value for one in complete.get_completions(["find", "--status"], "inc")] == ["incomplete"]


def test_a_token_that_goes_in_clear_to_this_machine_meets_no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    with mumbler(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}") as url:
        assert Api(url=url, token="s3cret").get("/v1/status") == b"{}"


@pytest.mark.parametrize("first", ['"x"', "[]", "1e300", "1" * 400])
def test_a_streams_answer_of_another_shape_is_told(
    remote: list[str], cli: Cli, monkeypatch: pytest.MonkeyPatch, first: str
) -> None:
    """What the streams miss is the API's word, which may be anything."""
    real = Api.get
    detail = f'{{"first_number":1,"first_sequence":{first},"last_number":2,"last_sequence":5,"reason":"missing"}}'
    entry = (
        f'{{"detail":{detail},"kind":"gap","position":0,"recorded":"2026-01-01T00:00:00.000000000Z",'
        '"trail":"stream/a/00000000000000aa","v":1}'
    )
    lines = f'{{}}\n{{"leaf":0,"entry":{entry}}}\n{{"end":true}}\n'.encode()

    def get(self: Api, path: str, parameters: Any = None, *, accept: str = "*/*") -> bytes:
        data = real(self, path, parameters, accept=accept)
        if not path.startswith("/v1/trails/stream"):
            return data
        return lines if "ndjson" in accept else data.replace(b'"status":"ok"', b'"status":"gap"')

    monkeypatch.setattr(Api, "get", get)
    code, _, err = cli("trail", "p1", *remote)
    assert code in (0, 1)
    if code:
        assert "that is not as the API's document says" in err or "does not say what" in err


def test_an_answer_of_which_a_part_came_is_none(tmp_path: Path) -> None:
    """Whatever was asked: the beginning of a report is no report."""
    told = b"%PDF-1.7 and no more"
    with mumbler(b"HTTP/1.1 200 OK\r\ncontent-length: 5000\r\n\r\n" + told) as url:
        api = Api(url=url, token="s3cret")
        for method in ("GET", "POST", "DELETE"):
            with pytest.raises(Unanswered, match="broke off"):
                api.ask(method, "/v1/export-jobs/x")
        report = RemoteExport(api=api, output=tmp_path / "p1.pdf", manifest=tmp_path / "p1.json")
        with pytest.raises(Unanswered, match="broke off"):
            report.report_of("transaction/p1")
    assert list(tmp_path.glob("p1*")) == []
