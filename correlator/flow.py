"""Declared flows -> verdict. Pure: a verdict follows from the set of steps that happened, never from their order of arrival.

A flow says which steps a business transaction goes through (docs/flows.md). Its steps are matched against the facts of the
events of one trail. The rules, in this order:

1. A step is *due* once every step that it comes ``after`` has happened; one without ``after`` is due from the start. Of the
   steps of one ``branch`` at least one must happen. Optional steps, failures and compensations are never due.
2. A step *stands* when it happened and was not compensated; with ``repeat`` each happening needs its own compensation.
3. Nothing due is missing, everything that happened stands, and a ``terminal`` step happened (if any is declared): complete.
4. A failure happened, or some step was compensated: compensated when no step with ``compensated_by`` stands any more and one
   was compensated; failed when there was nothing to compensate; else the compensations are missing, as in 5.
5. What is missing is open until the deadline, and incomplete after it.

Time of day does not enter: events of several services come with several clocks. An order that was violated shows as the step
before that is missing.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import translate
from functools import lru_cache
from typing import Annotated, Literal

import msgspec

from collector.event import Facts

__all__ = ["CompiledFlow", "Flow", "FlowMatch", "FlowStep", "Verdict"]

_Name = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")]


class FlowMatch(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which events are this step: every condition that is given must hold. ``service`` and ``name`` may hold ``*`` and ``?``."""

    service: str = "*"
    name: str = "*"
    outcome: Literal["", "success", "failure", "not_failure"] = ""


class FlowStep(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One step.

    Attributes:
        name: unique in its flow.
        match: which events are this step.
        role: ``step``, ``failure`` (the flow has failed) or ``compensation`` (named by another's ``compensated_by``).
        after: names of the steps that come before it.
        optional: it need not happen.
        repeat: it may happen several times, each of which counts (matters for compensation alone).
        branch: steps of one branch are alternatives: one of them must happen.
        compensated_by: the step that undoes this one.
        terminal: the flow is complete only when a terminal step happened.
    """

    name: _Name
    match: FlowMatch
    role: Literal["step", "failure", "compensation"] = "step"
    after: tuple[str, ...] = ()
    optional: bool = False
    repeat: bool = False
    branch: str = ""
    compensated_by: str = ""
    terminal: bool = False


class Flow(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A declared flow.

    Attributes:
        name: what verdict entries call it.
        trail: the family of trails it applies to: ``transaction``, ``trace``, or the name of a business key.
        deadline_seconds: how long after its first step in the log (recorded time) it may stay open; 0: for ever.
        steps: at least one.
    """

    name: _Name
    trail: _Name = "transaction"
    deadline_seconds: Annotated[float, msgspec.Meta(ge=0, le=366 * 86_400)] = 300.0
    steps: Annotated[tuple[FlowStep, ...], msgspec.Meta(min_length=1, max_length=200)]

    def __post_init__(self) -> None:
        """Refuse what cannot be meant; raises ValueError, which msgspec reports with the path in the file."""
        names = [step.name for step in self.steps]
        known = set(names)
        if len(known) != len(names):
            raise ValueError(f"flow {self.name}: two steps have the same name")
        roles = {step.name: step.role for step in self.steps}
        for step in self.steps:
            for before in step.after:
                if before not in known or before == step.name:
                    raise ValueError(
                        f"flow {self.name}: step {step.name} comes after {before!r}, which is no other step"
                    )
            if step.compensated_by and roles.get(step.compensated_by) != "compensation":
                raise ValueError(
                    f"flow {self.name}: step {step.name} is compensated by {step.compensated_by!r}, "
                    'which is no step with role = "compensation"'
                )
            if step.role != "step" and (step.branch or step.terminal or step.compensated_by):
                raise ValueError(
                    f"flow {self.name}: {step.name} is a {step.role}: no branch, terminal or compensated_by"
                )
        if all(step.role != "step" or step.optional for step in self.steps):
            raise ValueError(f"flow {self.name}: no step of it ever has to happen")
        _refuse_cycles(self)


def _refuse_cycles(flow: Flow) -> None:
    after = {step.name: set(step.after) for step in flow.steps}
    while after:
        free = {name for name, before in after.items() if not before & after.keys()}
        if not free:
            raise ValueError(
                f"flow {flow.name}: the steps {', '.join(sorted(after))} come after each other in a circle"
            )
        for name in free:
            del after[name]


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What became of a flow in one trail; `missing`: names of steps, in the order of the declaration."""

    flow: str
    verdict: Literal["complete", "incomplete", "compensated", "failed"]
    missing: tuple[str, ...] = ()
    reason: str = ""


class CompiledFlow:
    """A flow made ready for matching and judging."""

    def __init__(self, flow: Flow) -> None:
        self.flow = flow
        self.deadline_ns = int(flow.deadline_seconds * 1_000_000_000)
        self._prefix = f"{flow.trail}/" if flow.trail in ("transaction", "trace") else f"key/{flow.trail}/"
        self._rules = [
            (
                step.name,
                re.compile(translate(step.match.service)),
                re.compile(translate(step.match.name)),
                step.match.outcome,
            )
            for step in flow.steps
        ]
        self._match = lru_cache(maxsize=4_096)(self._matched)

    def applies_to(self, trail: str) -> bool:
        """Whether this flow is declared for trails like this one."""
        if trail.startswith("tenant/"):
            trail = trail.split("/", 2)[2]
        return trail.startswith(self._prefix)

    def steps_of(self, facts: Facts) -> tuple[str, ...]:
        """Names of the steps that an event with these facts is."""
        return self._match(facts.service, facts.name, facts.outcome)

    def _matched(self, service: str, name: str, outcome: str) -> tuple[str, ...]:
        return tuple(
            step
            for step, by_service, by_name, wanted in self._rules
            if _fits(by_service, service) and _fits(by_name, name) and _outcome_fits(wanted, outcome)
        )

    def judge(self, happened: Mapping[str, int], *, expired: bool) -> Verdict | None:
        """The verdict on these steps (name -> how often it happened); None while it is open."""
        steps = self.flow.steps
        missing = _missing(steps, happened)
        standing, undone = _standing(steps, happened)
        failures = [s.name for s in steps if s.role == "failure" and happened.get(s.name)]
        terminal = [s.name for s in steps if s.terminal]
        if not missing and terminal and not any(happened.get(name) for name in terminal):
            missing = terminal
        if not missing and not undone:
            also = f"although {', '.join(failures)} happened" if failures else ""
            return self._verdict("complete", (), also)
        if failures or undone:
            cause = f"{', '.join(failures)} happened" if failures else f"{', '.join(undone)} was compensated"
            if not standing:
                return self._verdict("compensated" if undone else "failed", (), cause)
            if not expired:
                return None
            wanted = {s.compensated_by for s in steps if s.name in standing}
            owed = tuple(s.name for s in steps if s.name in wanted)
            return self._verdict("incomplete", owed, f"{cause}, and {', '.join(standing)} still stands uncompensated")
        if not expired:
            return None
        return self._verdict(
            "incomplete", tuple(missing), f"not within {self.flow.deadline_seconds:g} s of the first step"
        )

    def _verdict(
        self, verdict: Literal["complete", "incomplete", "compensated", "failed"], missing: tuple[str, ...], reason: str
    ) -> Verdict:
        return Verdict(flow=self.flow.name, verdict=verdict, missing=missing, reason=reason)


def _fits(pattern: re.Pattern[str], text: str) -> bool:
    return pattern.fullmatch(text) is not None


def _outcome_fits(wanted: str, outcome: str) -> bool:
    return not wanted or outcome == wanted or (wanted == "not_failure" and outcome != "failure")


def _missing(steps: Sequence[FlowStep], happened: Mapping[str, int]) -> list[str]:
    """Steps that are due and did not happen; of a branch without any, all its due alternatives."""
    served = {step.branch for step in steps if step.branch and happened.get(step.name)}
    return [
        step.name
        for step in steps
        if step.role == "step"
        and not step.optional
        and not happened.get(step.name)
        and step.branch not in served
        and all(happened.get(before) for before in step.after)
    ]


def _standing(steps: Sequence[FlowStep], happened: Mapping[str, int]) -> tuple[list[str], list[str]]:
    """Of the steps that can be compensated and happened: those that stand, and those that were undone; in part: both."""
    standing: list[str] = []
    undone: list[str] = []
    for step in steps:
        count = happened.get(step.name, 0)
        if step.compensated_by and count:
            back = happened.get(step.compensated_by, 0)
            if back:
                undone.append(step.name)
            if back < (count if step.repeat else 1):
                standing.append(step.name)
    return standing, undone
