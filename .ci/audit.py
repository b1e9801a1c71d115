"""Asks pip-audit about every pinned package, and says plainly whether it got an answer.

pip-audit exits 0 with "No known vulnerabilities found" when its advisory service knows none of the packages, which is
what a mirror without advisories looks like. So this reads its report and counts: exit 0 when all (or all but a few,
which are named) were looked up and none is vulnerable, 1 when one is, 2 when nothing could be learned.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

LOCKS = ("requirements/dev.lock", "requirements/bench.lock")
TIMEOUT_SECONDS = 180


def main() -> int:
    """Runs the audit from the root of the checkout and prints what was found; returns the exit code."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder, "report.json")
        command = [sys.executable, "-m", "pip_audit", "--require-hashes", "--disable-pip", "--progress-spinner=off"]
        command += [word for lock in LOCKS for word in ("--requirement", lock)]
        command += ["--format=json", f"--output={report}"]
        try:
            run = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_SECONDS, check=False)
        except subprocess.TimeoutExpired:
            print(f"audit: NOT RUN: the advisory service did not answer within {TIMEOUT_SECONDS} s")
            return 2
        if not report.is_file() or not report.stat().st_size:
            lines = run.stderr.strip().splitlines()
            print(f"audit: NOT RUN: {lines[-1] if lines else f'pip-audit exited {run.returncode}'}")
            return 2
        packages = json.loads(report.read_text(encoding="utf-8"))["dependencies"]

    audited = [package for package in packages if "skip_reason" not in package]
    if not audited:
        print(
            f"audit: NOT RUN: the advisory service knew none of the {len(packages)} packages of {' and '.join(LOCKS)}"
        )
        return 2
    for package in packages:
        if "skip_reason" in package:
            print(f"audit: not looked up: {package['name']}: {package['skip_reason']}")
    vulnerable = [package for package in audited if package["vulns"]]
    for package in vulnerable:
        for finding in package["vulns"]:
            mended = ", ".join(finding["fix_versions"]) or "no version yet"
            print(f"audit: {package['name']} {package['version']}: {finding['id']}, mended in {mended}")
    print(f"audit: {len(audited)} of {len(packages)} packages looked up, {len(vulnerable)} vulnerable")
    return 1 if vulnerable else 0


if __name__ == "__main__":
    sys.exit(main())
