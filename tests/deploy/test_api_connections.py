"""Who connects to the API and says nothing keeps nobody out."""

from __future__ import annotations

import socket
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import httpx

from deploy import api as deployed

if TYPE_CHECKING:
    import pytest

    from tests.deploy.conftest import Workshop


def connected(stack: ExitStack, url: str) -> socket.socket:
    parts = urlsplit(url)
    return stack.enter_context(socket.create_connection((parts.hostname or "", parts.port or 0), timeout=30))


def test_silent_connections_give_their_places_to_others(ledger: Workshop, url: str, tokens: dict[str, str]) -> None:
    headers = {"Authorization": f"Bearer {tokens['auditor']}"}
    with ExitStack() as stack:
        silent = [connected(stack, url) for _ in range(600)]
        with httpx.Client(base_url=url, headers=headers, timeout=30) as client:
            assert client.get("/v1/trails/transaction%2Fp1").status_code == 200
            assert client.get("/readyz").status_code == 200
            assert 'tally_api_refused_total{reason="silent"}' in client.get("/metrics").text
        assert silent[0].recv(1) == b"", "the oldest went first"


def test_a_head_that_does_not_come_ends_its_connection(
    monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    """Also behind an answer, where a byte of the next request stops the clock that ends idle connections."""
    monkeypatch.setattr(deployed, "_HEAD_SECONDS", 0.5)
    url = request.getfixturevalue("url")
    with ExitStack() as stack:
        nothing, half, again = (connected(stack, url) for _ in range(3))
        half.sendall(b"GET /livez HTTP/1.1\r\nHos")
        again.sendall(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
        assert again.recv(65_536).startswith(b"HTTP/1.1 200")
        again.sendall(b"G")
        started = time.monotonic()
        for one in (nothing, half, again):
            try:
                while one.recv(65_536):
                    pass
            except ConnectionError:
                pass
        assert time.monotonic() - started < 10.0
