"""What shippers and clients ask an Elasticsearch or OpenSearch before they send to it, and between.

Each wants to hear that it talks to a server that it knows, and that what it would set up (templates, lifecycle policies, data streams,
indexes, aliases) is there. Here is nothing to set up: any index may be written to, and no template or policy applies to a trail. So
what is asked for exists, and what is put is acknowledged; nothing is kept of it. What is asked, by whom (their sources):

    GET, HEAD /                     everyone: ``version.number``, ``tagline``, the header ``X-Elastic-Product`` (Elastic's clients from 7.14,
                                    Logstash), ``version.distribution`` (OpenSearch's)
    GET /_license                   Logstash and Beats go on with an active one
    GET /_xpack                     older Logstash: is there index lifecycle management?
    GET /_cluster/health            Vector's health check
    GET /_nodes/http and the like   sniffing: where are the nodes?
    templates, policies, streams    Beats and Logstash at start, unless told not to

A search, a mapping, a document by its id are not here: they are refused, and counted.
"""

from collections.abc import Callable, Sequence
from typing import Any, Literal

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from collector.receive.problem import json_response

__all__ = ["NEWEST", "Product", "probe_routes"]

Product = Literal["elasticsearch", "opensearch"]

NEWEST = {"elasticsearch": "9.99.0", "opensearch": "3.99.0"}
"""The version that each product's answer names unless told otherwise: Beats refuse a server that is older than they are, and none a newer one."""

_NODE = "tallystick"
_GOVERNING = (
    "/_index_template/{name}",
    "/_component_template/{name}",
    "/_template/{name}",
    "/_ilm/policy/{name}",
    "/_plugins/_ism/policies/{name}",
    "/_data_stream/{name}",
    "/_alias/{name}",
)


def probe_routes(
    *, product: Product, version: str = "", name: str = _NODE, not_ready: Callable[[], Sequence[str]] = tuple
) -> list[Route]:
    """The routes.

    Args:
        product: whose answers to give, where the two exclude each other.
        version: the server's version; empty: newer than any (`NEWEST`).
        name: of the cluster: the collector's.
        not_ready: why no events can be taken just now; empty when they can.
    """
    number = version or NEWEST[product]

    async def root(_: Request) -> Response:
        return json_response(_root(product, number, name))

    async def health(_: Request) -> Response:
        reasons = list(not_ready())
        answer = {
            "cluster_name": name, "status": "red" if reasons else "green", "timed_out": False,
            "number_of_nodes": 1, "number_of_data_nodes": 1,
        }  # fmt: skip
        return json_response(answer, status=503 if reasons else 200)

    async def nodes(request: Request) -> Response:
        # the address that this very request came to: behind a forwarded port it is not the one that the sender must use
        host, port = request.scope.get("server") or ("127.0.0.1", 0)
        address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        node = {
            "name": name, "version": number, "roles": ["data", "ingest"],
            "http": {"publish_address": address, "bound_address": [address]},
        }  # fmt: skip
        counts = {"total": 1, "successful": 1, "failed": 0}
        return json_response({"_nodes": counts, "cluster_name": name, "nodes": {_NODE: node}})

    async def index(request: Request) -> Response:
        named = request.path_params["index"]
        if named.startswith("_"):
            raise HTTPException(404)
        return json_response({"acknowledged": True, "shards_acknowledged": True, "index": named})

    return [
        Route("/", root, methods=["GET"]),
        Route("/_license", _license, methods=["GET"]),
        Route("/_xpack", _xpack, methods=["GET"]),
        Route("/_cluster/health", health, methods=["GET"]),
        *(Route(path, nodes, methods=["GET"]) for path in ("/_nodes", "/_nodes/http", "/_nodes/_all/http")),
        *(Route(path, _governing, methods=["GET", "PUT", "POST"]) for path in _GOVERNING),
        Route("/{index}", index, methods=["HEAD", "PUT"]),
        Route(
            "/<{index:path}>", index, methods=["HEAD", "PUT"]
        ),  # date math, with a slash in it: <logstash-{now/d}-000001>
    ]


def refusal(status: int, reason: str, kind: str = "illegal_argument_exception", **headers: str) -> Response:
    """An error in the form of both products, whose clients show its type and reason."""
    error = {"type": kind, "reason": reason}
    body = {"error": {"root_cause": [error], **error}, "status": status}
    return json_response(body, status=status, headers={name.replace("_", "-"): text for name, text in headers.items()})


def _root(product: Product, number: str, name: str) -> dict[str, Any]:
    version: dict[str, Any] = {"number": number, "build_type": "tallystick", "build_snapshot": False}
    if product == "opensearch":
        version = {"distribution": "opensearch", **version, "minimum_wire_compatibility_version": "2.19.0"}
        tagline = "The OpenSearch Project: https://opensearch.org/"
    else:
        version |= {"build_flavor": "default", "minimum_wire_compatibility_version": "8.18.0"}
        tagline = "You Know, for Search"
    return {"name": name, "cluster_name": name, "cluster_uuid": _NODE, "version": version, "tagline": tagline}


async def _license(_: Request) -> Response:
    licence = {"status": "active", "uid": _NODE, "type": "basic", "mode": "basic", "issued_to": _NODE}
    return json_response({"license": licence})


async def _xpack(_: Request) -> Response:
    none = {"available": False, "enabled": False}
    return json_response(
        {"build": {}, "features": {"ilm": none, "security": none}, "license": {"status": "active", "type": "basic"}}
    )


async def _governing(request: Request) -> Response:
    if request.method in {"PUT", "POST"}:
        return json_response({"acknowledged": True})
    return json_response({request.path_params["name"]: {}})
