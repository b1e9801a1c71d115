"""The documentation as data: which files there are, where their links go, which commands they tell a reader to run."""

from __future__ import annotations

import re
import shlex
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

FENCE = re.compile(r"^(?P<mark>```+|~~~+)(?P<language>\w*)[^\n]*\n(?P<text>.*?)^(?P=mark)", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"!?\[[^\]]*\]\((?P<target>[^)\s]+)(?:\s+\"[^\"]*\")?\)")
SPAN = re.compile(r"`([^`\n]+)`")
PROMPT = re.compile(r"^\s*(?:\$ )?(?:\.venv/bin/|\./)?(?P<command>(?:tally|make)(?: .*)?)$", re.MULTILINE)

# In two halves, so that this file does not hold what it looks for.
FORBIDDEN = re.compile(
    "|".join(
        [
            r"(?:pypi|npmjs|pythonhosted|crates)\." + "(?:org|com|io)",
            r"proxy\." + r"golang\.org",
            r"repo1?\.maven\." + "(?:apache\\.)?org",
            r"deb\." + r"debian\.org",
            r"(?<![\w.~$}<>*-])/(?:" + "root|work" + r")/\w",
            r"(?<![\w.~$}<>*-])/(?:" + "home|Users" + r")/(?!nonroot|app|user\b|you\b)\w",
        ]
    )
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """A command that a page tells the reader to run: its words, and the page and line (from 1) that say so."""

    words: tuple[str, ...]
    where: str


def tracked(root: Path) -> list[Path]:
    """Every file of the checkout that git knows or would add, relative to `root`, sorted; deleted ones left out."""
    listing = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=root, capture_output=True, check=True, text=True,
    ).stdout  # fmt: skip
    return [Path(name) for name in sorted(set(listing.split("\0")) - {""}) if (root / name).is_file()]


def forbidden_places(text: str) -> list[str]:
    """`line: match` for each registry host and each path of somebody's own machine in `text`."""
    return [f"{text.count(chr(10), 0, match.start()) + 1}: {match[0]}" for match in FORBIDDEN.finditer(text)]


def anchor(heading: str) -> str:
    """The fragment that leads to a heading, as code forges make it: lower case, no punctuation, hyphens for spaces."""
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).strip().lower()
    return re.sub(r"[^\w\- ]", "", text).replace(" ", "-")


def anchors(text: str) -> set[str]:
    """The fragments that lead somewhere in a page: headings outside code, numbered when repeated, and named anchors."""
    prose = FENCE.sub("", text)
    found: dict[str, int] = {}
    names = set(re.findall(r"<a (?:name|id)=\"([^\"]+)\"", prose))
    for heading in re.findall(r"^#{1,6} +(.+?) *#*$", prose, re.MULTILINE):
        name = anchor(heading)
        names.add(f"{name}-{found[name]}" if name in found else name)
        found[name] = found.get(name, 0) + 1
    return names


def broken_links(root: Path, pages: list[Path]) -> list[str]:
    """Links of `pages` (Markdown, relative to `root`) that lead to no file or no heading; links to other sites are not asked."""
    broken = []
    for page in pages:
        prose = SPAN.sub("", FENCE.sub("", (root / page).read_text(encoding="utf-8")))
        for match in LINK.finditer(prose):
            target = match["target"]
            if re.match(r"[a-z]+:", target):
                continue
            name, _, fragment = target.partition("#")
            file = (root / page).parent / name if name else root / page
            if not file.resolve().is_relative_to(root.resolve()):
                broken.append(f"{page}: {target} leads out of the repository")
            elif not file.exists():
                broken.append(f"{page}: {target} does not exist")
            elif fragment and file.suffix == ".md" and fragment not in anchors(file.read_text(encoding="utf-8")):
                broken.append(f"{page}: {target} has no such heading")
    return broken


def commands(page: Path, text: str) -> Iterator[Command]:
    """The `tally` and `make` commands in a page's shell blocks and inline code."""

    def at(position: int) -> str:
        return f"{page}:{text.count(chr(10), 0, position) + 1}"

    for fence in FENCE.finditer(text):
        if fence["language"] in {"", "sh", "bash", "shell", "console"}:
            block = fence["text"].replace("\\\n", "  ")
            for match in PROMPT.finditer(block):
                yield from _simple(match["command"], at(fence.start("text") + match.start("command")))
    for span in SPAN.finditer(FENCE.sub(lambda fence: re.sub(r"[^\n]", " ", fence[0]), text)):
        if PROMPT.fullmatch(span[1]):
            yield from _simple(span[1].removeprefix("$ ").removeprefix(".venv/bin/"), at(span.start()))


def _simple(line: str, where: str) -> Iterator[Command]:
    lexer = shlex.shlex(line, posix=True, punctuation_chars="|;&<>")
    lexer.whitespace_split = True
    words = []
    for word in lexer:
        if word[0] in "|;&<>":
            break
        words.append(word)
    yield Command(words=tuple(words), where=where)
