"""The alerting rules about the detector itself (`tally run detector`)."""

from alerting.alert import Alert

__all__ = ["detection_alerts"]

_BEHIND_LEAVES = 10_000
"""Of the log, unread by the detector: seconds of a busy ledger."""


def detection_alerts(team: str) -> list[Alert]:
    """For a ledger with rules over payments."""
    trails = "/v1/trails?service=tallystick-detector"
    return [
        Alert(
            name="TallyDetectorMissing",
            query="absent(tally_detector_behind_leaves)",
            hold="5m",
            severity="page",
            team=team,
            summary="The detector is not heard",
            description="Rules over payments are configured, and nobody applies them. What comes meanwhile is looked at when it is back.",
            board="tally-fraud",
            api="/v1/status",
        ),
        Alert(
            name="TallyDetectorBehind",
            query=f"tally_detector_behind_leaves > {_BEHIND_LEAVES}",
            hold="10m",
            severity="ticket",
            team=team,
            summary="{{ $labels.instance }}: the detector is {{ $value | humanize }} leaves behind the log",
            description="Suspicious payments are found late: too many payments, or it waits for somebody whom it cannot tell.",
            board="tally-fraud",
            api="/v1/status",
        ),
        Alert(
            name="TallyDetectorFailing",
            query="increase(tally_detector_failures_total[5m]) > 0",
            hold="10m",
            severity="page",
            team=team,
            summary="{{ $labels.instance }}: the detector cannot read on",
            description="Log, store or its spool does not answer it. Payments are not looked at meanwhile, and will be when it can.",
            board="tally-fraud",
            api="/v1/status",
        ),
        Alert(
            name="TallyFindingsUntold",
            query="tally_detector_waiting_findings > 0 and increase(tally_detector_telling_failures_total[10m]) > 0",
            hold="5m",
            severity="page",
            team=team,
            summary="{{ $labels.instance }}: {{ $value | humanize }} findings wait to be told",
            description="No Alertmanager takes them. They are on record, in the trails of their payments.",
            board="tally-fraud",
            api=trails,
        ),
        Alert(
            name="TallyFindingsRefused",
            query='sum by (job, instance) (increase(tally_detector_told_total{outcome="refused"}[15m])) > 0',
            severity="page",
            team=team,
            summary="{{ $labels.instance }}: {{ $value | humanize }} findings were refused, and nobody is told of them",
            description="Alertmanager says that what it is sent is at fault, so they are not sent again. They are on record, in the trails of their payments.",
            board="tally-fraud",
            api=trails,
        ),
        Alert(
            name="TallyFreezeFailed",
            query='sum by (job, instance) (increase(tally_detector_freezes_total{outcome=~"refused|given_up"}[15m])) > 0',
            severity="page",
            team=team,
            summary="{{ $labels.instance }}: a payment was to be frozen, and nobody took that on",
            description="The receiver of freeze requests said no, or nothing. Each is in the trail of its payment: detection.freeze.",
            board="tally-fraud",
            api=trails,
        ),
    ]
