"""What the tests of the ways in share: an intake in memory, and the sidecar's HTTP server on a port of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from prometheus_client import CollectorRegistry
from starlette.routing import Route

from collector.receive.http import HttpServer, create_app
from tests.support.memory_intake import MemoryIntake

Story = Callable[[httpx.AsyncClient], Awaitable[None]]


@pytest.fixture
def intake() -> MemoryIntake:
    return MemoryIntake()


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[Path, Path]:
    """A certificate for localhost that signs itself, and its key: PEM files."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder(subject_name=name, issuer_name=name, public_key=key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    paths = tmp_path / "cert.pem", tmp_path / "key.pem"
    paths[0].write_bytes(made.public_bytes(serialization.Encoding.PEM))
    paths[1].write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return paths


@pytest.fixture
def serve() -> Callable[[Sequence[Route], Story], None]:
    """Runs a story: an HTTP client that talks over a real socket to a server with the given routes."""

    def run(routes: Sequence[Route], story: Story) -> None:
        async def told() -> None:
            server = HttpServer(create_app(routes, registry=CollectorRegistry()), port=0)
            port = await server.start()
            try:
                async with (
                    asyncio.timeout(30),
                    httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False) as client,
                ):
                    await story(client)
            finally:
                await server.stop(1.0)

        asyncio.run(told())

    return run
