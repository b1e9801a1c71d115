"""The documentation holds: links lead somewhere, commands exist, decisions are numbered, and no machine is named.

Each check is first shown something broken, then asked of the real pages.
"""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.support import pages


@pytest.fixture(scope="module")
def files(repo_root: Path) -> list[Path]:
    return pages.tracked(repo_root)


@pytest.fixture(scope="module")
def markdown(files: list[Path]) -> list[Path]:
    return [file for file in files if file.suffix == ".md"]


def test_links_lead_somewhere(repo_root: Path, markdown: list[Path]) -> None:
    assert Path("README.md") in markdown
    broken = pages.broken_links(repo_root, markdown)
    assert not broken, "\n".join(broken)


def test_no_file_names_a_registry_or_a_machine(repo_root: Path, files: list[Path]) -> None:
    found = []
    for file in files:
        content = (repo_root / file).read_bytes()
        if b"\0" not in content[:8192]:
            found += [f"{file}:{place}" for place in pages.forbidden_places(content.decode("utf-8", "replace"))]
    assert not found, "\n".join(found)


def test_decisions_are_numbered_once(repo_root: Path) -> None:
    records = sorted((repo_root / "docs" / "decisions").glob("*.md"))
    assert records, "no decision is recorded"
    odd = [record.name for record in records if not re.fullmatch(r"\d{4}-[a-z0-9-]+\.md", record.name)]
    assert odd == [], "a record is called NNNN-title.md"
    numbers = [record.name[:4] for record in records]
    assert len(numbers) == len(set(numbers)), f"two records share a number: {numbers}"
    for record in records:
        text = record.read_text(encoding="utf-8")
        assert re.match(rf"# {int(record.name[:4])}\. \S", text), f"{record.name}: the title is '# N. …'"
        for status in re.findall(r"^Status: *(.*)$", text, re.MULTILINE):
            successor = re.fullmatch(r"Accepted|Proposed|Superseded by (\d{4})", status)
            assert successor, f"{record.name}: status {status!r}"
            assert successor[1] is None or successor[1] in numbers, f"{record.name}: there is no record {successor[1]}"


def test_the_changelog_knows_this_version(repo_root: Path) -> None:
    project = tomllib.loads((repo_root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    changelog = (repo_root / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.search(rf"^## (?:\[?Unreleased|\[?{re.escape(project['version'])})", changelog, re.MULTILINE)


def test_make_knows_the_targets_that_pages_name(repo_root: Path, markdown: list[Path]) -> None:
    targets = set(re.findall(r"^([a-z][a-z-]*):", (repo_root / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    assert {"run", "test", "check", "fix", "bench"} <= targets
    unknown = [
        f"{command.where}: make {word}"
        for page in markdown
        for command in pages.commands(page, (repo_root / page).read_text(encoding="utf-8"))
        if command.words[0] == "make"
        for word in command.words[1:]
        if re.fullmatch(r"[a-z][a-z-]*", word) and word not in targets
    ]
    assert not unknown, "\n".join(unknown)


def tally_help(*path: str) -> str | None:
    """What `tally … --help` prints, or None when there is no such command."""
    command = [sys.executable, "-c", "from deploy.cli import main; main()", *path, "--help"]
    run = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    return run.stdout if run.returncode == 0 else None


def test_tally_knows_the_commands_and_options_that_pages_name(repo_root: Path, markdown: list[Path]) -> None:
    named = [
        command
        for page in markdown
        if page.parts[:2] != ("docs", "decisions")  # a record may weigh a command that was never built
        for command in pages.commands(page, (repo_root / page).read_text(encoding="utf-8"))
        if command.words[0] == "tally"
    ]
    if not named:
        pytest.skip("no page names a tally command yet")
    assert importlib.util.find_spec("deploy.cli") is not None, f"{named[0].where} names a command, and there is none"
    helps: dict[tuple[str, ...], str | None] = {(): tally_help()}
    wrong = []
    for command in named:
        path: tuple[str, ...] = ()
        for word in command.words[1:3]:
            if not re.fullmatch(r"[a-z][a-z-]*", word):
                break
            deeper = (*path, word)
            if deeper not in helps:
                helps[deeper] = tally_help(*deeper)
            if helps[deeper] is None:
                if not path:
                    wrong.append(f"{command.where}: there is no `tally {word}`")
                break
            path = deeper
        known = (helps[path] or "") + (helps[()] or "")
        wrong += [
            f"{command.where}: `{' '.join(('tally', *path))}` has no {option}"
            for option in re.findall(r"(?<!\S)--[a-z][a-z-]*", " ".join(command.words))
            if not re.search(rf"(?<![\w-]){re.escape(option)}(?![\w-])", known)
        ]
    assert not wrong, "\n".join(wrong)


def test_a_broken_link_is_found(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "a.md").write_text("# First thing: it works!\n\n## Twice\n\n## Twice\n")
    (tmp_path / "README.md").write_text(
        "[1](docs/a.md) [2](docs/a.md#first-thing-it-works) [3](docs/a.md#twice-1) [4](https://example.org/x) `[5](no)`\n"
        "```\n[6](no)\n```\n"
        "[7](docs/b.md) [8](docs/a.md#second) [9](#nowhere) ![10](../outside.png)\n"
    )
    assert pages.broken_links(tmp_path, [Path("README.md"), Path("docs/a.md")]) == [
        "README.md: docs/b.md does not exist",
        "README.md: docs/a.md#second has no such heading",
        "README.md: #nowhere has no such heading",
        "README.md: ../outside.png leads out of the repository",
    ]


@pytest.mark.parametrize(
    "text",
    [
        "see https://" + "pypi" + ".org/project/x",
        '"resolved": "https://registry.' + "npmjs" + '.org/x"',
        "GOPROXY=https://proxy." + "golang.org",
        "cd /" + "work/main",
        "open('/" + "root/x')",
        "/" + "Users/ann/src",
    ],
)
def test_a_machine_or_a_registry_is_found(text: str) -> None:
    assert len(pages.forbidden_places(f"first line\n{text}\n")) == 1
    assert pages.forbidden_places(f"first line\n{text}\n")[0].startswith("2: ")


@pytest.mark.parametrize("text", ["golang.org/x/mod/sumdb", "a/work/b", "~/root/x", "/var/lib/tally", "the /v1/work"])
def test_a_harmless_text_is_left_alone(text: str) -> None:
    assert pages.forbidden_places(text) == []


def test_commands_are_read_from_blocks_and_spans() -> None:
    text = (
        "Try `tally verify FILE --key K` or `make test`, not `tallyho`.\n"
        "```sh\n"
        "$ tally trail A1 --json | head  # as JSON\n"
        "echo tally nothing\n"
        ".venv/bin/tally check \\\n"
        "  --since X\n"
        "```\n"
        "```python\n"
        "tally = 1\n"
        "```\n"
    )
    assert [(command.words, command.where) for command in pages.commands(Path("p.md"), text)] == [
        (("tally", "trail", "A1", "--json"), "p.md:3"),
        (("tally", "check", "--since", "X"), "p.md:5"),
        (("tally", "verify", "FILE", "--key", "K"), "p.md:1"),
        (("make", "test"), "p.md:1"),
    ]
