"""Incidents (PCI DSS 10.7.2 and 10.7.3, DORA article 12): which controls failed, from when to when, and who answers for it.

There is no list that could be lost: an incident is a trail of the log (`correlator.incidents`), and a sign-off is an event in it, durable
before it is answered. It names cause and remedy in words, which are masked like all text; in the log stands that it was made, and by whom.
"""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import msgspec

from audit_api.accesses import AccessRecorder
from audit_api.auth import Role
from audit_api.gate import Call, Operation, Reading, Runner
from audit_api.logs import Logs, ServedLog
from audit_api.parameters import Parameter
from audit_api.problems import Problem
from collector.errors import Malformed, NotFound, VerificationError
from collector.event import decode_event, decode_facts, parse_time
from correlator.incidents import CAUSES, Incidents, LoggedIncident, signed_event
from correlator.index import TrailQuery
from correlator.trail import incident_trail

__all__ = [
    "INCIDENT_SCHEMAS",
    "READERS",
    "SIGNERS",
    "IncidentDesk",
    "IncidentSignOff",
    "incident_target",
    "plain_incident",
]

READERS: frozenset[Role] = frozenset({"sre", "auditor", "admin"})
SIGNERS: frozenset[Role] = frozenset({"auditor", "admin"})

MAX_TEXT = 2_000
_STATES = ("opened", "closed", "signed_off")
_JSON = "application/json"
_encode = msgspec.json.Encoder().encode


class IncidentSignOff(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is sent to sign an incident off; `over` says that one which is still open has ended."""

    root_cause: str
    remediation: str
    comment: str = ""
    over: bool = False


def _object(properties: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": [*properties],
        "additionalProperties": False,
        **more,
    }


_TEXT, _NUMBER = {"type": "string"}, {"type": "integer"}
_MAYBE_TEXT = {"type": ["string", "null"]}
_MAYBE_NUMBER = {"type": ["integer", "null"]}
_WORDS = {**_TEXT, "maxLength": MAX_TEXT, "pattern": "^[^\\u0000]*$"}
_SOME_WORDS = {**_WORDS, "minLength": 1, "pattern": "^[^\\u0000]*[^\\s\\u0000][^\\u0000]*$"}
_INCIDENT: dict[str, Any] = {
    "id": _TEXT,
    "trail": _TEXT,
    "cause": {**_TEXT, "enum": list(CAUSES)},
    "subject": {**_TEXT, "description": "Whom or what it concerns: a stream, a collector; empty: the installation."},
    "state": {**_TEXT, "enum": list(_STATES)},
    "open": {"type": "boolean", "description": "Whether the control has not been found to work again."},
    "began": _TEXT,
    "ended": _MAYBE_TEXT,
    "duration_seconds": {"type": ["number", "null"], "description": "Of one that is over."},
    "first": {**_MAYBE_NUMBER, "description": "First affected sequence of the stream."},
    "last": _MAYBE_NUMBER,
    "signed": _MAYBE_TEXT,
    "signed_by": _MAYBE_TEXT,
}
_EXAMPLE = {
    "id": "953b2aaad2b9cf82700388cbc3c92846",
    "trail": "incident/953b2aaad2b9cf82700388cbc3c92846",
    "cause": "store_outage",
    "subject": "",
    "state": "closed",
    "open": False,
    "began": "2026-01-01T10:00:00.000000000Z",
    "ended": "2026-01-01T10:05:00.000000000Z",
    "duration_seconds": 300.0,
    "first": None,
    "last": None,
    "signed": None,
    "signed_by": None,
}
_STEP = _object(
    {
        "state": {**_TEXT, "enum": list(_STATES)},
        "time": _TEXT,
        "leaf": _NUMBER,
        "by": _TEXT,
        "text": {**_TEXT, "description": "What was seen, or the comment. Empty where retention has let go of it."},
        "root_cause": _TEXT,
        "remediation": _TEXT,
    }
)
INCIDENT_SCHEMAS: dict[str, dict[str, Any]] = {
    "Incident": _object(_INCIDENT, example=_EXAMPLE),
    "IncidentList": _object(
        {"incidents": {"type": "array", "items": {"$ref": "#/components/schemas/Incident"}}},
        example={"incidents": [_EXAMPLE]},
    ),
    "IncidentStory": _object(
        {"incident": {"$ref": "#/components/schemas/Incident"}, "steps": {"type": "array", "items": _STEP}},
        example={"incident": _EXAMPLE, "steps": []},
    ),
    "IncidentSignOff": {
        **_object(
            {
                "root_cause": _SOME_WORDS,
                "remediation": _SOME_WORDS,
                "comment": _WORDS,
                "over": {"type": "boolean", "description": "Of an incident that is open: it has ended, by your word."},
            },
            example={"root_cause": "a disk of the cluster was full", "remediation": "a larger disk, and an alert"},
        ),
        "required": ["root_cause", "remediation"],
    },
}


@dataclass(slots=True)
class _Book:
    """The incidents of all logs, gathered as they grow: each trail's entries are read once. For the thread that reads."""

    logs: Logs
    incidents: Incidents = field(default_factory=Incidents)
    _read: dict[str, int] = field(default_factory=dict)

    def refresh(self) -> Incidents:
        for log in self.logs.all:
            try:
                size = log.size()
                below: int | None = None
                while True:
                    page = log.evidence.index.find(TrailQuery(kind="incident"), size=size, below=below, limit=200)
                    for one in page.trails:
                        if one.entries > self._read.get(one.trail, 0):
                            self._take(log, one.trail, size)
                    if page.next_below is None:
                        break
                    below = page.next_below
            except NotFound:
                continue  # that log has not published anything
        return self.incidents

    def _take(self, log: ServedLog, trail: str, size: int) -> None:
        leaves = log.evidence.index.leaves(trail, start=self._read.get(trail, 0), size=size)
        for one in log.evidence.entries(leaves):
            self.incidents.add(one.entry, one.leaf)
        self._read[trail] = self._read.get(trail, 0) + len(leaves)


class IncidentDesk:
    """The operations on incidents.

    Args:
        logs: the ledger's.
        recorder: puts sign-offs on record.
        clock: Unix time in nanoseconds.
    """

    def __init__(self, logs: Logs, recorder: AccessRecorder, *, clock: Callable[[], int]) -> None:
        self._logs = logs
        self._recorder = recorder
        self._clock = clock
        self._book = _Book(logs)
        # two sign-offs at once would both find that nobody has signed; of another process's it is known once the log has it
        self._signing = asyncio.Lock()

    def operations(self) -> list[Operation]:
        """List, read, sign off."""
        path_parameters = {"incident": ("An incident's id.", {"type": "string"}, _EXAMPLE["id"])}
        return [
            Operation(
                operation_id="listIncidents",
                path="/v1/incidents",
                tag="incidents",
                summary="Controls that failed",
                about="All incidents, those that began last first. An incident is a trail of the log: `trail` is its id.",
                action="incidents.list",
                roles=READERS,
                read=self.listed,
                parameters=(_of("state", _STATES), _of("cause", tuple(CAUSES))),
                answers={_JSON: ("IncidentList", None)},
            ),
            Operation(
                operation_id="readIncident",
                path="/v1/incidents/{incident}",
                tag="incidents",
                summary="An incident, step by step",
                about="How it was opened, closed and signed off, with the words that were said.",
                action="incident.read",
                roles=READERS,
                read=self.read,
                target=incident_target,
                path_parameters=path_parameters,
                answers={_JSON: ("IncidentStory", None)},
                problems=("not-found",),
            ),
            Operation(
                operation_id="signOffIncident",
                path="/v1/incidents/{incident}",
                method="POST",
                tag="incidents",
                summary="Sign an incident off",
                about=(
                    "Puts on record who answers for the incident, its root cause and what was done about it, as an entry of the incident's trail. "
                    "Once: another API process knows of it when the log has it, and if each takes one until then, both are in the log, and its "
                    "first counts. One that is still open is signed off only with `over`: then it ends by your word."
                ),
                action="incident.sign",
                roles=SIGNERS,
                read=self.sign,
                target=incident_target,
                path_parameters=path_parameters,
                body_limit_bytes=32_768,
                body_types={_JSON: ("IncidentSignOff", None)},
                success=201,
                answers={_JSON: ("Incident", None)},
                problems=("not-found", "still-open", "signed-already", "bad-body"),
            ),
        ]

    async def listed(self, call: Call, run: Runner) -> Reading:
        """The list."""
        found: Incidents = await run(self.known)
        state, cause = call.values["state"], call.values["cause"]
        rows = [plain_incident(one) for one in found.all() if state in ("", one.state) and cause in ("", one.cause)]
        return Reading(body=_encode({"incidents": rows}))

    async def read(self, call: Call, run: Runner) -> Reading:
        """One, with its steps."""
        one, steps, head = await run(self.story, call.target["incident"])
        return Reading(body=_encode({"incident": plain_incident(one), "steps": steps}), trail=one.trail, head=head)

    async def sign(self, call: Call, run: Runner) -> Reading:
        """The answer to a sign-off: it is on record when this leaves."""
        done = await self.answered(call, run, _sign_off(call.body))
        return Reading(body=_encode(plain_incident(done)), trail=done.trail)

    async def answered(self, call: Call, run: Runner, signed: IncidentSignOff) -> LoggedIncident:
        """Put on record that who asks answers for the incident; gives it as it stands then.

        Raises:
            Problem: too little is said, somebody has answered already, or it is open and not said to be over.
            NotFound: there is no such incident.
            Overloaded, StateUnknown: it is not on record.
        """
        _check(signed)
        assert call.principal is not None, "the gate lets nobody here who is not known"
        async with self._signing:
            one: LoggedIncident = await run(self._known, call.target["incident"])
            if one.signed:
                raise Problem("signed-already", f"{one.signed_by} has signed it off at {one.signed}")
            if one.open and not signed.over:
                raise Problem("still-open", "the control has not been found to work again; `over` says that it does")
            event = signed_event(
                one,
                now_ns=self._clock(),
                by=call.principal.name,
                roles=", ".join(sorted(call.principal.roles)),
                root_cause=signed.root_cause,
                remediation=signed.remediation,
                comment=signed.comment,
            )
            await asyncio.to_thread(self._recorder.record, event)
            assert event.incident is not None
            # known here before the log has it, so that nobody signs it a second time meanwhile
            done: LoggedIncident = await run(partial(self._book.incidents.take, event.incident, by=call.principal.name))
            return done

    def known(self) -> Incidents:
        """All that the logs tell of by now. For the thread that reads."""
        return self._book.refresh()

    def _known(self, incident: str) -> LoggedIncident:
        found = self._book.refresh().get(incident)
        if found is None:
            raise NotFound(f"there is no incident {incident[:64]}")
        return found

    def story(self, incident: str) -> tuple[LoggedIncident, list[dict[str, Any]], int]:
        """An incident, its steps, and the last leaf of its trail. For the thread that reads. Raises `NotFound`."""
        one = self._known(incident)
        evidence = self._logs.of(one.trail).evidence
        entries = evidence.entries(evidence.index.leaves(one.trail))
        try:
            events: Mapping[int, bytes] = evidence.events(entries)
        except NotFound:
            events = {}  # what happened is in the log; the words are not
        steps = []
        for entry in entries:
            facts = decode_facts(bytes(entry.entry.facts))
            if facts.incident is None:
                continue
            step = {"state": facts.incident.state, "time": facts.incident.time, "leaf": entry.leaf, "by": facts.actor}
            steps.append(step | _words(events.get(entry.leaf)))
        return one, steps, entries[-1].leaf if entries else -1


def _words(data: bytes | None) -> dict[str, str]:
    """What an event says in words."""
    text, attributes = "", {}
    if data is not None:
        try:
            event = decode_event(data)
        except (Malformed, VerificationError) as error:
            text = f"(it cannot be read: {error})"
        else:
            text, attributes = str(event.body or ""), event.attributes
    return {
        "text": text,
        "root_cause": str(attributes.get("incident.root_cause", "")),
        "remediation": str(attributes.get("incident.remediation", "")),
    }


def plain_incident(one: LoggedIncident) -> dict[str, Any]:
    """An incident as it is answered."""
    ended = one.ended or None
    seconds = (parse_time(one.ended) - parse_time(one.began)) / 1e9 if one.ended and one.began else None
    return {
        "id": one.id,
        "trail": one.trail,
        "cause": one.cause,
        "subject": one.subject,
        "state": one.state,
        "open": one.open,
        "began": one.began,
        "ended": ended,
        "duration_seconds": seconds,
        "first": one.first if one.first >= 0 else None,
        "last": one.last if one.last >= 0 else None,
        "signed": one.signed or None,
        "signed_by": one.signed_by or None,
    }


def _of(name: str, words: tuple[str, ...]) -> Parameter:
    def parse(text: str) -> str:
        if text not in words:
            raise ValueError(f"it is none of {', '.join(words)}")
        return text

    return Parameter(
        name=name,
        about=f"Those of this {name} alone.",
        schema={"type": "string", "enum": [*words]},
        parse=parse,
        example=words[-1],
    )


def incident_target(request: Any) -> Mapping[str, Any]:
    """What a path names that ends in an incident's id."""
    incident = str(request.path_params["incident"])
    return {"incident": incident, "trail": incident_trail(incident) if incident else ""}


def _sign_off(body: bytes) -> IncidentSignOff:
    try:
        signed = msgspec.json.decode(body, type=IncidentSignOff)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Problem("bad-body", str(error)) from error
    _check(signed)
    return signed


def _check(signed: IncidentSignOff) -> None:
    texts = (signed.root_cause, signed.remediation, signed.comment)
    if not signed.root_cause.strip() or not signed.remediation.strip():
        raise Problem("bad-body", "`root_cause` and `remediation` say what failed, and what was done about it")
    if any(len(text) > MAX_TEXT or "\0" in text for text in texts):
        raise Problem("bad-body", f"a text has at most {MAX_TEXT} characters, none of them NUL")
