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
