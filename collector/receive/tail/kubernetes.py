"""What Kubernetes says of a log file: by its path, and by the pod that its API describes. Pure.

Paths: ``/var/log/containers/POD_NAMESPACE_CONTAINER-ID.log``, a link to ``/var/log/pods/NAMESPACE_POD_UID/CONTAINER/RESTARTS.log``
(https://kubernetes.io/docs/concepts/cluster-administration/logging/); and Docker's own, ``…/ID/ID-json.log``. The names are those of OpenTelemetry's semantic conventions
(https://opentelemetry.io/docs/specs/semconv/resource/k8s/).
"""

import re
from collections.abc import Sequence
from typing import Any

import msgspec

from collector.errors import Malformed

__all__ = ["NAMESPACE", "POD", "attributes_of_path", "attributes_of_pod"]

NAMESPACE, POD = "k8s.namespace.name", "k8s.pod.name"

MAX_LABELS = 64
_MAX_TEXT = 256

_DNS = r"[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?"
_CONTAINERS = re.compile(rf"/({_DNS})_({_DNS})_({_DNS})-([0-9a-f]{{64}})\.log[^/]*\Z")
_PODS = re.compile(rf"/({_DNS})_({_DNS})_([0-9a-f-]{{32,36}})/({_DNS})/(\d{{1,9}})\.log[^/]*\Z")
_DOCKER = re.compile(r"/([0-9a-f]{64})/\1-json\.log[^/]*\Z")
_REPLICA_SET = re.compile(r"(.+)-[bcdfghjklmnpqrstvwxz2456789]{5,10}")
_OWNERS = {
    "ReplicaSet": "replicaset",
    "StatefulSet": "statefulset",
    "DaemonSet": "daemonset",
    "Job": "job",
    "CronJob": "cronjob",
}


def attributes_of_path(*paths: str) -> dict[str, Any]:
    """The resource attributes that a file's path, and the one that it links to, give; empty when it is nothing of the kind."""
    found: dict[str, Any] = {}
    for path in paths:
        if match := _CONTAINERS.search(path):
            found |= {POD: match[1], NAMESPACE: match[2], "k8s.container.name": match[3], "container.id": match[4]}
        elif match := _PODS.search(path):
            found |= {NAMESPACE: match[1], POD: match[2], "k8s.pod.uid": match[3], "k8s.container.name": match[4]}
            found["k8s.container.restart_count"] = int(match[5])
        elif match := _DOCKER.search(path):
            found["container.id"] = match[1]
    return found


class _Owner(msgspec.Struct):
    kind: str = ""
    name: str = ""
    uid: str = ""
    controller: bool = False


class _Metadata(msgspec.Struct, rename="camel"):
    uid: str = ""
    labels: dict[str, str] | None = None
    owner_references: list[_Owner] | None = None


class _Spec(msgspec.Struct, rename="camel"):
    node_name: str = ""


class _Pod(msgspec.Struct):
    kind: str = ""
    metadata: _Metadata = msgspec.field(default_factory=_Metadata)
    spec: _Spec = msgspec.field(default_factory=_Spec)


_decode = msgspec.json.Decoder(_Pod).decode


def attributes_of_pod(body: bytes, labels: Sequence[str]) -> dict[str, Any]:
    """The resource attributes of the API's object `Pod`: uid, node, owner, and the labels named (``*``: all, at most 64).

    A ReplicaSet's name without its hash is taken for its Deployment's, as Kubernetes makes them.

    Raises:
        Malformed: not a pod.
    """
    try:
        pod = _decode(body)
    except (ValueError, RecursionError) as error:
        raise Malformed(f"not a pod: {error}", label="bad_pod") from error
    if pod.kind != "Pod":
        raise Malformed("not a pod", label="bad_pod")
    found: dict[str, Any] = {}
    if pod.metadata.uid:
        found["k8s.pod.uid"] = pod.metadata.uid[:_MAX_TEXT]
    if pod.spec.node_name:
        found["k8s.node.name"] = pod.spec.node_name[:_MAX_TEXT]
    for owner in pod.metadata.owner_references or ():
        kind = _OWNERS.get(owner.kind)
        if kind and owner.name and owner.controller:
            found[f"k8s.{kind}.name"] = owner.name[:_MAX_TEXT]
            if kind == "replicaset" and (match := _REPLICA_SET.fullmatch(owner.name)):
                found["k8s.deployment.name"] = match[1][:_MAX_TEXT]
    wanted = [name for name in sorted(pod.metadata.labels or ()) if "*" in labels or name in labels]
    for name in wanted[:MAX_LABELS]:
        found[f"k8s.pod.label.{name[:_MAX_TEXT]}"] = (pod.metadata.labels or {})[name][:_MAX_TEXT]
    return found
