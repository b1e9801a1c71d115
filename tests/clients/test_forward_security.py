"""Handshake, users, mutual TLS and acks with somebody else's implementation at the other end: npm @fluent-org/logger, unmodified."""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from collector.clienttls import client_tls
from collector.errors import Overloaded
from collector.receive.forward import Handshake
from collector.receive.listening import tls_of
from collector.send import Forwarder, Upstream
from collector.send.forward_answer import Credentials
from collector.settings import ForwardSettings
from tests.servers.certificates import Authority
from tests.support.forwarding import Setting, run

pytestmark = [pytest.mark.clients, pytest.mark.timeout(120)]

COUNT = 300
KEY, USER, PASSWORD = "a key that is shared", "ann", "ann's password"  # what is shown is text in npm's package
NOW_NS = 1_700_000_000_000_000_007


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    made = Authority(tmp_path_factory.mktemp("ca"))
    made.issue("server")
    made.issue("edge")
    return made


def files(authority: Authority, name: str) -> dict[str, str]:
    folder = authority.folder
    return {"ca": str(authority.ca), "cert": str(folder / f"{name}.pem"), "key": str(folder / f"{name}-key.pem")}


@contextmanager
def fluent_server(packages: Path, **configured: Any) -> Iterator[tuple[int, subprocess.Popen[str]]]:
    """Npm's server; its port, and its process, whose output has a line for each event."""
    command = ["node", "fluent_server.mjs", json.dumps(configured)]
    with subprocess.Popen(command, cwd=packages, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            yield json.loads(process.stdout.readline())["port"], process
        finally:
            process.stdin.close()
            process.wait(timeout=20)


SECURITY = {"serverHostname": "upstream", "sharedKey": KEY, "authorize": True, "userDict": {USER: PASSWORD}}
CREDENTIALS = Credentials(hostname="edge-1", shared_key=KEY.encode(), user=USER, password=PASSWORD.encode())


def test_our_sender_and_npm_s_server_with_tls_key_user_and_acks(packages: Path, authority: Authority) -> None:
    own = files(authority, "edge")
    tls = client_tls(ca_file=own["ca"], certificate=own["cert"], key=own["key"])
    with fluent_server(packages, security=SECURITY, tls=files(authority, "server")) as (port, process):
        upstream = Upstream(host="localhost", port=port, tls=tls, credentials=CREDENTIALS, compression="gzip")
        with Forwarder(upstream) as forwarder:
            for first in range(0, COUNT, 100):
                entries = [(NOW_NS, {"n": n, "message": f"event {n}"}) for n in range(first, first + 100)]
                forwarder.send("shop.cart", entries, patience_seconds=10.0)
        assert process.stdout is not None
        heard = [json.loads(process.stdout.readline()) for _ in range(COUNT)]
    assert [entry["record"]["n"] for entry in heard] == list(range(COUNT))
    assert {(entry["tag"], entry["time"]) for entry in heard} == {("shop.cart", "1700000000.7")}


def test_npm_s_server_keeps_our_sender_out_without_the_key_or_the_password(packages: Path) -> None:
    with fluent_server(packages, security=SECURITY) as (port, _):
        for shown in (
            Credentials(hostname="e", shared_key=b"wrong", user=USER, password=PASSWORD.encode()),
            Credentials(hostname="e", shared_key=KEY.encode(), user=USER, password=b"wrong"),
        ):
            with (
                Forwarder(Upstream(port=port, credentials=shown)) as forwarder,
                pytest.raises(Overloaded, match="does not let us in"),
            ):
                forwarder.send("t", [(NOW_NS, {})], patience_seconds=0.0)
        with Forwarder(Upstream(port=port, credentials=CREDENTIALS)) as forwarder:
            forwarder.send("t", [(NOW_NS, {})], patience_seconds=0.0)


def test_npm_s_sender_and_our_receiver_with_tls_key_user_and_acks(packages: Path, authority: Authority) -> None:
    server = files(authority, "server")
    tls = tls_of(ForwardSettings(tls_certificate=server["cert"], tls_key=server["key"], tls_client_ca=server["ca"]))
    handshake = Handshake(client_keys={"edge-1": KEY.encode()}, passwords={USER: PASSWORD.encode()})

    async def story() -> None:
        async with Setting(tls=tls, handshake=handshake) as at:
            told = {
                "host": "127.0.0.1",
                "port": at.port,
                "count": COUNT,
                "tls": files(authority, "edge"),
                "security": {"clientHostname": "edge-1", "sharedKey": KEY, "username": USER, "password": PASSWORD},
            }
            sender = await asyncio.create_subprocess_exec(
                "node", "fluent_secure.mjs", json.dumps(told), cwd=packages, stdout=asyncio.subprocess.PIPE
            )
            said, _ = await sender.communicate()
            assert json.loads(said) == {"acked": COUNT}
            assert sorted(event.attributes["n"] for event in at.intake.events) == list(range(COUNT))
            assert {event.origin.peer for event in at.intake.events if event.origin} == {"certificate:edge"}
            assert (at.reasons, at.intake.dead) == ([], [])

    run(story())
