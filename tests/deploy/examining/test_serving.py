"""What the API needs beside the ledger, examined: a provider that answers, lies or is away; a Redis; room for exports."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from audit_api.identity.oidc.settings import OidcSettings
from audit_api.redis_settings import RedisSettings
from deploy.config import Config
from deploy.examining import Chart
from deploy.examining.serving import (
    examine_exports,
    examine_provider,
    examine_redis,
    judge_export_room,
    judge_redis,
)
from deploy.places import Places
from tests.servers.kafka import free_ports
from tests.servers.redis import RedisServer
from tests.support.charts import only, outcomes, troubles
from tests.support.issuer import TestIssuer

GIB = 1 << 30


def test_a_provider_that_is_as_it_must_be() -> None:
    with TestIssuer() as issuer:
        issuer.new_key("a", "EC")
        settings = OidcSettings(issuer=issuer.url, client_id="tally", device_client_id="cli")
        chart = examine_provider(settings)
    assert troubles(chart) == []
    assert outcomes(chart) == {"discovery": "ok", "keys": "ok"}
    assert chart.checks[1].found == "for ES256"


def test_a_provider_that_calls_itself_otherwise() -> None:
    with TestIssuer(metadata={"issuer": "https://another.example"}) as issuer:
        check = only(examine_provider(OidcSettings(issuer=issuer.url)))
    assert (check.name, check.outcome) == ("discovery", "failed")
    assert "calls itself otherwise" in check.found


def test_a_provider_that_is_away_or_broken() -> None:
    (port,) = free_ports(1)
    assert only(examine_provider(OidcSettings(issuer=f"http://127.0.0.1:{port}"))).name == "discovery"
    with TestIssuer(broken=500) as issuer:
        assert "answers 500" in only(examine_provider(OidcSettings(issuer=issuer.url))).found


def test_a_provider_without_a_key_that_fits_and_without_an_endpoint() -> None:
    with TestIssuer(metadata={"introspection_endpoint": "http://elsewhere.example/"}) as issuer:
        issuer.new_key("a", "EC")
        settings = OidcSettings(issuer=issuer.url, algorithms=("RS256",), introspection=True, client_id="tally")
        chart = examine_provider(settings)
    assert outcomes(chart) == {"discovery": "ok", "keys": "failed", "introspection_endpoint": "failed"}
    assert len(troubles(chart)) == 2


def test_exports_before_the_first_start_and_open_to_others(tmp_path: Path) -> None:
    places = Places(tmp_path / "data")
    config = msgspec.structs.replace(
        Config(), audit_api=msgspec.structs.replace(Config().audit_api, export_disk_bytes=1_000_000)
    )
    assert troubles(examine_exports(config, places)) == []
    assert not places.root.exists(), "nothing is made"
    places.exports_of("two").mkdir(parents=True, mode=0o700)
    places.exports.mkdir(mode=0o755)
    check = only(examine_exports(config, places))
    assert (check.name, check.mend) == ("exports", (f"chmod 700 {places.exports}",))
    places.exports.chmod(0o700)
    assert troubles(examine_exports(config, places)) == []


def test_exports_may_not_fill_the_disk() -> None:
    chart = Chart("exports")
    judge_export_room(chart, free_bytes=20 * GIB, held_bytes=0, most_bytes=10 * GIB)
    judge_export_room(chart, free_bytes=2 * GIB, held_bytes=9 * GIB, most_bytes=10 * GIB)
    assert troubles(chart) == []
    judge_export_room(chart, free_bytes=2 * GIB, held_bytes=1 * GIB, most_bytes=10 * GIB)
    assert only(chart).mend == (f"[audit_api] export_disk_bytes = {2 * GIB}",)


def test_a_redis_that_is_away() -> None:
    (port,) = free_ports(1)
    check = only(examine_redis(RedisSettings(url=f"redis://127.0.0.1:{port}")))
    assert check.outcome == "failed"
    assert "counts by itself" in check.found


@pytest.mark.redis
def test_a_redis_that_lets_us_in_and_one_that_does_not(redis_server: RedisServer, tmp_path: Path) -> None:
    assert troubles(examine_redis(redis_server.tls_settings())) == []
    (tmp_path / "password").write_text("wrong\n", encoding="utf-8")
    stranger = msgspec.structs.replace(redis_server.tls_settings(), password_file=str(tmp_path / "password"))
    check = only(examine_redis(stranger))
    assert "does not let us in" in check.found
    assert "wrong" not in check.found.split()
    elsewhere = msgspec.structs.replace(redis_server.tls_settings(), prefix="others")
    assert only(examine_redis(elsewhere)).mend[0].startswith("ACL SETUSER")
    untrusting = msgspec.structs.replace(redis_server.tls_settings(), ca_file="")
    assert "does not answer" in only(examine_redis(untrusting)).found


@pytest.mark.parametrize(
    ("version", "outcome"), [("7.0.15", "ok"), ("5.0.0", "ok"), ("4.0.9", "failed"), ("", "unknown")]
)
def test_versions_of_redis(version: str, outcome: str) -> None:
    chart = Chart("limits")
    judge_redis(chart, "redis://127.0.0.1", version)
    assert outcomes(chart) == {"Redis": outcome}
