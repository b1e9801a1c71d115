"""An identity provider for fast tests: a real HTTP server with keys made in the test, which it serves, rotates and forgets as told."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import parse_qsl

from joserfc import jwt
from joserfc.jwk import ECKey, Key, OKPKey, RSAKey

Form = Mapping[str, str]


@dataclass
class TestIssuer:
    """`answers` maps an endpoint's path to what it answers to a form: a status and a JSON value."""

    __test__ = False

    keys: dict[str, Key] = field(default_factory=dict)
    answers: dict[str, Callable[[Form], tuple[int, Any]]] = field(default_factory=dict)
    metadata: dict[str, Any] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    broken: int = 0
    """A status that everything is answered with instead, when set."""

    def __post_init__(self) -> None:
        issuer = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_: object) -> None:
                pass

            def do_GET(self) -> None:
                issuer.asked.append(self.path)
                if self.path == "/.well-known/openid-configuration":
                    self._send(200, issuer.told())
                elif self.path == "/jwks":
                    self._send(200, {"keys": [public(key, kid) for kid, key in issuer.keys.items()]})
                else:
                    self._send(404, {})

            def do_POST(self) -> None:
                issuer.asked.append(self.path)
                body = self.rfile.read(int(self.headers["Content-Length"])).decode()
                self._send(*issuer.answers[self.path](dict(parse_qsl(body))))

            def _send(self, status: int, value: Any) -> None:
                body = value if isinstance(value, bytes) else json.dumps(value).encode()
                self.send_response(issuer.broken or status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)

    @property
    def url(self) -> str:
        """Its issuer identifier."""
        return f"http://127.0.0.1:{self._server.server_port}"

    def told(self) -> dict[str, Any]:
        """Its metadata."""
        return {
            "issuer": self.url,
            "jwks_uri": f"{self.url}/jwks",
            "token_endpoint": f"{self.url}/token",
            "authorization_endpoint": f"{self.url}/authorize",
            "introspection_endpoint": f"{self.url}/introspect",
            "device_authorization_endpoint": f"{self.url}/device",
        } | self.metadata

    def new_key(self, kid: str, kind: str = "RSA") -> Key:
        """A signing key that it serves from now on."""
        made: Key = (
            RSAKey.generate_key(2048)
            if kind == "RSA"
            else ECKey.generate_key("P-256")
            if kind == "EC"
            else OKPKey.generate_key("Ed25519")
        )
        self.keys[kid] = made
        return made

    def token(self, claims: Mapping[str, Any], *, kid: str, alg: str = "RS256", **header: Any) -> str:
        """A token that it has signed."""
        return jwt.encode(
            {"alg": alg, "kid": kid, "typ": "JWT"} | header, dict(claims), self.keys[kid], algorithms=[alg]
        )

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def public(key: Key, kid: str) -> dict[str, Any]:
    """The key as a provider lists it."""
    return {**key.as_dict(private=False), "kid": kid, "use": "sig"}
