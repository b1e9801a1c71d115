"""Audit and compliance: who reads how much, what is refused, and when the ledger was last found to hold."""

from dashboards.board import Board, Panel, Query, Row

__all__ = ["board"]

_REFUSED = 'reason=~"unauthenticated|forbidden|too-many-requests|not-on-record|unavailable|evidence-damaged|internal"'
_CODES = "tally_api_request_seconds_count"
_OLDEST = "tally_incidents_oldest_unsigned_timestamp_seconds"  # 0 where there is none


def board() -> Board:
    """The board."""
    return Board(
        uid="tally-audit",
        title="Tallystick: audit & compliance",
        text="Readings of the trail, which are on record themselves, and the ledger's own checks. Who read what is in the log: /v1/principals.",
        rows=(
            Row(title="Now", panels=_now()),
            Row(title="Readings", panels=_readings()),
            Row(title="Checks", panels=_checks()),
            Row(title="Incidents and daily review", panels=_incidents()),
        ),
    )


def _now() -> tuple[Panel, ...]:
    return (
        Panel(
            kind="stat", title="Put on record, last hour", text="Accesses and refusals made durable in the last hour.", unit="short", width=6, height=4,
            runbook="TallyUnusualReads", trails="/v1/principals",
            queries=[Query("sum(increase(tally_api_accesses_total[1h]))", "accesses")],
        ),
        Panel(
            kind="stat", title="Refused, last hour", text="For want of a token or of a role.", unit="short", width=6, height=4, warn=20, runbook="TallyReadsRefused",
            trails="/v1/principals",
            queries=[Query('sum(increase(tally_api_refused_total{reason=~"unauthenticated|forbidden"}[1h]))', "refused")],
        ),
        Panel(
            kind="stat", title="Findings of the last check", text="What `tally check` found to be wrong, but for gaps and silent streams. Anything but 0 is for a person.", unit="short", width=6, height=4,
            bad=1, runbook="TallyVerificationFailed", queries=[Query("max(tally_check_findings)", "findings")],
        ),
        Panel(
            kind="stat", title="Since the last check", text="How long ago `tally check` came to its end.", unit="s", width=6, height=4, warn=86_400, bad=93_600,
            runbook="TallyCheckOverdue", queries=[Query("time() - max(tally_check_timestamp_seconds)", "ago")],
        ),
    )  # fmt: skip


def _readings() -> tuple[Panel, ...]:
    return (
        Panel(
            title="Requests by route", text="Requests to the API each second, by operation.", unit="reqps",
            queries=[Query(f"sum by (route) (rate({_CODES}[$__rate_interval]))", "{{route}}")],
        ),
        Panel(
            title="Refused, by reason", text="Requests refused each second, by problem.", unit="reqps", runbook="TallyReadsRefused", trails="/v1/principals",
            queries=[Query(f"sum by (reason) (rate(tally_api_refused_total{{{_REFUSED}}}[$__rate_interval]))", "{{reason}}")],
        ),
        Panel(
            title="Put on record", text="Accesses and refusals made durable each second; refusals beyond that, counted and not recorded one by one.", unit="ops",
            runbook="TallyUnusualReads",
            queries=[
                Query("sum(rate(tally_api_accesses_total[$__rate_interval]))", "on record"),
                Query("sum(rate(tally_api_surplus_refusals_total[$__rate_interval]))", "counted only"),
            ],
        ),
        Panel(
            title="The API answers in (p99)", text="99 of 100 requests were answered within this, recording included, by operation.", unit="s",
            queries=[Query("histogram_quantile(0.99, sum by (route, le) (rate(tally_api_request_seconds_bucket[$__rate_interval])))", "{{route}}")],
        ),
        Panel(
            title="Recording an access takes", text="Until an access is durable, which is before its answer goes out: half of them, and 99 of 100.", unit="s",
            queries=[
                Query(f"histogram_quantile({q}, sum by (le) (rate(tally_api_record_seconds_bucket[$__rate_interval])))", name)
                for q, name in ((0.5, "p50"), (0.99, "p99"))
            ],
        ),
        Panel(
            title="Limits shared between processes", text="1: this API process counts limits together with others, 0: by itself, as it does without a Redis. And questions a second that Redis did not answer.",
            unit="short", runbook="TallyLimitsNotShared",
            queries=[
                Query("max by (instance) (tally_api_limits_shared)", "{{instance}}"),
                Query("sum(rate(tally_api_shared_limit_failures_total[$__rate_interval]))", "not answered"),
            ],
        ),
    )  # fmt: skip


def _checks() -> tuple[Panel, ...]:
    return (
        Panel(
            title="Leaves: log, index, last check", text="How far the log is, how much of it the index has, and how much the last check looked at.", unit="short", width=12,
            queries=[
                Query("max(tally_api_log_leaves)", "log"),
                Query("max(tally_api_indexed_leaves)", "index"),
                Query("max(tally_check_leaves)", "last check"),
            ],
        ),
        Panel(
            title="Evidence that does not hold", text="Answers that were refused because log or store do not verify.", unit="short", width=12, bad=1,
            runbook="TallyVerificationFailed",
            queries=[Query('sum(increase(tally_api_refused_total{reason="evidence-damaged"}[$__rate_interval]))', "damaged")],
        ),
    )  # fmt: skip


def _incidents() -> tuple[Panel, ...]:
    return (
        Panel(
            title="Open incidents, by cause", text="Controls that failed and have not been found to work again.", unit="short", bad=1,
            runbook="TallyIncidentUnsigned", trails="/v1/incidents",
            queries=[Query("sum by (cause) (tally_incidents_open)", "{{cause}}")],
        ),
        Panel(
            title="Incidents not signed off, by cause", text="Nobody has put on record why the control failed and what was done about it.", unit="short", warn=1,
            runbook="TallyIncidentUnsigned", trails="/v1/incidents",
            queries=[Query("sum by (cause) (tally_incidents_unsigned)", "{{cause}}")],
        ),
        Panel(
            title="Days not signed off", text="Days that are over for a day and that nobody has signed off. 0, too, where no day has to be (audit_api.daily_review_since).",
            unit="short", bad=1, runbook="TallyDayUnsigned", trails="/v1/review-days", queries=[Query("max(tally_api_daily_reviews_unsigned)", "days")],
        ),
        Panel(
            title="Oldest incident not signed off, by cause", text="How long ago the oldest of them began.", unit="s", width=12, runbook="TallyIncidentUnsigned", trails="/v1/incidents",
            queries=[Query(f"(time() - min by (cause) ({_OLDEST} > 0)) or 0 * max by (cause) ({_OLDEST})", "{{cause}}")],
        ),
        Panel(
            title="The keeper of incidents", text="Leaves of the logs that it has not read; and times each second that log, index or its spool did not answer it.", unit="short", width=12,
            runbook="TallyIncidentsFailing",
            queries=[
                Query("max by (instance) (tally_incidents_behind_leaves)", "leaves behind {{instance}}"),
                Query("sum by (instance) (rate(tally_incidents_failures_total[$__rate_interval]))", "could not read on {{instance}}"),
            ],
        ),
    )  # fmt: skip
