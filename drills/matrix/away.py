"""Event stores that can be taken away from a running collector and given back: the embedded one, and a real OpenSearch."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import Protocol

from tests.servers.opensearch import Cluster

__all__ = ["ClusterStore", "EmbeddedStore", "Store"]


class Store(Protocol):
    """Where a collector of the matrix ships to.

    Attributes:
        toml: its table ``[store]``; empty: the embedded store.
    """

    toml: str

    def away(self, data: Path) -> None:
        """From now on nothing can be written. `data` is the collector's data folder."""

    def back(self) -> None:
        """It can be written again."""


class EmbeddedStore:
    """The SQLite file in the collector's data folder. It goes away in that another process's transaction holds the file's one write lock."""

    toml = ""

    def __init__(self) -> None:
        self._holder: sqlite3.Connection | None = None

    def away(self, data: Path) -> None:
        """See `Store`."""
        self._holder = sqlite3.connect(
            data / "store.sqlite", isolation_level=None, check_same_thread=False, timeout=10.0
        )
        self._holder.execute("BEGIN IMMEDIATE")

    def back(self) -> None:
        """See `Store`."""
        if self._holder is not None:
            self._holder.rollback()
            self._holder.close()
            self._holder = None


class ClusterStore:
    """A real OpenSearch node of its own, killed with SIGKILL and started again; each collector has an index prefix of its own."""

    def __init__(self, cluster: Cluster, prefix: str) -> None:
        self._cluster = cluster
        self.toml = f'[store]\nurls = {json.dumps(list(cluster.urls))}\nprefix = "{prefix}"\nreplicas = 0\ntimeout_seconds = 10.0\n'

    def away(self, data: Path) -> None:
        """See `Store`."""
        del data
        self._cluster.nodes[0].kill()

    def back(self) -> None:
        """See `Store`."""
        node = self._cluster.nodes[0]
        if not node.alive():
            node.start()
        self._cluster.wait()
