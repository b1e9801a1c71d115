"""A service that writes numbered lines into two files, which Debian's logrotate rotates: one by renaming, one with `copytruncate`.

Run as a program: `logrotate_sender.py COUNT ROTATIONS`. Writes into `logs/` of the current folder. It rests while its file is rotated, because what is
written between a copy and the truncation nobody can keep.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

WAYS = {"renamed": "create", "copied": "copytruncate"}
AT_ONCE = 100


def rotate(log: Path, how: str) -> None:
    config = log.with_suffix(".conf")
    config.write_text(f"{log} {{\n  rotate 999\n  nocompress\n  {how}\n}}\n")
    state = log.with_suffix(".state")
    subprocess.run(["/usr/sbin/logrotate", "--force", "--state", str(state), str(config)], check=True)


def main(count: int, rotations: int) -> None:
    folder = Path.cwd() / "logs"
    folder.mkdir(mode=0o755, exist_ok=True)
    logs = {folder / f"{name}.log": how for name, how in WAYS.items()}
    every = max(AT_ONCE, count // rotations // AT_ONCE * AT_ONCE)
    for first in range(0, count, AT_ONCE):
        numbers = range(first, min(first + AT_ONCE, count))
        for at, (log, how) in enumerate(logs.items()):
            with log.open("a") as file:
                file.writelines(
                    json.dumps({"n": number, "message": f"event {number}"}) + "\n"
                    for number in numbers
                    if number % 2 == at
                )
            if first % every == 0 and first:
                rotate(log, how)
        print(json.dumps({"acked": list(numbers)}), flush=True)  # noqa: T201 - this is how it tells the test
        time.sleep(0.01)  # so that it lasts long enough to be interrupted


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
