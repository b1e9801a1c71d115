"""A bucket whose requests crash, fail, lose their reply or land late; over a real one, at the seam `correlator.storage.bucket`."""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterator
from typing import TypeVar

from correlator.errors import StateUnknown
from correlator.storage.bucket import Absent, Bucket, Found, Refused, Version

T = TypeVar("T")


class Crashed(BaseException):
    """The process died here: nothing may catch it."""


class Fault(enum.Enum):
    """What becomes of a put or delete."""

    CRASH_BEFORE = "the process dies before it is sent"
    CRASH_AFTER = "it is done, and the process dies before it hears so"
    FAILED = "it is not done, and not answered"
    LOST_REPLY = "it is done, and not answered"
    SENT_AGAIN = "it is done, its reply is lost, and the driver sends it again"
    LATE = "it is not answered, and done later"


class FaultyBucket:
    """Hands on to `bucket`; the change number `at`, counted from 1, has the `fault`.

    Attributes:
        changes: every put and delete, in words.
        checkpoints: what was put as the checkpoint, in order.
        before: called with each request in words before it is sent, gets and lists too.
        late_after: so many requests after it was not answered, a late change lands; by default when `land` is called.
    """

    def __init__(
        self, bucket: Bucket, *, at: int = 0, fault: Fault = Fault.FAILED, late_after: int = 1_000_000
    ) -> None:
        self._bucket = bucket
        self.at = at
        self.fault = fault
        self.late_after = late_after
        self.changes: list[str] = []
        self.checkpoints: list[bytes] = []
        self.before: Callable[[str], None] | None = None
        self._late: Callable[[], object] | None = None
        self._requests_to_landing = 0

    def get(self, path: str) -> Found:
        """See `Bucket.get`."""
        self._begin(f"get {path}")
        return self._bucket.get(path)

    def put(self, path: str, data: bytes, *, over: Version | Absent | None = None) -> Version:
        """See `Bucket.put`."""

        def done() -> Version:
            version = self._bucket.put(path, data, over=over)
            if path == "checkpoint":
                self.checkpoints.append(data)
            return version

        return self._change(f"put {path}", done)

    def delete(self, path: str) -> None:
        """See `Bucket.delete`."""
        self._change(f"delete {path}", lambda: self._bucket.delete(path))

    def paths(self, folder: str) -> Iterator[str]:
        """See `Bucket.paths`."""
        self._begin(f"list {folder}")
        return self._bucket.paths(folder)

    def land(self) -> None:
        """What was late arrives now, if its condition still holds."""
        if self._late is not None:
            late, self._late = self._late, None
            try:
                late()
            except Refused:
                pass  # too late: something else stands there

    def _begin(self, request: str) -> None:
        if self.before is not None:
            self.before(request)
        if self._late is not None:
            self._requests_to_landing -= 1
            if self._requests_to_landing <= 0:
                self.land()

    def _change(self, request: str, done: Callable[[], T]) -> T:
        self._begin(request)
        self.changes.append(request)
        if len(self.changes) != self.at:
            return done()
        if self.fault is Fault.CRASH_BEFORE:
            raise Crashed
        if self.fault is Fault.LATE:
            self._late, self._requests_to_landing = done, self.late_after
        if self.fault in (Fault.FAILED, Fault.LATE):
            raise StateUnknown(f"{request}: timed out")
        done()
        if self.fault is Fault.CRASH_AFTER:
            raise Crashed
        if self.fault is Fault.SENT_AGAIN:
            return done()
        raise StateUnknown(f"{request}: timed out")
