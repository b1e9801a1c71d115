"""The collector's settings: the defaults hold, and what cannot be is refused by name."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from collector.extract import Extractor
from collector.settings import CollectorSettings
from collector.sidecar import pipeline_limits


def read(**table: Any) -> CollectorSettings:
    return msgspec.convert(table, CollectorSettings)


def test_an_empty_table_is_the_default_and_listens_to_this_machine_alone() -> None:
    settings = read()
    assert settings == CollectorSettings()
    assert (settings.forward.host, settings.http.host) == ("127.0.0.1", "127.0.0.1")
    for off in (settings.elasticsearch, settings.beats):
        assert (off.host, off.port) == ("127.0.0.1", -1)
    Extractor(settings.stitch)


def test_the_settings_reach_the_pipelines_bounds() -> None:
    limits = pipeline_limits(
        read(
            spool={"max_bytes": 1_000, "journal_ids": 7},
            ship={"batch_events": 5, "batch_bytes": 2_048, "heartbeat_seconds": 3, "linger_seconds": 0.5},
        )
    )
    assert (limits.spool.total_bytes, limits.journal_ids, limits.linger_seconds) == (1_000, 7, 0.5)
    assert (limits.batch.events, limits.batch.size_bytes, limits.batch.heartbeat_seconds) == (5, 2_048, 3)


@pytest.mark.parametrize(
    ("table", "where"),
    [
        ({"tail": [{"paths": []}]}, "length"),
        ({"tail": [{"paths": ["relative/*.log"]}]}, "absolute"),
        ({"tail": [{"paths": ["/a"]}, {"paths": ["/a"]}]}, "two entries"),
        ({"tail": [{"paths": ["/a"], "service_pattern": "("}]}, "regular expression"),
        ({"tail": [{"paths": ["/a"], "service_pattern": "x"}]}, "named service"),
        ({"tail": [{"paths": ["/a"], "multiline": {"start": "["}}]}, "regular expression"),
        ({"tail": [{"paths": ["/a"], "format": "json", "multiline": {"indented": True}}]}, "each line"),
        ({"kafka": [{"brokers": [], "topics": ["a"]}]}, "length"),
        ({"kafka": [{"brokers": ["b"], "topics": ["a"]}]}, "brokers"),
        ({"kafka": [{"brokers": ["b:1"], "topics": ["a b"]}]}, "topics"),
        ({"kafka": 2 * [{"brokers": ["b:1"], "topics": ["a"]}]}, "two entries"),
        ({"kafka": [{"brokers": ["b:1"], "topics": ["a"], "tls_ca": "c"}]}, "tls = true"),
        ({"kafka": [{"brokers": ["b:1"], "topics": ["a"], "tls": True, "tls_key": "k"}]}, "go together"),
        ({"kafka": [{"brokers": ["b:1"], "topics": ["a"], "sasl": "PLAIN", "user": "u"}]}, "go together"),
        (
            {"kafka": [{"brokers": ["b:1"], "topics": ["a"], "sasl": "PLAIN", "user": "u", "password_file": "p"}]},
            "PLAIN sends",
        ),
        ({"pulsar": [{"brokers": ["pulsar://b:1"], "topics": ["a"]}]}, "brokers"),
        ({"pulsar": [{"brokers": ["b:1"], "topics": ["non-persistent://public/default/a"]}]}, "topics"),
        ({"pulsar": [{"brokers": ["b:1"], "topics": ["shop/a"]}]}, "topics"),
        ({"pulsar": [{"brokers": ["b:1"], "topics": ["a"], "subscription": "a/b"}]}, "subscription"),
        ({"pulsar": 2 * [{"brokers": ["b:1"], "topics": ["a"]}]}, "two entries"),
        ({"pulsar": [{"brokers": ["b:1"], "topics": ["a"], "token_file": "t"}]}, "needs tls"),
        ({"pulsar": [{"brokers": ["b:1"], "topics": ["a"], "tls_ca": "c"}]}, "tls = true"),
        ({"pulsar": [{"brokers": ["b:1"], "topics": ["a"], "tls": True, "tls_key": "k"}]}, "go together"),
        ({"amqp": [{"queue": ""}]}, "queue"),
        ({"amqp": [{"queue": "a"}, {"queue": "a"}]}, "two entries"),
        ({"amqp": [{"queue": "a", "host": "rabbit"}]}, "needs tls"),
        ({"amqp": [{"queue": "a", "tls_ca": "c"}]}, "tls = true"),
        ({"amqp": [{"queue": "a", "tls": True, "tls_certificate": "c"}]}, "go together"),
        ({"syslog": {"zone": "Nowhere/At_all"}}, "zone"),
        ({"syslog": {"tls_port": 6514}}, "tls_certificate"),
        ({"kubernetes": {"server": "https://user@host"}}, "server"),
        ({"nmae": "x"}, "nmae"),
        ({"forward": {"prot": 1}}, "forward"),
        ({"name": "Payments"}, "name"),
        ({"name": ""}, "name"),
        ({"name": "a/b"}, "name"),
        ({"name": "x" * 65}, "name"),
        ({"forward": {"port": 65_536}}, "port"),
        ({"http": {"port": -2}}, "port"),
        ({"http": {"max_body_bytes": 0}}, "max_body_bytes"),
        ({"beats": {"tls_client_ca": "ca.pem"}}, "tls_client_ca"),
        ({"beats": {"port": 5044, "host": "10.0.0.1"}}, "needs TLS"),
        ({"elasticsearch": {"port": 9200, "host": "::"}}, "needs TLS"),
        ({"http": {"host": "collector.internal"}}, "needs TLS"),
        ({"syslog": {"tls_port": 6514}}, "tls_port needs tls_certificate and tls_key"),
        ({"syslog": {"port": 601, "host": "10.0.0.1", "tls_certificate": "c", "tls_key": "k"}}, "unprotected = true"),
        ({"elasticsearch": {"product": "solr"}}, "product"),
        ({"elasticsearch": {"version": "8"}}, "version"),
        ({"grpc": {"tls_key": "k.pem"}}, "tls_certificate and tls_key go together"),
        ({"grpc": {"tls_client_ca": "ca.pem"}}, "tls_client_ca"),
        ({"grpc": {"port": 4317, "host": "0.0.0.0"}}, "grpc.*needs TLS|needs TLS.*grpc"),  # noqa: S104 - must be refused
        ({"metrics_to": {"url": "prometheus:9090"}}, "url is no whole URL"),
        ({"metrics_to": {"url": "ftp://prometheus/write"}}, "url is no whole URL"),
        ({"metrics_to": {"url": "http://"}}, "url is no whole URL"),
        ({"metrics_to": {"url": "http://localhost:9090"}}, "url is no whole URL"),
        ({"metrics_to": {"url": "http://localhost:99999/write"}}, "url is no whole URL"),
        ({"metrics_to": {"url": "http://me:secret@localhost/write"}}, "url holds more than a place"),
        ({"metrics_to": {"url": "http://localhost/write?token=x"}}, "url holds more than a place"),
        ({"metrics_to": {"url": "http://prometheus:9090/api/v1/write"}}, "needs https://, or unprotected = true"),
        ({"metrics_to": {"url": "http://localhost/write", "ca_file": "ca.pem"}}, "settings for TLS"),
        (
            {"metrics_to": {"url": "https://h/write", "client_key": "k"}},
            "client_certificate and client_key go together",
        ),
        ({"metrics_to": {"url": "https://h/write", "user": "me"}}, "user and password_file go together"),
        (
            {"metrics_to": {"url": "https://h/write", "user": "me", "password_file": "p", "token_file": "t"}},
            "one Authorization",
        ),
        ({"metrics_to": {"own_seconds": 15.0}}, "url is empty"),
        ({"metrics_to": {"expose": True}, "http": {"port": -1}}, "port of http, which is off"),
        ({"metrics_to": {"url": "https://h/write", "protocol": "graphite"}}, "protocol"),
        ({"spool": {"max_event_bytes": 100}}, "max_event_bytes"),
        ({"spool": {"max_bytes": "4 GB"}}, "max_bytes"),
        ({"ship": {"batch_events": 32_769}}, "batch_events"),
        ({"ship": {"drain_seconds": -1.0}}, "drain_seconds"),
        ({"stitch": {"keys": [{"fields": ["attributes.a"]}]}}, "name"),
    ],
)
def test_what_cannot_be_is_refused_by_name(table: dict[str, Any], where: str) -> None:
    with pytest.raises(msgspec.ValidationError, match=where):
        read(**table)


def test_where_metrics_may_go_to() -> None:
    for url in (
        "http://localhost:9090/api/v1/write",
        "http://127.0.0.1:9090/api/v1/otlp/v1/metrics",
        "https://h/write",
    ):
        assert read(metrics_to={"url": url}).metrics_to.url == url
    assert read(metrics_to={"url": "http://prometheus:9090/api/v1/write", "unprotected": True}).metrics_to.unprotected


@pytest.mark.parametrize(
    "grpc",
    [
        {"host": "0.0.0.0"},  # noqa: S104 - it is off
        {"port": 4317},
        {"port": 4317, "host": "::1"},
        {"port": 4317, "host": "localhost"},
        {"port": 4317, "host": "10.0.0.1", "unprotected": True},
        {"port": 4317, "host": "10.0.0.1", "tls_certificate": "c.pem", "tls_key": "k.pem"},
    ],
)
def test_where_grpc_may_listen(grpc: dict[str, Any]) -> None:
    assert read(grpc=grpc).grpc.host == grpc.get("host", "127.0.0.1")
