"""Where a Java is that can run the servers."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.need import need


def java_home(at_least: int) -> Path:
    """The home of a Java of this major version or a later one; skips the test, or fails it in CI, where there is none.

    Asked in this order: ``JAVA_HOME``, the `java` on the path, the folders that distributions install to.
    """
    __tracebackhide__ = True
    homes = [Path(os.environ["JAVA_HOME"])] if os.environ.get("JAVA_HOME") else []
    if found := shutil.which("java"):
        homes.append(Path(found).resolve().parent.parent)
    homes += sorted(Path("/usr/lib/jvm").glob("*"))
    for home in homes:
        if _major(home) >= at_least:
            return home
    need(condition=False, reason=f"needs Java {at_least} or newer: none in JAVA_HOME, on the path or in /usr/lib/jvm")
    pytest.fail("unreachable: need() does not return")  # for the type checker


def _major(home: Path) -> int:
    """Its major version, 0 if this is no Java; the `release` file of a JDK says it without starting one."""
    try:
        text = (home / "release").read_text(encoding="utf-8")
    except OSError:
        try:
            run = subprocess.run([home / "bin" / "java", "-version"], capture_output=True, text=True, check=False)
        except OSError:
            return 0
        text = run.stderr
    version = re.search(r'(?:JAVA_VERSION=|version )"(\d+)', text)
    return int(version[1]) if version and (home / "bin" / "java").exists() else 0
