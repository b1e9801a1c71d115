"""What tests of the log share: a key, a clock that only counts, and logs grown in given steps."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import count

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from correlator.log import AuditLog
from correlator.note import Signer
from correlator.storage import LogStorage

SIGNER = Signer(name="ledger.example/payments", private_key=Ed25519PrivateKey.from_private_bytes(bytes(range(32))))


class CountingClock:
    """A second further each time it is asked, from 2026-01-01 on."""

    def __init__(self) -> None:
        self._seconds = count(1_767_225_600)

    def __call__(self) -> int:
        """Nanoseconds since 1970."""
        return next(self._seconds) * 1_000_000_000


def entries_of(start: int, end: int) -> list[bytes]:
    """The entries that stand at the leaves `start` to `end` exclusive in every log of these tests."""
    return [b'{"leaf":%d}' % at for at in range(start, end)]


def open_log(storage: LogStorage, writer_id: str = "test", *, take_over: bool = False) -> AuditLog:
    """The log of these tests in `storage`, open for writing."""
    return AuditLog.open(storage, SIGNER, clock=CountingClock(), writer_id=writer_id, take_over=take_over)


def grow(log: AuditLog, sizes: Iterable[int]) -> None:
    """Publish up to each of these sizes."""
    for size in sizes:
        log.append(entries_of(log.next_leaf_index, size))
        log.publish()
