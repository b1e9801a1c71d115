"""Makes a `Story` of what a bundle holds: the entries and events of a trail and those linked to it. Pure.

The same contents are what `correlator.verify` looks at, so that the story is told of exactly what was verified.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Annotated, Any

import msgspec

from collector.canonical import MAX_SAFE_INTEGER
from collector.errors import Malformed
from collector.event import Event, Facts, decode_event, decode_facts, parse_time
from correlator.bundle import BundleHeader, BundleLine, Contents, TrailPart
from correlator.entry import Entry, decode_entry
from correlator.errors import VerificationError
from correlator.flow import Flow
from correlator.retired import RetiredMonth, retired_events
from correlator.story import StoryTrails
from correlator.trail import RETIREMENTS, parse_trail
from deploy.story import Link, Proof, Step, Story

__all__ = ["gap_in_words", "narrate"]

MAX_MESSAGE_CHARACTERS = 4_000


def narrate(
    contents: Contents,
    *,
    status: str,
    proof: Proof,
    trails: StoryTrails,
    gaps: Sequence[str] = (),
    accesses: Sequence[str] = (),
    flows: Sequence[Flow] = (),
    elsewhere: Sequence[Contents] = (),
) -> Story:
    """Tell what the contents hold.

    Args:
        contents: the trail asked for, then those that belong to its story and stand in the same log.
        status: `correlator.index.TrailSummary.status` of the trail asked for; where no verdict says more, an error in any trail
            of the story makes the story's ``error``.
        proof: what was verified of these contents.
        trails: which trails make up the story, and what is related to it.
        gaps: what is known to be missing from the streams, in sentences.
        accesses: who read the trail before, oldest first, in words.
        flows: as they are declared now, to say more of a missing step than its name.
        elsewhere: the other trails of the story, each shard's log's by themselves: leaves, and what was retired, are of one log.

    Raises:
        VerificationError: an entry or an event in them cannot be read.
    """
    trail = contents.trails[0].trail
    steps: list[Step] = []
    why: dict[str, str] = {}
    verdicts: dict[str, dict[str, Any]] = {}
    keys: dict[tuple[str, str], None] = {}
    for part, retired in _parts((contents, *elsewhere)):
        if part.trail == RETIREMENTS != trail:
            continue  # said of each event that it concerns
        for line in part.lines:
            entry = decode_entry(line.entry)
            if entry.kind == "event":
                facts = _facts(entry)
                steps.append(_event_step(line, entry, facts, retired.get((entry.stream, entry.sequence))))
                keys |= dict.fromkeys(facts.keys.items())
            elif entry.kind == "link" and part.trail == trail:
                why.setdefault(str(entry.detail.get("to", "")), entry.why)
            elif entry.kind == "verdict" and part.trail == trail:
                verdicts[str(entry.detail.get("flow", ""))] = entry.detail
            elif entry.kind in ("gap", "fork"):
                steps.append(_found_step(line, entry))
    steps.sort(key=_by_stated_time)
    newest = list(verdicts.values())
    return Story(
        trail=trail,
        status="error" if status == "ok" and any(step.error for step in steps) else status,
        proof=proof,
        steps=tuple(steps),
        flow=", ".join(verdicts),
        reason="; ".join(str(verdict["reason"]) for verdict in newest if verdict.get("reason")),
        missing=tuple(_missing(newest, flows)),
        keys=tuple(sorted(keys)),
        links=tuple(_links(trails, why)),
        traces_left_out=trails.traces_left_out,
        related_left_out=trails.related_left_out,
        gaps=tuple(gaps),
        clocks=tuple(_clocks([line for one in (contents, *elsewhere) for line in one.headers])),
        accesses=tuple(accesses),
    )


def _parts(logs: Iterable[Contents]) -> Iterator[tuple[TrailPart, Mapping[tuple[str, int], RetiredMonth]]]:
    """The trails, each with the events that its log says were retired."""
    for contents in logs:
        retired = retired_events(contents)
        for part in contents.trails:
            yield part, retired


_Ns = Annotated[int, msgspec.Meta(ge=-MAX_SAFE_INTEGER, le=MAX_SAFE_INTEGER)]


class _Clock(msgspec.Struct):
    offset_ns: _Ns
    uncertainty_ns: _Ns


class _Header(msgspec.Struct):
    """What is told of a signed header; the proof has looked at all of it, and may have found that it is none."""

    stream: str
    clock: _Clock | None = None


def _clocks(headers: Iterable[BundleHeader]) -> Iterator[str]:
    """How far each collector's clock was off at worst, as these headers say; nothing where none says anything."""
    worst: dict[str, _Clock | None] = {}
    for line in headers:
        try:
            header = msgspec.json.decode(str(decode_entry(line.entry).detail.get("header")), type=_Header)
        except (msgspec.DecodeError, RecursionError) as error:
            raise VerificationError(f"leaf {line.leaf}: the batch header in it cannot be read: {error}") from error
        name, known = header.stream.partition("/")[0], worst.get(header.stream.partition("/")[0])
        if known is None or (header.clock is not None and _at_worst(header.clock) > _at_worst(known)):
            worst[name] = header.clock
    if not any(worst.values()):
        return
    for name, clock in sorted(worst.items()):
        if clock is None:
            yield f"{name}: not measured"
        else:
            off_ms, within_ms = clock.offset_ns / 1e6, clock.uncertainty_ns / 1e6
            way = "ahead" if off_ms >= 0 else "behind"
            yield f"{name}: {abs(off_ms):,.1f} ms {way}, ±{within_ms:,.1f} ms, as it measured itself"


def _at_worst(clock: _Clock) -> int:
    return abs(clock.offset_ns) + clock.uncertainty_ns


def _links(trails: StoryTrails, why: Mapping[str, str]) -> Iterator[Link]:
    for trace in trails.traces:
        yield Link(trail=trace, why=why.get(trace, ""), followed=True)
    for related in trails.related:
        yield Link(
            trail=related.trail, why=f"through {related.through}" if related.through else why.get(related.trail, "")
        )
    for hub in trails.hubs:
        yield Link(trail=hub, why="a hub: it is linked to so many trails that it says nothing about this one")


def _missing(verdicts: Sequence[dict[str, Any]], flows: Sequence[Flow]) -> Iterator[str]:
    declared = {(flow.name, step.name): step.match for flow in flows for step in flow.steps}
    for verdict in verdicts:
        missing = verdict.get("missing")
        for step in missing if isinstance(missing, list) else ():
            match = declared.get((str(verdict.get("flow", "")), str(step)))
            yield f"{step}: {match.name} of {match.service}" if match else str(step)


def _by_stated_time(step: Step) -> tuple[bool, int, int]:
    """By the time that the service stated; those that stated none, or one that cannot be read, last, as they came into the log."""
    try:
        return False, parse_time(step.time), step.leaf
    except Malformed:
        return True, 0, step.leaf


def _facts(entry: Entry) -> Facts:
    try:
        return decode_facts(bytes(entry.facts))
    except Malformed as error:
        raise VerificationError(f"the facts in position {entry.position} of {entry.trail}: {error}") from error


def _event_step(line: BundleLine, entry: Entry, facts: Facts, retired: RetiredMonth | None) -> Step:
    event = Event()
    if line.event is not None:
        try:
            event = decode_event(line.event)
        except Malformed as error:
            raise VerificationError(f"the event of leaf {line.leaf}: {error}") from error
    message = _in_words(event.body)
    if not message and event.span is not None:
        message = event.span.status_message
    return Step(
        time=facts.time,
        service=facts.service,
        name=facts.name,
        message=message if line.event is not None else f"({retired or 'the event itself is not shown'})",
        actor=facts.actor,
        outcome=facts.outcome,
        error=facts.error,
        duration_ns=_duration_ns(event),
        trail=entry.trail,
        leaf=line.leaf,
        stream=entry.stream,
        sequence=entry.sequence,
        why=entry.why,
        marks=tuple(facts.marks),
    )


def _duration_ns(event: Event) -> int:
    if event.span is None:
        return -1
    try:
        return max(parse_time(event.span.end) - parse_time(event.time), 0)
    except Malformed:
        return -1


def _in_words(body: Any) -> str:
    text = "" if body is None else body if isinstance(body, str) else msgspec.json.encode(body).decode()
    if len(text) > MAX_MESSAGE_CHARACTERS:
        return f"{text[:MAX_MESSAGE_CHARACTERS]} … and {len(text) - MAX_MESSAGE_CHARACTERS:,} characters more"
    return text


def _found_step(line: BundleLine, entry: Entry) -> Step:
    return Step(
        time=entry.recorded,
        service=parse_trail(entry.trail).value.partition("/")[0],
        name=entry.kind,
        message=gap_in_words(entry),
        error=True,
        trail=entry.trail,
        leaf=line.leaf,
        why=entry.why,
    )


def gap_in_words(entry: Entry) -> str:
    """What a gap or fork entry of a stream's trail says, as a sentence for a person."""
    stream = parse_trail(entry.trail).value
    detail = entry.detail
    if entry.kind == "fork":
        return f"stream {stream}: batch {detail.get('number')} exists twice, with different content (a fork)"
    first, last = detail.get("first_number"), detail.get("last_number")
    batches = f"batch {first}" if last in (first, -1) else f"batches {first} to {last}"
    events = ""
    if isinstance(detail.get("last_sequence"), int) and detail["last_sequence"] >= detail.get("first_sequence", 0):
        events = f" (events {detail.get('first_sequence')} to {detail['last_sequence']})"
    words = {
        "missing": f"{batches}{events} missing",
        "first_late": f"{batches}{events} missing: its beginning",
        "silent": f"silent from {batches} on",
    }
    reason = str(detail.get("reason", ""))
    told = words.get(reason, f"{batches}{events} not accepted ({reason})")
    return f"stream {stream}: {told}{f': {entry.why}' if entry.why and reason not in words else ''}"
