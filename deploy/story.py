"""A transaction's story as lines for a terminal. Pure: a `Story` in, text out.

Everything that came from outside is made harmless first: control, escape and direction-changing characters of a log line
must not reach somebody's terminal as such. Nothing is left out silently: what is cut says so.
"""

import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence

import msgspec

from collector.errors import Malformed
from collector.event import format_time, parse_time
from deploy.wording import count, harmless

__all__ = ["Link", "Proof", "Step", "Story", "columns", "lines"]

_Paint = Callable[..., str]
"""`paint(text, *styles)`: the text in these styles, or as it is where there are no colours."""


class Step(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One thing that happened, or that was found out.

    Attributes:
        time: RFC 3339, as the service stated it; empty when it stated none.
        service: who told it.
        name: what happened, in one name (event name, else span name).
        message: what the service wrote, empty for spans without a status message.
        actor: on whose behalf.
        outcome: success, failure, or empty.
        error: true if the event tells of one.
        duration_ns: of a span, −1 for anything else.
        trail: the trail that it is an entry of.
        leaf: its leaf index in the log.
        stream, sequence: the event's id; sequence −1 where it is no event.
        why: why it is in this trail.
        marks: what was done to it on its way in.
    """

    time: str = ""
    service: str = ""
    name: str = ""
    message: str = ""
    actor: str = ""
    outcome: str = ""
    error: bool = False
    duration_ns: int = -1
    trail: str = ""
    leaf: int = -1
    stream: str = ""
    sequence: int = -1
    why: str = ""
    marks: tuple[str, ...] = ()


class Link(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Another trail: `followed` when its entries are part of this story; `why` says what ties the two together."""

    trail: str
    why: str = ""
    followed: bool = False


class ProvedTree(msgspec.Struct, frozen=True, kw_only=True):
    """A signed tree: the log's origin, its leaves, its root in hex."""

    origin: str
    size: int
    root: str


class Proof(msgspec.Struct, frozen=True, kw_only=True):
    """What was verified before the story was told.

    Attributes:
        state: verified, false or unknown.
        problem: what does not hold, or why it could not be told; empty when verified.
        origin, size, root: the signed checkpoint that everything was verified against.
        key: the verifier key's name and key ID.
        entries, events: how many entries (chain and inclusion) and events (digest) hold.
        further: of a ledger that is cut into shards the trees of other shards' logs that parts of the story were verified against; else not there.
    """

    state: str
    problem: str = ""
    origin: str = ""
    size: int = 0
    root: str = ""
    key: str = ""
    entries: int = 0
    events: int = 0
    further: tuple[ProvedTree, ...] | msgspec.UnsetType = msgspec.UNSET


class Story(msgspec.Struct, frozen=True, kw_only=True):
    """All that is known of a transaction, in the order that the services' own clocks state.

    `status` is that of `correlator.index.TrailSummary`; `reason` and `missing` are its newest verdict's, `flow` the flow
    that it was judged by; `links` are other trails that it is tied to, `traces_left_out` how many traces more that are no part of it because
    they are too many, and `related_left_out` how many related trails more there may be; `gaps` are sentences about what is known to be missing from the streams that it came by;
    `clocks` say how far the clocks of the collectors were off that signed its events, empty where none was measured;
    `accesses` are who read it before, oldest first, each in words.
    """

    trail: str
    status: str
    proof: Proof
    steps: tuple[Step, ...] = ()
    flow: str = ""
    reason: str = ""
    missing: tuple[str, ...] = ()
    keys: tuple[tuple[str, str], ...] = ()
    links: tuple[Link, ...] = ()
    traces_left_out: int = 0
    related_left_out: int = 0
    gaps: tuple[str, ...] = ()
    clocks: tuple[str, ...] = ()
    accesses: tuple[str, ...] = ()


_SGR = {"bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33", "cyan": "36"}
_STATUS_COLOUR = {
    "complete": "green",
    "ok": "green",
    "compensated": "yellow",
    "incomplete": "red",
    "failed": "red",
    "error": "red",
    "gap": "red",
}
_PROOF_COLOUR = {"verified": "green", "false": "red", "unknown": "yellow"}
_TOKEN = re.compile(r"(~card:[a-z]{4})[a-z]{16}")
"""A card number's token: its beginning is enough for a person to see whether two are the same; --json has the whole."""

_TIME_WIDTH = 12
MAX_MESSAGE_LINES = 3
MIN_WIDTH = 60


def lines(story: Story, *, width: int, colour: bool) -> Iterator[str]:
    """The story as lines without line ends, none wider than `width` columns (at least 60)."""
    width = max(width, MIN_WIDTH)

    def paint(text: str, *styles: str) -> str:
        if not colour or not text:
            return text
        return f"\x1b[{';'.join(_SGR[style] for style in styles)}m{text}\x1b[0m"

    status = _cut(harmless(story.status.upper()), 20)
    title = _cut(harmless(story.trail), width - columns(status) - 2)
    yield f"{paint(title, 'bold')}  {paint(status, 'bold', _STATUS_COLOUR.get(story.status, 'bold'))}"
    yield from (paint(line, "dim") for line in _wrap(_summary(story), width))
    if story.keys:
        yield from (paint(line, "dim") for line in _wrap(", ".join(f"{n} {v}" for n, v in story.keys), width))
    yield ""
    table = _Columns(story.steps, width)
    day = _day(story.steps)
    for step in story.steps:
        if _unix_ns(step.time) is not None and step.time[:10] != day:
            day = step.time[:10]
            yield paint(day, "dim")
        yield from _step_lines(step, table, paint)
    if story.steps:
        yield ""
    for label, texts, style in _notes(story):
        for at, text in enumerate(texts):
            for row, line in enumerate(_wrap(text, width - 10)):
                head = f"{label:<10}" if at == row == 0 else " " * 10
                yield paint(head, "bold") + (paint(line, style) if style else line)


def _notes(story: Story) -> Iterator[tuple[str, list[str], str]]:
    if story.reason or story.flow:
        flow = f"flow {story.flow}: " if story.flow else ""
        yield "Verdict", [f"{flow}{story.status}{f', {story.reason}' if story.reason else ''}"], ""
    if story.missing:
        yield "Missing", list(story.missing), "red"
    if story.gaps:
        yield "Gaps", list(story.gaps), "red"
    followed = [f"{link.trail}{f' ({link.why})' if link.why else ''}" for link in story.links if link.followed]
    related = [f"{link.trail}{f' ({link.why})' if link.why else ''}" for link in story.links if not link.followed]
    if story.traces_left_out:
        followed.append(f"not {count(story.traces_left_out, 'trace')} more: too many to be one story")
    if story.related_left_out:
        related.append(f"and {story.related_left_out:,} more that were not looked at")
    if followed:
        yield "Includes", followed, ""
    if related:
        yield "Related", related, ""
    if len({step.service for step in story.steps if step.service}) > 1:
        yield "Order", ["by the time that each service stated; the services' clocks were not compared"], "dim"
    if story.clocks:
        yield "Clocks", list(story.clocks), "dim"
    proof = story.proof
    where = (
        f"the log {proof.origin} of {count(proof.size, 'leaf', 'leaves')}, signed by {proof.key}" if proof.size else ""
    )
    if proof.further:
        trees = (f"{tree.origin} of {count(tree.size, 'leaf', 'leaves')}" for tree in proof.further)
        where = f"{where}, and in {', '.join(trees)}"
    if proof.state == "verified":
        told = f"verified: {count(proof.entries, 'entry', 'entries')} and {count(proof.events, 'event')}, in {where}"
    elif proof.state == "false":
        told = f"FALSE: {proof.problem}"
    else:
        told = f"could not be told: {proof.problem}"
    yield "Proof", [told], _PROOF_COLOUR.get(proof.state, "")
    if story.accesses:
        yield "Read", [f"{count(len(story.accesses), 'time')} before, last {story.accesses[-1]}"], "dim"


def _summary(story: Story) -> str:
    events = [step for step in story.steps if step.sequence >= 0]
    services = sorted({step.service for step in events if step.service})
    trails = {step.trail for step in events}
    parts = []
    times = sorted(time for time in (_unix_ns(step.time) for step in events) if time is not None)
    if times:
        first = format_time(times[0])
        parts.append(f"{first[:10]} {first[11:19]} UTC, {_duration(times[-1] - times[0])}")
    parts.append(f"{count(len(events), 'event')} from {count(len(services), 'service')}")
    if len(trails) > 1:
        parts.append(f"{len(trails)} trails")
    return " · ".join(parts)


def _day(steps: Sequence[Step]) -> str:
    """The date that stands in the summary: that of the earliest step; it is not repeated above the steps."""
    times = [time for time in (_unix_ns(step.time) for step in steps) if time is not None]
    return format_time(min(times))[:10] if times else ""


class _Columns:
    """Widths of the columns: time, mark, service, name, message."""

    def __init__(self, steps: Sequence[Step], width: int) -> None:
        self.service = min(max((columns(harmless(step.service)) for step in steps), default=0), 20)
        self.name = min(max((columns(harmless(step.name)) for step in steps), default=0), max(width // 4, 16))
        self.message = width - (_TIME_WIDTH + 1 + 1 + 1 + self.service + 2 + self.name + 2)


def _step_lines(step: Step, at: _Columns, paint: _Paint) -> Iterator[str]:
    failed = step.error or step.outcome == "failure"
    mark = paint("✗", "red") if failed else paint("✓", "green") if step.outcome == "success" else paint("·", "dim")
    span = step.duration_ns >= 0
    text = _TOKEN.sub(r"\1…", harmless(step.message))
    if span:
        text = f"{_duration(step.duration_ns)} {text}".strip()
    if step.actor:
        text += f" (by {harmless(step.actor)})"
    if step.marks:
        text += f" [{', '.join(harmless(mark) for mark in step.marks)}]"
    time = step.time[11:23] if _unix_ns(step.time) is not None else "odd time" if step.time else "no time"
    head = " ".join(
        (
            paint(f"{time:<{_TIME_WIDTH}}", "dim"),
            mark,
            paint(_pad(harmless(step.service), at.service), "cyan"),
        )
    )
    name = _pad(harmless(step.name), at.name)
    rows = _wrap(text, at.message) or [""]
    if len(rows) > MAX_MESSAGE_LINES:
        hidden = sum(len(row) for row in rows[MAX_MESSAGE_LINES - 1 :])
        notes = (f"… and {hidden:,} characters more", f"… {hidden:,} more", "…")
        rows = [*rows[: MAX_MESSAGE_LINES - 1], next((note for note in notes if len(note) <= at.message), "…")]
    styles = ("red",) if failed else ("dim",) if span else ()
    for row, line in enumerate(rows):
        body = paint(line, *styles) if styles else line
        if row == 0:
            yield f"{head}  {paint(name, *styles) if styles else name}  {body}".rstrip()
        else:
            yield f"{' ' * (_TIME_WIDTH + 3 + at.service + 2 + at.name + 2)}{body}"


def columns(text: str) -> int:
    """How many columns `text` takes in a terminal: two for wide East Asian characters, none for combining ones."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(char) else 2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in text
    )


def _pad(text: str, width: int) -> str:
    text = _cut(text, width)
    return text + " " * (width - columns(text))


def _cut(text: str, width: int) -> str:
    if columns(text) <= width:
        return text
    kept, used = [], 0
    for char in text:
        used += columns(char)
        if used > width - 1:
            break
        kept.append(char)
    return "".join(kept) + "…"


def _wrap(text: str, width: int) -> list[str]:
    """Lines of at most `width` columns, broken at spaces where there are any."""
    rows: list[str] = []
    row, used = "", 0
    for word in _pieces(harmless(text).split(), width):
        size = columns(word)
        if row and used + 1 + size > width:
            rows.append(row)
            row, used = "", 0
        row, used = (f"{row} {word}", used + 1 + size) if row else (word, size)
    return [*rows, row] if row else rows


def _pieces(words: Iterable[str], width: int) -> Iterator[str]:
    for word in words:
        rest = word
        while columns(rest) > width:
            piece, used = "", 0
            for char in rest:
                used += columns(char)
                if used > width:
                    break
                piece += char
            yield piece
            rest = rest[len(piece) :]
        yield rest


def _unix_ns(time: str) -> int | None:
    """Nanoseconds of a time in the form that events carry; None for anything else."""
    try:
        return parse_time(time) if len(time) == 30 and time.isascii() else None
    except Malformed:
        return None


def _duration(nanoseconds: int) -> str:
    """In the unit that reads best: 870 µs, 12.3 ms, 4.56 s, 3 min 20 s, 5 h 10 min, 2 d 3 h."""
    if nanoseconds < 1_000_000:
        return f"{nanoseconds / 1_000:.0f} µs"
    if nanoseconds < 1_000_000_000:
        return f"{nanoseconds / 1_000_000:.3g} ms" if nanoseconds < 100_000_000 else f"{nanoseconds / 1_000_000:.0f} ms"
    seconds = nanoseconds / 1_000_000_000
    if seconds < 60:
        return f"{seconds:.3g} s"
    whole = round(seconds)
    for unit, size, below, small in (("d", 86_400, "h", 3_600), ("h", 3_600, "min", 60)):
        if whole >= size:
            return f"{whole // size} {unit} {whole % size // small} {below}"
    return f"{whole // 60} min {whole % 60} s"
