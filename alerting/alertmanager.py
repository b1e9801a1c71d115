"""Alertmanager's configuration: who hears of what, what belongs together, and what is silenced by a greater trouble.

https://prometheus.io/docs/alerting/latest/configuration/. Fields are those of Alertmanager 0.25 and later. Secrets are never in it:
it names files.
"""

from typing import Any

from alerting.incidents.told import ALERTS
from alerting.settings import NOBODY, AlertingSettings, Receiver

__all__ = ["OUTAGE_SILENCES", "configuration"]

OUTAGE_SILENCES = (
    "TallyStitchSlow",
    "TallyCheckpointLate",
    "TallySpoolFilling",
    "TallyDetectorFailing",
    "TallySiemFailing",
    "TallyIncidentsFailing",
)
"""What follows from an event store that is away, and says nothing new while that is so. `TallyRefusing` goes on, for services feel it; so does
`TallySequenceGap`: an outage makes no gap."""

_PAIRS = (
    ("TallyErrorBudgetBurnsFast", "TallyErrorBudgetBurns"),
    ("TallyLatencyBudgetBurnsFast", "TallyLatencyBudgetBurns"),
)

_TITLE = (
    "[{{ .Status | toUpper }}] {{ .CommonLabels.alertname }} ({{ .CommonLabels.severity }}, {{ .CommonLabels.team }})"
)
_TEXT = (
    "{{ range .Alerts }}{{ .Annotations.summary }}\n{{ .Annotations.description }}\n"
    "board: {{ .Annotations.dashboard }}\nrunbook: {{ .Annotations.runbook_url }}\ntrail: {{ .Annotations.trail }}\n{{ end }}"
)


def configuration(settings: AlertingSettings) -> dict[str, Any]:
    """The whole configuration, as plain values."""
    receivers = [{"name": name, **_ways(one)} for name, one in sorted(settings.receivers.items())]
    if not settings.watchdog_receiver or not receivers:
        receivers.append({"name": NOBODY})
    default = settings.default_receiver or NOBODY
    made: dict[str, Any] = {"receivers": receivers, "route": _routes(settings, default), "inhibit_rules": _inhibited()}
    if settings.smtp.smarthost:
        smtp = settings.smtp
        made["global"] = {
            "smtp_smarthost": smtp.smarthost,
            "smtp_from": smtp.sender,
            "smtp_require_tls": True,
            **({"smtp_auth_username": smtp.user, "smtp_auth_password_file": smtp.password_file} if smtp.user else {}),
        }
    return made


def _routes(settings: AlertingSettings, default: str) -> dict[str, Any]:
    routes: list[dict[str, Any]] = [
        {
            "receiver": settings.watchdog_receiver or NOBODY,
            "matchers": ['alertname="TallyWatchdog"'],
            "group_wait": "0s",
            # every minute: it is sent at the first look at which the last one is older than `repeat_interval`, counted from when
            # that had been sent, so that at looks and repeats of a minute each every second one would be passed over
            "group_interval": "30s",
            "repeat_interval": "50s",
        }
    ]
    told = f'alertname=~"{"|".join(ALERTS)}"'
    if settings.incidents_receiver:
        routes.append({"receiver": settings.incidents_receiver, "matchers": [told], "continue": True})
    for route in settings.routes:
        matchers = [f'severity="{route.severity}"'] if route.severity else []
        matchers += [f'team="{route.team}"'] if route.team else []
        made: dict[str, Any] = {"receiver": route.receiver, "matchers": matchers or ['alertname=~".+"']}
        if route.severity == "ticket":
            made |= {"group_wait": "5m", "repeat_interval": "24h"}
        routes.append(made)
    if settings.incidents_receiver:  # else what no route fits would count as heard, by the keeper
        routes.append({"receiver": default, "matchers": [told]})
    return {
        "receiver": default,
        # one message for what one trouble does to many collectors or shards
        "group_by": ["alertname", "team", "ledger", "service"],
        "group_wait": "10s",
        "group_interval": "5m",
        "repeat_interval": "4h",
        "routes": routes,
    }


def _inhibited() -> list[dict[str, Any]]:
    silenced = "|".join(OUTAGE_SILENCES)
    outage = {
        "source_matchers": ['alertname="TallyStoreUnavailable"'],
        "target_matchers": [f'alertname=~"{silenced}"'],
        "equal": ["ledger"],
    }
    no_writer = {
        "source_matchers": ['alertname="TallyNoWriter"'],
        "target_matchers": ['alertname=~"TallyStitchSlow|TallyCheckpointLate|TallySpoolFilling"'],
        "equal": ["ledger"],
    }
    no_steps = {  # what its service did is in no trail yet
        "source_matchers": ['alertname="TallyCollectorMissing"'],
        "target_matchers": ['alertname="TallyTransactionsIncomplete"'],
        "equal": ["ledger"],
    }
    faster = [
        {
            "source_matchers": [f'alertname="{fast}"'],
            "target_matchers": [f'alertname="{slow}"'],
            "equal": ["ledger", "service", "slo"],
        }
        for fast, slow in _PAIRS
    ]
    return [outage, no_writer, no_steps, *faster]


def _ways(receiver: Receiver) -> dict[str, Any]:
    ways: dict[str, Any] = {}
    if receiver.pagerduty_key_file:
        ways["pagerduty_configs"] = [
            {
                "routing_key_file": receiver.pagerduty_key_file,
                "description": "{{ .CommonLabels.alertname }}: {{ (index .Alerts 0).Annotations.summary }}",
                "severity": '{{ if eq .CommonLabels.severity "page" }}critical{{ else }}warning{{ end }}',
                "links": [
                    {"href": "{{ (index .Alerts 0).Annotations.runbook_url }}", "text": "runbook"},
                    {"href": "{{ (index .Alerts 0).Annotations.dashboard }}", "text": "board"},
                    {"href": "{{ (index .Alerts 0).Annotations.trail }}", "text": "trail"},
                ],
            }
        ]
    if receiver.slack_url_file:
        ways["slack_configs"] = [
            {
                "api_url_file": receiver.slack_url_file,
                "channel": receiver.slack_channel,
                "title": _TITLE,
                "text": _TEXT,
                "send_resolved": True,
            }
        ]
    if receiver.email_to:
        ways["email_configs"] = [
            {"to": address, "headers": {"Subject": _TITLE}, "text": _TEXT, "html": "", "send_resolved": True}
            for address in receiver.email_to
        ]
    if receiver.webhook_url:
        way: dict[str, Any] = {"url": receiver.webhook_url, "send_resolved": True}
        if receiver.webhook_token_file:
            way["http_config"] = {"authorization": {"credentials_file": receiver.webhook_token_file}}
        ways["webhook_configs"] = [way]
    return ways
