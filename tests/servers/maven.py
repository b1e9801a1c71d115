"""Fetches jars from Maven Central with `mvn`, which knows the user's mirrors, proxies and local repository."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from xml.sax.saxutils import escape

from tests.support.need import need

_PLUGIN = "org.apache.maven.plugins:maven-dependency-plugin:3.6.1"
_POM = """<project xmlns="http://maven.apache.org/POM/4.0.0"><modelVersion>4.0.0</modelVersion>
<groupId>tallystick.tests</groupId><artifactId>{name}</artifactId><version>1</version><packaging>pom</packaging>
{body}</project>
"""
_PARENT = """<project xmlns="http://maven.apache.org/POM/4.0.0"><modelVersion>4.0.0</modelVersion>
<parent><groupId>{group}</groupId><artifactId>{above}</artifactId><version>{version}</version></parent>
<artifactId>{name}</artifactId><packaging>pom</packaging></project>
"""
_TIMEOUT_SECONDS = 900


def copy_with_dependencies(groups: Mapping[str, Sequence[str]], *, home: Path, scratch: Path, java: Path) -> None:
    """Each group's artefacts (``group:artifact:version``), with what they need at run time, into the folder of its name.

    Args:
        groups: folder below `home` to artefacts; versions are settled group by group.
        home: where the folders are made.
        scratch: an empty folder for what Maven reads.
        java: the Java that runs Maven.
    """
    modules = []
    for number, (folder, artifacts) in enumerate(groups.items()):
        name = f"group{number}"
        modules.append(f"<module>{name}</module>")
        wanted = "".join(_dependency(one) for one in artifacts)
        target = f"<properties><outputDirectory>{escape(str(home / folder))}</outputDirectory></properties>"
        _write(scratch / name, name, f"{target}<dependencies>{wanted}</dependencies>")
    _write(scratch, "all", f"<modules>{''.join(modules)}</modules>")
    _mvn(java, "-f", str(scratch / "pom.xml"), f"{_PLUGIN}:copy-dependencies", "-DincludeScope=runtime")


def copy_alone(artifact: str, *, folder: Path, scratch: Path, java: Path, parent: str = "") -> None:
    """One artefact (``group:artifact:version[:type[:classifier]]``) without what it needs, into `folder`.

    Args:
        artifact: which.
        folder: is there already.
        scratch: an empty folder for what Maven reads.
        java: the Java that runs Maven.
        parent: ``group:artifact:version`` of its description's parent, where that was never published. Maven reads it before it fetches
            anything, so an empty one is put into a repository of our own; its versions are of no account, since nothing but the artefact is copied.
    """
    repositories = _repository_with(parent, scratch / "parent") if parent else ""
    _write(scratch, "one", repositories)
    _mvn(
        java, "-f", str(scratch / "pom.xml"), f"{_PLUGIN}:copy", f"-Dartifact={artifact}", f"-DoutputDirectory={folder}"
    )


def _repository_with(parent: str, folder: Path) -> str:
    group, name, version = parent.split(":")
    place = folder.joinpath(*group.split("."), name, version)
    place.mkdir(parents=True)
    model = _PARENT.format(group=group, name=name, version=version, above=group.rpartition(".")[2]).encode()
    pom = place / f"{name}-{version}.pom"
    pom.write_bytes(model)
    pom.with_name(f"{pom.name}.sha1").write_text(hashlib.sha1(model).hexdigest(), "ascii")  # noqa: S324 - Maven's form
    return (
        f"<repositories><repository><id>tallystick-tests</id><url>{folder.as_uri()}</url></repository></repositories>"
    )


def _dependency(artifact: str) -> str:
    group, name, version = artifact.split(":")
    return f"<dependency><groupId>{group}</groupId><artifactId>{name}</artifactId><version>{version}</version></dependency>"


def _write(folder: Path, name: str, body: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "pom.xml").write_text(_POM.format(name=name, body=body), encoding="utf-8")


def _mvn(java: Path, *arguments: str) -> None:
    __tracebackhide__ = True
    found = shutil.which("mvn")
    need(found, "needs Maven (mvn) to fetch a server from Maven Central")
    # --strict-checksums: a file that is not what the repository says it is fails the build
    command = [str(found), "--batch-mode", "--quiet", "--strict-checksums", *arguments]
    run = subprocess.run(
        command,
        env=os.environ | {"JAVA_HOME": str(java)},
        capture_output=True,
        text=True,
        timeout=_TIMEOUT_SECONDS,
        check=False,
    )
    if run.returncode:
        last = "\n".join((run.stdout + run.stderr).strip().splitlines()[:8])
        need(condition=False, reason=f"Maven could not fetch {arguments[-1]}: {last}")
