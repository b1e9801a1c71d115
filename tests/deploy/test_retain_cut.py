"""`tally retain` over a ledger that is cut into shards: each shard's log has a retirement of its own, and proves with it what is no longer there."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from correlator.entry import Entry
from correlator.retired import meant_for, retirement_of
from correlator.shards import Shard
from correlator.trail import RETIREMENTS
from correlator.verify import verify_bundle, verify_proof
from deploy import lastlook
from deploy.cli import main
from deploy.retaining import open_retaining
from deploy.writing import open_correlator
from tests.support.apis import open_cut_api
from tests.support.cut_ledger import SHARDS, CutLedger
from tests.support.whole_ledger import payment_events

OLD = "2026.01"
PAYMENTS = 12
GONE = 3 * PAYMENTS

Tally = Callable[..., tuple[int, str]]


@pytest.fixture
def ledger(tmp_path: Path) -> CutLedger:
    """Payments of January, and of now; everything is in the logs, and January is due."""
    made = CutLedger(tmp_path)
    made.begin()
    made.collect("gateway", payment_events("gateway", range(PAYMENTS)))
    made.take_in_at(lambda: next(made.clock_ns))
    made.clock_ns = count(time.time_ns(), 1_000_000)
    made.collect("payments", payment_events("payments", range(PAYMENTS, PAYMENTS + 3)))
    made.take_in()
    with (tmp_path / "tally.toml").open("a") as file:
        file.write("\n[retention]\nkeep_months = 1\n")
    return made


@pytest.fixture
def tally(ledger: CutLedger, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Tally:
    """Runs a command; gives exit code and stdout."""

    def run(*arguments: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["tally", "--config", str(ledger.folder / "tally.toml"), *arguments])
        with pytest.raises(SystemExit) as end:
            main()
        told = capsys.readouterr()
        assert "Traceback" not in told.err
        return int(end.value.code or 0), told.out

    return run


def retain(tally: Tally, *options: str) -> tuple[int, dict[str, Any]]:
    """Exit code, and what is told of the old month."""
    code, told = tally("retain", "--json", *options)
    return code, {one["month"]: one for one in json.loads(told)["months"]}.get(OLD, {})


def on_record(ledger: CutLedger, shard: Shard) -> list[tuple[int, Entry]]:
    return [(leaf, one) for leaf, one in enumerate(ledger.entries(shard)) if one.trail == RETIREMENTS]


def test_each_log_has_its_own_and_everything_still_verifies(ledger: CutLedger, tally: Tally, tmp_path: Path) -> None:
    code, told = retain(tally)
    assert (code, told["action"], told["events"]) == (0, "goes", GONE)
    assert [one["on_record"] for one in told["retirements"]] == [None] * SHARDS
    code, told = retain(tally, "--apply", "--wait", "0")
    assert (code, told["action"], "not in the log yet" in told["why"]) == (1, "stays", True)
    ledger.take_in()
    for shard in ledger.shards:
        ((leaf, entry),) = on_record(ledger, shard)
        found = retirement_of(entry, leaf)
        assert found is not None
        assert (found.retirement.shard, found.retirement.events) == (shard.number, GONE)
        assert found.retirement.size <= leaf
    code, told = retain(tally, "--apply")
    assert (code, told["action"]) == (0, "gone")
    assert all(isinstance(one["on_record"], int) for one in told["retirements"])
    assert retain(tally, "--apply") == (0, {}), "there is nothing more of it"

    ledger.take_in()
    code, out = tally("check")
    assert (code, f"{GONE} of them retired by policy" in out) == (0, True), out
    seen = set()
    for payment in range(PAYMENTS):
        trail = f"transaction/p{payment}"
        story = json.loads(tally("trail", trail, "--json")[1])
        assert story["proof"]["state"] == "verified", story["proof"]
        told_of = [step["message"] for step in story["steps"]]
        assert all(one.startswith(f"(retired by policy with {OLD}") for one in told_of), [
            (step["name"], step["message"]) for step in story["steps"]
        ]
        bundle = tmp_path / f"p{payment}.zip"
        assert tally("export", trail, "-o", str(bundle))[0] == 0
        code, out = tally("verify", str(bundle), "--key", str(ledger.places.log_vkey))
        assert (code, "retired by policy" in out, "withheld" in out) == (0, True, False), out
        seen.add(ledger.shard_of(trail))
    assert seen == set(range(1, SHARDS + 1)), "a bundle of each log was verified"
    story = json.loads(tally("trail", f"transaction/p{PAYMENTS}", "--json")[1])
    assert story["steps"][0]["message"] == f"payments received {PAYMENTS}"


def test_nothing_goes_before_the_last_log_has_its_retirement(ledger: CutLedger, tally: Tally) -> None:
    assert retain(tally, "--apply", "--wait", "0")[0] == 1
    behind = ledger.shards[1]
    for shard in ledger.shards:
        if shard != behind:
            with open_correlator(ledger.config, ledger.places, shard=shard) as correlator:
                while correlator.step():
                    pass
    code, told = retain(tally, "--apply", "--wait", "0")
    assert (code, told["action"], told["events"]) == (1, "stays", GONE)
    ledger.take_in()
    code, told = retain(tally, "--apply")
    assert (code, told["action"]) == (0, "gone")
    for shard in ledger.shards:
        # the run in between put that of the log that was behind on record once more, for it could not see it
        assert len(on_record(ledger, shard)) == (2 if shard == behind else 1)
    assert tally("check")[0] == 0


def test_events_that_wait_for_one_shard_are_kept(
    ledger: CutLedger, tally: Tally, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lastlook.LastLook, "recorded", lambda *_: "")  # as though all of it had come in January
    ledger.clock_ns = count(1_767_300_000_000_000_000, 1_000_000)  # January
    ledger.collect("gateway", payment_events("gateway", range(PAYMENTS, PAYMENTS + 2)))
    first, *behind = ledger.shards
    with open_correlator(ledger.config, ledger.places, shard=first) as correlator:
        while correlator.step():
            pass
    code, told = retain(tally, "--apply", "--despite-findings")
    assert (code, told["action"]) == (1, "stays")
    assert told["findings"] == [f"6 events of it wait for the correlator of {shard.name}" for shard in behind]


def test_what_comes_between_two_passes_is_not_let_go(ledger: CutLedger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lastlook.LastLook, "recorded", lambda *_: "")  # as though all of it had come in January
    passes = count()
    take = lastlook._Pass.take

    def then_more(one: Any, folder: Path, progress: Any) -> None:
        take(one, folder, progress)
        if next(passes) == 0:
            ledger.clock_ns = count(1_767_300_000_000_000_000, 1_000_000)  # January
            ledger.collect("gateway", payment_events("gateway", range(PAYMENTS, PAYMENTS + 2)))
            ledger.take_in()

    monkeypatch.setattr(lastlook._Pass, "take", then_more)
    with open_retaining(ledger.config) as desk:
        plans = desk.plan(now_ns=time.time_ns(), despite_findings=True)
    (january,) = [one for one in plans if one.held.month == OLD]
    assert january.findings, "the later logs know of more than the store had"
    first, *later = (one.batches for one in january.retirements)
    assert len(january.headers) == first
    assert all(batches > first for batches in later)


def test_a_retirement_says_which_log_it_is_for(ledger: CutLedger, tally: Tally) -> None:
    retain(tally, "--apply", "--wait", "0")
    ledger.take_in()
    for shard in ledger.shards:
        ((_, entry),) = on_record(ledger, shard)
        assert meant_for(entry) == shard.number
        for other in ledger.shards:
            assert other.may_hold(entry.trail, entry.kind, meant_for(entry)) == (other == shard)


@pytest.mark.anyio
async def test_the_api_proves_what_is_gone_and_each_retirement(ledger: CutLedger, tally: Tally, tmp_path: Path) -> None:
    retain(tally, "--apply", "--wait", "0")
    ledger.take_in()
    assert retain(tally, "--apply")[1]["action"] == "gone"
    folder = tmp_path / "api"
    folder.mkdir()
    async with open_cut_api(folder, ledger) as api:
        told_of = 0
        for shard in ledger.shards:
            for entry in ledger.entries(shard):
                if entry.kind != "event":
                    continue
                url = f"/v1/events/{entry.stream}/{entry.sequence}/proof"
                report = verify_proof((await api.get(url, Accept="text/plain")).content, ledger.key)
                assert (report.checkpoint.origin, report.entry.trail) == (shard.origin(ledger.key.name), entry.trail)
                told_of += entry.trail == RETIREMENTS
        assert told_of == SHARDS
        for payment in range(PAYMENTS):
            answer = await api.get(f"/v1/exports/transaction/p{payment}")
            assert verify_bundle(answer.content, ledger.key).retired > 0
