"""OpenSearch refuses what it is sent: it has too much to do, an index is blocked, its disk is nearly full, its disk is full."""

from __future__ import annotations

import http.client
import json
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from drills.installation import Installation, until
from drills.smalldisk import SmallDisk
from drills.story import AGE, Outcome, Phase, Story
from tests.servers.opensearch import Cluster

__all__ = ["FULL", "PRESSURE_SETTINGS", "may_make", "pressure_drill"]

PRESSURE_SETTINGS = {
    # as a server has them; a test server otherwise looks at no disk, because a developer's may be full
    "cluster.routing.allocation.disk.threshold_enabled": True,
    # room left, in place of 5, 10 and 15 % of the disk: more than a server writes between two looks at so small a disk
    "cluster.routing.allocation.disk.watermark.flood_stage": "64mb",
    "cluster.routing.allocation.disk.watermark.high": "72mb",
    "cluster.routing.allocation.disk.watermark.low": "80mb",
    "cluster.info.update.interval": "10s",  # the least; by default 30 s
    "monitor.fs.health.refresh_interval": "5s",  # by default 60 s: so long a server takes to see that it can write again
    "indexing_pressure.memory.limit": "4mb",  # by default a tenth of the heap
}
"""What the drill's server is started with."""

FULL = ("No space left on device", "disk is full", "flood-stage watermark")
"""What a sidecar hears of a full disk: one of these, by whether it asks before the server has closed its shards or blocked them."""

_CAUGHT_UP_SECONDS = 5.0
_LEAVE_BYTES = 60 * 1024**2
_HOG_BYTES = (*[256 * 1024] * 16, *[8 * 1024] * 32, *[512] * 32)
"""Of their requests: the small ones fill what the large ones leave."""


def pressure_drill(
    folder: Path,
    cluster: Cluster,
    disk: SmallDisk,
    *,
    prefix: str,
    events: int,
    hold_seconds: float,
    pause_seconds: float = 0.05,
) -> Outcome:
    """Press in four ways, one after the other, each until the sidecars have said what it is; and let go.

    Args:
        folder: an empty one, or none yet.
        cluster: one node with `PRESSURE_SETTINGS`, whose data lie on `disk`.
        disk: to be filled.
        prefix: of index names that nobody else has.
        events: acknowledged before, between and afterwards.
        hold_seconds: how long the pressure goes on after it was told of.
        pause_seconds: between a sender's groups of ten events.
    """
    installation = Installation(folder, urls=cluster.urls, prefix=prefix)

    def steps(story: Story) -> None:
        with story.phase("the server runs"):
            story.send(events)
        with story.phase("it has too much to do (429)") as phase, _hogs(cluster):
            _told(story, phase, "has too much to do: rejected_execution_exception")
            time.sleep(hold_seconds)
        _again(story, events)
        with story.phase("an administrator blocks writing") as phase:
            cluster.ask("PUT", f"/{prefix}-events-*/_settings", {"index.blocks.write": True})
            _told(story, phase, "lets nothing be written")
            time.sleep(hold_seconds)
            cluster.ask("PUT", f"/{prefix}-events-*/_settings", {"index.blocks.write": None})
        _again(story, events)
        with story.phase("its disk is beyond the flood-stage watermark") as phase, _nearly_full(disk):
            _told(story, phase, "flood-stage watermark")
            time.sleep(hold_seconds)
        _again(story, events)
        with story.phase("its disk is full") as phase, _kept_full(disk):
            # who asks first hears of the disk; then its shards are closed, or blocked by the watermark, and the others hear of that
            _told(story, phase, *FULL)
            time.sleep(hold_seconds)
        _again(story, events)
        until("indexes can be made", lambda: may_make(cluster))  # with the disk full, that was blocked as well

    return Story(installation, pause_seconds=pause_seconds).tell(steps)


def _told(story: Story, phase: Phase, *texts: str) -> None:
    """Every sidecar has one of these in its log, and `tally status` shows what shipping waits for."""
    installation = story.installation

    def has_said(name: str) -> bool:
        return any(installation.said(name, text, after=phase.lines[name]) for text in texts)

    for name in installation.sidecars:
        try:
            until(f"{name} says {' or '.join(texts)}", lambda name=name: has_said(name))  # type: ignore[misc]
        except TimeoutError as error:
            said = installation.logged(name)[phase.lines[name] :]
            raise TimeoutError(f"{error}; it said {said[-3:]}, and {len(said)} lines in all") from None
    phase.status = until("`tally status` says why", installation.trouble)


def _again(story: Story, events: int) -> None:
    with story.phase("let go") as phase:
        phase.resumed_seconds = story.stored_on()
        story.send(events)
        # what piled up comes fast: a disk that is to be nearly full would be full of it before the server looks
        until("what waited is stored", lambda: story.gauge(AGE) < _CAUGHT_UP_SECONDS)


@contextmanager
def _nearly_full(disk: SmallDisk) -> Iterator[None]:
    """With less room than the watermark asks for, and more than is written before the server looks again."""
    disk.fill(leave_bytes=_LEAVE_BYTES)
    try:
        yield
    finally:
        disk.free()


@contextmanager
def _kept_full(disk: SmallDisk) -> Iterator[None]:
    """Full for the length of the block, whatever the server removes meanwhile."""
    stop = threading.Event()

    def fill() -> None:
        while not stop.is_set():
            disk.fill()
            stop.wait(0.05)

    thread = threading.Thread(target=fill)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        disk.free()


def may_make(cluster: Cluster) -> bool:
    """Whether the cluster takes a new index."""
    try:
        cluster.ask("PUT", "/probe")
    except urllib.error.HTTPError:
        return False
    cluster.ask("DELETE", "/probe")
    return True


@contextmanager
def _hogs(cluster: Cluster) -> Iterator[None]:
    """Other writers, whose requests wait for a replica that never comes, and occupy what the server has for writing."""
    cluster.ask("PUT", "/hogs", {"settings": {"index.number_of_replicas": 1}, "mappings": {"dynamic": False}})
    stop = threading.Event()
    threads = [threading.Thread(target=_hog, args=(cluster, size, stop)) for size in _HOG_BYTES]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        cluster.ask("DELETE", "/hogs")  # ends what waits
        for thread in threads:
            thread.join()


def _hog(cluster: Cluster, size_bytes: int, stop: threading.Event) -> None:
    body = json.dumps({"create": {"_index": "hogs"}}) + "\n" + json.dumps({"text": "x" * size_bytes}) + "\n"
    url = f"{cluster.url}/_bulk?wait_for_active_shards=2&timeout=30s"
    while not stop.is_set():
        request = urllib.request.Request(url, body.encode(), {"content-type": "application/x-ndjson"})  # noqa: S310 - our own server
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310 - as above
                answer.read()
        except (OSError, http.client.HTTPException):
            pass  # refused itself: it comes again
        stop.wait(0.2)
