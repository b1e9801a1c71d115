"""The API as it runs: a real server on a real port, a real recorder, and accesses that end up in the log."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from audit_api.serving import serve
from audit_api.settings import ApiSettings
from collector.batch import EventRef
from collector.disk import OsDisk
from collector.event import decode_event
from collector.extract import Extractor, StitchSettings
from collector.pipeline import Pipeline, PipelineLimits
from collector.prepare import Preparer
from collector.protect import Protector
from collector.recorder import Recorder
from collector.spool import deliver_here
from collector.store.sqlite import SqliteStore
from tests.support.apis import Clocks, make_app, write_tokens
from tests.support.ledgers import LEDGER, SmallLedger

pytestmark = pytest.mark.anyio


@pytest.fixture
def recorder_store(tmp_path: Path) -> Iterator[SqliteStore]:
    store = SqliteStore(tmp_path / "accesses.sqlite")
    yield store
    store.close()


@pytest.fixture
def pipeline(tmp_path: Path, recorder_store: SqliteStore) -> Iterator[Pipeline]:
    made = Pipeline(
        tmp_path / "spool",
        collector="api",
        ledger=LEDGER,
        store=recorder_store,
        key=Ed25519PrivateKey.generate(),
        limits=PipelineLimits(),
        disk=OsDisk(),
        deliver=deliver_here,
        clock=Clocks().wall,
    )
    made.start()
    yield made
    made.stop(drain_seconds=10.0)


@pytest.fixture
def recorder(pipeline: Pipeline) -> Recorder:
    clock = Clocks().wall
    preparer = Preparer(extractor=Extractor(StitchSettings()), protector=Protector(token_key=b"k" * 32), clock=clock)
    return Recorder(pipeline=pipeline, preparer=preparer)


@asynccontextmanager
async def running(app: object, settings: ApiSettings) -> AsyncIterator[str]:
    """The URL of a server that runs while this is open."""
    stopped, listening = asyncio.Event(), asyncio.get_running_loop().create_future()
    server = asyncio.create_task(serve(app, settings, stopped=stopped, ready=listening.set_result))  # type: ignore[arg-type]
    try:
        yield await asyncio.wait_for(listening, 20)
    finally:
        stopped.set()
        await asyncio.wait_for(server, 20)


async def test_an_access_over_the_network_is_durable_before_it_is_answered(
    tmp_path: Path, ledger: SmallLedger, recorder: Recorder, pipeline: Pipeline, recorder_store: SqliteStore
) -> None:
    tokens = write_tokens(tmp_path / "tokens.toml")
    settings = ApiSettings(port=0)
    app = make_app(ledger, recorder=recorder, token_file=tmp_path / "tokens.toml", settings=settings, clocks=Clocks())
    async with running(app, settings) as url, httpx.AsyncClient(base_url=url) as client:
        headers = {"Authorization": f"Bearer {tokens['auditor']}"}
        answer = await client.get("/v1/trails/key/order_id/O-1", headers=headers)
        assert answer.status_code == 200
        assert pipeline.next_sequence == 1  # it has the answer, so its access is in the spool
        assert (await client.get("/v1/trails/transaction%2FPAY-1", headers=headers)).status_code == 200
        assert (await client.get("/v1/trails")).status_code == 401
        assert pipeline.next_sequence == 3
        for odd in ("/key/order_id/4111%201111%201111%201111", "?key=order_id:4111%201111%201111%201111"):
            await client.get(f"/v1/trails{odd}", headers=headers)
    assert pipeline.stop(drain_seconds=10.0)
    (stream,) = recorder_store.streams()
    events = recorder_store.events([EventRef(stream=stream, sequence=sequence) for sequence in range(5)])
    accesses = [access for access in (decode_event(data).access for data in events) if access is not None]
    assert [one.principal for one in accesses] == ["auditor@example"] * 2 + ["anonymous"] + ["auditor@example"] * 2
    assert [one.trail for one in accesses[:3]] == ["key/order_id/O-1", "transaction/PAY-1", ""]
    assert "~card:" in accesses[3].trail
    facts = b"".join(batch.facts for batch in recorder_store.batches_after({stream: 0}, 100))
    for data in (*events, facts):
        assert b"1111 1111" not in data
        assert b"1111%201111" not in data


async def test_a_spool_that_stopped_lets_nothing_be_served(
    tmp_path: Path, ledger: SmallLedger, recorder: Recorder, pipeline: Pipeline
) -> None:
    tokens = write_tokens(tmp_path / "tokens.toml")
    settings = ApiSettings(port=0)
    app = make_app(ledger, recorder=recorder, token_file=tmp_path / "tokens.toml", settings=settings, clocks=Clocks())
    pipeline.stop(drain_seconds=5.0)
    async with running(app, settings) as url, httpx.AsyncClient(base_url=url) as client:
        answer = await client.get("/v1/trails", headers={"Authorization": f"Bearer {tokens['auditor']}"})
        assert answer.status_code == 503
        assert answer.json()["type"] == "urn:tallystick:problem:not-on-record"


async def test_what_is_no_http_is_answered_and_closed(tmp_path: Path, ledger: SmallLedger, recorder: Recorder) -> None:
    write_tokens(tmp_path / "tokens.toml")
    settings = ApiSettings(port=0)
    app = make_app(ledger, recorder=recorder, token_file=tmp_path / "tokens.toml", settings=settings, clocks=Clocks())
    async with running(app, settings) as url:
        host, port = url.removeprefix("http://").split(":")
        for sent in (b"nonsense\r\n\r\n", b"GET / HTTP/1.1\r\n" + b"x: " + b"a" * 70_000 + b"\r\n\r\n"):
            reader, writer = await asyncio.open_connection(host, int(port))
            writer.write(sent)
            answer = await asyncio.wait_for(reader.read(), 20)
            assert answer.startswith(b"HTTP/1.1 400")
            writer.close()
            await writer.wait_closed()


async def test_over_tls_and_told_to_stay_there(tmp_path: Path, ledger: SmallLedger, recorder: Recorder) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(issuer_name=name, subject_name=name, public_key=key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    certificate_file, key_file = tmp_path / "certificate.pem", tmp_path / "key.pem"
    certificate_file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    key_file.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    write_tokens(tmp_path / "tokens.toml")
    settings = ApiSettings(port=0, tls_certificate=str(certificate_file), tls_key=str(key_file))
    app = make_app(ledger, recorder=recorder, token_file=tmp_path / "tokens.toml", settings=settings, clocks=Clocks())
    trusting = ssl.create_default_context(cafile=str(certificate_file))
    async with running(app, settings) as url, httpx.AsyncClient(base_url=url, verify=trusting) as client:
        assert url.startswith("https://127.0.0.1:")
        answer = await client.get("/livez")
        assert answer.status_code == 200
        assert answer.headers["Strict-Transport-Security"] == "max-age=31536000"


async def test_with_files_that_are_no_pem_it_is_never_said_to_be_ready(
    ledger: SmallLedger, recorder: Recorder, tmp_path: Path
) -> None:
    garbage = tmp_path / "garbage.pem"
    garbage.write_text("no key")
    write_tokens(tmp_path / "tokens.toml")
    settings = ApiSettings(port=0, tls_certificate=str(garbage), tls_key=str(garbage))
    app = make_app(ledger, recorder=recorder, token_file=tmp_path / "tokens.toml", settings=settings, clocks=Clocks())
    ready: list[str] = []
    with pytest.raises(ssl.SSLError):
        await serve(app, settings, stopped=asyncio.Event(), ready=ready.append)
    assert ready == []


def test_half_a_tls_configuration_is_refused() -> None:
    with pytest.raises(ValueError, match="belong together"):
        ApiSettings(tls_key="key.pem")
