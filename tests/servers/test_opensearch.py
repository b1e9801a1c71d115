"""The servers that other tests stand on do what those tests take for granted: killed, paused and started again."""

from __future__ import annotations

import os
import select
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.servers.opensearch import Cluster

pytestmark = [pytest.mark.opensearch, pytest.mark.timeout(1_200)]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with Cluster(nodes=2) as cluster:
        yield cluster


def test_a_killed_node_comes_back_with_its_data(cluster: Cluster) -> None:
    settings = {"index.number_of_shards": 2, "index.number_of_replicas": 0}
    cluster.ask("PUT", "/kept", {"settings": settings, "mappings": {"dynamic": False}})
    for number in range(20):
        cluster.ask("PUT", f"/kept/_create/{number}", {"number": number})
    cluster.nodes[1].kill()
    assert not cluster.nodes[1].alive()
    with pytest.raises((OSError, urllib.error.URLError)):
        cluster.ask("GET", "/", via=1)
    cluster.nodes[1].start()
    cluster.wait()
    found = [cluster.ask("GET", f"/kept/_doc/{number}")["_source"]["number"] for number in range(20)]
    assert found == list(range(20))


def test_a_paused_node_is_silent_and_goes_on_when_resumed(cluster: Cluster) -> None:
    node = cluster.nodes[1]
    node.pause()
    try:
        start = time.monotonic()
        with pytest.raises(OSError, match="timed out"):
            cluster.ask("GET", "/", via=1, timeout_seconds=0.5)
        assert time.monotonic() - start < 10
        assert node.alive()
    finally:
        node.resume()
    assert cluster.ask("GET", "/", via=1)["version"]["number"]


def test_what_it_stops_leaves_nothing(cluster: Cluster) -> None:
    own = Cluster()
    assert own.folder.is_dir()
    own.start()
    pid = own.nodes[0].pid
    assert pid != cluster.nodes[0].pid
    own.stop()
    assert not own.folder.exists()
    with pytest.raises((OSError, urllib.error.URLError)):
        own.ask("GET", "/")


def test_servers_die_with_tests_that_are_killed(repo_root: Path) -> None:
    code = "from tests.servers.opensearch import Cluster as C; c = C(); c.nodes[0].start(); print(c.nodes[0].pid, c.folder, flush=True); input()"
    tests = subprocess.Popen([sys.executable, "-c", code], cwd=repo_root, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert tests.stdout is not None
    assert tests.stdin is not None
    pid, folder = tests.stdout.readline().decode().split()
    try:
        server = os.pidfd_open(int(pid))
        tests.kill()
        assert tests.wait(30) == -signal.SIGKILL
        gone, _, _ = select.select([server], [], [], 30)  # readable when the process has ended
        assert gone
        os.close(server)
    finally:
        tests.stdout.close()
        tests.stdin.close()
        shutil.rmtree(folder, ignore_errors=True)
