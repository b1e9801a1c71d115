"""What a page tells its reader to type, run as it is written."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from tests.support.pages import FENCE


def blocks(page: Path, heading: str) -> list[str]:
    """The shell blocks under a heading, in their order, up to the next heading that is no deeper."""
    text = page.read_text(encoding="utf-8")
    begun = re.search(rf"^(#+) {re.escape(heading)}$", text, re.MULTILINE)
    assert begun is not None, f"{page.name} has no heading {heading!r}"
    rest = text[begun.end() :]
    ended = re.search(
        rf"^#{{1,{len(begun[1])}}} ",
        FENCE.sub(lambda fence: re.sub(r"^#", " ", fence[0], flags=re.MULTILINE), rest),
        re.MULTILINE,
    )
    section = rest[: ended.start()] if ended else rest
    return [fence["text"] for fence in FENCE.finditer(section) if fence["language"] == "sh"]


def typed(block: str, *, folder: Path, **environment: str) -> str:
    """What the lines print, typed one after the other in this folder; the first that fails ends the test."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    run = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", block],
        cwd=folder,
        env={**os.environ, "PATH": path, **environment},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert run.returncode == 0, f"{block}\n{run.stdout}\n{run.stderr}"
    return run.stdout
