"""Servers as fixtures, each started once a session by the first test that asks for it.

Tests share a server: each takes names of its own (an index prefix), and leaves it as healthy as it found it. A test that
kills a server starts its own `Cluster`.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.servers.opensearch import Cluster


@pytest.fixture(scope="session")
def opensearch() -> Iterator[Cluster]:
    """One OpenSearch node, plain HTTP."""
    with Cluster() as cluster:
        yield cluster
