"""What goes in clear to this machine meets no proxy on its way, whoever sends it."""

from __future__ import annotations

from pathlib import Path

import pytest

from alerting.detect.exchange import proxies
from alerting.detect.post import Poster
from alerting.incidents.metrics import IncidentMetrics
from alerting.incidents.outside import Outside
from alerting.incidents.probes import fetch
from tests.support.webhooks import mumbler, receiver


@pytest.fixture(autouse=True)
def proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody is there, so that whatever goes by it comes to nothing."""
    for name in ("no_proxy", "NO_PROXY", "all_proxy", "ALL_PROXY", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")


def test_who_is_told_or_asked_hears_it_himself() -> None:
    with receiver(200) as (url, got):
        assert Poster(ca_file="", where="x").post(url, b"{}", {"authorization": "Bearer s3cret"}) == 200
    assert got[0].headers["authorization"] == "Bearer s3cret"


def test_a_page_is_asked_of_whoever_has_it() -> None:
    with mumbler(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nup") as url:
        assert fetch(url) == "up"


def test_the_switch_outside_hears_it_itself(tmp_path: Path) -> None:
    with receiver(200) as (url, _):
        (tmp_path / "url").write_text(url)
        heard = Outside(str(tmp_path / "url"), seconds=60, metrics=IncidentMetrics(), monotonic=lambda: 0.0).tell(1)
    assert heard is not None
    assert not heard.fails


def test_what_is_encrypted_may_go_by_a_proxy() -> None:
    assert proxies().proxies == {"https": "http://127.0.0.1:9"}  # type: ignore[attr-defined]  # typeshed has it not
