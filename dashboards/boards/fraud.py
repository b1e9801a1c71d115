"""Suspicious transactions: what the detector finds, how soon, whom it can tell, and what became of freezes."""

from dashboards.board import Board, Panel, Query, Row

__all__ = ["board"]

_FOUND = "tally_detector_findings_total"
_TRAILS = "/v1/trails?service=tallystick-detector"


def board() -> Board:
    """The board."""
    return Board(
        uid="tally-fraud",
        title="Tallystick: fraud",
        text="Findings of the detector. Each is in the trail of its payment, with its reason and the version of its rule; this board counts them.",
        rows=(
            Row(title="Now", panels=_now()),
            Row(title="Findings", panels=_findings()),
            Row(title="What comes of them", panels=_told()),
        ),
    )


def _now() -> tuple[Panel, ...]:
    return (
        Panel(
            kind="stat", title="Findings, last hour", text="Payments that a rule found suspicious in the last hour; a payment may be found by several.", unit="short",
            width=6, height=4, trails=_TRAILS, queries=[Query(f"sum(increase({_FOUND}[1h]))", "findings")],
        ),
        Panel(
            kind="stat", title="Of 1,000 payments", text="Findings for each thousand payments of the last hour: what an alert budget is measured in.", unit="short",
            width=6, height=4,
            queries=[Query(f"1000 * sum(increase({_FOUND}[1h])) / sum(increase(tally_detector_payments_total[1h]))", "findings")],
        ),
        Panel(
            kind="stat", title="Behind the log", text="Leaves of the log that the detector has not read.", unit="short", width=6, height=4, warn=1_000, bad=10_000,
            runbook="TallyDetectorBehind", queries=[Query("max(tally_detector_behind_leaves)", "leaves")],
        ),
        Panel(
            kind="stat", title="Wait to be told", text="Findings that are on record and that no Alertmanager has taken yet.", unit="short", width=6, height=4, warn=1, bad=100,
            runbook="TallyFindingsUntold", queries=[Query("sum(tally_detector_waiting_findings)", "findings")],
        ),
    )  # fmt: skip


def _findings() -> tuple[Panel, ...]:
    return (
        Panel(
            title="Findings by rule", text="How often each rule found something, each second.", unit="ops", width=12, stacked=True, trails=_TRAILS,
            queries=[Query(f"sum by (rule) (rate({_FOUND}[$__rate_interval]))", "{{rule}}")],
        ),
        Panel(
            title="Payments looked at", text="Payments each second, by their kind; and events that should be payments and cannot be read as one.", unit="ops", width=12,
            queries=[
                Query("sum by (payment) (rate(tally_detector_payments_total[$__rate_interval]))", "{{payment}}"),
                Query("sum by (payment) (rate(tally_detector_unreadable_total[$__rate_interval]))", "{{payment}}, unreadable"),
            ],
        ),
        Panel(
            kind="table", title="Rules, last hour", text="What each rule found in the last hour, by severity.", unit="short", width=12, by="rule",
            queries=[Query(f'sum by (rule) (increase({_FOUND}{{severity="{one}"}}[1h]))', one) for one in ("critical", "warning")],
        ),
        Panel(
            title="From payment to finding", text="From the time that a payment states until its finding was on record: half of them, and 99 of 100.", unit="s", width=12,
            queries=[
                Query(f"histogram_quantile({q}, sum by (le) (rate(tally_detector_found_seconds_bucket[$__rate_interval])))", name)
                for q, name in ((0.5, "p50"), (0.99, "p99"))
            ],
        ),
    )  # fmt: skip


def _told() -> tuple[Panel, ...]:
    return (
        Panel(
            title="Told to Alertmanager", text="Findings each second that an Alertmanager took, or refused for good; and how often none could be told.", unit="ops",
            width=8, runbook="TallyFindingsUntold",
            queries=[
                Query("sum by (outcome) (rate(tally_detector_told_total[$__rate_interval]))", "{{outcome}}"),
                Query("sum(rate(tally_detector_telling_failures_total[$__rate_interval]))", "could not be told"),
            ],
        ),
        Panel(
            title="Freezes asked for", text="Requests to stop a payment, by what became of them; and those that wait.", unit="short", width=8,
            runbook="TallyFreezeFailed",
            queries=[
                Query("sum by (outcome) (increase(tally_detector_freezes_total[$__rate_interval]))", "{{outcome}}"),
                Query("sum(tally_detector_waiting_freezes)", "waiting"),
            ],
        ),
        Panel(
            title="The detector could not read on", text="Times each second that log, store or its spool did not answer it. Payments are looked at when they do.", unit="ops", width=8,
            runbook="TallyDetectorFailing", queries=[Query("sum by (instance) (rate(tally_detector_failures_total[$__rate_interval]))", "{{instance}}")],
        ),
    )  # fmt: skip
