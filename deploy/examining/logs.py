"""Is the log where the configuration says, is it ours, and does its head make sense?"""

from collections.abc import Callable

from correlator.checkpoint import Checkpoint, open_checkpoint
from correlator.errors import NotFound, TallyError, VerificationError
from correlator.head import Head, decode_head
from correlator.note import Verifier
from correlator.shards import WHOLE, Shard
from correlator.storage import CHECKPOINT, LogStorage
from correlator.storage.file import FileStorage
from deploy.config import Config, ConfigError
from deploy.examining import Chart
from deploy.keys import log_verifier
from deploy.places import Places
from deploy.wording import count

__all__ = ["examine_log", "judge_head"]


def examine_log(
    config: Config,
    places: Places,
    *,
    shard: Shard = WHOLE,
    opened: Callable[[], LogStorage],
    now_ns: Callable[[], int],
    write_probe: bool,
) -> tuple[Chart, Head | None]:
    """Look at the log; gives its head as well, where there is one.

    Args:
        config: says where it lies.
        places: where its key is.
        shard: which of the ledger's logs it is.
        opened: opens it.
        now_ns: Unix time in nanoseconds.
        write_probe: try, by writing and removing one small object, whether object storage keeps the conditions of a put.
    """
    chart = Chart(f"log of {shard.name}" if shard.name else "log")
    name = "/".join(part for part in (config.log or str(places.log), shard.name) if part)
    try:
        storage = opened()
        raw = storage.read_head()
    except TallyError as error:
        help_ = (
            'do the environment\'s credentials, region and endpoint fit? (docs/operating.md, "The log on object storage")'
            if config.log
            else f"ls -ld {places.log}    # is it ours?"
        )
        chart.fail(
            "storage",
            f"{name}: {error}",
            "pip install 'tallystick[objects]'" if isinstance(error, ConfigError) else help_,
        )
        return chart, None
    if raw is None:
        if _published(storage):
            chart.fail(
                "head",
                f"{name} holds a checkpoint and no head: its writer cannot go on",
                "bring the head back from its copy",
            )
        else:
            chart.ok("storage", f"{name} can be read; there is no log there yet")
        _conditions(chart, storage, seen=False, write_probe=write_probe)
        return chart, None
    chart.ok("storage", f"{name} can be read")
    head = _head(chart, raw, places, shard)
    if head is not None:
        judge_head(chart, head, now_ns=now_ns(), take_over_seconds=config.correlator.take_over_seconds)
        _conditions(chart, storage, seen=True, write_probe=write_probe)
    return chart, head


def _published(storage: LogStorage) -> bool:
    try:
        storage.get(CHECKPOINT)
    except TallyError:
        return False
    return True


def _head(chart: Chart, raw: bytes, places: Places, shard: Shard) -> Head | None:
    try:
        head = decode_head(raw)
        verifier = log_verifier(places)
        verifier = verifier.named(shard.origin(verifier.name))
    except VerificationError as error:
        chart.fail("head", str(error), "tally check    # and bring the head back from its copy")
        return None
    except ConfigError as error:
        chart.fail("key", f"the log's public key: {error}", f"copy log.vkey from the log's writer to {places.log_vkey}")
        return None
    checkpoint = _signed(chart, head, verifier, places)
    if checkpoint is None:
        return None
    if (checkpoint.size, checkpoint.root.hex()) != (head.size, head.root):
        chart.fail("head", "the head's checkpoint is of another tree than the head", "tally check")
        return None
    chart.ok(
        "head", f"{count(head.size, 'leaf', 'leaves')}, signed by {verifier.name} with our key, epoch {head.epoch:,}"
    )
    return head


def _signed(chart: Chart, head: Head, verifier: Verifier, places: Places) -> Checkpoint | None:
    try:
        return open_checkpoint(head.checkpoint.encode(), verifier)
    except VerificationError as error:
        chart.fail(
            "key",
            f"the log is not signed by {places.log_vkey}: {error}",
            "is it this ledger's log (`log`, `data`), and this ledger's key?",
        )
        return None


def judge_head(chart: Chart, head: Head, *, now_ns: int, take_over_seconds: float) -> None:
    """Does somebody write it? An open log whose head has stood still for longer than a standby waits has lost its writer."""
    age_seconds = max(now_ns - head.written_ns, 0) / 1e9
    if not head.writer:
        chart.ok("writer", "nobody: the log is closed")
    elif age_seconds > take_over_seconds:
        chart.warn(
            "writer",
            f"{head.writer} has it open, and has not renewed its head for {_age(age_seconds)}: it is dead, hangs, or is cut off",
            "tally run correlator    # or tally up; it waits until the head has stood still, and goes on",
        )
    else:
        chart.ok("writer", f"{head.writer}, {age_seconds:.1f} s ago")


def _age(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7_200 else f"{seconds / 3_600:,.0f} h"


def _conditions(chart: Chart, storage: LogStorage, *, seen: bool, write_probe: bool) -> None:
    """Object storage must keep the conditions of puts: files have a lock instead."""
    if isinstance(storage, FileStorage):
        return
    if write_probe:
        from correlator.storage.objects import ObjectStorage

        assert isinstance(storage, ObjectStorage)
        try:
            storage.probe()
        except NotFound as error:
            chart.fail(
                "conditional puts", f"what was put cannot be read: {error}", "is the bucket replicated, or cached?"
            )
        except TallyError as error:
            chart.fail("conditional puts", str(error), "AWS, MinIO, Ceph, R2, GCS and Azure can; see docs/operating.md")
        else:
            chart.ok("conditional puts", "tried by a small object, which is removed: they are kept")
    elif seen:
        chart.ok("conditional puts", "the log's writer tried them before it wrote")
    else:
        chart.unknown(
            "conditional puts",
            "only a write shows whether this storage keeps them; the correlator tries before its first",
            "tally doctor --write-probe    # puts one small object below probe/, and removes it",
        )
