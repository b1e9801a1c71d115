"""Lays out a real OpenSearch from Maven Central's artefacts, once, in a cache folder outside the tree.

The project publishes no server archive there, but every jar of one. So the folders that a server expects are filled with
jars, each module gets the descriptor that its archive would hold, and jars that a module shares with the server are
dropped, because the server refuses to start with a class in two places. Every jar is held to the SHA-256 recorded in
``opensearch-<version>.sha256``; a version without such a list is not started.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import tempfile
import zipfile
from pathlib import Path

from tests.servers import maven

VERSION = "3.4.0"
JAVA_AT_LEAST = 21
SECURITY = "opensearch-security"

_LOG4J = "2.21.0"
_SERVER = (
    f"org.opensearch:opensearch:{VERSION}",
    f"org.opensearch:opensearch-plugin-classloader:{VERSION}",
    f"org.apache.logging.log4j:log4j-core:{_LOG4J}",
    f"org.apache.logging.log4j:log4j-api:{_LOG4J}",
    "org.locationtech.jts:jts-core:1.15.0",
    "org.locationtech.spatial4j:spatial4j:0.7",
)
_AGENT = (f"org.opensearch:opensearch-agent-bootstrap:{VERSION}",)
# name -> artefact, class of its plugin, the module whose classes it uses
_MODULES = {
    "transport-netty4": ("transport-netty4-client", "org.opensearch.transport.Netty4ModulePlugin", ""),
    "lang-painless": ("lang-painless", "org.opensearch.painless.PainlessModulePlugin", ""),
    "analysis-common": (
        "analysis-common",
        "org.opensearch.analysis.common.CommonAnalysisModulePlugin",
        "lang-painless",
    ),
    "mapper-extras": ("mapper-extras-client", "org.opensearch.index.mapper.MapperExtrasModulePlugin", ""),
    "reindex": ("reindex-client", "org.opensearch.index.reindex.ReindexModulePlugin", ""),
}


def cache_folder() -> Path:
    """Where servers are kept between runs: ``TALLY_TEST_CACHE``, else the user's cache folder.

    Root's goes to ``/var/cache``: a server that root starts runs as another user, to whom root's home is closed.
    """
    if named := os.environ.get("TALLY_TEST_CACHE"):
        return Path(named)
    if os.getuid() == 0:
        return Path("/var/cache/tallystick")
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tallystick"


def install(java: Path) -> Path:
    """The server's home, made when it is not there: folders `lib`, `agent`, `modules`, and `security` with that plugin.

    A home appears whole or not at all: it is laid out beside its place, checked against the list, and renamed. Several
    test processes that want it at once wait for the first one.
    """
    cache = cache_folder()
    cache.mkdir(parents=True, exist_ok=True)
    home = cache / f"opensearch-{VERSION}-{_recipe()}"
    if home.is_dir():
        return home
    with (cache / "opensearch.lock").open("w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if home.is_dir():
            return home
        with tempfile.TemporaryDirectory(dir=cache, prefix=".making-") as scratch:
            made = Path(scratch, "home")
            _lay_out(made, Path(scratch, "maven"), java)
            _check(made)
            made.chmod(0o755)
            made.rename(home)
    return home


def listing(home: Path) -> str:
    """The jars below `home` with their SHA-256, as ``sha256sum`` prints them, sorted by path."""
    jars = sorted(path.relative_to(home).as_posix() for path in home.rglob("*.jar"))
    return "".join(f"{hashlib.sha256((home / jar).read_bytes()).hexdigest()}  {jar}\n" for jar in jars)


def _recorded() -> Path:
    return Path(__file__).with_name(f"opensearch-{VERSION}.sha256")


def _recipe() -> str:
    """Changes when this module or its list does, so that an old layout is not taken for the new one."""
    list_bytes = _recorded().read_bytes() if _recorded().exists() else b""
    return hashlib.sha256(Path(__file__).read_bytes() + list_bytes).hexdigest()[:12]


def _check(home: Path) -> None:
    found = set(listing(home).splitlines())
    recorded = set(_recorded().read_text(encoding="utf-8").splitlines())
    wrong = sorted(line.partition("  ")[2] for line in found ^ recorded)
    if wrong:
        raise RuntimeError(f"OpenSearch {VERSION} as fetched is not what {_recorded().name} records: {wrong[:8]}")


def _lay_out(home: Path, scratch: Path, java: Path) -> None:
    groups = {"lib": _SERVER, "agent": _AGENT}
    groups |= {f"modules/{name}": (f"org.opensearch.plugin:{art}:{VERSION}",) for name, (art, _, _) in _MODULES.items()}
    maven.copy_with_dependencies(groups, home=home, scratch=scratch, java=java)
    (home / "plugins").mkdir()
    for name, (_, plugin_class, extended) in _MODULES.items():
        module = home / "modules" / name
        for jar in module.iterdir():
            shared = home / "lib" / jar.name
            lent = home / "modules" / extended / jar.name
            if shared.exists() or (extended and lent.exists()):
                jar.unlink()
        lines = {
            "name": name,
            "description": name,
            "version": VERSION,
            "opensearch.version": VERSION,
            "java.version": str(JAVA_AT_LEAST),
            "classname": plugin_class,
            "extended.plugins": extended,
            "has.native.controller": "false",
        }
        text = "".join(f"{key}={value}\n" for key, value in lines.items())
        (module / "plugin-descriptor.properties").write_text(text, encoding="utf-8")
    _security(home / "security" / SECURITY, scratch / "security", java)


def _security(folder: Path, scratch: Path, java: Path) -> None:
    """The security plugin; a server is given it by a plugins folder that holds it."""
    folder.mkdir(parents=True)
    artifact = f"org.opensearch.plugin:{SECURITY}:{VERSION}.0:zip"
    maven.copy_alone(artifact, folder=scratch / "zips", scratch=scratch, java=java)
    (archive,) = (scratch / "zips").iterdir()
    with zipfile.ZipFile(archive) as plugin:
        plugin.extractall(folder)
    # a full server brings this one
    maven.copy_alone("org.apache.commons:commons-collections4:4.5.0", folder=folder, scratch=scratch, java=java)
    # rule-framework is not on Maven Central; the plugin asks for it through a ServiceLoader, and does without
    descriptor = folder / "plugin-descriptor.properties"
    lines = descriptor.read_text(encoding="utf-8").splitlines()
    optional = "extended.plugins=workload-management;optional=true,rule-framework;optional=true"
    lines = [optional if line.startswith("extended.plugins=") else line for line in lines]
    descriptor.write_text("\n".join(lines) + "\n", encoding="utf-8")
    shutil.rmtree(scratch / "zips")
