"""A real Kafka from Maven Central's artefacts, fetched once into the cache folder; every jar is held to its recorded SHA-256."""

from __future__ import annotations

import fcntl
import hashlib
import tempfile
from pathlib import Path

from tests.servers import maven
from tests.servers.opensearch_home import cache_folder, listing

VERSION = "4.4.0"
JAVA_AT_LEAST = 17


def install(java: Path) -> Path:
    """The server's home with its jars in `lib`, made when it is not there; it appears whole or not at all."""
    cache = cache_folder()
    cache.mkdir(parents=True, exist_ok=True)
    recorded = Path(__file__).with_name(f"kafka-{VERSION}.sha256").read_bytes()
    home = cache / f"kafka-{VERSION}-{hashlib.sha256(recorded).hexdigest()[:12]}"
    with (cache / "kafka.lock").open("w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if home.is_dir():
            return home
        with tempfile.TemporaryDirectory(dir=cache, prefix=".making-") as scratch:
            made = Path(scratch, "home")
            maven.copy_with_dependencies(
                {"lib": (f"org.apache.kafka:kafka_2.13:{VERSION}",)},
                home=made,
                scratch=Path(scratch, "maven"),
                java=java,
            )
            wrong = sorted(set(listing(made).splitlines()) ^ set(recorded.decode().splitlines()))
            if wrong:
                raise RuntimeError(f"Kafka {VERSION} as fetched is not what is recorded: {wrong[:8]}")
            made.chmod(0o755)
            made.rename(home)
    return home
