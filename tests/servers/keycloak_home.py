"""A real Keycloak from Maven Central's archive, fetched once into the cache folder, held to its recorded SHA-256, and built once for our tests."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from tests.servers import maven
from tests.servers.opensearch_home import cache_folder

VERSION = "26.7.3"
JAVA_AT_LEAST = 17
JAVA_OPTIONS = "-Xms128m -Xmx384m -XX:TieredStopAtLevel=1 -XX:+UseSerialGC -XX:MaxMetaspaceSize=256m -Djava.net.preferIPv4Stack=true"

_SHA256 = "27a6535553c3cdcd083872ba40629efafb3475e3b758e0c6f691395561dd0f1f"
_BUILD = (
    "build",
    "--db=dev-mem",  # nothing is kept
    "--features-disabled=admin,account,ciba,impersonation,kerberos,organization",  # of which tests need nothing
)
_BUILD_SECONDS = 300


def install(java: Path) -> Path:
    """The server's home, unpacked and built, made when it is not there; it appears whole or not at all. Copy it: it is never run itself."""
    cache = cache_folder()
    cache.mkdir(parents=True, exist_ok=True)
    told = hashlib.sha256(" ".join((_SHA256, *_BUILD)).encode()).hexdigest()[:12]
    home = cache / f"keycloak-{VERSION}-{told}"
    with (cache / "keycloak.lock").open("w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if home.is_dir():
            return home
        with tempfile.TemporaryDirectory(dir=cache, prefix=".making-") as scratch:
            folder = Path(scratch, "archive")
            folder.mkdir()
            maven.copy_alone(
                f"org.keycloak:keycloak-quarkus-dist:{VERSION}:zip",
                folder=folder,
                scratch=Path(scratch, "maven"),
                java=java,
            )
            archive = folder / f"keycloak-quarkus-dist-{VERSION}.zip"
            with archive.open("rb") as stream:
                found = hashlib.file_digest(stream, "sha256").hexdigest()
            if found != _SHA256:
                raise RuntimeError(f"Keycloak {VERSION} as fetched has the SHA-256 {found}, recorded is {_SHA256}")
            shutil.unpack_archive(archive, scratch)
            made = Path(scratch, f"keycloak-{VERSION}")
            (made / "bin" / "kc.sh").chmod(0o755)
            subprocess.run(
                [made / "bin" / "kc.sh", *_BUILD],
                env=environment(java),
                check=True,
                capture_output=True,
                timeout=_BUILD_SECONDS,
            )
            made.rename(home)
    return home


def environment(java: Path) -> dict[str, str]:
    """What its script reads."""
    return {
        "PATH": os.environ.get("PATH", "/usr/bin:/bin"),
        "LANG": "C.UTF-8",
        "JAVA_HOME": str(java),
        "JAVA_OPTS": JAVA_OPTIONS,
    }
