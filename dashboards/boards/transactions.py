"""Transactions: how many begin, how they end, in which currency, what lacks a step, and how far behind the log is."""

from dashboards.board import Board, Panel, Query, Row, Variable

__all__ = ["board"]

_FLOW = 'flow=~"$flow"'
_VERDICTS = f"tally_flow_verdicts_total{{{_FLOW}}}[$__rate_interval]"
_TRAILS = "/v1/trails?kind=transaction&status="


def board() -> Board:
    """The board."""
    return Board(
        uid="tally-transactions",
        title="Tallystick: transactions",
        text="Declared flows: what begins, how it ends, and what lacks a step.",
        variables=(Variable(name="flow", label="Flow", metric="tally_flow_trails"),),
        rows=(
            Row(title="Where they stand", panels=_standing()),
            Row(title="How they end", panels=_ends()),
            Row(title="How soon it is on record", panels=_soon()),
        ),
    )


def _stat(title: str, state: str, text: str, bad: float | None = None) -> Panel:
    return Panel(
        kind="stat", title=title, text=text, unit="short", width=4, height=4, bad=bad, trails=f"{_TRAILS}{state}",
        runbook="TallyTransactionsIncomplete" if state == "incomplete" else "",
        queries=[Query(f'sum(tally_flow_trails{{{_FLOW},state="{state}"}})', state)],
    )  # fmt: skip


def _standing() -> tuple[Panel, ...]:
    all_of = f'sum(tally_flow_trails{{{_FLOW},state!="open"}})'
    return (
        _stat("Open", "open", "Begun, and neither done nor over their deadline. Across restarts."),
        _stat("Complete", "complete", "All steps that are due have happened."),
        _stat("Compensated", "compensated", "Something failed, and what had been done was undone."),
        _stat("Failed", "failed", "Failed, with nothing to undo."),
        _stat("Incomplete", "incomplete", "Over their deadline, and a step is missing: each trail says which.", bad=1),
        Panel(
            kind="stat", title="Complete of all that ended", text="Share of transactions with a verdict that are complete.", unit="percentunit",
            width=4, height=4, warn=0.95, bad=0.8, low_is_bad=True,
            queries=[Query(f'sum(tally_flow_trails{{{_FLOW},state="complete"}}) / {all_of}', "complete")],
        ),
    )  # fmt: skip


def _ends() -> tuple[Panel, ...]:
    return (
        Panel(
            title="Verdicts", text="Verdicts put on record each second; one that replaces another counts again.", unit="ops", stacked=True,
            trails=f"{_TRAILS}${{__field.labels.verdict}}",
            queries=[Query(f"sum by (verdict) (rate({_VERDICTS}))", "{{verdict}}")],
        ),
        Panel(
            title="Incomplete", text="Share of verdicts that say that a step is missing, by flow.", unit="percentunit", warn=0.01, bad=0.05,
            trails=f"{_TRAILS}incomplete", runbook="TallyTransactionsIncomplete",
            queries=[
                Query(
                    f'sum by (flow) (rate(tally_flow_verdicts_total{{{_FLOW},verdict="incomplete"}}[$__rate_interval]))'
                    f" / (sum by (flow) (rate({_VERDICTS})) > 0)",
                    "{{flow}}",
                )
            ],
        ),
        Panel(
            title="By currency", text="Verdicts each second, by the currency of the flow's amounts; `none`: no amount was declared.", unit="ops",
            stacked=True, queries=[Query(f"sum by (currency) (rate({_VERDICTS}))", "{{currency}}")],
        ),
        Panel(
            title="Transactions by state", text="All transactions in which a flow has begun, by their newest verdict.", unit="short", width=12,
            stacked=True, trails=f"{_TRAILS}${{__field.labels.state}}",
            queries=[Query(f"sum by (state) (tally_flow_trails{{{_FLOW}}})", "{{state}}")],
        ),
        Panel(
            title="Revised and late", text="Verdicts that a late fact replaced, and events that filled a gap of their stream, each second.",
            unit="ops", width=12,
            queries=[
                Query(f"sum(rate(tally_flow_revised_verdicts_total{{{_FLOW}}}[$__rate_interval]))", "verdicts revised"),
                Query("sum(rate(tally_correlator_late_events_total[$__rate_interval]))", "events late"),
            ],
        ),
    )  # fmt: skip


def _soon() -> tuple[Panel, ...]:
    buckets = "sum by (le) (rate(tally_stitch_latency_seconds_bucket[$__rate_interval]))"
    return (
        Panel(
            title="From the collector into the log",
            text="From a batch's cutting, by its collector's clock, to its entries' publication, by the correlator's: half of the batches, and 99 of 100.",
            unit="s", width=12, warn=30, runbook="TallyStitchSlow",
            queries=[Query(f"histogram_quantile({q}, {buckets})", name) for q, name in ((0.5, "p50"), (0.99, "p99"))],
        ),
        Panel(
            title="Batches with events, into the log", text="How many batches that held events were put into the log, each second.", unit="ops", width=12,
            queries=[Query("sum(rate(tally_stitch_latency_seconds_count[$__rate_interval]))", "batches")],
        ),
    )  # fmt: skip
