"""A writer in a process of its own, to be killed or stopped: `python log_writer.py FOLDER [TAKE_OVER]`.

Publishes entries in steps without end and says each published size on a line; exits with 3 when it is deposed. With
`CI`'s clock or a person's patience in mind it ends by itself after `MAX_LEAVES` leaves.
"""

from __future__ import annotations

import sys
from pathlib import Path

from correlator import log as log_module
from correlator.errors import StateUnknown
from correlator.storage.file import FileStorage
from tests.support.logs import grow, open_log

MAX_LEAVES = 300_000
STEPS = (1, 40, 3, 300, 7, 700)


def main(folder: str) -> int:
    """Write until killed, deposed or done; gives the exit code."""
    log_module.MAX_STAGINGS = 3  # settle often: most instants worth dying at are there
    log = open_log(FileStorage(Path(folder)), "child")
    print("open", log.size, flush=True)  # noqa: T201 - the parent reads it
    turn = 0
    while log.size < MAX_LEAVES:
        try:
            grow(log, [log.size + STEPS[turn % len(STEPS)]])
        except StateUnknown:
            return 3
        print("published", log.size, flush=True)  # noqa: T201 - the parent reads it
        turn += 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
