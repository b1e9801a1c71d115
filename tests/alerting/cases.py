"""When each alert fires and when it does not: series of a healthy installation, and what a fault makes of them.

Values are promtool's notation, a sample a minute (https://prometheus.io/docs/prometheus/latest/configuration/unit_testing_rules/).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from alerting.rules import CLOCK_OFFSET, Inventory
from alerting.settings import AlertingSettings, Slo

SETTINGS = AlertingSettings(
    team="platform",
    objective=0.99,
    slos=(Slo(service="pay.ments", objective=0.999, latency_seconds=1.0, latency_objective=0.95, team="payments"),),
    expected_collectors=("ledger",),
    incident_hours=1,
    check_hours=4,  # not a day, which promtool would have to live through
)
INVENTORY = Inventory(collectors=("payments", "ledger"), writers=1, api=True, detector=True, siem=True, incidents=True)

MINUTES = 240
"""As long as a case at most; a sample a minute."""


def flat(value: float) -> str:
    return f"{value}x{MINUTES}"


def climbing(each_minute: float, start: float = 0) -> str:
    return f"{start}+{each_minute}x{MINUTES}"


P = 'job="tally",instance="payments:4318"'
L = 'job="tally",instance="ledger:4318"'
C = 'job="tally",instance="correlator:9464"'
A = 'job="tally",instance="api:8420"'
D = 'job="tally",instance="detector:9465"'
S = 'job="tally",instance="siem:9466",destination="desk"'
K = 'job="tally",instance="incidents:9467"'
REQUESTS = 'tally_service_requests_total{%s,service="%s",operation="charge",kind="server",outcome="%s"}'
SECONDS = 'tally_service_request_duration_seconds_%s{%s,service="pay.ments",operation="charge",kind="server"%s}'


def _collector(place: str, name: str) -> dict[str, str]:
    gauges = {
        "breaker_open": 0,
        "spool_bytes": 4096,
        "spool_limit_bytes": 4e9,
        "refusing": 0,
        "damaged_spools": 0,
        "forks": 0,
    }
    return {
        f'tally_collector_info{{{place},collector="{name}"}}': flat(1),
        **{f"tally_collector_{name}{{{place}}}": flat(value) for name, value in gauges.items()},
    }


HEALTHY: Mapping[str, str] = {
    **_collector(P, "payments"),
    **_collector(L, "ledger"),
    f'tally_collector_broker_connected{{{P},system="kafka",entry="orders"}}': flat(1),
    f'tally_collector_refused_total{{{P},reason="bad_json"}}': flat(7),
    f'tally_store_trouble{{{P},operation="write",reason="timeout"}}': flat(0),
    f'tally_store_trouble{{{C},operation="read",reason="no_shard"}}': flat(0),
    f'tally_index_trouble{{{C},operation="write",reason="blocked"}}': flat(0),
    f"tally_collector_config_last_reload_successful{{{P}}}": flat(1),
    f'tally_correlator_role{{{C},tally_correlator_role="writer"}}': flat(1),
    f'tally_correlator_role{{{C},tally_correlator_role="standby"}}': flat(0),
    f"tally_correlator_missing_batches{{{C}}}": flat(0),
    f'tally_correlator_streams{{{C},state="stopped"}}': flat(0),
    f'tally_correlator_streams{{{C},state="open"}}': flat(3),
    f"tally_correlator_illegal_streams{{{C}}}": flat(0),
    f"tally_correlator_statement_refused_shards{{{C}}}": flat(0),
    f"tally_correlator_head_age_seconds{{{C}}}": flat(55),
    f'tally_stitch_latency_seconds_bucket{{{C},le="1.0"}}': climbing(100),
    f'tally_stitch_latency_seconds_bucket{{{C},le="60.0"}}': climbing(100),
    f'tally_stitch_latency_seconds_bucket{{{C},le="+Inf"}}': climbing(100),
    f'tally_flow_trails{{{C},flow="payment",state="open"}}': flat(12),
    f'tally_flow_trails{{{C},flow="payment",state="complete"}}': climbing(100),
    f'tally_flow_trails{{{C},flow="payment",state="incomplete"}}': flat(3),
    f"tally_check_findings{{{A}}}": flat(0),
    f"tally_check_timestamp_seconds{{{A}}}": flat(0),
    f"tally_detector_behind_leaves{{{D}}}": flat(3),
    f"tally_detector_waiting_findings{{{D}}}": flat(0),
    f"tally_detector_telling_failures_total{{{D}}}": flat(4),
    f'tally_detector_told_total{{{D},outcome="taken"}}': climbing(1),
    f'tally_detector_told_total{{{D},outcome="refused"}}': flat(0),
    f'tally_detector_freezes_total{{{D},outcome="accepted"}}': climbing(1),
    f'tally_detector_freezes_total{{{D},outcome="refused"}}': flat(1),
    f"tally_siem_behind_leaves{{{S}}}": flat(3),
    f"tally_siem_behind_seconds{{{S}}}": flat(0.4),
    f"tally_siem_log_failures_total{{{S}}}": flat(2),
    f"tally_siem_missing_events_total{{{S}}}": flat(1),
    f'tally_siem_reduced_total{{{S},reason="oversized"}}': climbing(1),
    f'tally_siem_reduced_total{{{S},reason="refused"}}': flat(2),
    f"tally_detector_failures_total{{{D}}}": flat(3),
    f"tally_incidents_failures_total{{{K}}}": flat(1),
    f"tally_incidents_behind_leaves{{{K}}}": flat(0),
    f'tally_incidents_oldest_unsigned_timestamp_seconds{{{K},cause="gap"}}': flat(0),
    f"tally_api_accesses_total{{{A}}}": climbing(1),
    f"tally_api_daily_reviews_unsigned{{{A}}}": flat(0),
    f'tally_api_refused_total{{{A},reason="forbidden"}}': flat(0),
    f'tally_api_refused_total{{{A},reason="unauthenticated"}}': flat(2),
    f'tally_api_refused_total{{{A},reason="evidence-damaged"}}': flat(0),
    f"tally_api_shared_limit_failures_total{{{A}}}": flat(3),
    REQUESTS % (P, "pay.ments", "success"): climbing(1000),
    REQUESTS % (L, "ledger", "success"): climbing(1000),
    SECONDS % ("bucket", P, ',le="1.0"'): climbing(1000),
    SECONDS % ("bucket", P, ',le="+Inf"'): climbing(1000),
    SECONDS % ("count", P, ""): climbing(1000),
}


@dataclass(frozen=True, kw_only=True)
class Case:
    """A fault: series that replace healthy ones (``""``: none); when the alert must fire, of how many; and what comes close and is none."""

    alert: str
    fault: Mapping[str, str]
    after: str
    firing: int = 1
    near: Mapping[str, str] = field(default_factory=dict)


_READ = "config_last_reload_success_timestamp_seconds"


def _cases() -> list[Case]:
    spool = f"tally_collector_spool_bytes{{{P}}}"
    trails = f'tally_flow_trails{{{C},flow="payment",state="%s"}}'
    refused = f'tally_api_refused_total{{{A},reason="forbidden"}}'
    failures, successes = REQUESTS % (P, "pay.ments", "failure"), REQUESTS % (P, "pay.ments", "success")
    others = REQUESTS % (L, "ledger", "failure")
    quick = SECONDS % ("bucket", P, ',le="1.0"')
    unsigned = f'tally_incidents_oldest_unsigned_timestamp_seconds{{{K},cause="gap"}}'
    fresh, once = 'tally_collector_%s{job="tally",instance="new:4318"}', f"_x20 1x{MINUTES}"
    letters = f'tally_collector_refused_total{{{P},reason="bad_json"}}'
    return [
        Case(
            alert="TallyCollectorMissing",
            fault={f'tally_collector_info{{{L},collector="ledger"}}': "1x10"},
            after="20m",
        ),
        Case(
            alert="TallyNoWriter",
            fault={f'tally_correlator_role{{{C},tally_correlator_role="writer"}}': f"1x10 0x{MINUTES}"},
            after="15m",
            near={
                f'tally_correlator_role{{{C},tally_correlator_role="writer"}}': f"1x12 0 1x{MINUTES}"
            },  # a standby took over
        ),
        Case(
            alert="TallyDayUnsigned",
            fault={f"tally_api_daily_reviews_unsigned{{{A}}}": f"0x10 1x{MINUTES}"},
            after="22m",
            near={f"tally_api_daily_reviews_unsigned{{{A}}}": f"0x12 1x5 0x{MINUTES}"},  # signed just then
        ),
        Case(alert="TallyApiMissing", fault={f"tally_api_accesses_total{{{A}}}": "0x10"}, after="25m"),
        Case(
            alert="TallyStoreUnavailable",
            fault={f'tally_store_trouble{{{C},operation="read",reason="no_shard"}}': f"0x10 1x{MINUTES}"},
            after="14m",
            near={f'tally_store_trouble{{{C},operation="read",reason="no_shard"}}': f"0x12 1 0x{MINUTES}"},
        ),
        Case(
            alert="TallyStoreUnavailable",
            fault={f"tally_collector_breaker_open{{{L}}}": f"0x10 1x{MINUTES}"},
            after="14m",
        ),
        Case(
            alert="TallyStoreUnavailable",
            fault={f'tally_index_trouble{{{C},operation="write",reason="blocked"}}': f"0x10 1x{MINUTES}"},
            after="14m",
            near={f'tally_index_trouble{{{C},operation="write",reason="blocked"}}': f"0x12 1 0x{MINUTES}"},
        ),
        Case(
            alert="TallyReloadRefused",
            fault={f"tally_collector_config_last_reload_successful{{{P}}}": f"1x10 0x{MINUTES}"},
            after="17m",
            near={f"tally_collector_config_last_reload_successful{{{P}}}": f"1x12 0x3 1x{MINUTES}"},  # mended at once
        ),
        Case(
            alert="TallyMetricsDropped",
            fault={f'tally_collector_metrics_dropped_total{{{P},reason="queue_full"}}': f"_x20 40x{MINUTES}"},
            after="24m",
            near={f'tally_collector_metrics_dropped_total{{{P},reason="not_newer"}}': climbing(9)},  # sent again
        ),
        Case(
            alert="TallySpoolFilling",
            fault={spool: climbing(2e7)},  # 20 MB a minute: 4.8 GB in four hours
            after="50m",
            near={spool: climbing(1e6)},
        ),
        Case(
            alert="TallyRefusing",
            fault={f"tally_collector_refusing{{{P}}}": f"0x10 1x{MINUTES}"},
            after="13m",
            near={f"tally_collector_refusing{{{P}}}": f"0x12 1 0x{MINUTES}"},
        ),
        Case(alert="TallyDeadLetters", fault={letters: f"7x20 9x{MINUTES}"}, after="24m"),
        Case(  # the first of its kind: its series comes with it
            alert="TallyDeadLetters",
            fault={f'tally_collector_refused_total{{{P},reason="too_large"}}': f"_x20 1x{MINUTES}"},
            after="24m",
        ),
        Case(  # there when the collector is scraped first: it has just started, or Prometheus has
            alert="TallyDeadLetters",
            fault={fresh % "refused_total": once, fresh % "info": once, fresh % _READ: f"_x20 1190x{MINUTES}"},
            after="24m",
            near={fresh % "refused_total": once, fresh % "info": once, fresh % _READ: f"_x20 60x{MINUTES}"},
        ),
        Case(
            alert="TallyBrokerLost",
            fault={f'tally_collector_broker_connected{{{P},system="kafka",entry="orders"}}': f"1x10 0x{MINUTES}"},
            after="18m",
            near={f'tally_collector_broker_connected{{{P},system="kafka",entry="orders"}}': f"1x14 0x3 1x{MINUTES}"},
        ),
        Case(alert="TallySpoolDamaged", fault={f"tally_collector_damaged_spools{{{P}}}": flat(1)}, after="2m"),
        Case(alert="TallySpoolDamaged", fault={f"tally_collector_forks{{{L}}}": flat(1)}, after="2m"),
        Case(
            alert="TallyStitchSlow",
            fault={f'tally_stitch_latency_seconds_bucket{{{C},le="1.0"}}': climbing(90)},
            after="30m",
            near={f'tally_stitch_latency_seconds_bucket{{{C},le="1.0"}}': climbing(99.5)},
        ),
        Case(
            alert="TallySequenceGap",
            fault={f"tally_correlator_missing_batches{{{C}}}": f"0x10 2x{MINUTES}"},
            after="13m",
            near={f"tally_correlator_missing_batches{{{C}}}": f"0x12 2 0x{MINUTES}"},  # it came
        ),
        Case(
            alert="TallyVerificationFailed",
            fault={f'tally_correlator_streams{{{C},state="stopped"}}': flat(1)},
            after="2m",
        ),
        Case(
            alert="TallyVerificationFailed",
            fault={f"tally_correlator_illegal_streams{{{C}}}": flat(1)},
            after="2m",
        ),
        Case(alert="TallyVerificationFailed", fault={f"tally_check_findings{{{A}}}": flat(3)}, after="2m"),
        Case(
            alert="TallyVerificationFailed",
            fault={f"tally_correlator_statement_refused_shards{{{C}}}": flat(1)},
            after="2m",
        ),
        Case(
            alert="TallyVerificationFailed",
            fault={f'tally_api_refused_total{{{A},reason="evidence-damaged"}}': f"0x20 1x{MINUTES}"},
            after="24m",
        ),
        Case(
            alert="TallyCheckpointLate",
            fault={f"tally_correlator_head_age_seconds{{{C}}}": climbing(60)},
            after="9m",
            near={f"tally_correlator_head_age_seconds{{{C}}}": flat(290)},
        ),
        Case(alert="TallyCheckOverdue", fault={f"tally_check_timestamp_seconds{{{A}}}": flat(-14_000)}, after="30m"),
        Case(
            alert="TallyCheckNeverRan",
            fault={f"tally_check_timestamp_seconds{{{A}}}": ""},
            after="5h",
        ),
        Case(
            alert="TallyTransactionsIncomplete",
            fault={trails % "incomplete": climbing(10)},
            after="30m",
            near={trails % "incomplete": climbing(4)},  # 60 of 1,560 in 15 minutes
        ),
        Case(
            alert="TallyUnusualReads",
            fault={f"tally_api_accesses_total{{{A}}}": "0+0x600 0+20x60"},
            after="650m",
            near={f"tally_api_accesses_total{{{A}}}": "0+20x660"},  # as many as ever since it was set up, this morning
        ),
        Case(
            alert="TallyReadsRefused",
            fault={refused: f"0x10 0+3x{MINUTES}"},
            after="30m",
            near={refused: climbing(1)},
        ),
        Case(
            alert="TallyLimitsNotShared",
            fault={f"tally_api_shared_limit_failures_total{{{A}}}": climbing(60)},
            after="13m",
            near={f"tally_api_shared_limit_failures_total{{{A}}}": f"3x10 4x{MINUTES}"},  # it was away for a moment
        ),
        Case(alert="TallyDetectorMissing", fault={f"tally_detector_behind_leaves{{{D}}}": "3x10"}, after="25m"),
        Case(
            alert="TallyDetectorBehind",
            fault={f"tally_detector_behind_leaves{{{D}}}": f"3x10 20000x{MINUTES}"},
            after="25m",
            near={f"tally_detector_behind_leaves{{{D}}}": f"3x10 20000x4 3x{MINUTES}"},  # it catches up
        ),
        Case(
            alert="TallyDetectorFailing",
            fault={
                f"tally_detector_failures_total{{{D}}}": climbing(6),
                f"tally_detector_behind_leaves{{{D}}}": flat(0),  # it was caught up, and cannot read the log since
            },
            after="25m",
            near={f"tally_detector_failures_total{{{D}}}": f"2x10 9x{MINUTES}"},  # once, and over
        ),
        Case(
            alert="TallyFindingsUntold",
            fault={
                f"tally_detector_waiting_findings{{{D}}}": flat(2),
                f"tally_detector_telling_failures_total{{{D}}}": climbing(2),
            },
            after="15m",
            near={f"tally_detector_waiting_findings{{{D}}}": flat(2)},  # told in turn, and always some
        ),
        Case(
            alert="TallyFindingsRefused",
            fault={f'tally_detector_told_total{{{D},outcome="refused"}}': f"0x20 1x{MINUTES}"},
            after="24m",
            near={f'tally_detector_told_total{{{D},outcome="taken"}}': climbing(20)},
        ),
        Case(
            alert="TallyFreezeFailed",
            fault={f'tally_detector_freezes_total{{{D},outcome="refused"}}': f"1x20 2x{MINUTES}"},
            after="24m",
            near={f'tally_detector_freezes_total{{{D},outcome="accepted"}}': climbing(20)},
        ),
        Case(alert="TallySiemMissing", fault={f"tally_siem_behind_leaves{{{S}}}": "3x10"}, after="25m"),
        Case(
            alert="TallySiemBehind",
            fault={f"tally_siem_behind_seconds{{{S}}}": f"0x10 0+60x{MINUTES}"},
            after="25m",
            near={f"tally_siem_behind_seconds{{{S}}}": f"0x10 0+60x8 0x{MINUTES}"},  # it was restarted
        ),
        Case(
            alert="TallySiemFailing",
            fault={f"tally_siem_log_failures_total{{{S}}}": climbing(12), f"tally_siem_behind_seconds{{{S}}}": flat(0)},
            after="25m",
            near={f"tally_siem_log_failures_total{{{S}}}": f"2x10 9x{MINUTES}"},  # once, and over
        ),
        Case(
            alert="TallySiemEventsMissing",
            fault={f"tally_siem_missing_events_total{{{S}}}": f"0x20 2x{MINUTES}"},
            after="24m",
        ),
        Case(
            alert="TallySiemReduced",
            fault={f'tally_siem_reduced_total{{{S},reason="refused"}}': f"2x20 3x{MINUTES}"},
            after="24m",
            near={f'tally_siem_reduced_total{{{S},reason="oversized"}}': climbing(50)},  # that is what the bound is for
        ),
        Case(alert="TallyIncidentsMissing", fault={f"tally_incidents_behind_leaves{{{K}}}": "0x10"}, after="25m"),
        Case(
            alert="TallyIncidentsFailing",
            fault={f"tally_incidents_failures_total{{{K}}}": climbing(2)},
            after="25m",
            near={f"tally_incidents_failures_total{{{K}}}": f"2x10 3x{MINUTES}"},
        ),
        Case(
            alert="TallyIncidentUnsigned",
            fault={unsigned: flat(60)},
            after="70m",
            near={unsigned: f"60x50 0x{MINUTES}"},  # signed in time
        ),
        Case(  # whose keeper was started again: no hour begins anew
            alert="TallyIncidentUnsigned",
            fault={unsigned: f"60x50 _x3 60x{MINUTES}"},
            after="70m",
            near={unsigned: f"60x40 2400x{MINUTES}"},  # the first was signed, the next is half an hour old
        ),
        Case(
            alert="TallyErrorBudgetBurnsFast",  # 2 % of payments, of which 0.1 % may
            fault={failures: climbing(20), successes: climbing(980)},
            after="70m",
            near={failures: climbing(4), successes: climbing(996)},
        ),
        Case(
            alert="TallyErrorBudgetBurnsFast",  # a service without a promise of its own: 15 % of its requests
            fault={others: climbing(177)},
            after="70m",
            near={others: climbing(30)},
        ),
        Case(
            alert="TallyErrorBudgetBurns",
            fault={failures: climbing(4), successes: climbing(996)},
            after="45m",
            near={failures: climbing(0.8), successes: climbing(999.2)},
        ),
        Case(
            alert="TallyLatencyBudgetBurnsFast", fault={quick: climbing(200)}, after="70m", near={quick: climbing(800)}
        ),
        Case(alert="TallyLatencyBudgetBurns", fault={quick: climbing(800)}, after="45m", near={quick: climbing(960)}),
    ]


CLOCK = Case(
    alert="TallyClockOffset",
    fault={f"{CLOCK_OFFSET}{{{P}}}": flat(-2)},
    after="10m",
    near={f"{CLOCK_OFFSET}{{{P}}}": flat(0.1)},
)
"""Of collectors that measure it."""

CASES = _cases()
