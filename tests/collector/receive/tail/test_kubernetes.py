"""Kubernetes: what a path says, what the API says, and that nobody waits for it."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collector.errors import Malformed
from collector.receive.tail.kubernetes import attributes_of_path, attributes_of_pod
from collector.receive.tail.kubernetes_api import MAX_ANSWER_BYTES, Pods
from collector.receive.tail.settings import KubernetesSettings
from tests.support.pods_api import POD, PodsApi, pods_api
from tests.support.tailing import Tailing, write

ID = "4ca1ab1e" * 8
UID = "0af76519-16cd-43dd-8448-eb211c80319c"
OWNED = {
    "k8s.pod.uid": UID,
    "k8s.node.name": "node-3",
    "k8s.replicaset.name": "shop-6d4cf56db6",
    "k8s.deployment.name": "shop",
    "k8s.pod.label.app.kubernetes.io/name": "shop",
    "k8s.pod.label.pod-template-hash": "6d4cf56db6",
}


def test_paths() -> None:
    assert attributes_of_path(
        f"/var/log/containers/shop-6d4cf56db6-x2x5z_prod_web-{ID}.log",
        f"/var/log/pods/prod_shop-6d4cf56db6-x2x5z_{UID}/web/3.log",
    ) == {
        "k8s.pod.name": "shop-6d4cf56db6-x2x5z",
        "k8s.namespace.name": "prod",
        "k8s.container.name": "web",
        "container.id": ID,
        "k8s.pod.uid": UID,
        "k8s.container.restart_count": 3,
    }
    rotated = attributes_of_path(f"/var/log/pods/prod_shop_{UID}/web/3.log.20260101-101112")
    assert rotated["k8s.container.restart_count"] == 3
    assert attributes_of_path(f"/var/lib/docker/containers/{ID}/{ID}-json.log.1") == {"container.id": ID}
    assert attributes_of_path("/var/log/nginx/access.log", "/x_y_z.log") == {}


def test_a_pod_as_the_documentation_shows_it() -> None:
    assert attributes_of_pod(json.dumps(POD).encode(), ["*"]) == OWNED
    some = attributes_of_pod(json.dumps(POD).encode(), ["app.kubernetes.io/name"])
    assert [name for name in some if ".label." in name] == ["k8s.pod.label.app.kubernetes.io/name"]
    many = json.loads(json.dumps(POD))
    many["metadata"]["labels"] = {f"l{at}": "v" * 9_999 for at in range(500)}
    found = attributes_of_pod(json.dumps(many).encode(), ["*"])
    assert len([name for name in found if ".label." in name]) == 64
    assert max(len(str(value)) for value in found.values()) == 256


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["kind", "metadata", "labels", "x"]), inner)
    ),
    max_leaves=10,
)


@given(body=st.binary(max_size=50) | values.map(lambda value: json.dumps(value).encode()))
def test_anything_else_is_malformed_or_a_pod(body: bytes) -> None:
    try:
        attributes_of_pod(body, ["*"])
    except Malformed:
        pass


def settings(api: PodsApi, folder: Path) -> KubernetesSettings:
    token = folder / "token"
    token.write_text("secret\n")
    return KubernetesSettings(api=True, server=api.url, token_file=str(token))


async def known(pods: Pods, namespace: str = "prod") -> object:
    pods.attributes(namespace, "shop-6d4cf56db6-x2x5z")
    await asyncio.gather(*pods._asking)
    return pods.attributes(namespace, "shop-6d4cf56db6-x2x5z")


def test_an_answer_is_fetched_once_in_the_background(tmp_path: Path) -> None:
    async def story(api: PodsApi) -> None:
        pods = Pods(settings(api, tmp_path))
        assert pods.attributes("prod", "shop-6d4cf56db6-x2x5z") is None
        assert await known(pods) == OWNED
        assert await known(pods, "test") == {}
        await pods.close()
        path = "/api/v1/namespaces/prod/pods/shop-6d4cf56db6-x2x5z"
        assert api.asked == [(path, "Bearer secret"), (path.replace("prod", "test"), "Bearer secret")]

    with pods_api() as api:
        asyncio.run(story(api))


@pytest.mark.parametrize(
    "answer",
    [(403, b"{}"), (500, b""), (200, b"no json"), (200, b" " * (MAX_ANSWER_BYTES + 1)), (302, b"")],
    ids=["forbidden", "broken", "no json", "too long", "redirect"],
)
def test_what_is_no_answer_is_asked_for_again_later(tmp_path: Path, answer: tuple[int, bytes]) -> None:
    async def story(api: PodsApi) -> None:
        seconds = [0.0]
        pods = Pods(settings(api, tmp_path), monotonic=lambda: seconds[0])
        right, api.answer = api.answer, answer
        assert await known(pods) is None
        assert await known(pods) is None
        assert len(api.asked) == 1
        api.answer = right
        seconds[0] = 5.0
        assert await known(pods) == OWNED
        api.answer = answer
        seconds[0] = 700.0
        assert await known(pods) == OWNED  # an old answer is better than none
        assert len(api.asked) == 3
        await pods.close()

    with pods_api() as api:
        asyncio.run(story(api))


def test_a_file_waits_a_second_for_its_pod_and_then_says_what_is_missing(tmp_path: Path) -> None:
    async def story(api: PodsApi, tail: Tailing, log: Path) -> None:
        tail.pods = Pods(settings(api, tmp_path))
        with tail.life() as go:
            write(log, "2026-01-01T00:00:00.5Z stdout F first\n")
            await go()
            assert tail.intake.events == []
            tail.clock.seconds += 1.0
            await go()
            api.gate.set()
            await asyncio.gather(*tail.pods._asking)
            write(log, "2026-01-01T00:00:01.5Z stdout F second\n")
            await go()
        await tail.pods.close()

    with pods_api() as api:
        api.gate.clear()
        pod = tmp_path / "logs" / f"prod_shop-6d4cf56db6-x2x5z_{UID}" / "web"
        pod.mkdir(parents=True)
        containers = tmp_path / "containers"
        containers.mkdir()
        link = containers / f"shop-6d4cf56db6-x2x5z_prod_web-{ID}.log"
        link.symlink_to(pod / "0.log")
        tail = Tailing(tmp_path, paths=(f"{containers}/*.log", f"{tmp_path}/logs/*/*/*.log"))
        asyncio.run(story(api, tail, pod / "0.log"))
    first, second = tail.intake.events
    assert (first.body, first.marks) == ("first", ["k8s_metadata_missing"])
    assert (second.body, second.marks) == ("second", [])
    assert first.resource["service.name"] == second.resource["service.name"] == "web"
    assert "k8s.node.name" not in first.resource
    assert second.resource["k8s.node.name"] == "node-3"
    assert second.resource["k8s.pod.uid"] == UID
