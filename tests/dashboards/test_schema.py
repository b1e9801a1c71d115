"""Boards hold to Grafana's own types, as a strict JSON Schema that is made of the published package: no member too many, none of a wrong kind."""

from __future__ import annotations

import copy
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from dashboards.board import Links
from dashboards.boards import boards
from tests.support.need import need

pytestmark = pytest.mark.clients

TYPES = "node_modules/@grafana/schema/dist/types/raw/dashboard/x/types.gen.d.ts"


@pytest.fixture(scope="module")
def schema(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    need(shutil.which("node") and shutil.which("npm"), "Grafana's types come with npm")
    folder = tmp_path_factory.mktemp("schema")
    for name in (".npmrc", "package.json", "package-lock.json"):
        shutil.copy(Path(__file__).parent / "schema" / name, folder)
    npm = ["npm", "ci", "--ignore-scripts", "--no-progress"]
    done = subprocess.run(npm, cwd=folder, capture_output=True, text=True, check=False)
    need(done.returncode == 0, f"npm ci did not succeed: {done.stderr}")
    program = folder / "node_modules" / ".bin" / "ts-json-schema-generator"
    command = [str(program), "--path", TYPES, "--type", "Dashboard", "--no-type-check"]
    made = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    found: dict[str, Any] = json.loads(made.stdout)
    return found


def wrong(schema: dict[str, Any], board: dict[str, Any]) -> list[str]:
    validator = jsonschema.validators.validator_for(schema)(schema)
    return [f"{error.json_path}: {error.message[:200]}" for error in validator.iter_errors(board)]


def test_every_board_is_what_grafana_calls_one(schema: dict[str, Any]) -> None:
    made = [board.build(Links(api="https://audit.example", runbooks="https://wiki.example/")) for board in boards()]
    assert {board["title"]: wrong(schema, board) for board in made} == {board["title"]: [] for board in made}

    broken = copy.deepcopy(made[0])
    broken["panels"][1]["fieldConfig"]["defaults"]["unit"] = 7
    assert wrong(schema, broken) != []
    broken = copy.deepcopy(made[0])
    broken["colour"] = "blue"
    assert wrong(schema, broken) != []
