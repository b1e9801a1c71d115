"""A call of the library that hangs holds up nobody's end."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading

import pytest

from collector.receive.pulsar.asking import asked

pytestmark = pytest.mark.anyio

HANGS = """
import asyncio, threading
from collector.receive.pulsar.asking import asked

async def main():
    try:
        await asyncio.wait_for(asked(threading.Event().wait), 0.1)
    except TimeoutError:
        print("gave up")

asyncio.run(main())
"""


async def test_it_gives_what_the_call_gives() -> None:
    assert await asked(divmod, 7, 2) == (3, 1)
    with pytest.raises(ZeroDivisionError):
        await asked(divmod, 7, 0)


async def test_what_comes_after_nobody_waits_any_more_is_for_nobody() -> None:
    goes_on, ended = threading.Event(), threading.Event()

    def call() -> None:
        goes_on.wait()
        ended.set()
        raise ValueError("for nobody")

    with pytest.raises(TimeoutError):
        await asyncio.wait_for(asked(call), 0.05)
    goes_on.set()
    assert await asyncio.to_thread(ended.wait, 10)
    await asyncio.sleep(0)  # what it raised would be told here


def test_a_process_ends_although_a_call_hangs() -> None:
    done = subprocess.run([sys.executable, "-c", HANGS], capture_output=True, text=True, check=False, timeout=30)
    assert (done.returncode, done.stdout, done.stderr) == (0, "gave up\n", "")
