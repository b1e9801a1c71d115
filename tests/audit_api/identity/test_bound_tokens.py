"""Tokens that are bound to a certificate (RFC 8705), over real TLS: with it they are good, without it they are worth nothing."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from audit_api.identity.certificates import thumbprint_of
from audit_api.identity.oidc.settings import OidcSettings
from audit_api.serving import serve
from audit_api.settings import ApiSettings
from tests.servers.certificates import Authority
from tests.support.apis import open_api
from tests.support.issuer import TestIssuer
from tests.support.ledgers import START_NS, SmallLedger

pytestmark = pytest.mark.anyio


async def test_a_bound_token_goes_with_its_certificate_alone(tmp_path: Path, ledger: SmallLedger) -> None:
    authority = Authority(tmp_path / "tls")
    certificate, key = authority.issue("api")
    own, other = authority.issue("batch"), authority.issue("other")
    der = x509.load_pem_x509_certificate(own[0].read_bytes()).public_bytes(Encoding.DER)
    now = START_NS // 1_000_000_000
    with TestIssuer() as issuer:
        issuer.new_key("k1", "EC")
        claims = {"iss": issuer.url, "aud": "tallystick", "sub": "batch", "exp": now + 60, "roles": ["tally-auditor"]}
        bound = issuer.token(claims | {"cnf": {"x5t#S256": thumbprint_of(der)}}, kid="k1", alg="ES256")
        free = issuer.token(claims, kid="k1", alg="ES256")
        settings = ApiSettings(
            port=0,
            tls_certificate=str(certificate),
            tls_key=str(key),
            tls_client_ca=str(authority.ca),
            oidc=OidcSettings(issuer=issuer.url, roles={"tally-auditor": "auditor"}),
        )
        async with open_api(tmp_path, ledger, settings) as api:
            stopped, listening = asyncio.Event(), asyncio.get_running_loop().create_future()
            server = asyncio.create_task(serve(api.app, settings, stopped=stopped, ready=listening.set_result))
            url = await asyncio.wait_for(listening, 20)

            async def ask(token: str, shown: tuple[Path, Path] | None) -> int:
                tls = ssl.create_default_context(cafile=authority.ca)
                if shown is not None:
                    tls.load_cert_chain(*shown)
                async with httpx.AsyncClient(verify=tls, timeout=20) as client:
                    answer = await client.get(f"{url}/v1/trails", headers={"Authorization": f"Bearer {token}"})
                return answer.status_code

            try:
                assert await ask(bound, own) == 200
                assert await ask(bound, other) == 401
                assert await ask(bound, None) == 401
                assert await ask(free, None) == 200
            finally:
                stopped.set()
                await asyncio.wait_for(server, 20)
