"""All alerting rules of a ledger, and the file that Prometheus reads (``rule_files``).

https://prometheus.io/docs/prometheus/latest/configuration/alerting_rules/. Thresholds are `AlertingSettings`; what is expected to be
there is an `Inventory`: a process that is gone with its target is missed all the same.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from alerting.alert import Alert, Links
from alerting.detect.alerts import detection_alerts
from alerting.incidents.alerts import incident_alerts
from alerting.metrics import declared
from alerting.settings import AlertingSettings, Slo
from alerting.siem import siem_alerts
from alerting.slo import burn_alerts, recordings

__all__ = ["CLOCK_OFFSET", "Inventory", "alerts", "rules"]

CLOCK_OFFSET = "tally_collector_clock_offset_seconds"

_CONFIGURED = "tally_collector_config_last_reload_success_timestamp_seconds"
_REFUSALS = 'reason=~"unauthenticated|forbidden"'


@dataclass(frozen=True, slots=True, kw_only=True)
class Inventory:
    """What should run: names of collectors, how many logs have a writer, whether there is an API, a detector, what sends on to a SIEM, a keeper of incidents."""

    collectors: Sequence[str]
    writers: int = 1
    api: bool = True
    detector: bool = False
    siem: bool = False
    incidents: bool = False


def _more(selector: str, window: str, by: str) -> str:
    """How much a counter grew whose series come with their first count: one that was not there before grew by what it says.

    Only where its process was heard before, too, or read its configuration since, as it does when it starts: else a Prometheus that starts
    would take old counts for new ones.
    """
    young = f"{_CONFIGURED} > time() - {int(window.removesuffix('m')) * 60}"
    heard = f"and on (job, instance) (tally_collector_info offset {window} or on (job, instance) {young})"
    return (
        f"sum by ({by}) (increase({selector}[{window}]) > 0 or ({selector} unless {selector} offset {window} {heard}))"
    )


def alerts(settings: AlertingSettings, inventory: Inventory) -> list[Alert]:
    """Every alert of these settings; a name stands several times where it is one rule for each thing expected or promised."""
    return [
        Alert(
            name="TallyWatchdog",
            query="vector(1)",
            severity="none",
            team=settings.team,
            summary="Alerts reach their receiver",
            description="Always on. Whoever does not hear it for some minutes raises the alarm: nobody else's alert would come through.",
            board="tally-pipeline",
            api="/v1/status",
        ),
        *_missing(settings, inventory),
        *_pipeline(settings),
        *_proof(settings),
        *_transactions(settings),
        *_reads(settings),
        *(detection_alerts(settings.team) if inventory.detector else ()),
        *(siem_alerts(settings.team) if inventory.siem else ()),
        *(incident_alerts(settings) if inventory.incidents else ()),
        *burn_alerts(slos(settings), settings.team),
    ]


def slos(settings: AlertingSettings) -> tuple[Slo, ...]:
    """The objectives, with that of all other services."""
    rest = (Slo(service="*", objective=settings.objective),) if settings.objective else ()
    return (*settings.slos, *rest)


def _missing(settings: AlertingSettings, inventory: Inventory) -> list[Alert]:
    found = [
        Alert(
            name="TallyCollectorMissing",
            query=f'absent(tally_collector_info{{collector="{name}"}} == 1)',
            hold="2m",
            severity="page",
            team=settings.team,
            summary=f"Collector {name} is not heard",
            description="It is expected, and no target shows it: what its services do is not being recorded, or nobody can see that it is.",
            board="tally-pipeline",
            api="/v1/streams",
            labels={"collector": name},
        )
        for name in inventory.collectors
    ]
    writer = 'tally_correlator_role{tally_correlator_role="writer"} == 1'
    found.append(
        Alert(
            name="TallyNoWriter",
            query=f"(count({writer}) or vector(0)) < {inventory.writers}",
            hold="2m",
            severity="page",
            team=settings.team,
            summary="{{ $value }} of " + f"{inventory.writers} logs have a writer",
            description="Nothing new is put into the log. Sidecars keep what they take in their spools, until those are full.",
            board="tally-pipeline",
            api="/v1/status",
        )
    )
    if inventory.api:
        found.append(
            Alert(
                name="TallyApiMissing",
                query="absent(tally_api_accesses_total)",
                hold="5m",
                severity="page",
                team=settings.team,
                summary="The audit API is not heard",
                description="Nobody can read trails through it. What is recorded goes on being recorded.",
                board="tally-audit",
                api="/readyz",
            )
        )
    return found


def _pipeline(settings: AlertingSettings) -> list[Alert]:
    team = settings.team
    found = [
        Alert(
            name="TallyStoreUnavailable",
            query="max by (job, instance) (tally_collector_breaker_open) == 1"
            " or max by (job, instance) (tally_store_trouble) == 1"
            " or max by (job, instance) (tally_index_trouble) == 1",
            hold="2m",
            severity="page",
            team=team,
            summary="{{ $labels.instance }}: the event store, or the trail index, takes or gives nothing",
            description="Sidecars keep everything in their spools and try again; trails stand still. The metric's reason says what is wrong.",
            board="tally-pipeline",
            api="/v1/status",
        ),
        Alert(
            name="TallySpoolFilling",
            query="predict_linear(tally_collector_spool_bytes[15m], 4 * 3600) > tally_collector_spool_limit_bytes"
            " and tally_collector_spool_bytes > 0.05 * tally_collector_spool_limit_bytes",
            hold="5m",
            severity="page",
            team=team,
            summary="{{ $labels.instance }}: the spool will be full within four hours",
            description="More comes in than the store takes or the log covers. When it is full, senders are told to wait.",
            board="tally-pipeline",
            api="/v1/streams",
        ),
        Alert(
            name="TallyRefusing",
            query="tally_collector_refusing == 1",
            hold="1m",
            severity="page",
            team=team,
            summary="{{ $labels.instance }}: refuses events",
            description="Its spool or its disk is full. Senders, some or all, are told to wait; those that cannot wait lose what they have.",
            board="tally-pipeline",
            api="/v1/streams",
        ),
        Alert(
            name="TallyDeadLetters",
            query=f"{_more('tally_collector_refused_total', '10m', 'job, instance, reason')} >= {settings.dead_letters}",
            severity="ticket",
            team=team,
            summary="{{ $labels.instance }}: {{ $value | humanize }} inputs refused: {{ $labels.reason }}",
            description="They are in the dead letters, with their reason, and in no trail; or connections were refused.",
            board="tally-pipeline",
            api="/v1/streams",
        ),
        Alert(
            name="TallyBrokerLost",
            query="tally_collector_broker_connected == 0",
            hold="5m",
            severity="ticket",
            team=team,
            summary="{{ $labels.instance }}: {{ $labels.system }} {{ $labels.entry }} does not answer",
            description="Messages stay with the broker until it does.",
            board="tally-pipeline",
            api="/v1/streams",
        ),
        Alert(
            name="TallyMetricsDropped",
            # what is sent again is no loss
            query=_more('tally_collector_metrics_dropped_total{reason!="not_newer"}', "15m", "job, instance, reason")
            + " > 0",
            severity="ticket",
            team=team,
            summary="{{ $labels.instance }}: {{ $value | humanize }} data points of metrics did not go on: {{ $labels.reason }}",
            description="Prometheus will never have them, so boards and alerts see less than there was. Trails have nothing to do with it.",
            board="tally-pipeline",
            api="/v1/streams",
        ),
        Alert(
            name="TallyReloadRefused",
            query="tally_collector_config_last_reload_successful == 0",
            hold="5m",
            severity="ticket",
            team=team,
            summary="{{ $labels.instance }}: a changed configuration was refused",
            description="The one before it is in force. What stands in the file is not what runs, and the next start will fail or differ.",
            board="tally-pipeline",
            api="/v1/streams",
        ),
        Alert(
            name="TallySpoolDamaged",
            query="tally_collector_damaged_spools > 0 or tally_collector_forks > 0",
            severity="page",
            team=team,
            summary="{{ $labels.instance }}: a spool was set aside",
            description="It does not read back, or was cloned. It may hold events that were acknowledged and are nowhere else: keep it.",
            board="tally-pipeline",
            api="/v1/streams",
        ),
        Alert(
            name="TallyStitchSlow",
            query="histogram_quantile(0.99, sum by (le) (rate(tally_stitch_latency_seconds_bucket[10m])))"
            f" > {settings.stitch_seconds!r}",
            hold="10m",
            severity="ticket",
            team=team,
            summary="1 of 100 batches takes {{ $value | humanizeDuration }} or longer until it is in the log",
            description="Trails are behind what happens: the correlator is short of time, or clocks differ.",
            board="tally-pipeline",
            api="/v1/status",
        ),
    ]
    if CLOCK_OFFSET in declared():  # collectors that measure it
        found.append(
            Alert(
                name="TallyClockOffset",
                query=f"abs({CLOCK_OFFSET}) > {settings.clock_seconds!r}",
                hold="5m",
                severity="ticket",
                team=team,
                summary="{{ $labels.instance }}: the clock is off by {{ $value | humanizeDuration }}",
                description="Times in trails are as this clock states them; the order between services suffers.",
                board="tally-pipeline",
                api="/v1/streams",
            )
        )
    return found


def _proof(settings: AlertingSettings) -> list[Alert]:
    team = settings.team
    found = [
        Alert(
            name="TallySequenceGap",
            query="tally_correlator_missing_batches > 0",
            hold="1m",
            severity="page",
            team=team,
            summary="{{ $value }} batches are missing",
            description="A collector numbered and signed them, and the store does not have them: lost, deleted, or still to come.",
            board="tally-pipeline",
            api="/v1/trails?status=gap",
        ),
        Alert(
            name="TallyVerificationFailed",
            query='(sum by (job, instance) (tally_correlator_streams{state="stopped"}) > 0)'
            " or (sum by (job, instance) (tally_correlator_illegal_streams) > 0)"
            " or (sum by (job, instance) (tally_correlator_statement_refused_shards) > 0)"
            " or (max by (job, instance) (tally_check_findings) > 0)"
            ' or (sum by (job, instance) (increase(tally_api_refused_total{reason="evidence-damaged"}[15m])) > 0)',
            severity="page",
            team=team,
            summary="{{ $labels.instance }}: something does not verify",
            description="A signature, a chain, a proof or a check says no: damage or tampering, until it is known which. Preserve everything.",
            board="tally-pipeline",
            api="/v1/trails?status=gap",
        ),
        Alert(
            name="TallyCheckpointLate",
            query=f"tally_correlator_head_age_seconds > {settings.checkpoint_seconds}"
            ' and on (job, instance) tally_correlator_role{tally_correlator_role="writer"} == 1',
            hold="1m",
            severity="page",
            team=team,
            summary="{{ $labels.instance }}: nothing was published for {{ $value | humanizeDuration }}",
            description="Collectors sign something every minute even when nothing happens, so something stands still.",
            board="tally-pipeline",
            api="/v1/checkpoint",
        ),
    ]
    if settings.check_hours:
        limit = settings.check_hours * 3600
        found.append(
            Alert(
                name="TallyCheckOverdue",
                query=f"time() - max(tally_check_timestamp_seconds) > {limit}",
                severity="ticket",
                team=team,
                summary="The ledger was last checked {{ $value | humanizeDuration }} ago",
                description="Nobody knows whether it still holds: `tally check --textfile` did not come to its end.",
                board="tally-audit",
                api="/v1/status",
            )
        )
        found.append(
            Alert(
                name="TallyCheckNeverRan",
                query="absent(tally_check_timestamp_seconds)",
                hold=f"{settings.check_hours}h",
                severity="ticket",
                team=team,
                summary="The ledger is not checked",
                description="No run of `tally check --textfile` is heard of; check_hours = 0 if that is meant.",
                board="tally-audit",
                api="/v1/status",
            )
        )
    return found


def _transactions(settings: AlertingSettings) -> list[Alert]:
    begun = "sum by (flow) (clamp_min(delta(tally_flow_trails[15m]), 0))"
    incomplete = 'sum by (flow) (delta(tally_flow_trails{state="incomplete"}[15m]))'
    return [
        Alert(
            name="TallyTransactionsIncomplete",
            query=f"{incomplete} >= {settings.incomplete_least} and {incomplete} / {begun} >= {settings.incomplete_share!r}",
            hold="3m",  # longer than a collector is missed for: its steps are missing too, and that it is gone says why
            severity="page",
            team=settings.team,
            summary="{{ $labels.flow }}: {{ $value | humanize }} transactions of 15 minutes lack a step",
            description="Their deadline is over and a step is missing; each trail says which.",
            board="tally-transactions?var-flow={{ $labels.flow }}",
            api="/v1/trails?status=incomplete",
        )
    ]


def _reads(settings: AlertingSettings) -> list[Alert]:
    hour = "sum(increase(tally_api_accesses_total[1h]))"
    # of those of a week that were watched: in the first days there is no week to compare with
    usual = "sum(increase(tally_api_accesses_total[7d])) / count_over_time(sum(tally_api_accesses_total)[7d:1h])"
    return [
        Alert(
            name="TallyDayUnsigned",
            query="max(tally_api_daily_reviews_unsigned) > 0",
            hold="10m",
            severity="ticket",
            team=settings.team,
            summary="{{ $value }} days are not signed off",
            description="Each day's exceptions are to be reviewed within the day that follows (audit_api.daily_review_since), and nobody has put on record that they were.",
            board="tally-audit",
            api="/v1/review-days",
        ),
        Alert(
            name="TallyUnusualReads",
            query=f"{hour} > {settings.reads_least} and {hour} > {settings.reads_factor!r} * {usual}",
            severity="ticket",
            team=settings.team,
            summary="{{ $value | humanize }} reads of the trail in an hour",
            description="More than usual: an audit, a program gone wild, or somebody who helps themselves. Who it was is in the log.",
            board="tally-audit",
            api="/v1/principals",
        ),
        Alert(
            name="TallyReadsRefused",
            query=f"sum by (reason) (increase(tally_api_refused_total{{{_REFUSALS}}}[15m])) > {settings.refusals}",
            severity="ticket",
            team=settings.team,
            summary="{{ $value | humanize }} reads refused: {{ $labels.reason }}",
            description="A token that ended, or somebody who tries. Each refusal is in the log, or counted there.",
            board="tally-audit",
            api="/v1/principals",
        ),
        Alert(
            name="TallyLimitsNotShared",
            query="sum by (job, instance) (increase(tally_api_shared_limit_failures_total[2m])) > 0",
            hold="5m",
            severity="ticket",
            team=settings.team,
            summary="{{ $labels.instance }}: limits are counted by this process alone",
            description="Its Redis does not answer. Everybody is answered; of several processes each lets in as much as all of them together should.",
            board="tally-audit",
            api="/readyz",
        ),
    ]


def rules(settings: AlertingSettings, inventory: Inventory, links: Links, ledger: str) -> dict[str, Any]:
    """The whole file of rules, as plain values: recorded ratios first, alerts behind them. Raises `UnknownMetric`."""
    made = [alert.rule(links, settings.matchers, ledger) for alert in alerts(settings, inventory)]
    return {"groups": [*recordings(slos(settings), settings.matchers, ledger), {"name": "tally-alerts", "rules": made}]}
