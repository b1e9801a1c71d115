"""A finding as an event: what goes on record, in the trail of the payment that it is about. Pure."""

from collections.abc import Mapping
from typing import Any

from alerting.detect.engine import Finding
from collector.event import Event, Origin, format_time

__all__ = ["EVENT_NAME", "FREEZE_NAME", "SERVICE", "finding_event", "freeze_event"]

SERVICE = "tallystick-detector"
EVENT_NAME = "detection.suspicious"
FREEZE_NAME = "detection.freeze"


def finding_event(finding: Finding, *, origin: str, now_ns: int) -> Event:
    """The event of a finding.

    Args:
        finding: names no account: that stands in the payment's own event, which `detection.leaf` names.
        origin: of the log in which the payment's event is.
        now_ns: Unix time.
    """
    warns = finding.severity != "info"
    return _event(
        EVENT_NAME,
        finding,
        origin=origin,
        now_ns=now_ns,
        body=finding.reason,
        severity_number=13 if warns else 9,  # WARN, INFO: a finding is no error of a service
        severity_text="WARN" if warns else "INFO",
    )


def freeze_event(finding: Finding, *, origin: str, now_ns: int, status: int | None, accepted: bool) -> Event:
    """The event of a request to stop the payment: who was asked answered with this status, or not at all (None)."""
    answer = "nobody answered" if status is None else f"the answer was {status}"
    return _event(
        FREEZE_NAME,
        finding,
        origin=origin,
        now_ns=now_ns,
        body=f"asked for the payment to be frozen: {answer}",
        attributes={} if status is None else {"http.response.status_code": status},
        outcome="success" if accepted else "failure",
    )


def _event(
    name: str, finding: Finding, *, origin: str, now_ns: int, attributes: Mapping[str, Any] | None = None, **fields: Any
) -> Event:
    payment = finding.payment
    return Event(
        time=format_time(now_ns),
        event_name=name,
        resource={"service.name": SERVICE},
        attributes={
            "detection.rule": finding.rule,
            "detection.rule_version": finding.version,
            "detection.severity": finding.severity,
            "detection.payment": payment.kind,
            "detection.log": origin,
            "detection.leaf": payment.leaf,
            **(attributes or {}),
        },
        **fields,
        trace_id=payment.trace_id,
        transaction=payment.transaction,
        tenant=payment.tenant,
        actor=SERVICE,
        origin=Origin(receiver="record"),
    )
