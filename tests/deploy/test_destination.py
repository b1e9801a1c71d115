"""Where a sidecar ships: the store, or another collector; and that a spool does not change between them."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from collector.relay import Relay
from collector.settings import RelaySettings
from collector.store.sqlite import SqliteStore
from deploy.config import Config, ConfigError, parse
from deploy.places import Places
from deploy.storing import open_destination

RELAY = '[collector.relay]\nhost = "central.internal"\n'


def opened(tmp_path: Path, text: str) -> object:
    config: Config = parse(text, source="tally.toml", folder=tmp_path)
    places = Places(Path(config.data))
    made = open_destination(config, places, config.collector)
    made.close()
    return made


def spooled(tmp_path: Path) -> None:
    """The spool of a collector that has run."""
    folder = tmp_path / "tally-data" / "spool" / "collector" / "0123456789abcdef"
    folder.mkdir(parents=True)
    (folder / "meta.json").write_text("{}")


def test_the_settings_choose() -> None:
    assert RelaySettings().host == ""
    assert RelaySettings(host="h").tls


def test_a_new_collector_may_do_either(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "tally-data").mkdir()
    assert isinstance(opened(tmp_path / "a", ""), SqliteStore)
    assert isinstance(opened(tmp_path / "b", RELAY), Relay)
    assert isinstance(opened(tmp_path / "b", RELAY), Relay)


def test_a_spool_that_ships_to_a_store_is_not_turned_upstream(tmp_path: Path) -> None:
    spooled(tmp_path)
    with pytest.raises(ConfigError, match=r"ships to a store.*another name"):
        opened(tmp_path, RELAY)


def test_a_spool_that_ships_upstream_is_not_turned_to_a_store(tmp_path: Path) -> None:
    opened(tmp_path, RELAY)
    spooled(tmp_path)
    with pytest.raises(ConfigError, match=r"ships to another collector.*another name"):
        opened(tmp_path, "")
    assert isinstance(opened(tmp_path, RELAY), Relay)


def test_files_that_are_not_there_are_named(tmp_path: Path) -> None:
    for line in ('shared_key_file = "none.key"', 'tls_ca = "none.pem"', 'tls_certificate = "none.pem"\ntls_key = "x"'):
        with pytest.raises(ConfigError, match=r"collector\.relay: .*none\.(key|pem)"):
            opened(tmp_path, RELAY + line)


@pytest.mark.parametrize(
    ("table", "why"),
    [
        ({"tls_certificate": "c"}, "go together"),
        ({"user": "u"}, "user and password_file go together"),
        ({"user": "u", "password_file": "p"}, "goes with shared_key_file"),
        ({"tls": False, "tls_ca": "ca"}, "tls = false"),
        ({"port": 0}, "port"),
        ({"compression": "lz4"}, "compression"),
    ],
)
def test_what_cannot_be_is_refused(table: dict[str, object], why: str) -> None:
    with pytest.raises(msgspec.ValidationError, match=why):
        msgspec.convert(table, RelaySettings)
