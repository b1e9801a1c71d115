"""CI runs what there is: no marker, and no make target that CI or a page names, is forgotten."""

from __future__ import annotations

import re
import tomllib
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from _pytest.mark.expression import Expression

BY_HAND: dict[str, str] = {
    "matrix": "100,000 events from each sender, minutes each; tests/clients sends thousands in CI",
    "long": "a minute and more each, of what another test shows in short; CI has to be done within 25 minutes",
}
"""Markers that CI does not run, each with the reason. A new one is a decision, not an oversight."""


@pytest.fixture(scope="module")
def tools(repo_root: Path) -> dict[str, Any]:
    tools: dict[str, Any] = tomllib.loads((repo_root / "pyproject.toml").read_text(encoding="utf-8"))["tool"]
    return tools


def test_each_marker_is_left_out_by_default_and_run_by_ci(repo_root: Path, tools: dict[str, Any]) -> None:
    options = tools["pytest"]["ini_options"]
    markers = {marker.partition(":")[0] for marker in options["markers"]}
    default = options["addopts"][options["addopts"].index("-m") + 1]
    assert set(re.findall(r"not (\w+)", default)) == markers
    assert markers >= BY_HAND.keys()
    parts = re.findall(r'pytest -m "([^"]+)"', (repo_root / ".ci" / "run").read_text(encoding="utf-8"))
    for count in (1, 2, 3):
        for chosen in combinations(sorted(markers - BY_HAND.keys()), count):
            times = sum(_takes(part, frozenset(chosen)) for part in parts)
            assert times == 1, f"a test that is marked {chosen} is run {times} times"


def _takes(expression: str, marks: frozenset[str]) -> bool:
    """Whether ``-m expression`` takes a test with these marks."""

    def marked(name: str, /, **_: str | int | bool | None) -> bool:
        return name in marks

    return Expression.compile(expression).evaluate(marked)


def test_ci_names_targets_that_exist(repo_root: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (repo_root / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    named = set(
        re.findall(
            r"^make --no-print-directory ([a-z-]+)", (repo_root / ".ci" / "run").read_text("utf-8"), re.MULTILINE
        )
    )
    assert {"dev", "check", "test", "wheel"} <= named <= targets


def test_each_lint_exception_has_its_reason(repo_root: Path) -> None:
    settings = (repo_root / "pyproject.toml").read_text(encoding="utf-8")
    ignored = re.search(r"^ignore = \[\n(.*?)^\]", settings, re.MULTILINE | re.DOTALL)
    per_file = re.search(r"^\[tool\.ruff\.lint\.per-file-ignores\]\n(.*?)\n\n", settings, re.MULTILINE | re.DOTALL)
    assert ignored is not None
    assert per_file is not None
    lines = [line for line in (ignored[1] + per_file[1]).splitlines() if re.match(r'\s+"', line)]
    assert len(lines) > 20
    assert [line for line in lines if not re.fullmatch(r'\s+"[A-Z]+[0-9]+", +# \S.{6,}', line)] == []
