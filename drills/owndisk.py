"""The sidecar's own disk is full: of its own events while the store is away, and of somebody else's file."""

from __future__ import annotations

from pathlib import Path

from drills.installation import Installation, until
from drills.smalldisk import SmallDisk
from drills.story import REFUSING, Outcome, Story
from tests.servers.opensearch import Cluster

__all__ = ["OWN_DISK", "own_disk_drill"]

OWN_DISK = "payments"
"""Name of the sidecar, and so of its disk."""

_KEEP_FREE_BYTES = 2 * 1024**2


def own_disk_drill(folder: Path, cluster: Cluster, *, prefix: str, events: int, mebibytes: int) -> Outcome:
    """Fill the disk of a sidecar's spool twice, and make room.

    Args:
        folder: an empty one, or none yet.
        cluster: one node, which is stopped for a while.
        prefix: of index names that nobody else has.
        events: acknowledged before, between and afterwards.
        mebibytes: size of the spool's disk.
    """
    installation = Installation(
        folder,
        urls=cluster.urls,
        sidecars=(OWN_DISK,),
        prefix=prefix,
        keep_free_bytes=_KEEP_FREE_BYTES,
        timeout_seconds=10.0,
    )

    def steps(story: Story) -> None:
        with story.phase("room on the disk"):
            story.send(events)
        with story.phase("the server is stopped, and the spool fills its disk") as phase:
            cluster.nodes[0].pause()
            until("events are refused", lambda: story.gauge(REFUSING), seconds=600)
            phase.status = installation.trouble()
        with story.phase("the server goes on") as phase:
            cluster.nodes[0].resume()
            phase.resumed_seconds = story.stored_on()
            story.send(events)
        with story.phase("somebody else fills the disk, and the sidecar is killed") as phase:
            disk.fill()
            until("events are refused", lambda: story.gauge(REFUSING))
            phase.status = installation.trouble()
            installation.processes[OWN_DISK].kill()
            installation.start(OWN_DISK).wait_ready()
            until("events are refused", lambda: story.gauge(REFUSING))
            disk.free()
        with story.phase("room again") as phase:
            phase.resumed_seconds = story.stored_on()
            story.send(events)

    with SmallDisk(installation.places.spool(OWN_DISK), mebibytes=mebibytes) as disk:
        try:
            return Story(installation, pause_seconds=0.02).tell(steps)
        finally:
            cluster.nodes[0].resume()
            cluster.wait()
