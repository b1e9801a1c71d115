"""The drills on OpenSearch in full: nodes killed, the server away for minutes, refusing, and full disks; and their tables."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from drills.nodes import nodes_drill
from drills.outage import outage_drill
from drills.owndisk import OWN_DISK, own_disk_drill
from drills.pressure import PRESSURE_SETTINGS, pressure_drill
from drills.smalldisk import SmallDisk, in_namespace, may_mount
from drills.story import print_outcome
from tests.servers.opensearch import Cluster

__all__ = ["OPENSEARCH_PARTS", "opensearch_tables"]

_ON_SMALL_DISKS = ("opensearch-pressure", "opensearch-spool-disk")
OPENSEARCH_PARTS = ("opensearch-nodes", "opensearch-outage", *_ON_SMALL_DISKS)
"""Each needs Java 21 and Maven, and the last two root (or `unshare -rm`), to mount small disks."""

_SPOOL_BYTES = 16 * 1024**2
_DISKS = {"server": 512, OWN_DISK: 48}
"""Small disks with their MiB."""


def opensearch_tables(folder: Path, parts: Sequence[str], *, outage_seconds: float, events: int) -> int:
    """Run these parts and print their tables; gives how many promises were broken.

    Args:
        folder: to write in.
        parts: of `OPENSEARCH_PARTS`.
        outage_seconds: how long the server is away.
        events: acknowledged between what goes wrong.
    """
    try:
        return sum(_table(folder, part, outage_seconds=outage_seconds, events=events) for part in parts)
    except pytest.skip.Exception as missing:  # what tests on servers are skipped for: there is no Java, or no Maven
        print(f"\n{', '.join(parts)}: skipped: {missing}")
        return 0


def _table(folder: Path, part: str, *, outage_seconds: float, events: int) -> int:
    failed = 0
    if part in _ON_SMALL_DISKS and not may_mount():
        return _table_elsewhere(folder, part, outage_seconds=outage_seconds, events=events)
    if part == "opensearch-nodes":
        with Cluster(nodes=3, data=folder) as cluster:
            nodes = nodes_drill(
                folder / "nodes", cluster, prefix="nodes", events=events, down_seconds=outage_seconds / 6
            )
        failed += print_outcome("Three nodes with a replica, two of them killed one after the other", nodes)
    if part == "opensearch-outage":
        with Cluster(data=folder) as cluster:
            for how in ("killed", "stopped"):
                outage = outage_drill(
                    folder / how,
                    cluster,
                    how=how,
                    prefix=how,
                    events=events,
                    down_seconds=outage_seconds,
                    spool_bytes=_SPOOL_BYTES,
                )
                failed += print_outcome(f"The server {how} for {outage_seconds:.0f} s", outage)
    if part == "opensearch-pressure":
        with (
            SmallDisk(folder / "server", mebibytes=_DISKS["server"]) as disk,
            Cluster(data=disk.folder, settings=PRESSURE_SETTINGS) as cluster,
        ):
            pressure = pressure_drill(
                folder / "pressure", cluster, disk, prefix="pressure", events=events, hold_seconds=outage_seconds / 3
            )
        failed += print_outcome("A server that refuses, and one whose disk is full", pressure)
    if part == "opensearch-spool-disk":
        with Cluster(data=folder) as cluster:
            own = own_disk_drill(folder / "own", cluster, prefix="own", events=events, mebibytes=_DISKS[OWN_DISK])
        failed += print_outcome("The disk of a spool is full", own)
    return failed


def _table_elsewhere(folder: Path, part: str, *, outage_seconds: float, events: int) -> int:
    """The same in namespaces of its own, where small disks can be mounted without being root."""
    disks = folder / f"disks-{part}"
    disks.mkdir()
    options = [f"--outage-seconds={outage_seconds}", f"--events={events}"]
    command = [sys.executable, "-m", "drills", part, *options]
    sys.stdout.flush()
    code = in_namespace(disks, _DISKS, command)
    if code is None:
        print(f"\n{part}: skipped: needs root, or user namespaces (`unshare -rm`), to mount small disks")
    return 1 if code else 0
