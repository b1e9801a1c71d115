"""Boards brought to a Grafana by the real client: everything once, nothing twice, and what somebody changed by hand is put right."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner

from dashboards.apply import FOLDER_UID, Grafana, GrafanaTrouble
from dashboards.board import Links
from dashboards.boards import boards
from dashboards.settings import DashboardSettings
from deploy.cli import tally
from tests.support.grafana_api import GrafanaApi, grafana_api

LINKS = Links(api="https://audit.example", runbooks="https://wiki.example/")


@pytest.fixture(scope="module")
def made() -> list[dict[str, Any]]:
    return [board.build(LINKS) for board in boards()]


@pytest.fixture
def grafana() -> Iterator[Callable[..., Grafana]]:
    """Makes clients, which are closed at the end."""
    with ExitStack() as stack:

        def make(api: GrafanaApi, made: list[dict[str, Any]], password: str = "", **settings: Any) -> Grafana:
            fields = {"grafana_url": api.url, "api_url": "https://audit.example", **settings}
            one = Grafana(DashboardSettings(**fields), token="glsa_x", boards=made, opensearch_password=password)
            return stack.enter_context(one)

        yield make


def test_twice_is_once(made: list[dict[str, Any]], grafana: Callable[..., Grafana]) -> None:
    opensearch = {
        "opensearch_url": "https://search.example:9200",
        "opensearch_user": "reader",
        "opensearch_password_file": "x",
    }
    with grafana_api("glsa_x") as api:
        one = grafana(api, made, "s3cret", teams={"payments": "edit"}, editors="none", **opensearch)
        before = one.differences()
        assert api.writes() == []
        done = one.apply()
        assert [(change.kind, change.name, change.action) for change in done] == [
            (change.kind, change.name, change.action) for change in before
        ]
        kinds = [change.kind for change in before]
        assert kinds == ["folder", "permissions", "data source", "data source", *["board"] * 6]
        assert one.differences() == []
        api.calls.clear()
        assert one.apply() == []
        assert api.writes() == []

        assert api.folders[FOLDER_UID]["title"] == "Tallystick"
        assert api.permissions[FOLDER_UID] == [{"role": "Viewer", "permission": 1}, {"teamId": 7, "permission": 2}]
        assert api.secrets["tally-opensearch"] == {"basicAuthPassword": "s3cret"}
        assert "s3cret" not in json.dumps(api.sources)
        exemplars = api.sources["tally-prometheus"]["jsonData"]["exemplarTraceIdDestinations"]
        assert exemplars[0]["url"] == "https://audit.example/v1/trails/trace/${__value.raw}"
        assert {uid: one["meta"]["folderUid"] for uid, one in api.boards.items()} == {
            board["uid"]: FOLDER_UID for board in made
        }
        assert [change.where for change in one.differences(resend_secrets=True)] == [["its password"]]


def test_what_was_changed_by_hand_is_named_and_put_right(
    made: list[dict[str, Any]], grafana: Callable[..., Grafana]
) -> None:
    with grafana_api("glsa_x") as api:
        one = grafana(api, made)
        one.apply()
        api.folders[FOLDER_UID]["title"] = "Mine"
        api.permissions[FOLDER_UID].append({"userId": 3, "permission": 4})
        api.sources["tally-prometheus"]["url"] = "http://elsewhere:9090"
        api.boards["tally-overview"]["dashboard"]["panels"][1]["title"] = "My requests"
        api.boards["tally-audit"]["meta"]["folderUid"] = ""
        told = {(change.kind, change.name): (change.action, list(change.where)) for change in one.differences()}
        assert told == {
            ("folder", "Tallystick"): ("change", ["title"]),
            ("permissions", "Tallystick"): ("change", ["- userId 3: 4"]),
            ("data source", "Tallystick Prometheus"): ("change", ["url"]),
            ("board", "Tallystick: overview"): ("change", ["panels[1].title"]),
            ("board", "Tallystick: audit & compliance"): ("change", ["its folder"]),
        }
        assert len(one.apply()) == 5
        assert one.differences() == []


def test_a_board_that_is_made_no_more_is_named_and_left(
    made: list[dict[str, Any]], grafana: Callable[..., Grafana]
) -> None:
    with grafana_api("glsa_x") as api:
        grafana(api, made).apply()
        fewer = grafana(api, made[:-1])
        changes = fewer.apply()
        assert [(change.action, change.name) for change in changes] == [("left over", "Tallystick: fraud")]
        assert "tally-fraud" in api.boards


def test_behind_a_path_and_a_changed_board(made: list[dict[str, Any]], grafana: Callable[..., Grafana]) -> None:
    with grafana_api("glsa_x", prefix="/grafana") as api:
        grafana(api, made).apply()
        changed = copy.deepcopy(made)
        changed[0]["refresh"] = "1m"
        assert [(c.name, list(c.where)) for c in grafana(api, changed).apply()] == [
            ("Tallystick: overview", ["refresh"])
        ]
        assert api.boards["tally-overview"]["dashboard"]["version"] == 2


def test_troubles_are_told_without_the_token(made: list[dict[str, Any]], grafana: Callable[..., Grafana]) -> None:
    with grafana_api("another") as api, pytest.raises(GrafanaTrouble, match=r"401: is the token right\?"):
        grafana(api, made).differences()
    with grafana_api("glsa_x") as api:
        api.role = "Editor"
        with pytest.raises(GrafanaTrouble, match="must be Admin"):
            grafana(api, made).apply()
        with pytest.raises(GrafanaTrouble, match="no team 'pay'"):
            grafana(api, made, teams={"pay": "view"}).differences()
        gone = grafana(api, made)
    with pytest.raises(GrafanaTrouble, match="cannot be asked") as caught:
        gone.differences()
    assert "glsa_x" not in str(caught.value)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"grafana_url": "http://grafana.example"}, "over TLS only"),
        ({"grafana_url": "https://u:p@grafana.example"}, "without credentials"),
        ({"api_url": "https://audit.example/"}, "ends without a slash"),
        ({"opensearch_user": "u"}, "go together"),
    ],
)
def test_what_cannot_be_used_is_refused(fields: dict[str, str], message: str) -> None:
    with pytest.raises(msgspec.ValidationError, match=message):
        msgspec.convert(fields, DashboardSettings)


def test_the_command(tmp_path: Path) -> None:
    with grafana_api("glsa_x") as api:
        (tmp_path / "token").write_text("glsa_x\n")
        config = tmp_path / "tally.toml"
        config.write_text(f'[dashboards]\ngrafana_url = "{api.url}"\ntoken_file = "token"\n')

        def run(*words: str) -> tuple[int, str]:
            done = CliRunner().invoke(tally, ["--config", str(config), "dashboards", *words])
            return done.exit_code, done.output

        code, text = run("diff")
        assert code == 1
        assert "create  board Tallystick: overview" in text
        assert "things to change" in text
        assert run("apply")[0] == 0
        assert run("diff") == (0, "all is as it must be\n")
        assert run("apply") == (0, "all is as it must be\n")
        code, text = run("diff", "--json")
        assert json.loads(text) == {"changes": []}
