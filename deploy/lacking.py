"""Whether something of a stream is missing still, asked again and again: each time only what is new in its trail is read."""

from correlator.entry import decode_entry
from correlator.index import TrailIndex
from correlator.log import LogReader
from correlator.streams import StreamState
from correlator.trail import stream_trail
from deploy.gaps import read_on

__all__ = ["Lacking"]

_PAGE = 1_000

_MOST = 256
"""Streams that are remembered; one of more is read from its beginning again. What is remembered of each grows with its gaps, not with its length."""


class Lacking:
    """What is missing from streams, as their own trails tell. For one thread.

    Args:
        index, reader: of a log that holds all streams' trails.
    """

    def __init__(self, index: TrailIndex, reader: LogReader) -> None:
        self._index = index
        self._reader = reader
        self._known: dict[str, tuple[StreamState, int]] = {}

    def __call__(self, stream: str) -> bool:
        """Whether batches of a stream are missing still, or it stopped at one that cannot be accepted.

        Raises:
            Overloaded: log or index did not answer.
            VerificationError: an entry was changed, or does not say what its kind must.
        """
        # taken out meanwhile: after an error it is read from its beginning, for half of a page may have been taken in
        state, read = self._known.pop(stream, (StreamState(stream=stream), 0))
        while leaves := self._index.leaves(stream_trail(stream), start=read, limit=_PAGE):
            for leaf in leaves:
                read_on(state, leaf, decode_entry(self._reader.entry(leaf)))
            read += len(leaves)
        lacks = bool(state.missing or state.frozen)
        if lacks:
            while len(self._known) >= _MOST:
                del self._known[next(iter(self._known))]
            self._known[stream] = state, read
        return lacks
