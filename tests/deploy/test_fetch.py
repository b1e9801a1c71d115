"""What is fetched over HTTP: whoever answers something else is no success, and ends nothing."""

from __future__ import annotations

import pytest

from collector.errors import Overloaded
from deploy.fetch import fetch
from deploy.sidecarstate import ask_sidecar
from tests.support.webhooks import NO_HTTP, mumbler, receiver


@pytest.mark.parametrize("answer", [*NO_HTTP.values(), b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf"])
def test_an_answer_that_is_no_http_or_breaks_off_is_no_document(answer: bytes) -> None:
    with mumbler(answer) as url, pytest.raises(Overloaded, match=f"{url}.*: does not speak HTTP, or broke off"):
        fetch(f"{url}/checkpoint", api="")


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b'{"status":422,"detail":"too large:\\nask for linked=false"}', ": too large: ask for linked=false"),
        (b'{"detail":1}', ""),
        (b"[]", ""),
        (b"<html>", ""),
        (b"[" * 5_000, ""),
    ],
)
def test_a_refusal_is_told_with_its_reason(body: bytes, said: str) -> None:
    answer = b"HTTP/1.1 422 No\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)
    with mumbler(answer) as url, pytest.raises(Overloaded) as told:
        fetch(f"{url}/x", api="")
    assert str(told.value).endswith(f"/x: 422 No{said}")


def test_an_address_that_leads_elsewhere_says_what_to_give() -> None:
    answer = b"HTTP/1.1 303 See Other\r\nlocation: /desk/trails\r\ncontent-length: 0\r\n\r\n"
    with mumbler(answer) as url, pytest.raises(Overloaded) as told:
        fetch(url, api="")
    assert "303 See Other (it leads elsewhere, which is not followed: give the address of" in str(told.value)


@pytest.mark.parametrize("answer", NO_HTTP.values(), ids=NO_HTTP.keys())
def test_whoever_has_a_sidecars_port_by_now_is_no_sidecar(answer: bytes) -> None:
    with mumbler(answer) as url:
        assert ask_sidecar(url) is None


def test_a_sidecar_is_asked_by_no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")  # nobody is there
    with mumbler(b'HTTP/1.1 503 Busy\r\ncontent-length: 19\r\n\r\n{"refusing":"full"}') as url:
        state = ask_sidecar(url)
    assert state is not None
    assert state.refusing == "full"


def test_a_token_goes_to_this_machine_and_in_clear_to_nobody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TALLY_TOKEN", "secret")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with receiver(200) as (url, got):
        monkeypatch.setenv("http_proxy", url)  # so that whatever goes elsewhere is seen here
        fetch(f"{url}/checkpoint", api="")
        fetch("http://elsewhere.example/bundle", api="")
        fetch("http://elsewhere.example/bundle", api="http://elsewhere.example")
        fetch("http://elsewhere.example/bundle", api="https://elsewhere.example")
    asked = [(one.path, one.headers.get("authorization")) for one in got]
    assert asked == [("/checkpoint", "Bearer secret"), *[("http://elsewhere.example/bundle", None)] * 3]
