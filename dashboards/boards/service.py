"""One service: its operations' rate, errors and duration, with the traces behind them, and its promise over all windows."""

from alerting.metrics import WINDOWS
from dashboards.board import LEDGER, Board, Panel, Query, Row, Variable

__all__ = ["board"]

_CHOSEN = 'service=~"$service",kind=~"$kind"'
_ONE = f"tally_service_requests_total{{{_CHOSEN}}}[$__rate_interval]"
_FAILED = f'tally_service_requests_total{{{_CHOSEN},outcome="failure"}}[$__rate_interval]'
_BUCKETS = f"tally_service_request_duration_seconds_bucket{{{_CHOSEN}}}[$__rate_interval]"
_RATE = f"sum by (operation) (rate({_ONE}))"
_RATIO = f"(sum by (operation) (rate({_FAILED})) or {_RATE} * 0) / {_RATE}"


def board() -> Board:
    """The board."""
    return Board(
        uid="tally-service",
        title="Tallystick: service",
        text="One service in detail, from what its sidecar stored. A request may be told by the service and by its gateway: choose a kind.",
        variables=(
            LEDGER,
            Variable(name="service", label="Service", metric="tally_service_requests_total"),
            Variable(name="kind", label="Kind", metric='tally_service_requests_total{service=~"$service"}'),
        ),
        rows=(
            Row(title="Rate, errors, duration", panels=_red()),
            Row(title="Operations", panels=_operations()),
            Row(title="Promise", panels=_promise()),
        ),
    )


def _red() -> tuple[Panel, ...]:
    quantiles = ((0.5, "p50"), (0.9, "p90"), (0.99, "p99"))
    return (
        Panel(
            title="Requests by outcome", text="Requests answered each second. `client_error` is HTTP 4xx.", unit="reqps", stacked=True,
            trails="/v1/trails?service=${service}",
            queries=[Query(f"sum by (outcome) (rate({_ONE}))", "{{outcome}}")],
        ),
        Panel(
            title="Failing", text="Share of requests that failed.", unit="percentunit", warn=0.01, bad=0.05,
            trails="/v1/trails?service=${service}&status=error", runbook="TallyErrorBudgetBurnsFast",
            queries=[Query(f"(sum(rate({_FAILED})) or vector(0)) / sum(rate({_ONE}))", "failing")],
        ),
        Panel(
            title="Duration", text="Half, 9 of 10 and 99 of 100 requests took no longer. Each dot is a trace: a click leads to its trail.",
            unit="s", runbook="TallyLatencyBudgetBurnsFast",
            queries=[Query(f"histogram_quantile({q}, sum by (le) (rate({_BUCKETS})))", name, exemplars=q == 0.99) for q, name in quantiles],
        ),
    )  # fmt: skip


def _operations() -> tuple[Panel, ...]:
    return (
        Panel(
            title="Rate by operation", text="Requests each second; `other` is what came after the first operations of a service.", unit="reqps", width=12,
            queries=[Query(_RATE, "{{operation}}")],
        ),
        Panel(
            title="Duration by operation (p99)", text="99 of 100 requests of each operation took no longer.", unit="s", width=12,
            queries=[Query(f"histogram_quantile(0.99, sum by (operation, le) (rate({_BUCKETS})))", "{{operation}}", exemplars=True)],
        ),
        Panel(
            kind="table", title="Operations", text="The same as numbers, each operation a line.", unit="short", width=24, height=8, by="operation",
            queries=[
                Query(_RATE, "requests/s", unit="reqps"),
                Query(_RATIO, "failing", unit="percentunit"),
                Query(f"histogram_quantile(0.5, sum by (operation, le) (rate({_BUCKETS})))", "p50", unit="s"),
                Query(f"histogram_quantile(0.99, sum by (operation, le) (rate({_BUCKETS})))", "p99", unit="s"),
            ],
        ),
    )  # fmt: skip


def _promise() -> tuple[Panel, ...]:
    return (
        Panel(
            kind="bars", title="Error budget left", text="Of what may fail in 30 days, the share that has not failed yet.", unit="percentunit",
            width=6, top=1, warn=0.5, bad=0.1, low_is_bad=True, runbook="TallyErrorBudgetBurns",
            queries=[Query('clamp_min(service:tally_slo_budget:remaining_ratio{service=~"$service"}, 0)', "{{service}} {{slo}}")],
        ),
        Panel(
            kind="bars", title="Failing, over each window", text="The ratios that the alerts compare with 14.4, 6, 3 and 1 times the budget.", unit="percentunit",
            width=6, runbook="TallyErrorBudgetBurns",
            queries=[
                Query(f'max(service:tally_requests:failed_ratio_rate{window}{{service=~"$service"}})', window) for window in WINDOWS
            ],
        ),
        Panel(
            kind="bars", title="Slow, over each window", text="As beside it, of requests that took longer than promised.", unit="percentunit",
            width=6, runbook="TallyLatencyBudgetBurns",
            queries=[
                Query(f'max(service:tally_requests:slow_ratio_rate{window}{{service=~"$service"}})', window) for window in WINDOWS
            ],
        ),
        Panel(
            title="Counted under `other`", text="Requests whose service or operation had no room among the names. Not 0 for long: raise the bounds in [collector.requests].",
            unit="reqps", width=6,
            queries=[Query("sum by (label) (rate(tally_service_folded_requests_total[$__rate_interval]))", "{{label}}")],
        ),
    )  # fmt: skip
