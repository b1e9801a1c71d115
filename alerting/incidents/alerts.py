"""Alerts about incidents: nobody keeps them, or nobody answers for one. What failed has an alert of its own."""

from alerting.alert import Alert
from alerting.settings import AlertingSettings

__all__ = ["incident_alerts"]


def incident_alerts(settings: AlertingSettings) -> list[Alert]:
    """Those of these settings."""
    found = [
        Alert(
            name="TallyIncidentsMissing",
            query="absent(tally_incidents_behind_leaves)",
            hold="5m",
            severity="page",
            team=settings.team,
            summary="The keeper of incidents is not heard",
            description="Controls that fail meanwhile are not put on record when they do. What the log shows is caught up with; an outage that came and went is not.",
            board="tally-audit",
            api="/v1/incidents",
        ),
        Alert(
            name="TallyIncidentsFailing",
            query="increase(tally_incidents_failures_total[5m]) > 0",
            hold="10m",
            severity="page",
            team=settings.team,
            summary="{{ $labels.instance }}: the keeper of incidents cannot read the log, or cannot write to it",
            description="Log, index or its spool does not answer. A control that fails meanwhile is put on record late, or not at all if it mends by itself.",
            board="tally-audit",
            api="/v1/incidents",
        ),
    ]
    if settings.incident_hours:
        found.append(
            Alert(
                name="TallyIncidentUnsigned",
                # of the oldest one, not for how long there was one: each may have been signed in time
                query="time() - min by (cause) (tally_incidents_oldest_unsigned_timestamp_seconds > 0)"
                f" > {settings.incident_hours * 3600}",
                severity="ticket",
                team=settings.team,
                summary="{{ $labels.cause }}: an incident that began {{ $value | humanizeDuration }} ago, and that nobody has signed off",
                description=f"For {settings.incident_hours} hours nobody has said why the control failed and what was done about it.",
                board="tally-audit",
                api="/v1/incidents",
            )
        )
    return found
