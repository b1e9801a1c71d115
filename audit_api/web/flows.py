"""What was to happen beside what did: the declared flow's steps, and how the verdict on them changed. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from audit_api.web.rows import MAX_MESSAGE, Row
from collector.event import Facts
from correlator.flow import CompiledFlow, Flow, FlowStep

__all__ = ["Amendment", "Change", "Late", "Step", "Verdict", "amendments", "late_facts", "steps_of", "verdicts_of"]

_MAX_CHANGES = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """A verdict entry: which flow, what became of it, which steps are missing, why, and where and when it stands in the log."""

    flow: str
    verdict: str
    missing: Sequence[str]
    reason: str
    leaf: int
    recorded: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """A declared step and what became of it.

    Attributes:
        name: as declared.
        service, event: what it is matched by.
        state: ``done``, ``missing``, ``open`` (no verdict yet), ``failed`` (a failure that happened), ``undone`` (a compensation that
            happened), ``passed`` (another branch was taken, or it need not happen).
        leaf: of the event that was it; −1: none.
        times: how often it happened.
        after: the steps before it.
    """

    name: str
    service: str
    event: str
    state: str
    leaf: int = -1
    times: int = 0
    after: Sequence[str] = ()


def verdicts_of(rows: Sequence[Row]) -> list[Verdict]:
    """All verdicts among these rows, by leaf."""
    return [
        Verdict(
            flow=str(row.detail.get("flow", "")),
            verdict=str(row.detail.get("verdict", "")),
            missing=_texts(row.detail.get("missing")),
            reason=str(row.detail.get("reason", "")),
            leaf=row.leaf,
            recorded=row.recorded,
        )
        for row in sorted(rows, key=lambda row: row.leaf)
        if row.kind == "verdict"
    ]


def _texts(value: Any) -> tuple[str, ...]:
    return tuple(str(one) for one in value) if isinstance(value, list) else ()


def steps_of(flow: Flow, rows: Sequence[Row], verdict: Verdict | None) -> list[Step]:
    """The flow's steps in the order of the declaration; failures and compensations only where they happened.

    Args:
        flow: as it is declared now; a verdict may be of an older declaration, and its missing steps are told all the same.
        rows: those of the trail that the flow is declared for.
        verdict: the newest on this flow; None while it is open.
    """
    compiled = CompiledFlow(flow)
    found: dict[str, list[int]] = {}
    for row in rows:
        if row.kind == "event":
            for name in compiled.steps_of(Facts(digest="", service=row.service, name=row.name, outcome=row.outcome)):
                found.setdefault(name, []).append(row.leaf)
    missing = set(verdict.missing) if verdict is not None else set()
    steps = []
    for step in flow.steps:
        leaves = found.get(step.name, [])
        state = _state(step, bool(leaves), missing=step.name in missing, judged=verdict is not None)
        if state:
            steps.append(
                Step(
                    name=step.name,
                    service=step.match.service,
                    event=step.match.name,
                    state=state,
                    leaf=leaves[0] if leaves else -1,
                    times=len(leaves),
                    after=step.after,
                )
            )
    declared = {step.name for step in flow.steps}
    steps += [Step(name=name, service="", event="", state="missing") for name in sorted(missing - declared)]
    return steps


def _state(step: FlowStep, happened: bool, *, missing: bool, judged: bool) -> str:
    if missing:
        return "missing"
    if happened:
        return {"failure": "failed", "compensation": "undone"}.get(step.role, "done")
    if step.role != "step":
        return ""
    return "passed" if judged else "open"


# ------------------------------------------------------------------------------------------------------------ amendments


@dataclass(frozen=True, slots=True, kw_only=True)
class Amendment:
    """How a verdict differs from the one before it: what was missing and is there, and the other way round."""

    before: Verdict
    after: Verdict
    found: Sequence[str]
    lost: Sequence[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """An attribute that a later event states otherwise, cut as messages are; None: it was not there, or is not any more."""

    name: str
    before: str | None
    after: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Late:
    """An event that came after the first verdict, and how it differs from the last event of the same service and name before it."""

    row: Row
    earlier: Row | None
    changes: Sequence[Change]
    left_out: int = 0


def amendments(verdicts: Sequence[Verdict]) -> list[Amendment]:
    """Each verdict that replaced another on the same flow."""
    newest: dict[str, Verdict] = {}
    found = []
    for verdict in verdicts:
        before = newest.get(verdict.flow)
        if before is not None:
            found.append(
                Amendment(
                    before=before,
                    after=verdict,
                    found=[name for name in before.missing if name not in verdict.missing],
                    lost=[name for name in verdict.missing if name not in before.missing],
                )
            )
        newest[verdict.flow] = verdict
    return found


def late_facts(rows: Sequence[Row]) -> list[Late]:
    """The events that came into the log after the first verdict, by leaf."""
    told: list[Late] = []
    last: dict[tuple[str, str], Row] = {}
    for row in sorted(rows, key=lambda row: row.leaf):
        if row.kind != "event":
            continue
        earlier = last.get((row.service, row.name))
        if row.late:
            changes = _changes(earlier, row) if earlier is not None else []
            told.append(
                Late(
                    row=row,
                    earlier=earlier,
                    changes=changes[:_MAX_CHANGES],
                    left_out=max(0, len(changes) - _MAX_CHANGES),
                )
            )
        last[row.service, row.name] = row
    return told


def _changes(before: Row, after: Row) -> list[Change]:
    old, new = _flat(before), _flat(after)
    return [
        Change(name=name[:MAX_MESSAGE], before=_cut(old.get(name)), after=_cut(new.get(name)))
        for name in sorted(old.keys() | new.keys())
        if old.get(name) != new.get(name)
    ]


def _flat(row: Row) -> Mapping[str, str]:
    """Outcome, message and attributes by name, each as text."""
    flat = dict(row.attributes)
    if row.outcome:
        flat["outcome"] = row.outcome
    if row.message:
        flat["message"] = "".join(part.text for part in row.message)
    return flat


def _cut(text: str | None) -> str | None:
    return text if text is None or len(text) <= MAX_MESSAGE else f"{text[:MAX_MESSAGE]}…"
