"""What a report of a trail says, apart from how it looks: of exactly the contents that a bundle would hold, after they were verified."""

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from audit_api.export.bundle import TooLarge
from audit_api.export.table import amounts_of, plain_keys
from collector.errors import Malformed
from collector.event import Event, Facts, decode_event, format_time, parse_time
from correlator.bundle import BundleLine, Contents, encode_members
from correlator.entry import Entry
from correlator.errors import VerificationError
from correlator.note import Verifier
from correlator.report import Report
from correlator.retired import RetiredMonth
from correlator.shown import Shown, shown_of
from correlator.verify import verify_bundle

__all__ = ["MAX_CHARACTERS", "MAX_ENTRIES", "MAX_TEXT", "Happening", "Told", "harmless", "report_of"]

MAX_ENTRIES = 1_000
"""Entries of a report: a hundred pages, unless they say much; of more, the bundle or data are what can be read."""

MAX_CHARACTERS = 2_000_000
"""Characters of all entries of a report, weighed by the time that setting them takes (`_weight`): entries alone do not bound it."""

MAX_TEXT = 2_000
"""Characters of a message, and of each attribute: what is cut says so."""

MAX_ATTRIBUTES = 40

_STEERING = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff]")

_LINE = 25
_SLOW_FACTOR = 10
_SLOW = re.compile("[\u0590-\u1dff\u2c00-\U0010ffff]")
"""Letters of scripts that are shaped, or that a font may not have: a text with one of them takes about `_SLOW_FACTOR` times as long."""

_MASKED = {
    "card": "a card number, masked before anything was written",
    "jwt": "a token, masked before anything was written",
    "field": "declared as to be masked, before anything was written",
    "dropped": "left out before anything was written",
}
"""What was masked, by the word before the colon of a mark (`collector.protect`); behind it stands where."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Happening:
    """One entry in words.

    Attributes:
        time: stated, else recorded, to the microsecond, UTC, without its date.
        date: of `time`.
        service, name, outcome: of an event; `name` is the kind of another entry.
        bad: whether it tells of an error, or of something that is missing.
        lines: what more it says: pairs of a label (may be empty) and a text.
        place: where it stands, and why there.
    """

    date: str
    time: str
    service: str
    name: str
    outcome: str
    bad: bool
    lines: tuple[tuple[str, str], ...]
    place: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """A whole report.

    Attributes:
        trail: the one it is of.
        summary: label and text, what a reader wants first.
        verdicts: each flow's newest, in words.
        proof: label and text of what was verified.
        checkpoint: the signed note, verbatim.
        happenings: in the order of stated times.
        trails: id, positions and last leaf of each.
        made_ns: when the last entry was recorded: stands for the time of making, so that the same contents give the same file.
    """

    trail: str
    summary: tuple[tuple[str, str], ...]
    verdicts: tuple[tuple[str, bool], ...]
    proof: tuple[tuple[str, str], ...]
    checkpoint: str
    happenings: tuple[Happening, ...]
    trails: tuple[tuple[str, str, str], ...]
    made_ns: int


def report_of(contents: Contents, key: Verifier) -> Told:
    """Verify the contents, then say what they hold.

    Raises:
        VerificationError: they do not hold: there is no report of what is not true.
        TooLarge: they have more than `MAX_CHARACTERS` to say.
    """
    verified = verify_bundle(encode_members(contents), key)
    several = len(contents.trails) > 1
    rows: list[tuple[int, int, Happening]] = []
    services: dict[str, None] = {}
    verdicts: dict[str, dict[str, Any]] = {}
    times: list[int] = []
    room = MAX_CHARACTERS
    for one in shown_of(contents):
        entry, facts = one.entry, one.facts
        when = _ns(facts.time if facts is not None else "")
        if facts is not None and facts.service:
            services.setdefault(harmless(facts.service))
        if when is not None:
            times.append(when)
        if entry.kind == "verdict" and one.main:
            verdicts[str(entry.detail.get("flow", ""))] = entry.detail
        told = _happening(one, several=several)
        room -= _weight(told)
        if room < 0:
            what = (
                f"{contents.trails[0].trail}, and what goes with it: a report holds at most {MAX_CHARACTERS} characters"
            )
            raise TooLarge(what, limit=MAX_CHARACTERS)
        rows.append((when if when is not None else _ns(entry.recorded) or 0, one.line.leaf, told))
    rows.sort(key=lambda row: row[:2])
    return Told(
        trail=contents.trails[0].trail,
        summary=tuple(_summary(verified, list(services), times, contents)),
        verdicts=tuple(_verdict(flow, detail) for flow, detail in sorted(verdicts.items())),
        proof=tuple(_proof(verified)),
        checkpoint=contents.checkpoint.decode("utf-8"),
        happenings=tuple(row[2] for row in rows),
        trails=tuple(
            (part.trail, f"{part.first} to {part.first + len(part.lines) - 1}", str(part.lines[-1].leaf))
            for part in contents.trails
        ),
        made_ns=_ns(verified.recorded[1]) or 0,
    )


def _weight(told: Happening) -> int:
    """How much there is to set: characters, those that take long several times, and for each line as many as it takes the time of."""
    texts = (told.service, told.name, told.outcome, told.place, *(text for line in told.lines for text in line))
    return sum(
        len(text) * (_SLOW_FACTOR if _SLOW.search(text) else 1) + _LINE * (1 + text.count("\n"))
        for text in texts
        if text
    )


def _summary(
    verified: Report, services: Sequence[str], times: Sequence[int], contents: Contents
) -> Iterator[tuple[str, str]]:
    if times:
        seconds = (max(times) - min(times)) / 1e9
        first = _spelled(min(times))
        yield "Happened", f"{first} UTC, over {seconds:,.3f} s"
    else:
        yield "Happened", "no event states a time"
    yield "Services", ", ".join(services) or "none is named"
    entries = sum(len(part.lines) for part in contents.trails)
    yield (
        "Holds",
        f"{_count(entries, 'entry', 'entries')} of {_count(len(contents.trails), 'trail')}, {_count(verified.events, 'event')}",
    )
    if verified.withheld:
        why = f", {verified.retired:,} of them retired by policy" if verified.retired else ""
        yield "Not shown", f"{_count(verified.withheld, 'event')}{why}"


def _proof(verified: Report) -> Iterator[tuple[str, str]]:
    tree = verified.checkpoint
    events = f"{_count(verified.events, 'event')} against what was signed of them"
    batches = f"{_count(verified.headers, 'signed batch', 'signed batches')} of {_count(len(verified.streams), 'collector key')}"
    yield "Verified", f"every entry's place in its trail and in the log, {events}, {batches}"
    yield "Log", tree.origin
    yield "Leaves", f"{tree.size:,}"
    yield "Root", tree.root.hex()
    yield "Key", f"{verified.key.name}, fingerprint {verified.key.fingerprint}"
    yield "Recorded", f"from {verified.recorded[0]} to {verified.recorded[1]}"


def _verdict(flow: str, detail: dict[str, Any]) -> tuple[str, bool]:
    verdict = str(detail.get("verdict", ""))
    missing = detail.get("missing")
    told = f"; missing: {', '.join(map(str, missing))}" if isinstance(missing, list) and missing else ""
    reason = f" ({detail['reason']})" if detail.get("reason") else ""
    return harmless(f"Flow {flow}: {verdict}{told}{reason}"), verdict in ("incomplete", "failed")


def _happening(one: Shown, *, several: bool) -> Happening:
    entry, facts = one.entry, one.facts
    stated = facts.time if facts is not None else ""
    spelled = (stated if _ns(stated) is not None else entry.recorded).replace("T", " ")
    where = f"leaf {one.line.leaf:,}, position {entry.position:,}" + (f" of {entry.trail}" if several else "")
    if facts is None:
        verdict = str(entry.detail.get("verdict", entry.detail.get("reason", "")))
        lines = list(_detail(entry))
        name, outcome, service = str(entry.kind), verdict, ""
        bad = entry.kind in ("gap", "fork") or verdict in ("incomplete", "failed")
    else:
        lines = list(_lines(one.line, facts, one.retired))
        name, outcome, bad = facts.name or "event", facts.outcome or ("error" if facts.error else ""), facts.error
        service = facts.service
        where = f"event {entry.sequence:,} of {entry.stream}, {where}"
    if not stated and facts is not None:
        where = f"no time stated: when it was recorded; {where}"
    return Happening(
        date=spelled[:10],
        time=spelled[11:26],
        service=harmless(service),
        name=harmless(name),
        outcome=harmless(outcome),
        bad=bad,
        lines=tuple((label, harmless(text)) for label, text in lines),
        place=harmless(f"{where}: {entry.why}" if entry.why else where),
    )


def _detail(entry: Entry) -> Iterator[tuple[str, str]]:
    """What an entry that is no event says."""
    if entry.kind == "link":
        yield "to", str(entry.detail.get("to", ""))
    elif entry.kind == "verdict":
        yield "", _verdict(str(entry.detail.get("flow", "")), entry.detail)[0]
    elif entry.detail:
        yield "", _json(entry.detail)


def _lines(line: BundleLine, facts: Facts, retired: RetiredMonth | None) -> Iterator[tuple[str, str]]:
    if facts.actor:
        yield "by", facts.actor
    amounts = [f"{currency} {amount}" for currency, amount in amounts_of(facts.keys)]
    if amounts:
        yield "money", ", ".join(amounts)
    keys = [f"{key} {value}" for key, value in sorted(plain_keys(facts.keys).items())]
    if keys:
        yield "keys", ", ".join(keys)
    if line.event is None:
        yield "", f"The event was {retired}." if retired is not None else "The event itself is not shown."
    else:
        try:
            event = decode_event(line.event)
        except Malformed as error:
            raise VerificationError(f"the event of leaf {line.leaf}: {error}") from error
        yield from _event_lines(event)
    for mark in facts.marks:
        word, colon, where = mark.partition(":")
        if colon and word in _MASKED:
            yield "masked", f"{where}: {_MASKED[word]}"
        else:
            yield "mark", mark


def _event_lines(event: Event) -> Iterator[tuple[str, str]]:
    if event.body is not None:
        yield "", _cut(event.body if isinstance(event.body, str) else _json(event.body))
    if event.span is not None:
        ends = (_ns(event.time), _ns(event.span.end))
        took = f", {(ends[1] - ends[0]) / 1e6:,.3f} ms" if ends[0] is not None and ends[1] is not None else ""
        yield "span", f"{event.span.kind or 'INTERNAL'}{took} {event.span.status_message}".strip()
    shown = sorted(event.attributes.items())
    for name, value in shown[:MAX_ATTRIBUTES]:
        yield name, _cut(value if isinstance(value, str) else _json(value))
    if len(shown) > MAX_ATTRIBUTES:
        yield "", f"… and {len(shown) - MAX_ATTRIBUTES} attributes more, in the bundle"


def _cut(text: str) -> str:
    return text if len(text) <= MAX_TEXT else f"{text[:MAX_TEXT]} … [cut: {len(text) - MAX_TEXT:,} characters more]"


def _json(value: Any) -> str:
    return _cut(json.dumps(value, ensure_ascii=False, sort_keys=True))


def harmless(text: str) -> str:
    """The text with what would steer it (controls, bidirectional marks, soft hyphens) spelled out; lines stay lines."""
    return _STEERING.sub(lambda found: f"\\u{ord(found.group()):04x}", text.replace("\r\n", "\n").replace("\t", " "))


def _ns(text: str) -> int | None:
    try:
        return parse_time(text)
    except Malformed:
        return None


def _spelled(unix_ns: int) -> str:
    return format_time(unix_ns)[:26].replace("T", " ")


def _count(number: int, one: str, many: str = "") -> str:
    return f"{number:,} {one if number == 1 else many or f'{one}s'}"
