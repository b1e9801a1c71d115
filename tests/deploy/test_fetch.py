"""What is fetched over HTTP: whoever answers something else is no success, and ends nothing."""

from __future__ import annotations

import pytest

from collector.errors import Overloaded
from deploy.fetch import fetch
from deploy.sidecarstate import ask_sidecar
from tests.support.webhooks import NO_HTTP, mumbler


@pytest.mark.parametrize("answer", [*NO_HTTP.values(), b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf"])
def test_an_answer_that_is_no_http_or_breaks_off_is_no_document(answer: bytes) -> None:
    with mumbler(answer) as url, pytest.raises(Overloaded, match=f"{url}.*: does not speak HTTP, or broke off"):
        fetch(f"{url}/checkpoint")


@pytest.mark.parametrize("answer", NO_HTTP.values(), ids=NO_HTTP.keys())
def test_whoever_has_a_sidecars_port_by_now_is_no_sidecar(answer: bytes) -> None:
    with mumbler(answer) as url:
        assert ask_sidecar(url) is None
