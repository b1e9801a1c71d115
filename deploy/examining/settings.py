"""Do the settings go together? What one key cannot know of another, and what would show only when a process starts."""

from collections.abc import Callable, Mapping
from pathlib import Path

from collector.errors import TallyError
from collector.extract import Extractor
from collector.mapping.language import load_mappings
from collector.mapping.mapper import Mapper
from collector.protect import Protector
from collector.settings import CollectorSettings
from collector.store.settings import StoreSettings
from deploy.config import Config
from deploy.examining import Chart
from deploy.examining.listeners import judge_listeners
from deploy.storing import check_cluster, slower_than_a_standby

__all__ = ["collectors_of", "examine_settings"]


def collectors_of(config: Config) -> Mapping[str, CollectorSettings]:
    """The collectors that are configured, by the table that says so."""
    if not config.sidecars:
        return {"collector": config.collector}
    return {f"sidecars.{name}": settings for name, settings in config.sidecars.items()}


def examine_settings(config: Config, source: Path | None, *, standby: bool) -> Chart:
    """Judge the configuration by itself.

    Args:
        config: what is in force.
        source: the file it came from; None: the defaults.
        standby: whether a standby is known to run; `config.correlator.standby` counts as well.
    """
    chart = Chart("configuration")
    chart.ok("file", f"{source} was read" if source else "there is no file: the defaults")
    _rules(chart, config)
    _clusters(chart, config)
    _patience(chart, config, standby=standby or config.correlator.standby)
    judge_listeners(chart, config, collectors_of(config))
    return chart


def _rules(chart: Chart, config: Config) -> None:
    collectors = collectors_of(config)
    for table, settings in collectors.items():
        try:
            Extractor(settings.stitch)
            Protector(
                token_key=bytes(32),
                masked_fields=settings.protect.masked_fields,
                dropped_fields=settings.protect.dropped_fields,
            )
            Mapper(load_mappings(settings.mappings))
        except (TallyError, ValueError, OSError) as error:
            chart.fail("rules", f"[{table}] cannot be used: {error}", "its collector does not start until it is mended")
            return
    chart.ok("rules", "transactions, keys, masking and mappings can be used")


def _clusters(chart: Chart, config: Config) -> None:
    for table, settings in (("store", config.store), ("index", config.index)):
        if settings.urls and (reason := _reason(check_cluster, settings, table)):
            chart.fail(table, reason)


def _reason(check: Callable[[StoreSettings, str], None], settings: StoreSettings, table: str) -> str:
    try:
        check(settings, table)
    except TallyError as error:
        return str(error)
    return ""


def _patience(chart: Chart, config: Config, *, standby: bool) -> None:
    """A writer that waits for its store longer than a standby waits for the writer is taken for dead."""
    if not (config.store.urls or config.index.urls):
        return
    slow = slower_than_a_standby(config)
    if not slow:
        chart.ok("patience", "an answer of the cluster is given up before a standby takes over")
    elif standby:
        lower = max(config.correlator.take_over_seconds - config.correlator.renew_seconds, 0.1)
        chart.fail(
            "patience",
            f"a standby takes over after {config.correlator.take_over_seconds:g} s, and the writer may wait longer for one answer: "
            + ", ".join(f"[{table}] {seconds:g} s" for table, seconds in slow.items()),
            *(f"[{table}] timeout_seconds = {lower:g}" for table in slow),
            "or raise correlator.take_over_seconds, on all correlators of this log",
        )
    else:
        chart.ok(
            "patience",
            "there is no standby here; with one, timeout_seconds of "
            f"{' and '.join(f'[{table}]' for table in slow)} would have to be lower",
        )
