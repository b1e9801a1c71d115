"""A finding as an event: what goes on record, in the trail of the payment that it is about. Pure."""

from alerting.detect.engine import Finding
from collector.event import Event, Origin, format_time

__all__ = ["EVENT_NAME", "SERVICE", "finding_event"]

SERVICE = "tallystick-detector"
EVENT_NAME = "detection.suspicious"


def finding_event(finding: Finding, *, origin: str, now_ns: int) -> Event:
    """The event of a finding.

    Args:
        finding: names no account: that stands in the payment's own event, which `detection.leaf` names.
        origin: of the log in which the payment's event is.
        now_ns: Unix time.
    """
    payment = finding.payment
    return Event(
        time=format_time(now_ns),
        event_name=EVENT_NAME,
        severity_number=13 if finding.severity != "info" else 9,  # WARN, INFO: a finding is no error of a service
        severity_text="WARN" if finding.severity != "info" else "INFO",
        body=finding.reason,
        resource={"service.name": SERVICE},
        attributes={
            "detection.rule": finding.rule,
            "detection.rule_version": finding.version,
            "detection.severity": finding.severity,
            "detection.payment": payment.kind,
            "detection.log": origin,
            "detection.leaf": payment.leaf,
        },
        trace_id=payment.trace_id,
        transaction=payment.transaction,
        tenant=payment.tenant,
        actor=SERVICE,
        origin=Origin(receiver="record"),
    )
