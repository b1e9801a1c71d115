"""Which batches are accepted: does this one follow in its stream, and may its key sign for it? Pure.

A header's own signature and its facts' tree hash were checked when it was read from the store (`collector.batch.open_header`).
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from collector.batch import SignedHeader
from correlator.streams import StreamState

__all__ = ["Admission", "ForkFound", "Refusal", "admit", "enrolment_of"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """Why a batch is not accepted; `reason` is one of `correlator.streams.FREEZING`."""

    reason: str
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ForkFound:
    """The stream's chain broke: under `number`, `logged` is what the log's chain demands, `found` what the store's batch demands."""

    number: int
    logged: str
    found: str
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Admission:
    """It is accepted.

    Attributes:
        enrol: how its key is enrolled with it: ``configured`` or ``first use``; empty when it was before.
        absent: numbers before it that the store does not have (first, last), or None.
        late: leaf of the gap entry that it fills, −1 when it is simply the next one.
    """

    enrol: str = ""
    absent: tuple[int, int] | None = None
    late: int = -1


def enrolment_of(
    collector: str,
    key: str,
    *,
    configured: Mapping[str, Sequence[str]],
    known: Collection[str],
    first_use: bool,
) -> str | Refusal:
    """How this key comes to sign for streams of this collector.

    Args:
        collector: name of the collector.
        key: the public key, hex.
        configured: collector name -> keys listed in the settings.
        known: keys enrolled for this collector's streams before.
        first_use: whether an unlisted collector's first key is believed.
    """
    listed = configured.get(collector)
    if listed is not None:
        if key in listed:
            return "configured"
        return Refusal(
            reason="not_enrolled", why=f"its key {key} is not one of those listed for the collector {collector}"
        )
    if not first_use:
        return Refusal(reason="not_enrolled", why=f"no key is listed for the collector {collector}")
    if known and key not in known:
        return Refusal(
            reason="not_enrolled",
            why=f"its key {key} is not the one enrolled on first use for the collector {collector}",
        )
    return "first use"


def admit(
    stream: StreamState, signed: SignedHeader, ledger: str, enrolled: str | Refusal
) -> Admission | Refusal | ForkFound | None:
    """Whether the batch is accepted; None: the log has it already.

    Args:
        stream: what the log has of its stream.
        signed: header and facts, signature and tree hash checked.
        ledger: the log's origin, which the header must name.
        enrolled: what `enrolment_of` says, for a stream without a key.
    """
    header = signed.header
    if header.ledger != ledger:
        return Refusal(reason="not_enrolled", why=f"it was signed for another ledger, {header.ledger!r}")
    enrol = ""
    if not stream.key:
        if isinstance(enrolled, Refusal):
            return enrolled
        enrol = enrolled
    elif header.key != stream.key:
        return Refusal(
            reason="not_enrolled", why=f"it is signed with the key {header.key}, not the one enrolled for the stream"
        )
    if header.number < stream.next_number:
        return _admit_late(stream, signed)
    if header.number == stream.next_number:
        if header.previous != stream.head:
            return ForkFound(
                number=header.number - 1,
                logged=stream.head,
                found=header.previous,
                why=f"batch {header.number} does not continue the batch {header.number - 1} that is in the log",
            )
        if header.first != stream.next_sequence:
            return Refusal(
                reason="bad_chain",
                why=f"its first event has sequence {header.first} where {stream.next_sequence} follows",
            )
        return Admission(enrol=enrol)
    if header.first < stream.next_sequence:
        return Refusal(
            reason="bad_chain",
            why=f"its first event has sequence {header.first}, before {stream.next_sequence} that follows",
        )
    return Admission(enrol=enrol, absent=(stream.next_number, header.number - 1))


def _admit_late(stream: StreamState, signed: SignedHeader) -> Admission | ForkFound | Refusal | None:
    header = signed.header
    gap = stream.gap_of(header.number)
    if gap is None:
        return None
    why = f"batch {header.number}, which was missing, does not fit into its gap"
    if header.number == gap.first and header.previous != gap.before:
        return ForkFound(number=header.number - 1, logged=gap.before, found=header.previous, why=why)
    if header.number == gap.last and gap.after and signed.digest != gap.after:
        return ForkFound(number=header.number, logged=gap.after, found=signed.digest, why=why)
    end = header.first + header.count - 1
    fits = gap.first_sequence <= header.first and end <= gap.last_sequence
    if not fits or (header.number == gap.first and header.first != gap.first_sequence):
        return Refusal(reason="bad_chain", why=f"{why}: its events are not those that are missing")
    if header.number == gap.last and end != gap.last_sequence:
        return Refusal(reason="bad_chain", why=f"{why}: its events are not those that are missing")
    return Admission(late=gap.leaf)
