"""OpenSearch is away for a while: sidecars spool, their spools fill, senders are told to wait, and then everything arrives."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Literal

from drills.installation import Installation, until
from drills.story import BREAKER, Outcome, Story
from tests.servers.opensearch import Cluster

__all__ = ["outage_drill"]


def outage_drill(
    folder: Path,
    cluster: Cluster,
    *,
    how: Literal["killed", "stopped"],
    prefix: str,
    events: int,
    down_seconds: float,
    spool_bytes: int,
) -> Outcome:
    """Take the server away, restart a sidecar meanwhile, and bring the server back.

    Args:
        folder: an empty one, or none yet.
        cluster: one node.
        how: ``killed`` (SIGKILL; it refuses connections, and recovers when it is started) or ``stopped`` (SIGSTOP; it hangs).
        prefix: of index names that nobody else has.
        events: acknowledged before and afterwards.
        down_seconds: how long it is away at the least; it lasts until every spool is full and the breaker is open.
        spool_bytes: bound of each spool.
    """
    installation = Installation(
        folder,
        urls=cluster.urls,
        prefix=prefix,
        spool_bytes=spool_bytes,
        timeout_seconds=4.0 if how == "stopped" else 10.0,
    )
    server = cluster.nodes[0]

    def steps(story: Story) -> None:
        with story.phase("the server runs"):
            story.send(events)
        with story.phase(f"the server is {how}, a sidecar too") as phase:
            server.kill() if how == "killed" else server.pause()
            for name in installation.sidecars:
                until(f"the spool of {name} is full", lambda name=name: _refuses(installation, name))  # type: ignore[misc]
            first = installation.sidecars[0]
            installation.processes[first].kill()
            installation.start(first).wait_ready()
            until(f"{first} takes no more", lambda: _refuses(installation, first))
            until("the breaker is open", lambda: story.gauge(BREAKER))
            phase.status = installation.trouble()
            left = down_seconds - (time.monotonic() - phase.begin)
            if left > 0:
                time.sleep(left)  # the outage is as long as asked for
        with story.phase("the server is back") as phase:
            if how == "killed":
                server.start()
                cluster.wait()
                phase.begin = time.monotonic()
            else:
                server.resume()
            phase.resumed_seconds = story.stored_on()
            story.send(events)

    try:
        return Story(installation).tell(steps)
    finally:
        server.resume()
        if not server.alive():
            server.start()
        cluster.wait()


def _refuses(installation: Installation, name: str) -> bool:
    return installation.metrics(name).get("tally_collector_refusing") == 1.0
