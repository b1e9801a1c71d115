"""Settings that do not go together are told, with the line that mends them; and a standby refuses the worst of them."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import pytest

from correlator.shards import WHOLE
from deploy.config import Config, ConfigError, parse
from deploy.correlating import serve_correlator
from deploy.examining.settings import examine_settings
from deploy.places import Places
from deploy.storing import check_patience
from tests.support.charts import only, outcomes, troubles

ALL = "0.0.0.0"  # noqa: S104 - of a test's own socket, for a moment
CLUSTER = '[store]\nurls = ["https://search.example:9200"]\n'


def config_of(text: str, folder: Path = Path("/nowhere")) -> Config:
    return parse(text, source="tally.toml", folder=folder)


def test_the_defaults_go_together() -> None:
    chart = examine_settings(config_of(""), None, standby=True)
    assert troubles(chart) == []
    assert "defaults" in chart.checks[0].found


@pytest.mark.parametrize("told_by", ["the configuration", "a process that runs"])
def test_a_writer_more_patient_than_its_standby_is_told_and_mended(told_by: str) -> None:
    text = CLUSTER + ("[correlator]\nstandby = true\n" if told_by == "the configuration" else "")
    runs = told_by == "a process that runs"
    check = only(examine_settings(config_of(text), Path("tally.toml"), standby=runs))
    assert (check.name, check.outcome) == ("patience", "failed")
    assert "[store] 30 s" in check.found
    setting = check.mend[0].removeprefix("[store] ")
    assert setting == "timeout_seconds = 7", "take_over_seconds less renew_seconds"
    mended = config_of(text.replace("[store]\n", f"[store]\n{setting}\n"))
    assert troubles(examine_settings(mended, None, standby=runs)) == []
    check_patience(mended)


def test_without_a_standby_nobody_is_troubled_by_patience() -> None:
    chart = examine_settings(config_of(CLUSTER), None, standby=False)
    assert troubles(chart) == []
    assert any("would have to be lower" in check.found for check in chart.checks)


def test_a_standby_does_not_start_with_it(tmp_path: Path) -> None:
    config = config_of(CLUSTER, tmp_path)
    places = Places(Path(config.data))
    serving = serve_correlator(
        config, places, shard=WHOLE, name="", standby=True, stopped=asyncio.Event(), ready=lambda *_args, **_more: None
    )
    with pytest.raises(ConfigError, match=r"store\.timeout_seconds: 30 s is too long .* at most 7 s"):
        asyncio.run(serving)
    assert not places.root.exists(), "refused before anything was made"


@pytest.mark.parametrize("table", ["index", "store"])
def test_patience_is_asked_of_store_and_index(table: str) -> None:
    config = config_of(f'[{table}]\nurls = ["https://search.example:9200"]\n')
    with pytest.raises(ConfigError, match=rf"{table}\.timeout_seconds"):
        check_patience(config)
    check_patience(config_of(f'[{table}]\nurls = ["https://search.example:9200"]\ntimeout_seconds = 7.0\n'))


def test_two_sidecars_on_one_port_are_told() -> None:
    text = "[sidecars.a]\n[sidecars.b.http]\nport = 0\n[sidecars.b.forward]\nport = -1\n"
    assert troubles(examine_settings(config_of(text), None, standby=False)) == []
    found = troubles(examine_settings(config_of("[sidecars.a]\n[sidecars.b]\n"), None, standby=False))
    assert [check.outcome for check in found] == ["failed", "failed"]
    assert "[sidecars.a.forward] and [sidecars.b.forward] both listen on port 24224" in found[0].found


def test_a_listener_for_everybody_needs_tls() -> None:
    check = only(examine_settings(config_of('[audit_api]\nhost = "0.0.0.0"\n'), None, standby=False))
    assert (check.name, check.outcome) == ("listeners", "warning")
    assert "[audit_api]" in check.found
    shielded = '[audit_api]\nhost = "0.0.0.0"\ntls_certificate = "a.pem"\ntls_key = "b.pem"\n'
    assert troubles(examine_settings(config_of(shielded), None, standby=False)) == []


@pytest.mark.parametrize("way", ["forward", "http", "grpc", "elasticsearch", "beats", "syslog"])
def test_every_way_in_is_looked_at(way: str) -> None:
    text = f'[collector.{way}]\nhost = "0.0.0.0"\nport = 5044\nunprotected = true\n'
    (check,) = troubles(examine_settings(config_of(text), None, standby=False))
    assert f"[collector.{way}]" in check.found
    taken = f"[audit_api]\nport = 5044\n[collector.{way}]\nport = 5044\n"
    (check,) = troubles(examine_settings(config_of(taken), None, standby=False))
    assert "both listen on port 5044" in check.found


@pytest.mark.parametrize(
    ("one", "other", "meet"),
    [
        ("127.0.0.1", "localhost", True),
        ("127.0.0.1", "127.0.0.2", False),
        (ALL, "127.0.0.2", True),
        ("::", "::1", True),
        ("::", "127.0.0.1", False),
        (ALL, "::", False),
        (ALL, "::1", False),
    ],
)
def test_addresses_meet_as_sockets_do(one: str, other: str, meet: bool) -> None:
    def listening(host: str, port: int) -> socket.socket:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)

    with listening(one, 0) as first:
        port = first.getsockname()[1]
        try:
            listening(other, port).close()
            met = False
        except OSError:
            met = True
    assert met is meet
    more = 'tls_certificate = "a.pem"\ntls_key = "b.pem"\n'
    text = (
        f'[audit_api]\nhost = "{one}"\nport = {port}\n{more}[collector.http]\nhost = "{other}"\nport = {port}\n{more}'
    )
    found = troubles(examine_settings(config_of(text), None, standby=False))
    assert [f"both listen on port {port}" in check.found for check in found] == [True] * meet


def test_ports_of_syslog_and_of_metrics_are_looked_at() -> None:
    def told(text: str) -> list[str]:
        return [check.found for check in troubles(examine_settings(config_of(text), None, standby=False))]

    assert told("[collector.syslog]\nudp_port = 5140\nport = 5140\n") == [], "UDP and TCP do not meet"
    tls = 'tls_certificate = "a.pem"\ntls_key = "b.pem"\n'
    (both,) = told(f"[collector.beats]\nport = 6514\n[collector.syslog]\ntls_port = 6514\n{tls}")
    assert "[collector.beats] and [collector.syslog]" in both
    (both,) = told("[correlator]\nshards = 2\nmetrics_port = 9500\n[siem]\nmetrics_port = 9501\n")
    assert "[correlator] and [siem] both listen on port 9501" in both


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ('[[collector.stitch.keys]]\nname = "a"\npattern = "("\n', "rules"),
        ('[collector.protect]\nmasked_fields = ["*"]\n', "rules"),
        ('[[collector.stitch.amounts]]\nfields = ["attributes.a"]\ncurrency = "EURO"\n', "rules"),
        ('[collector]\nmappings = ["preset:none"]\n', "rules"),
        ('[collector]\nmappings = ["/no/such/file.toml"]\n', "rules"),
        ('[store]\nurls = ["http://search.example:9200"]\nuser = "u"\npassword_file = "p"\n', "store"),
        ('[index]\nurls = ["https://search.example:9200"]\nuser = "u"\n', "index"),
        ('[store]\nurls = ["https://search.example:9200"]\ncopies = 2\n', "store"),
    ],
)
def test_what_would_only_show_at_the_start_is_told_before(text: str, name: str) -> None:
    chart = examine_settings(config_of(text), None, standby=False)
    assert outcomes(chart)[name] == "failed"
