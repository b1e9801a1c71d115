"""A real S3 server on this machine for tests, in a process of its own, with one bucket: moto's, or MinIO.

moto checks the conditions of a put and then puts, in threads that do not exclude each other: it shows what a server answers,
not that a condition and its put are one step. Where that is the question, tests race on obstore's `MemoryStore`, and on MinIO
(`make test-minio`), which is built from its Go module once, in minutes, into a cache outside the tree.
"""

from __future__ import annotations

import http.client
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support.need import need

BUCKET = "ledger"
PATIENCE_SECONDS = 90.0
MINIO = "v0.0.0-20260212201848-7aac2a2c5b7c"
"""Of ``github.com/minio/minio``; Go checks what it downloads against its public checksum database."""


@dataclass(frozen=True, slots=True, kw_only=True)
class S3Server:
    """Where it listens, and the environment that its clients need."""

    endpoint: str

    @property
    def environment(self) -> Mapping[str, str]:
        """Credentials that open nothing else."""
        return {"AWS_ACCESS_KEY_ID": "tallytest", "AWS_SECRET_ACCESS_KEY": "tallytest", "AWS_REGION": "us-east-1"}


@contextmanager
def s3_server() -> Iterator[S3Server]:
    """Run moto's for the block; MinIO where the environment says ``TALLY_S3_SERVER=minio``."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    minio = os.environ.get("TALLY_S3_SERVER") == "minio"
    folder = Path(tempfile.mkdtemp(prefix="tally-s3-"))
    command = [sys.executable, "-m", "moto.server", "--host", "127.0.0.1", "--port", str(port)]
    environment = dict(os.environ)
    if minio:
        (folder / BUCKET).mkdir()  # a bucket, to MinIO
        command = [str(_minio()), "server", "--address", f"127.0.0.1:{port}", str(folder)]
        environment |= {"MINIO_ROOT_USER": "tallytest", "MINIO_ROOT_PASSWORD": "tallytest"}
        environment |= {"MINIO_BROWSER": "off", "MINIO_UPDATE": "off"}
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment)
    try:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not _is_up(port, "GET", "/minio/health/ready") if minio else not _is_up(port, "PUT", f"/{BUCKET}"):
            assert process.poll() is None, f"{command[0]} has ended"
            assert time.monotonic() < deadline, f"{command[0]} does not answer"
            time.sleep(0.05)  # another process: there is nothing to await
        yield S3Server(endpoint=f"http://127.0.0.1:{port}")
    finally:
        process.kill()
        process.wait()
        shutil.rmtree(folder)


def _minio() -> Path:
    """The server's binary, built when it is not in the cache yet."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tallystick" / f"minio-{MINIO}"
    binary = cache / "minio"
    if not binary.is_file():
        need(shutil.which("go"), "MinIO is built from source: install Go")
        environment = os.environ | {"GOBIN": str(cache)}
        subprocess.run(["go", "install", f"github.com/minio/minio@{MINIO}"], check=True, env=environment)
    return binary


def _is_up(port: int, method: str, path: str) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request(method, path)
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()
