"""A small stand-in for the Kubernetes API: ``GET /api/v1/namespaces/{namespace}/pods/{name}``, written from its public documentation.

No cluster was at hand: what is tested against it is that we ask as the documentation says and understand what it shows.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Thread
from typing import Any

POD = {
    "kind": "Pod",
    "apiVersion": "v1",
    "metadata": {
        "name": "shop-6d4cf56db6-x2x5z",
        "namespace": "prod",
        "uid": "0af76519-16cd-43dd-8448-eb211c80319c",
        "labels": {"app.kubernetes.io/name": "shop", "pod-template-hash": "6d4cf56db6"},
        "ownerReferences": [
            {
                "apiVersion": "apps/v1",
                "kind": "ReplicaSet",
                "name": "shop-6d4cf56db6",
                "uid": "7f3d6a1c-0000-0000-0000-000000000000",
                "controller": True,
                "blockOwnerDeletion": True,
            }
        ],
    },
    "spec": {"nodeName": "node-3", "containers": [{"name": "web", "image": "shop:1"}]},
    "status": {"phase": "Running", "podIP": "10.0.0.7"},
}


class PodsApi:
    """What it serves and what it was asked.

    Attributes:
        answer: status and body for every pod of `prod`; others are 404.
        asked: (path, Authorization) of each request.
        gate: an answer waits until it is set.
    """

    def __init__(self) -> None:
        self.answer: tuple[int, bytes] = (200, json.dumps(POD).encode())
        self.asked: list[tuple[str, str]] = []
        self.gate = Event()
        self.gate.set()
        self.url = ""


@contextmanager
def pods_api() -> Iterator[PodsApi]:
    """The API on a port of its own."""
    api = PodsApi()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            api.asked.append((self.path, self.headers.get("Authorization", "")))
            api.gate.wait(10)
            status, body = api.answer
            if not self.path.startswith("/api/v1/namespaces/prod/pods/"):
                status, body = (
                    404,
                    b'{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"NotFound","code":404}',
                )
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    api.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield api
    finally:
        api.gate.set()
        server.shutdown()
        thread.join()
        server.server_close()
