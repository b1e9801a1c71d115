"""A real Pulsar from Maven Central's archive, fetched once into the cache folder, held to its recorded SHA-256."""

from __future__ import annotations

import fcntl
import hashlib
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests.servers import maven
from tests.servers.opensearch_home import cache_folder

VERSION = "4.0.4"
JAVA_AT_LEAST = 17

_SHA256 = "25ec61ab5418257ee5aaae49b4aedb76551eeaef96558c4fd7829c29a4203d3c"
_PARENT = f"org.apache.pulsar:distribution:{VERSION}"


def install(java: Path) -> Path:
    """The server's home with its jars in `lib`, made when it is not there; it appears whole or not at all."""
    cache = cache_folder()
    cache.mkdir(parents=True, exist_ok=True)
    home = cache / f"pulsar-{VERSION}-{_SHA256[:12]}"
    with (cache / "pulsar.lock").open("w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if home.is_dir():
            return home
        with tempfile.TemporaryDirectory(dir=cache, prefix=".making-") as scratch:
            folder = Path(scratch, "archive")
            folder.mkdir()
            maven.copy_alone(
                f"org.apache.pulsar:pulsar-server-distribution:{VERSION}:tar.gz:bin",
                folder=folder,
                scratch=Path(scratch, "maven"),
                java=java,
                parent=_PARENT,
            )
            archive = folder / f"pulsar-server-distribution-{VERSION}-bin.tar.gz"
            with archive.open("rb") as stream:
                found = hashlib.file_digest(stream, "sha256").hexdigest()
            if found != _SHA256:
                raise RuntimeError(f"Pulsar {VERSION} as fetched has the SHA-256 {found}, recorded is {_SHA256}")
            with tarfile.open(archive) as opened:
                if hasattr(tarfile, "data_filter"):  # since Python 3.11.4
                    opened.extraction_filter = tarfile.data_filter
                opened.extractall(scratch, members=_jars(opened))  # noqa: S202 - filtered where that is known, and its SHA-256 is ours
            Path(scratch, f"apache-pulsar-{VERSION}").rename(home)
    return home


def _jars(archive: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    """Those of the server; not the examples, and what runs functions."""
    wanted = f"apache-pulsar-{VERSION}/lib/"
    return (member for member in archive if member.name.startswith(wanted))
