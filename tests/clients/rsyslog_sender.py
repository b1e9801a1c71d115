"""Debian's rsyslog, which follows a file of numbered lines (imfile) and passes them on over TCP (omfwd). `rsyslog_sender.py HOST:PORT COUNT`.

Works in the current folder. Ends when rsyslog's own counters say that it has handed everything on; syslog acknowledges nothing.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

CONFIG = """
global(workDirectory="{folder}")
module(load="imfile" mode="inotify")
module(load="impstats" interval="1" format="json" log.syslog="off" log.file="{folder}/counters")
input(type="imfile" File="{folder}/shop.log" Tag="shop")
action(type="omfwd" name="on" target="{host}" port="{port}" protocol="tcp" TCP_Framing="octet-counted"
       template="RSYSLOG_SyslogProtocol23Format" queue.type="LinkedList" queue.size="{size}"
       action.resumeRetryCount="-1" action.resumeInterval="1" action.resumeIntervalMax="2")
"""
AT_ONCE = 100


def handed_on(folder: Path, count: int) -> bool:
    """Whether the last that its queue said of itself is: so many came, and none is left."""
    try:
        lines = (folder / "counters").read_text().splitlines()
    except OSError:
        return False
    for line in reversed(lines):
        if found := re.search(r"\{.*on queue.*\}", line):
            said = json.loads(found[0])
            return bool(said["enqueued"] >= count and said["size"] == 0)
    return False


def main(address: str, count: int) -> None:
    folder = Path.cwd()
    host, _, port = address.partition(":")
    program = shutil.which("rsyslogd", path="/usr/sbin:/usr/bin")
    assert program is not None
    config = folder / "rsyslog.conf"
    config.write_text(CONFIG.format(folder=folder, host=host, port=port, size=count + 10_000))
    log = folder / "shop.log"
    log.touch()
    with subprocess.Popen([program, "-n", "-f", str(config), "-i", str(folder / "rsyslog.pid")]) as process:
        try:
            for first in range(0, count, AT_ONCE):
                with log.open("a") as file:
                    for number in range(first, min(first + AT_ONCE, count)):
                        file.write(json.dumps({"n": number, "message": f"event {number}"}) + "\n")
                time.sleep(0.02)  # so that it lasts long enough to be interrupted
            while not handed_on(folder, count):
                time.sleep(0.2)  # rsyslog writes its counters once a second
        finally:
            process.terminate()
            try:
                process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                process.kill()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
