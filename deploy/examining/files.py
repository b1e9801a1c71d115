"""Can the embedded event store and the embedded trail index be read?"""

from collections.abc import Callable
from pathlib import Path

from collector.errors import TallyError
from correlator.shards import WHOLE, Shard
from deploy.config import Config
from deploy.examining import Chart
from deploy.indexing import open_index
from deploy.places import Places
from deploy.storing import open_store

__all__ = ["examine_index_file", "examine_store_file"]


def examine_store_file(config: Config, places: Places) -> Chart:
    """Open the store's SQLite file for reading."""
    chart = Chart("store")
    _open(
        chart,
        places.store,
        lambda: open_store(config, places, read_only=True).close(),
        "tally check    # and bring the file back from its copy if it is damaged",
    )
    return chart


def examine_index_file(config: Config, places: Places, *, shard: Shard = WHOLE) -> Chart:
    """Open a shard's, or the ledger's, SQLite file of the index for reading; `places` are the shard's."""
    chart = Chart(f"index of {shard.name}" if shard.name else "index")
    _open(
        chart,
        places.index,
        lambda: open_index(config, places, read_only=True).close(),
        "stop the correlator, and: tally reindex",
    )
    return chart


def _open(chart: Chart, name: Path, opened: Callable[[], None], mend: str) -> None:
    if not name.exists():
        chart.ok("file", f"{name} is made by the first process that needs it")
        return
    try:
        opened()
    except (TallyError, OSError) as error:
        chart.fail("file", f"{name}: {error}", mend)
    else:
        chart.ok("file", f"{name} can be read")
