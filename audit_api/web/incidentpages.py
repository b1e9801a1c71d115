"""The pages of incidents: which controls failed, how one was opened and closed, and the form by which a person answers for it."""

from typing import Any

from audit_api.bodies import FORM
from audit_api.gate import Call, Operation, Reading, Runner
from audit_api.incidents import READERS, SIGNERS, IncidentDesk, IncidentSignOff, incident_target, plain_incident
from audit_api.web.frame import HEADERS, PREFIX, Frame
from audit_api.web.parts import HTML, ZONE, manner_of, page

__all__ = ["IncidentPages"]

_PATH = f"{PREFIX}/incidents"


class IncidentPages:
    """The pages, and the operations that they are.

    Args:
        frame: renders them.
        desk: lists, tells and signs.
    """

    def __init__(self, frame: Frame, desk: IncidentDesk) -> None:
        self._frame = frame
        self._desk = desk

    def operations(self) -> list[Operation]:
        """As the gate takes them."""
        told: dict[str, Any] = {"tag": "page", "about": "", "parameters": (ZONE,)}
        one = {**told, "path": f"{_PATH}/{{incident}}", "target": incident_target}
        return [
            Operation(
                operation_id="incidentsPage", path=_PATH, summary="Incidents", action="incidents.list",
                roles=READERS, read=self.listed, **told,
            ),
            Operation(
                operation_id="incidentPage", summary="An incident", action="incident.read",
                roles=READERS, read=self.read, **one,
            ),
            Operation(
                operation_id="signIncidentPage", summary="Sign off", action="incident.sign", method="POST",
                roles=SIGNERS, read=self.sign, success=303, body_limit_bytes=65_536,
                body_types={FORM: ("Form", None)}, **one,
            ),
        ]  # fmt: skip

    async def listed(self, call: Call, run: Runner) -> Reading:
        """The list."""
        found = await run(self._desk.known)
        return self._page("incidents.html", call, incidents=[plain_incident(one) for one in found.all()])

    async def read(self, call: Call, run: Runner) -> Reading:
        """One incident, with the form while nobody has answered for it."""
        one, steps, head = await run(self._desk.story, call.target["incident"])
        may_sign = not one.signed and call.session is not None and call.has_role(*SIGNERS)
        return self._page(
            "incident.html",
            call,
            incident=plain_incident(one),
            steps=steps,
            may_sign=may_sign,
            trail=one.trail,
            head=head,
        )

    async def sign(self, call: Call, run: Runner) -> Reading:
        """What the form sends: on record, and back to the incident."""
        form = call.form
        signed = IncidentSignOff(
            root_cause=form.get("root_cause", ""),
            remediation=form.get("remediation", ""),
            comment=form.get("comment", ""),
            over=form.get("over") == "true",
        )
        done = await self._desk.answered(call, run, signed)
        headers = {**HEADERS, "Location": f"{_PATH}/{done.id}"}
        return Reading(status=303, headers=headers, media_type=HTML, trail=done.trail)

    def _page(self, template: str, call: Call, *, trail: str = "", head: int = -1, **values: Any) -> Reading:
        manner = manner_of(call.request, call.values["zone"])
        body = page(self._frame, template, call.session, call.principal, manner=manner, trail=trail, **values)
        return Reading(body=body, media_type=HTML, headers=HEADERS, trail=trail, head=head)
