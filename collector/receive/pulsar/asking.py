"""Calls of a library that may never return: in threads that hold up nobody's end.

An executor's threads are joined when the interpreter ends, so one call that hangs keeps a process that has drained and said goodbye from exiting.
"""

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import TypeVar

__all__ = ["asked"]

T = TypeVar("T")


def asked(call: Callable[..., T], *arguments: object) -> asyncio.Future[T]:
    """A future of what the call returns or raises, made in a thread of its own. Who cancels it leaves the thread to itself."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def done(result: T | None, error: BaseException | None) -> None:
        if future.cancelled():
            return
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(result)  # type: ignore[arg-type]  # a T where there is no error

    def run() -> None:
        result, failed = None, None
        try:
            result = call(*arguments)
        except Exception as error:  # noqa: BLE001 - raised where it is awaited
            failed = error
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(done, result, failed)

    threading.Thread(target=run, name="tally-pulsar", daemon=True).start()
    return future
