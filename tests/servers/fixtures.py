"""Servers as fixtures, each started once a session by the first test that asks for it.

Tests share a server: each takes names of its own (an index prefix), and leaves it as healthy as it found it. A test that
kills a server starts its own `Cluster`.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest

from collector.store.settings import StoreSettings
from correlator.index.settings import IndexSettings
from tests.servers.kafka import Kafka
from tests.servers.keycloak import Keycloak
from tests.servers.opensearch import Cluster
from tests.servers.opensearch_security import Security
from tests.servers.pulsar import Pulsar
from tests.servers.rabbitmq import RabbitMq
from tests.servers.redis import RedisServer


@pytest.fixture(scope="session")
def opensearch() -> Iterator[Cluster]:
    """One OpenSearch node, plain HTTP."""
    with Cluster() as cluster:
        yield cluster


@pytest.fixture(scope="session")
def opensearch_secured(repo_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """One node with the security plugin, TLS by an authority of our own, and our roles: a user for each process.

    Users: ``collector``, ``correlator``, ``api``, ``retention``, ``doctor``, and ``stranger``, who may nothing.
    """
    users = {
        "collector": ["tally_collector"],
        "correlator": ["tally_correlator"],
        "api": ["tally_reader", "tally_collector"],
        "retention": ["tally_retention", "tally_reader", "tally_collector"],
        "doctor": ["tally_doctor"],
        "stranger": [],
    }
    folder = tmp_path_factory.mktemp("certificates")
    security = Security(folder, users=users, roles=repo_root / "deploy" / "opensearch" / "roles.yml")
    with Cluster(security=security) as cluster:
        yield cluster


@pytest.fixture
def opensearch_settings(opensearch: Cluster) -> Iterator[StoreSettings]:
    """The shared node with index names that no other test has; what lies under them is removed afterwards."""
    prefix = f"t-{secrets.token_hex(6)}"
    yield StoreSettings(urls=list(opensearch.urls), prefix=prefix)
    opensearch.ask("DELETE", f"/{prefix}-*")


@pytest.fixture
def opensearch_index(opensearch_settings: StoreSettings) -> IndexSettings:
    """The same for a trail index."""
    return IndexSettings(urls=opensearch_settings.urls, prefix=opensearch_settings.prefix)


@pytest.fixture(scope="session")
def kafka() -> Iterator[Kafka]:
    """One Kafka node, plain text."""
    with Kafka() as server:
        yield server


@pytest.fixture(scope="session")
def keycloak() -> Iterator[Keycloak]:
    """One Keycloak with the realm `tally`."""
    with Keycloak() as server:
        yield server


@pytest.fixture(scope="session")
def pulsar() -> Iterator[Pulsar]:
    """One Pulsar node, plain text."""
    with Pulsar() as server:
        yield server


@pytest.fixture(scope="session")
def rabbitmq() -> Iterator[RabbitMq]:
    """One RabbitMQ node, plain text."""
    with RabbitMq() as server:
        yield server


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisServer]:
    """One Redis, in plain text and over TLS. Who kills one starts its own."""
    with RedisServer() as server:
        yield server
