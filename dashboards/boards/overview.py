"""Overview: rate, errors and duration of each service, what is left of its promise, and whether the evidence is whole."""

from dashboards.board import LEDGER, Board, Panel, Query, Row

__all__ = ["board"]

_REQUESTS = 'tally_service_requests_total{kind="server"}[$__rate_interval]'
_FAILED = 'tally_service_requests_total{kind="server",outcome="failure"}[$__rate_interval]'
_BUCKETS = 'tally_service_request_duration_seconds_bucket{kind="server"}[$__rate_interval]'
_RATE = f"sum by (service) (rate({_REQUESTS}))"
_RATIO = f"(sum by (service) (rate({_FAILED})) or {_RATE} * 0) / {_RATE}"
_P99 = f"histogram_quantile(0.99, sum by (service, le) (rate({_BUCKETS})))"


def board() -> Board:
    """The board."""
    return Board(
        uid="tally-overview",
        title="Tallystick: overview",
        text="How all services do, what is left of their promises, and whether the evidence is whole.",
        variables=(LEDGER,),
        rows=(
            Row(title="Now", panels=_now()),
            Row(title="Services: rate, errors, duration", panels=_red()),
            Row(title="Promises (SLO) and error budgets", panels=_promises()),
            Row(title="Each service", panels=(_table(),)),
        ),
    )


def _now() -> tuple[Panel, ...]:
    return (
        Panel(
            kind="stat", title="Requests", text="Requests that all services answered, each second.", unit="reqps", width=4, height=4,
            queries=[Query(f"sum(rate({_REQUESTS}))", "requests")],
        ),
        Panel(
            kind="stat", title="Failing", text="Share of them that failed: status ERROR, or HTTP 5xx.", unit="percentunit", width=4, height=4,
            warn=0.01, bad=0.05, runbook="TallyErrorBudgetBurnsFast", trails="/v1/trails?status=error",
            queries=[Query(f"(sum(rate({_FAILED})) or vector(0)) / sum(rate({_REQUESTS}))", "failing")],
        ),
        Panel(
            kind="stat", title="Slowest of 100", text="99 of 100 requests of all services took no longer.", unit="s", width=4, height=4,
            warn=1, bad=5, runbook="TallyLatencyBudgetBurnsFast",
            queries=[Query(f"histogram_quantile(0.99, sum by (le) (rate({_BUCKETS})))", "p99")],
        ),
        Panel(
            kind="stat", title="Batches missing", text="Numbered and signed by a collector, and not in the store. Anything but 0 is for a person.",
            unit="short", width=4, height=4, bad=1, runbook="TallySequenceGap", trails="/v1/trails?status=gap",
            queries=[Query("max(tally_correlator_missing_batches)", "missing")],
        ),
        Panel(
            kind="stat", title="Since the last entry", text="How old the newest entry of the log is. Collectors sign something every minute.",
            unit="s", width=4, height=4, warn=120, bad=300, runbook="TallyCheckpointLate",
            queries=[Query('max(tally_correlator_head_age_seconds and on (job, instance) tally_correlator_role{tally_correlator_role="writer"} == 1)', "age")],
        ),
        Panel(
            kind="stat", title="Collectors heard", text="Collectors that answer Prometheus. Which ones must be there is the alert's business.",
            unit="short", width=4, height=4, runbook="TallyCollectorMissing",
            queries=[Query("count(tally_collector_info)", "collectors")],
        ),
    )  # fmt: skip


def _red() -> tuple[Panel, ...]:
    trails = "/v1/trails?service=${__field.labels.service}&status=error"
    return (
        Panel(
            title="Rate", text="Requests answered each second, by service.", unit="reqps",
            queries=[Query(_RATE, "{{service}}")], trails="/v1/trails?service=${__field.labels.service}",
        ),
        Panel(
            title="Errors", text="Share of requests that failed, by service. A click leads to its trails with errors.", unit="percentunit",
            queries=[Query(_RATIO, "{{service}}")], trails=trails, warn=0.01, bad=0.05, runbook="TallyErrorBudgetBurnsFast",
        ),
        Panel(
            title="Duration (p99)", text="99 of 100 requests took no longer, by service. Each dot is a trace: a click leads to its trail.",
            unit="s", queries=[Query(_P99, "{{service}}", exemplars=True)], runbook="TallyLatencyBudgetBurnsFast",
        ),
    )  # fmt: skip


def _promises() -> tuple[Panel, ...]:
    burn = 'service:tally_requests:failed_ratio_rate1h / on (ledger, service) group_left () (1 - service:tally_slo_objective:ratio{slo="availability"})'
    return (
        Panel(
            kind="bars", title="Error budget left", text="Of what may fail in 30 days, the share that has not failed yet. At 0 the promise is broken.",
            unit="percentunit", width=8, top=1, warn=0.5, bad=0.1, low_is_bad=True, runbook="TallyErrorBudgetBurns",
            queries=[Query('clamp_min(service:tally_slo_budget:remaining_ratio{slo="availability"}, 0)', "{{service}}")],
        ),
        Panel(
            title="Burn rate over an hour", text="How many times faster than promised the budget burns. 1 uses it up in 30 days; 14.4 in two.",
            unit="short", width=8, warn=1, bad=14.4, runbook="TallyErrorBudgetBurnsFast",
            queries=[Query(burn, "{{service}}")],
        ),
        Panel(
            title="Failing, over five minutes and three days", text="The ratio that the alerts compare: the short window shows now, the long one what it does to the month.",
            unit="percentunit", width=8, runbook="TallyErrorBudgetBurns",
            queries=[
                Query("service:tally_requests:failed_ratio_rate5m", "{{service}} 5 m"),
                Query("service:tally_requests:failed_ratio_rate3d", "{{service}} 3 d"),
            ],
        ),
    )  # fmt: skip


def _table() -> Panel:
    return Panel(
        kind="table", title="Services", text="The same as numbers, each service a line.", unit="short", width=24, height=8, by="service",
        queries=[
            Query(_RATE, "requests/s", unit="reqps"),
            Query(_RATIO, "failing", unit="percentunit"),
            Query(f"histogram_quantile(0.5, sum by (service, le) (rate({_BUCKETS})))", "p50", unit="s"),
            Query(_P99, "p99", unit="s"),
        ],
    )  # fmt: skip
