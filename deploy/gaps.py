"""What is missing from a stream, in words: worked out from the entries of its own trail, as the correlator does. Pure."""

from collections.abc import Iterable
from typing import NamedTuple

import msgspec

from collector.batch import BatchHeader
from correlator.entry import Entry
from correlator.errors import VerificationError
from correlator.streams import StreamState

__all__ = ["Lack", "gaps_in_words", "open_gaps", "read_on"]


def open_gaps(stream: str, entries: Iterable[tuple[int, Entry]]) -> list[str]:
    """What is missing still from a stream, and its forks, as sentences.

    Args:
        stream: the stream's id.
        entries: all entries of its trail in order, each with its leaf index.

    Raises:
        VerificationError: an entry does not say what its kind must.
    """
    state = StreamState(stream=stream)
    told = [fork for leaf, entry in entries if (fork := read_on(state, leaf, entry))]
    return told + [f"stream {stream}: {lack.words}" for lack in gaps_in_words(state)]


def read_on(state: StreamState, leaf: int, entry: Entry) -> str:
    """Let a stream's next entry change how the stream stands; gives a fork as a sentence, else nothing.

    Raises:
        VerificationError: the entry does not say what its kind must.
    """
    try:
        if entry.kind == "batch":
            header = msgspec.json.decode(str(entry.detail["header"]), type=BatchHeader)
            state.on_batch(header, "", 0)
        elif entry.kind == "gap":
            state.on_gap(entry.detail, leaf)
        elif entry.kind == "fork":
            state.on_fork(entry.detail, leaf)
            return f"stream {state.stream}: a fork at batch {entry.detail.get('number')} (leaf {leaf}): {entry.why}"
    except (KeyError, TypeError, ValueError, AssertionError) as error:
        raise VerificationError(f"leaf {leaf}: it does not say what an entry of kind {entry.kind} must") from error
    return ""


class Lack(NamedTuple):
    """What a stream lacks, as a sentence; the leaf index of the entry that says so (−1: none does); whether the store held what cannot be accepted."""

    words: str
    leaf: int = -1
    refused: bool = False


def gaps_in_words(state: StreamState) -> list[Lack]:
    """What is missing still."""
    told = []
    for gap in state.missing:
        batches = f"batch {gap.first}" if gap.first == gap.last else f"batches {gap.first} to {gap.last}"
        events = ""
        if gap.last_sequence >= gap.first_sequence:
            events = f" (events {gap.first_sequence} to {gap.last_sequence})"
        told.append(Lack(f"a gap: {batches}{events} missing", gap.leaf))
        told += [
            Lack(f"batch {number}, which came late, does not fit into its gap", refused=True) for number in gap.refused
        ]
    if state.silent:
        told.append(
            Lack(f"silent: batch {state.next_number} and what follows did not come, though a heartbeat was promised")
        )
    if state.frozen:
        told.append(Lack(f"it stopped: {state.frozen}", refused=True))
    return told
