"""How fast the store on OpenSearch takes events, beside two references on the same documents in the same run.

The references are opensearch-py's `helpers.bulk`, which is what most programs use, and ready-made NDJSON bodies over the same
transport, which is the floor: nothing is encoded, signed for or checked. All three write into an index of our mapping, one
request at a time, synced before the answer. They take turns, because a server gets faster for minutes after its start.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass

import msgspec
from opensearchpy import OpenSearch, helpers

from bench.process import cpu_seconds
from collector.batch import Batch
from collector.event import Event, Span, format_time
from collector.store.opensearch import documents
from collector.store.opensearch.layout import Layout
from collector.store.opensearch.store import OpenSearchStore
from collector.store.settings import StoreSettings
from tests.servers.opensearch import Cluster
from tests.support.shipper import START_NS, Shipper

__all__ = ["Row", "bench_opensearch", "write_raw", "write_with_helpers"]

_BATCH_EVENTS = 2_000
_WARMING_EVENTS = 200_000
_TURNS = 3


@dataclass(frozen=True, slots=True)
class Row:
    """One way of writing: events a second, and CPU microseconds an event of this process and of the server."""

    name: str
    events_a_second: float
    client_us: float
    server_us: float


def bench_opensearch(*, events: int, warming: int = _WARMING_EVENTS) -> list[Row]:
    """The store, `helpers.bulk` and raw bodies, `events` each in three turns, after `warming` events that do not count."""
    batches = _batches(events)
    with Cluster(heap="2g", fast_start=False) as cluster:
        ways: dict[str, Callable[[str], None]] = {
            "event store: documents, facts, signed headers": lambda prefix: _store(cluster, prefix, batches),
            "helpers.bulk, the documents alone": lambda prefix: write_with_helpers(cluster, prefix, batches),
            "raw NDJSON, the documents alone": lambda prefix: write_raw(cluster, prefix, batches),
        }
        used = {name: [0.0, 0.0, 0.0] for name in ways}
        for turn in range(-max(1, warming // events // len(ways)), _TURNS):
            for name, way in ways.items():
                server, own, start = cpu_seconds(cluster.nodes[0].pid), time.process_time(), time.monotonic()
                way(f"bench{turn + 1_000}")
                taken = (
                    time.monotonic() - start,
                    time.process_time() - own,
                    cpu_seconds(cluster.nodes[0].pid) - server,
                )
                if turn >= 0:
                    used[name] = [sum(pair) for pair in zip(used[name], taken, strict=True)]
                cluster.ask("DELETE", f"/bench{turn + 1_000}-*")
    count = events * _TURNS
    return [
        Row(name, count / wall, own / count * 1e6, server / count * 1e6) for name, (wall, own, server) in used.items()
    ]


def _batches(events: int) -> list[Batch]:
    shipper = Shipper()
    return [
        shipper.batch(*(_event(at) for at in range(first, min(first + _BATCH_EVENTS, events))))
        for first in range(0, events, _BATCH_EVENTS)
    ]


def _event(at: int) -> Event:
    """Three log records, then a span, of a payment; some 480 bytes."""
    time_ns = START_NS + at * 1_000_000
    trace = f"{at // 8:032x}"
    span = Span(name="POST /pay", kind="SERVER", end=format_time(time_ns + 7_000_000)) if at % 4 == 3 else None
    return Event(
        time=format_time(time_ns),
        observed=format_time(time_ns + 900_000),
        severity_number=0 if span else 9,
        severity_text="" if span else "INFO",
        body=None
        if span
        else f"payment {at // 8} of {at * 7 % 1_000} EUR accepted by acquirer {at % 13} for order {at // 16}",
        attributes={"http.method": "POST", "http.route": "/pay", "code.line": at % 500, "thread": f"worker-{at % 16}"},
        resource={"service.name": f"service-{at % 5}", "host.name": f"host-{at % 9}"},
        trace_id=trace,
        span_id=f"{at:016x}",
        span=span,
        transaction=f"pay-{at // 8}",
        keys={"order_id": f"o-{at // 16}"},
    )


def _store(cluster: Cluster, prefix: str, batches: Sequence[Batch]) -> None:
    with closing(OpenSearchStore(StoreSettings(urls=list(cluster.urls), prefix=prefix))) as store:
        for batch in batches:
            store.append(batch)


def _made(cluster: Cluster, prefix: str) -> str:
    layout = Layout(prefix=prefix, shards=1, replicas=0)
    index = layout.place(format_time(START_NS))
    cluster.ask("PUT", f"/{index}", layout.body(index))
    return index


def _documents(batch: Batch) -> list[tuple[str, bytes]]:
    header, at = batch.signed.header, 0
    made: list[tuple[str, bytes]] = []
    for sequence, length in enumerate(batch.lengths, header.first):
        document = documents.event_document(batch.events[at : at + length], sequence, header)
        made.append((documents.event_id(header.stream, sequence), document))
        at += length
    return made


def write_with_helpers(cluster: Cluster, prefix: str, batches: Sequence[Batch]) -> None:
    """Create the documents of these batches as most programs do."""
    index = _made(cluster, prefix)
    with closing(OpenSearch(list(cluster.urls), timeout=60)) as client:
        for batch in batches:
            actions = [
                {"_op_type": "create", "_index": index, "_id": id_, "_source": msgspec.json.decode(document)}
                for id_, document in _documents(batch)
            ]
            helpers.bulk(client, actions, chunk_size=_BATCH_EVENTS)


def write_raw(cluster: Cluster, prefix: str, batches: Sequence[Batch]) -> None:
    """Create the documents of these batches with ready-made bodies."""
    index = _made(cluster, prefix)
    with closing(OpenSearch(list(cluster.urls), timeout=60)) as client:
        for batch in batches:
            lines = []
            for id_, document in _documents(batch):
                lines += [b'{"create":{"_id":"%s"}}' % id_.encode(), document]
            answer = client.transport.perform_request("POST", f"/{index}/_bulk", body=b"\n".join((*lines, b"")))
            assert not answer["errors"]
