"""The alerting rules about what sends the log on to SIEMs (`tally run siem`)."""

from alerting.alert import Alert

__all__ = ["siem_alerts"]

_BEHIND_SECONDS = 300
"""A desk that hears so late hears too late; a destination that is restarted is away for less."""


def siem_alerts(team: str) -> list[Alert]:
    """For a ledger with destinations."""
    return [
        Alert(
            name="TallySiemMissing",
            query="absent(tally_siem_behind_leaves)",
            hold="5m",
            severity="page",
            team=team,
            summary="Nothing sends the log on to the SIEM",
            description="Destinations are configured, and nobody is heard that sends to them. What comes meanwhile is sent when it is back.",
            board="tally-pipeline",
            api="/v1/status",
        ),
        Alert(
            name="TallySiemBehind",
            query=f"max by (destination) (tally_siem_behind_seconds) > {_BEHIND_SECONDS}",
            hold="5m",
            severity="page",
            team=team,
            summary="{{ $labels.destination }} was last sent what is {{ $value | humanizeDuration }} old",
            description="The destination is away, refuses, or is slower than the log grows. Nothing is lost: the log keeps it, and the cursor waits.",
            board="tally-pipeline",
            api="/v1/status",
        ),
        Alert(
            name="TallySiemFailing",
            query="max by (destination) (increase(tally_siem_log_failures_total[5m])) > 0",
            hold="10m",
            severity="page",
            team=team,
            summary="{{ $labels.destination }} is sent nothing: the log or the store cannot be read",
            description="What is recorded meanwhile is sent late, and how late is not known until the log answers. Nothing is lost: the cursor waits.",
            board="tally-pipeline",
            api="/v1/status",
        ),
        Alert(
            name="TallySiemEventsMissing",
            query="sum by (destination) (increase(tally_siem_missing_events_total[15m])) > 0",
            severity="page",
            team=team,
            summary="{{ $labels.destination }}: {{ $value | humanize }} events of the log are not in the store, or are not what the log says",
            description="Their records were sent without them, and say so. The log shows what they were; whether they were lost or changed is to be found out.",
            board="tally-pipeline",
            api="/v1/trails?status=gap",
        ),
        Alert(
            name="TallySiemReduced",
            query='sum by (destination, reason) (increase(tally_siem_reduced_total{reason=~"unmappable|refused"}[15m])) > 0',
            severity="ticket",
            team=team,
            summary="{{ $labels.destination }}: {{ $value | humanize }} records were {{ $labels.reason }} and sent with less in them",
            description="A format or the destination could not take an event as it is. Each record says so (cut), and its entry is whole in the log.",
            board="tally-pipeline",
            api="/v1/status",
        ),
    ]
