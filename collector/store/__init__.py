"""The event store: where shipped batches live, append-only. The configuration's ``[store]`` chooses what stands behind it.

`EventStore` is the seam; one SQLite file is the embedded default (`collector.store.sqlite`), an OpenSearch cluster the
distributed one (`collector.store.opensearch`).
"""

from collections.abc import Mapping, Sequence
from typing import Protocol

from collector.batch import Batch, EventRef, SignedHeader, StreamId

__all__ = ["Destination", "EventStore"]


class Destination(Protocol):
    """Where a pipeline ships its batches: an event store, or another collector (`collector.relay`). From one thread at a time.

    Every method raises `Overloaded` when it cannot be reached or is busy: an error is never an absence.

    `keeps_headers`: whether `batch` has what was ever taken, so that what it does not have was lost. Else `acknowledged` is all it tells.
    """

    keeps_headers: bool

    def place(self, created: str) -> str:
        """The `BatchHeader.place` for a batch cut at this RFC 3339 time; empty where there is but one place."""

    def append(self, batch: Batch) -> None:
        """Take the batch; durable on return. The same batch twice is once.

        Raises:
            Conflict: another batch stands under this stream and number.
        """

    def batch(self, stream: StreamId, number: int) -> SignedHeader | None:
        """One header with its facts, or None if the answer is that there is none under this number."""

    def acknowledged(self, stream: StreamId) -> int:
        """The number up to which the spool may let go of the stream's batches; 0 when there is none."""

    def close(self) -> None:
        """Release files and connections."""


class EventStore(Destination, Protocol):
    """Keeps batches for ever, and tells which there are. What it acknowledges, the log holds.

    Every method raises `Overloaded` when the store cannot be reached or is busy: an error is never an absence.
    """

    def batches_after(self, frontier: Mapping[StreamId, int], limit: int) -> Sequence[SignedHeader]:
        """For each stream its headers with facts whose number is greater than the frontier's, ascending within a stream.

        At most `limit` a stream; a missing number is skipped, not waited for, so the caller sees the gap (one of more than
        `limit` numbers perhaps a second late). The bytes are
        as stored: checking them (`collector.batch.open_header`) is the caller's, who knows what to do with a bad one, so
        a header that does not parse or verify raises `VerificationError` naming stream and number.
        """

    def events(self, refs: Sequence[EventRef]) -> Sequence[bytes]:
        """The events' canonical bytes, in the order asked for.

        Raises:
            NotFound: names the first event that no stored batch holds.
        """

    def streams(self) -> Sequence[StreamId]:
        """Every stream that ever stored a batch, in order of its first batch's arrival.

        One whose first batch is being stored just now may be listed already; none is ever left out.
        """

    def acknowledge(self, frontier: Mapping[StreamId, int], *, part: int = 1, parts: int = 1) -> None:
        """The correlator's word that the log holds every batch up to these numbers: spools may let go of them.

        Where the ledger is cut into `parts` shards, it is the word of shard `part` alone, and spools may let go of what every
        shard has given its word for: one that has not said anything yet holds all of them back.
        """
