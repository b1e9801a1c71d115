"""`tally render` writes files that others read, the same ones each time; a check leaves how it ended for Prometheus."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner, Result

from deploy.cli import tally
from deploy.config import parse
from deploy.rendering import rendered
from deploy.session import Failure


def run(folder: Path, *words: str) -> Result:
    return CliRunner().invoke(tally, ["--config", str(folder / "tally.toml"), *words])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "tally.toml").write_text(
        'ledger = "bank.example/audit"\n[sidecars.shop]\n[sidecars.bank]\n[correlator]\nshards = 3\n'
        '[alerting]\nexpected_collectors = ["edge", "shop"]\n'
        '[dashboards]\nopensearch_url = "https://s.example"\nopensearch_user = "g"\nopensearch_password_file = "pw"\n'
    )
    return tmp_path


def test_the_same_files_each_time(folder: Path) -> None:
    out = folder / "out"
    done = run(folder, "render", "-o", str(out), "--json")
    assert done.exit_code == 0
    assert set(json.loads(done.output)["files"].values()) == {"new"}
    assert len(list((out / "grafana" / "dashboards").glob("*.json"))) == 6
    assert run(folder, "render", "-o", str(out), "--check").exit_code == 0
    done = run(folder, "render", "-o", str(out))
    assert {line.split("  ")[0].strip() for line in done.output.splitlines()} == {"as it is"}

    (out / "alertmanager" / "alertmanager.yml").write_text("route: {}\n")
    done = run(folder, "render", "-o", str(out), "--check", "--only", "alerts")
    assert done.exit_code == 1
    assert "changed" in done.output
    assert (out / "alertmanager" / "alertmanager.yml").read_text() == "route: {}\n", "looked, and wrote nothing"


def test_what_is_expected_is_what_the_configuration_names(folder: Path) -> None:
    files = rendered(parse((folder / "tally.toml").read_text(), source="", folder=folder), boards=False)
    groups = yaml.safe_load(files["prometheus/tallystick.rules.yml"])["groups"]
    named = [rule for group in groups for rule in group["rules"] if "alert" in rule]
    missing = [rule["labels"]["collector"] for rule in named if rule["alert"] == "TallyCollectorMissing"]
    assert missing == ["shop", "bank", "edge"]
    assert "< 3" in next(rule["expr"] for rule in named if rule["alert"] == "TallyNoWriter")
    assert {rule["labels"]["ledger"] for rule in named} == {"bank.example/audit"}


def test_no_password_is_in_any_file(folder: Path) -> None:
    (folder / "pw").write_text("hunter2")
    files = rendered(parse((folder / "tally.toml").read_text(), source="", folder=folder))
    assert "hunter2" not in "".join(files.values())
    assert "$TALLY_OPENSEARCH_PASSWORD" in files["grafana/provisioning/datasources/tallystick.yml"]


@pytest.mark.parametrize(("module", "extra"), [("yaml", "alerting"), ("grafana_foundation_sdk", "grafana")])
def test_an_extra_that_is_missing_is_named(
    folder: Path, monkeypatch: pytest.MonkeyPatch, module: str, extra: str
) -> None:
    for name in [name for name in sys.modules if name.startswith(("dashboards.board", f"{module}."))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, module, None)  # as Python has it for what cannot be imported
    config = parse("", source="", folder=folder)
    with pytest.raises(Failure, match=rf"pip install 'tallystick\[{extra}\]'"):
        rendered(config, boards=extra == "grafana", alerts=extra == "alerting")


def test_a_check_leaves_how_it_ended(tmp_path: Path) -> None:
    (tmp_path / "tally.toml").write_text("")
    (tmp_path / "day.jsonl").write_text(
        '{"time": "2026-01-01T10:00:00Z", "service": "shop", "event_name": "paid", "transaction_id": "pay-1"}\n'
    )
    assert run(tmp_path, "import", str(tmp_path / "day.jsonl")).exit_code == 0
    file = tmp_path / "tally.prom"
    assert run(tmp_path, "check", "--textfile", str(file)).exit_code == 0
    text = file.read_text()
    of = '{log="localhost/tallystick"}'  # files of several ledgers may lie in one folder
    assert f"\ntally_check_findings{of} 0.0\n" in text
    assert f"\ntally_check_timestamp_seconds{of} 1." in text
    samples = [line for line in text.splitlines() if not line.startswith("#")]
    assert all(of in line for line in samples), samples
    assert [path.name for path in tmp_path.glob("tally.prom*")] == ["tally.prom"]

    tile = next(
        path for path in sorted((tmp_path / "tally-data" / "log" / "tile" / "entries").rglob("*")) if path.is_file()
    )
    data = bytearray(tile.read_bytes())
    data[-3] ^= 1
    tile.chmod(0o600)
    tile.write_bytes(data)
    assert run(tmp_path, "check", "--textfile", str(file)).exit_code == 1
    text = file.read_text()
    assert f"\ntally_check_findings{of} 0.0\n" not in text
    assert f"\ntally_check_findings{of} " in text
