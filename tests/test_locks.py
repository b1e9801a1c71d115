"""The lock files are what pyproject.toml asks for: pinned, hashed, of one mind, and free of any index."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

Pins = dict[str, Version]
LOCKS = ("run", "demo", "dev", "bench")


def read_pins(text: str) -> tuple[Pins, list[str]]:
    """The pins of a lock file by normalised name, and what is wrong with it: lines that pin nothing, or bear no hash."""
    pins: Pins = {}
    wrong = []
    for block in re.split(r"\n(?=\S)", re.sub(r"^#.*\n?", "", text, flags=re.MULTILINE).strip()):
        first = block.splitlines()[0].rstrip(" \\")
        match = re.fullmatch(r"([A-Za-z0-9._-]+)==([^ ;]+)(?: ; .+)?", first)
        if match is None:
            wrong.append(f"not a pin: {first}")
            continue
        pins[canonicalize_name(match[1])] = Version(match[2])
        if not re.search(r"--hash=sha256:[0-9a-f]{64}\b", block):
            wrong.append(f"no hash: {first}")
    return pins, wrong


def unmet(requirements: list[str], pins: Pins) -> list[str]:
    """The requirements that no pin meets."""
    wanted = [Requirement(text) for text in requirements]
    return [
        str(want)
        for want in wanted
        if canonicalize_name(want.name) not in pins or pins[canonicalize_name(want.name)] not in want.specifier
    ]


def group(project: dict[str, Any], name: str) -> list[str]:
    """A dependency group's requirements, with the groups that it includes (PEP 735)."""
    found = []
    for item in project["dependency-groups"][name]:
        found += [item] if isinstance(item, str) else group(project, item["include-group"])
    return found


@pytest.fixture(scope="module")
def project(repo_root: Path) -> dict[str, Any]:
    return tomllib.loads((repo_root / "pyproject.toml").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def locks(repo_root: Path) -> dict[str, Pins]:
    found = {}
    for name in LOCKS:
        found[name], wrong = read_pins((repo_root / "requirements" / f"{name}.lock").read_text(encoding="utf-8"))
        assert not wrong, f"{name}.lock: {wrong}"
    return found


def test_the_locks_meet_what_the_project_asks_for(project: dict[str, Any], locks: dict[str, Pins]) -> None:
    runtime = project["project"]["dependencies"]
    extras = [text for extra in project["project"]["optional-dependencies"].values() for text in extra]
    stale = "run `make lock`"
    assert unmet(runtime, locks["run"]) == [], stale
    assert unmet([*runtime, *group(project, "demo"), *group(project, "build")], locks["demo"]) == [], stale
    assert unmet([*runtime, *extras, *group(project, "dev")], locks["dev"]) == [], stale
    assert unmet(group(project, "bench"), locks["bench"]) == [], stale


def test_one_environment_can_hold_all_locks(locks: dict[str, Pins]) -> None:
    assert locks["run"].items() <= locks["demo"].items() <= locks["dev"].items()
    both = locks["bench"].keys() & locks["dev"].keys()
    assert {name: locks["bench"][name] for name in both} == {name: locks["dev"][name] for name in both}


def test_only_the_bench_has_what_only_the_bench_needs(locks: dict[str, Pins]) -> None:
    assert "scikit-learn" in locks["bench"]
    assert "scikit-learn" not in locks["dev"]


def test_a_bad_lock_is_found() -> None:
    good = "a==1.0 ; python_version < '3.12' \\\n    --hash=sha256:" + "0" * 64 + "\n"
    assert read_pins(good) == ({"a": Version("1.0")}, [])
    assert read_pins("# by make lock\n" + good + "--index-url x\n")[1] == ["not a pin: --index-url x"]
    assert read_pins(good + "b==2\n")[1] == ["no hash: b==2"]
    assert unmet(["A>=1,<2"], {"a": Version("1.0")}) == []
    assert unmet(["A>=2", "c"], {"a": Version("1.0")}) == ["A>=2", "c"]
