"""Metrics of this process on a port of this machine, for a Prometheus to scrape."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.parser import text_string_to_metric_families


class Textfile:
    """What a check left with ``--textfile``, as a node exporter serves it: a collector by its method, as the library has it."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def collect(self) -> Iterator[Any]:
        """Its metrics; none where there is no file yet."""
        if self._path.is_file():
            parse: Any = text_string_to_metric_families
            yield from parse(self._path.read_text())


@contextmanager
def exposed(registry: CollectorRegistry) -> Iterator[str]:
    """A registry, until the block ends; gives host:port."""
    server, thread = start_http_server(0, addr="127.0.0.1", registry=registry)
    try:
        yield f"127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
