"""Where a sidecar ships: the store, or another collector; and that a spool does not change between them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from collector.disk import OsDisk
from collector.pipeline import Pipeline, PipelineLimits
from collector.relay import Relay, upstream_has
from collector.settings import RelaySettings
from collector.ship import BatchLimits
from collector.spool import Group, SpoolLimits
from collector.store.sqlite import SqliteStore
from deploy.checking import Account, Finding
from deploy.checking.spools import check_spools
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


class Taking:
    """An upstream that takes everything."""

    def send_packed(
        self, tag: str, packed: bytes, *, count: int, chunk: str, option: Mapping[str, Any] | None = None
    ) -> None: ...

    def close(self) -> None: ...


def test_a_relaying_spool_that_has_let_go_is_no_finding_of_the_check(tmp_path: Path) -> None:
    """No store and no log know its stream: what it may have let go of is what its upstream has."""
    root = tmp_path / "spool" / "edge"
    pipeline = Pipeline(
        root,
        collector="edge",
        ledger="l",
        store=Relay(Taking(), root=root, disk=OsDisk(), tag="edge"),
        key=Ed25519PrivateKey.from_private_bytes(b"k" * 32),
        limits=PipelineLimits(spool=SpoolLimits(segment_bytes=400), batch=BatchLimits(events=2, heartbeat_seconds=0)),
    )
    for number in range(6):
        group = Group(group_id=b"%d" % number, source_ids=[b""], events=[b'{"body":"%0300d"}' % number], facts=[b"{}"])
        pipeline.append(group, lambda _: None)
        pipeline.commit_once()
        if number == 3:
            while pipeline.ship_once():
                pipeline.release_once()

    def findings() -> list[str]:
        found: list[Finding] = []
        check_spools(
            tmp_path / "spool",
            ledger="l",
            logged={},
            acknowledged=lambda _: 0,
            account=Account(),
            tell=found.append,
        )
        return [finding.problem for finding in found]

    assert upstream_has(root, pipeline.stream) == 2
    assert min(int(path.stem) for path in root.glob("*/*.seg")) > 0
    assert findings() == []
    frontier = root / "upstream" / "frontier.json"
    frontier.write_bytes(b"{}")
    assert any("are missing before it" in problem for problem in findings())
    frontier.write_bytes(b"x")
    assert any("cannot be read" in problem for problem in findings())
    frontier.unlink()
    assert upstream_has(root, pipeline.stream) == 0
    pipeline.stop(drain_seconds=0.0)
