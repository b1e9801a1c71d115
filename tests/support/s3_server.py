"""A real S3 server on this machine for tests: moto's, in a process of its own, with one bucket.

moto checks the conditions of a put and then puts, in threads that do not exclude each other: it shows what a server answers,
not that a condition and its put are one step. Where that is the question, tests race on obstore's `MemoryStore`.
"""

from __future__ import annotations

import http.client
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

BUCKET = "ledger"
PATIENCE_SECONDS = 90.0


@dataclass(frozen=True, slots=True, kw_only=True)
class S3Server:
    """Where it listens, and the environment that its clients need."""

    endpoint: str

    @property
    def environment(self) -> Mapping[str, str]:
        """Credentials that open nothing else."""
        return {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_REGION": "us-east-1"}


@contextmanager
def s3_server() -> Iterator[S3Server]:
    """Run it for the block."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "moto.server", "--host", "127.0.0.1", "--port", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not _made_bucket(port):
            assert process.poll() is None, "moto's server has ended"
            assert time.monotonic() < deadline, "moto's server does not answer"
            time.sleep(0.05)  # another process: there is nothing to await
        yield S3Server(endpoint=f"http://127.0.0.1:{port}")
    finally:
        process.kill()
        process.wait()


def _made_bucket(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("PUT", f"/{BUCKET}")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()
