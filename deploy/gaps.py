"""What is missing from a stream, in words: worked out from the entries of its own trail, as the correlator does. Pure."""

from collections.abc import Iterable

import msgspec

from collector.batch import BatchHeader
from correlator.entry import Entry
from correlator.errors import VerificationError
from correlator.streams import StreamState

__all__ = ["gaps_in_words", "open_gaps", "read_on"]


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
    return told + [f"stream {stream}: {what}" for what, _ in gaps_in_words(state)]


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


def gaps_in_words(state: StreamState) -> list[tuple[str, int]]:
    """What is missing still, each as a sentence with the leaf index of the entry that says so (−1: none does)."""
    told = []
    for gap in state.missing:
        batches = f"batch {gap.first}" if gap.first == gap.last else f"batches {gap.first} to {gap.last}"
        events = ""
        if gap.last_sequence >= gap.first_sequence:
            events = f" (events {gap.first_sequence} to {gap.last_sequence})"
        told.append((f"a gap: {batches}{events} missing", gap.leaf))
    if state.silent:
        told.append(
            (f"silent: batch {state.next_number} and what follows did not come, though a heartbeat was promised", -1)
        )
    if state.frozen:
        told.append((f"it stopped: {state.frozen}", -1))
    return told
