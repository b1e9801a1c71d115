"""What one entry of a bundle says, opened and checked by itself: entries, events, batch headers, enrolments. Pure.

Each function takes `where`, how to call the entry in an error, and raises `VerificationError` alone.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256

from collector.batch import SignedHeader, open_header
from collector.errors import Malformed
from collector.event import Facts, decode_event, decode_facts, facts_of
from correlator.entry import Entry, decode_entry
from correlator.errors import VerificationError
from correlator.note import decode_base64
from correlator.stitch import Stitcher
from correlator.trail import (
    ENROLMENTS,
    RETIREMENTS,
    access_trail,
    incident_trail,
    is_incident,
    parse_trail,
    stream_trail,
)

__all__ = [
    "EnrolledKey",
    "ProvedEvent",
    "check_headers_chain",
    "check_placement",
    "open_batch_entry",
    "open_enrolment",
    "open_entry",
    "open_event",
]

_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z", re.ASCII)
_HEX64 = re.compile(r"[0-9a-f]{64}", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class EnrolledKey:
    """A key that may sign for a stream.

    Attributes:
        stream: the stream's id.
        key: the Ed25519 public key, 64 hex digits.
        how: ``configured`` or ``first use``.
        role: what the enrolment says the stream is, e.g. ``collector`` or ``recorder``.
    """

    stream: str
    key: str
    how: str
    role: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ProvedEvent:
    """An event's entry whose content fits together. `facts_line` is what its batch header must commit to."""

    stream: str
    sequence: int
    trail: str
    why: str
    facts: Facts
    facts_line: bytes
    withheld: bool
    where: str


def open_entry(data: bytes, where: str) -> Entry:
    """The entry of canonical bytes, its fields fit for its kind."""
    try:
        entry = decode_entry(data)
    except VerificationError as error:
        raise VerificationError(f"{where}: {error}") from error
    is_event = entry.kind == "event"
    if (entry.sequence >= 0, bool(entry.stream), bool(bytes(entry.facts))) != (is_event, is_event, is_event):
        raise VerificationError(f"{where}: stream, sequence and facts belong to events, and to all of them")
    if bool(entry.detail) == is_event:
        raise VerificationError(f"{where}: a detail belongs to every kind of entry but event")
    if _TIME.fullmatch(entry.recorded) is None:
        raise VerificationError(f"{where}: its recorded time is not RFC 3339 UTC with nine digits")
    if entry.previous is not None and (entry.previous.leaf < 0 or _HEX64.fullmatch(entry.previous.hash) is None):
        raise VerificationError(f"{where}: what it names as its previous entry is no leaf and hash")
    try:
        parse_trail(entry.trail)
    except VerificationError as error:
        raise VerificationError(f"{where}: {error}") from error
    return entry


def open_event(entry: Entry, event: bytes | None, where: str) -> ProvedEvent:
    """The event of an entry: its bytes, where they are here, have the entry's digest and say what its facts say."""
    facts_line = bytes(entry.facts)
    try:
        facts = decode_facts(facts_line)
        if event is not None:
            if sha256(event).hexdigest() != facts.digest:
                raise VerificationError(f"{where}: the event is not the one of the entry (its digest differs)")
            if facts_of(decode_event(event), facts.digest, facts.found) != facts:
                raise VerificationError(f"{where}: the facts of the entry are not those of the event")
    except Malformed as error:
        raise VerificationError(f"{where}: {error}") from error
    return ProvedEvent(
        stream=entry.stream,
        sequence=entry.sequence,
        trail=entry.trail,
        why=entry.why,
        facts=facts,
        facts_line=facts_line,
        withheld=event is None,
        where=where,
    )


def check_placement(event: ProvedEvent, key: EnrolledKey) -> None:
    """Check that the event carries what its trail stands for, and that this is the reason that its entry gives.

    Which of several business keys is the strongest is configuration, so the trail of any of them is accepted.
    """
    facts = event.facts
    if facts.access is not None and key.role == "recorder":
        allowed = [(access_trail(facts.access.principal or "unknown", facts.tenant), "access")]
    elif facts.retirement is not None and key.role == "recorder":
        allowed = [(RETIREMENTS, "retirement")]
    elif facts.incident is not None and key.role == "recorder" and is_incident(facts.incident.id):
        allowed = [(incident_trail(facts.incident.id), "incident")]
    else:
        allowed = Stitcher().identities(facts)
        if facts.transaction:
            del allowed[1:]
        if not allowed:
            allowed = [(stream_trail(event.stream, facts.tenant), "stream")]
    if (event.trail, event.why) not in allowed:
        places = ", ".join(f"{trail} ({why})" for trail, why in allowed)
        raise VerificationError(
            f"{event.where}: the event does not belong here for {event.why!r}: it belongs in {places}"
        )


def open_batch_entry(entry: Entry, ledger: str, where: str) -> SignedHeader:
    """The signed header in an entry of kind `batch`; its own key's signature holds, its ledger and trail are right."""
    header, signature = entry.detail.get("header"), entry.detail.get("signature")
    if entry.kind != "batch" or len(entry.detail) != 2 or not isinstance(header, str) or not isinstance(signature, str):
        raise VerificationError(f"{where}: it is not an entry that holds a batch header and its signature")
    raw_signature = decode_base64(signature, f"{where}: the signature")
    try:
        signed = open_header(header.encode("utf-8"), raw_signature)
    except VerificationError as error:
        raise VerificationError(f"{where}: {error}") from error
    if signed.header.ledger != ledger:
        raise VerificationError(f"{where}: the batch is of the ledger {signed.header.ledger!r}, not of {ledger!r}")
    if entry.trail != stream_trail(signed.header.stream):
        raise VerificationError(f"{where}: a batch of stream {signed.header.stream} stands in {entry.trail}")
    return signed


def open_enrolment(entry: Entry, where: str) -> EnrolledKey:
    """What an entry of kind `enrolment` says."""
    detail = entry.detail
    if entry.kind != "enrolment" or entry.trail != ENROLMENTS:
        raise VerificationError(f"{where}: it is not an entry that enrols a key")
    fields = [detail.get(name) for name in ("stream", "key", "how", "role")]
    if len(detail) != 4 or not all(isinstance(value, str) for value in fields):
        raise VerificationError(f"{where}: an enrolment states stream, key, how and role, and nothing else")
    stream, key, how, role = map(str, fields)
    return EnrolledKey(stream=stream, key=key, how=how, role=role)


def check_headers_chain(headers: Mapping[tuple[str, int], SignedHeader]) -> None:
    """Check that headers of one stream with neighbouring numbers follow each other: sequence, and hash of the one before."""
    for (stream, number), signed in headers.items():
        before = headers.get((stream, number - 1))
        if before is None:
            continue
        if signed.header.previous != before.digest:
            raise VerificationError(
                f"batch {number} of {stream} does not name batch {number - 1}, which is here, as the one before it"
            )
        if signed.header.first != before.header.first + before.header.count:
            raise VerificationError(
                f"the events of batch {number} of {stream} do not follow those of batch {number - 1}"
            )
