"""Pipeline health: from senders over spools and store into the log. What is refused, what waits, what is missing."""

from dashboards.board import Board, Panel, Query, Row

__all__ = ["board"]


def board() -> Board:
    """The board."""
    return Board(
        uid="tally-pipeline",
        title="Tallystick: pipeline",
        text="Whether everything that happens reaches the log: collectors, event store, correlator.",
        rows=(
            Row(title="Collectors: what comes in", panels=_in()),
            Row(title="Collectors: what waits", panels=_waiting()),
            Row(title="Correlator: into the log", panels=_log()),
            Row(title="Proofs: what is missing or does not verify", panels=_proofs()),
            Row(title="SIEM: what is sent on", panels=_siem()),
            Row(title="Event store and trail index on OpenSearch", panels=_store()),
        ),
    )


def _in() -> tuple[Panel, ...]:
    return (
        Panel(
            title="Events taken", text="Events made durable each second, by collector's address.", unit="ops",
            queries=[Query("sum by (instance) (rate(tally_collector_events_total[$__rate_interval]))", "{{instance}}")],
        ),
        Panel(
            title="Refused, and sent again", text="Inputs put into the dead letters and connections refused, by reason; re-sends that were recognised.",
            unit="ops", runbook="TallyDeadLetters",
            queries=[
                Query("sum by (reason) (rate(tally_collector_refused_total[$__rate_interval]))", "refused: {{reason}}"),
                Query("sum(rate(tally_collector_duplicates_total[$__rate_interval]))", "sent again"),
            ],
        ),
        Panel(
            title="Until the sender hears yes", text="From a group's arrival to its acknowledgement, which is after the fsync: half of them, and 99 of 100.",
            unit="s",
            queries=[
                Query(f"histogram_quantile({q}, sum by (le) (rate(tally_collector_ack_seconds_bucket[$__rate_interval])))", name)
                for q, name in ((0.5, "p50"), (0.99, "p99"))
            ],
        ),
        Panel(
            title="Files behind", text="Bytes of followed files that are not taken yet.", unit="bytes", width=6,
            queries=[Query("sum by (instance, tail) (tally_collector_tail_behind_bytes)", "{{instance}} {{tail}}")],
        ),
        Panel(
            title="Messages from brokers", text="Messages of Kafka, RabbitMQ and Pulsar that are durable, each second.", unit="ops", width=6, runbook="TallyBrokerLost",
            queries=[Query("sum by (system, entry) (rate(tally_collector_broker_messages_total[$__rate_interval]))", "{{system}} {{entry}}")],
        ),
        Panel(
            title="Told to wait, by way in", text="Groups each second that were told to come later: the spool, or their sender's share of it, is full.", unit="ops", width=6,
            runbook="TallyRefusing", queries=[Query("sum by (input) (rate(tally_collector_input_refused_total[$__rate_interval]))", "{{input}}")],
        ),
        Panel(
            title="Waited for a turn, by way in", text="How often each second a sender waited because others' work was at hand. It rises with any load.", unit="ops", width=6,
            queries=[Query("sum by (input) (rate(tally_collector_input_waits_total[$__rate_interval]))", "{{input}}")],
        ),
        Panel(
            title="Services' metrics that did not go on", text="Data points each second that Prometheus will never have, by reason. What is sent again is no newer, and no loss.",
            unit="ops", runbook="TallyMetricsDropped",
            queries=[Query("sum by (reason) (rate(tally_collector_metrics_dropped_total[$__rate_interval]))", "{{reason}}")],
        ),
        Panel(
            title="Clocks", text="By how much each collector's clock is off, either way, as its batches say. Nothing where nobody knows.", unit="s",
            runbook="TallyClockOffset", queries=[Query("max by (instance) (abs(tally_collector_clock_offset_seconds))", "{{instance}}")],
        ),
        Panel(
            title="Brokers that answer", text="1 while the broker of an entry of Kafka, RabbitMQ or Pulsar answers.", unit="short", top=1.2, runbook="TallyBrokerLost",
            queries=[Query("min by (system, entry) (tally_collector_broker_connected)", "{{system}} {{entry}}")],
        ),
    )  # fmt: skip


def _waiting() -> tuple[Panel, ...]:
    return (
        Panel(
            title="Spools", text="What each spool holds, as a share of what it may hold. At 100 % senders are told to wait.", unit="percentunit",
            warn=0.5, bad=0.9, runbook="TallySpoolFilling",
            queries=[Query("max by (instance) (tally_collector_spool_bytes / tally_collector_spool_limit_bytes)", "{{instance}}")],
        ),
        Panel(
            title="Oldest event without a store", text="For how long, at most, the oldest event that the store does not have has been waiting.", unit="s",
            warn=5, bad=60, runbook="TallyStoreUnavailable",
            queries=[Query("max by (instance) (tally_collector_spool_age_seconds)", "{{instance}}")],
        ),
        Panel(
            title="Batches stored and not logged", text="How far the log is behind the store, by collector. It stands still: the correlator is down, or a batch is missing.",
            unit="short", runbook="TallyNoWriter",
            queries=[Query("max by (instance) (tally_collector_shipped_batch - tally_collector_logged_batch)", "{{instance}}")],
        ),
        Panel(
            kind="stat", title="Take no events", text="Collectors whose spool or disk is full.", unit="short", width=3, height=4, bad=1, runbook="TallyRefusing",
            queries=[Query("sum(tally_collector_refusing)", "refusing")],
        ),
        Panel(
            kind="stat", title="Store taken to be down", text="Collectors that have given up on the store for now, and try again.", unit="short", width=4, height=4,
            bad=1, runbook="TallyStoreUnavailable", queries=[Query("sum(tally_collector_breaker_open)", "open")],
        ),
        Panel(
            kind="stat", title="Shipping retried", text="Times since their start that collectors had to try again.", unit="short", width=3, height=4, warn=1,
            runbook="TallyStoreUnavailable", queries=[Query("sum(tally_collector_failed_rounds)", "retries")],
        ),
        Panel(
            kind="stat", title="Batches sent again", text="Batches that the store had taken and lost, and got again: who deletes there?", unit="short", width=4, height=4,
            warn=1, runbook="TallySequenceGap", queries=[Query("sum(tally_collector_resent_batches)", "again")],
        ),
        Panel(
            kind="stat", title="Spools set aside", text="Folders that do not read back, and clones found. Keep them: they may hold what is nowhere else.", unit="short",
            width=3, height=4, bad=1, runbook="TallySpoolDamaged", queries=[Query("sum(tally_collector_damaged_spools + tally_collector_forks)", "damaged")],
        ),
        Panel(
            kind="stat", title="Reload refused", text="Collectors that run on an older configuration: what stands in the file was refused, and the next start will fail or differ.",
            unit="short", width=3, height=4, bad=1, runbook="TallyReloadRefused", queries=[Query("sum(1 - tally_collector_config_last_reload_successful)", "refused")],
        ),
        Panel(
            kind="stat", title="Senders wait for the store", text="Groups whose senders wait for the event store (ack = store).", unit="short", width=4, height=4,
            queries=[Query("sum(tally_collector_ack_waiting_groups)", "groups")],
        ),
    )  # fmt: skip


def _log() -> tuple[Panel, ...]:
    return (
        Panel(
            title="Entries", text="Entries published each second, by kind.", unit="ops", stacked=True,
            queries=[Query("sum by (kind) (rate(tally_correlator_entries_total[$__rate_interval]))", "{{kind}}")],
        ),
        Panel(
            title="Behind", text="Batches read and not published, and leaves published and not indexed.", unit="short", runbook="TallyStitchSlow",
            queries=[
                Query("sum by (instance) (tally_correlator_lag_batches)", "batches {{instance}}"),
                Query("sum by (instance) (tally_correlator_index_lag_leaves)", "leaves {{instance}}"),
            ],
        ),
        Panel(
            title="A publish takes", text="Staged, head swapped, tiles and checkpoint written: half of them, and 99 of 100.", unit="s",
            queries=[
                Query(f"histogram_quantile({q}, sum by (le) (rate(tally_correlator_publish_seconds_bucket[$__rate_interval])))", name)
                for q, name in ((0.5, "p50"), (0.99, "p99"))
            ],
        ),
        Panel(
            title="Age of the newest entry", text="It climbs to a minute and falls when collectors sign their heartbeat. Climbing on: something stands still.",
            unit="s", warn=120, bad=300, runbook="TallyCheckpointLate",
            queries=[Query("max by (instance) (tally_correlator_head_age_seconds)", "{{instance}}")],
        ),
        Panel(
            title="Who writes", text="1 where a correlator writes its log, 0 where it opens it or stands by.", unit="short", top=1.2, runbook="TallyNoWriter",
            queries=[Query('max by (instance) (tally_correlator_role{tally_correlator_role="writer"})', "{{instance}}")],
        ),
        Panel(
            title="Leaves of the log", text="How many leaves are published.", unit="short",
            queries=[Query("max by (instance) (tally_correlator_log_leaves)", "{{instance}}")],
        ),
    )  # fmt: skip


def _proofs() -> tuple[Panel, ...]:
    return (
        Panel(
            title="Batches missing", text="Batches that gap entries name and that have not come.", unit="short", bad=1, width=6, runbook="TallySequenceGap",
            trails="/v1/trails?status=gap", queries=[Query("sum by (instance) (tally_correlator_missing_batches)", "{{instance}}")],
        ),
        Panel(
            title="Gap entries", text="Put on record, by reason, in each interval: `silent` is a collector that stopped without closing its stream.", unit="short",
            width=6, runbook="TallyVerificationFailed", trails="/v1/trails?status=gap",
            queries=[Query("sum by (reason) (increase(tally_correlator_gaps_total[$__rate_interval]))", "{{reason}}")],
        ),
        Panel(
            title="Streams by state", text="`stopped`: a batch did not verify, and nothing of that stream is taken any more.", unit="short", stacked=True,
            width=6, runbook="TallyVerificationFailed", queries=[Query("max by (state) (tally_correlator_streams)", "{{state}}")],
        ),
        Panel(
            title="Steps given up", text="Steps of the correlator and looks at the joint statement that had to be tried again, each second.", unit="ops", width=6,
            queries=[
                Query("sum(rate(tally_correlator_failures_total[$__rate_interval]))", "steps"),
                Query("sum(rate(tally_correlator_statement_failures_total[$__rate_interval]))", "statement"),
            ],
        ),
        Panel(
            title="What does not verify", text="Names of streams that none can have, shards that do not continue the joint statement, findings of the last check; and answers of the API that were refused for evidence that does not hold, in each interval. Anything but 0 is for a person.",
            unit="short", bad=1, width=24, runbook="TallyVerificationFailed",
            queries=[
                Query("max by (instance) (tally_correlator_illegal_streams)", "streams {{instance}}"),
                Query("max by (instance) (tally_correlator_statement_refused_shards)", "shards {{instance}}"),
                Query("max(tally_check_findings)", "last check"),
                Query('sum(increase(tally_api_refused_total{reason="evidence-damaged"}[$__rate_interval]))', "answers refused"),
            ],
        ),
    )  # fmt: skip


def _siem() -> tuple[Panel, ...]:
    return (
        Panel(
            title="SIEM behind", text="How long ago the first entry was recorded that a destination was not sent yet.", unit="s", width=5, warn=60, bad=300,
            runbook="TallySiemBehind", queries=[Query("max by (destination) (tally_siem_behind_seconds)", "{{destination}}")],
        ),
        Panel(
            title="Leaves not sent", text="Leaves of the logs that a destination was not sent yet.", unit="short", width=5, runbook="TallySiemBehind",
            queries=[Query("max by (destination) (tally_siem_behind_leaves)", "{{destination}}")],
        ),
        Panel(
            title="Sent to the SIEM", text="Records taken each second; those with less in them than their entry; trials that failed; times that log or store was not read.", unit="ops", width=9,
            runbook="TallySiemReduced",
            queries=[
                Query("sum by (destination) (rate(tally_siem_sent_total[$__rate_interval]))", "{{destination}}"),
                Query("sum by (destination, reason) (rate(tally_siem_reduced_total[$__rate_interval]))", "{{destination}}, {{reason}}"),
                Query("sum by (destination) (rate(tally_siem_failures_total[$__rate_interval]))", "{{destination}}, failed"),
                Query("sum by (destination) (rate(tally_siem_log_failures_total[$__rate_interval]))", "{{destination}}, log not read"),
            ],
        ),
        Panel(
            title="Sent without their event", text="Events of the log, in each interval, that the store has lost or that are not what the log says. Their records say so.", unit="short", width=5, bad=1,
            runbook="TallySiemEventsMissing", trails="/v1/trails?status=gap",
            queries=[Query("sum by (destination) (increase(tally_siem_missing_events_total[$__rate_interval]))", "{{destination}}")],
        ),
    )  # fmt: skip


def _store() -> tuple[Panel, ...]:
    return (
        Panel(
            title="Requests to the store", text="Requests to the cluster each second, by outcome.", unit="reqps",
            queries=[Query("sum by (outcome) (rate(tally_store_requests_total[$__rate_interval]))", "{{outcome}}")],
        ),
        Panel(
            title="The store answers in (p99)", text="99 of 100 requests were answered within this, by operation.", unit="s",
            queries=[Query("histogram_quantile(0.99, sum by (operation, le) (rate(tally_store_request_seconds_bucket[$__rate_interval])))", "{{operation}}")],
        ),
        Panel(
            title="What is wrong", text="1 for what is wrong now with requests of a kind, until one succeeds.", unit="short", top=1.2, runbook="TallyStoreUnavailable",
            queries=[
                Query("max by (operation, reason) (tally_store_trouble) > 0 or max(tally_store_trouble)", "store {{operation}} {{reason}}"),
                Query("max by (operation, reason) (tally_index_trouble) > 0 or max(tally_index_trouble)", "index {{operation}} {{reason}}"),
            ],
        ),
    )  # fmt: skip
