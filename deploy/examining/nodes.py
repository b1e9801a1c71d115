"""How are the cluster's nodes: disks against their watermarks, shards against their limit, clocks against ours? Pure.

Disk watermarks: https://docs.opensearch.org/latest/install-and-configure/configuring-opensearch/cluster-settings/
"""

import re
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase

import msgspec

from deploy.examining import Chart
from deploy.examining.clock import judge_offset
from deploy.wording import size_in_words

__all__ = [
    "Health",
    "Node",
    "Nodes",
    "judge_clocks",
    "judge_disks",
    "judge_health",
    "judge_shards",
    "makes_by_itself",
    "room_at",
]

_UNITS = {"b": 1, "kb": 1 << 10, "mb": 1 << 20, "gb": 1 << 30, "tb": 1 << 40, "pb": 1 << 50}
_DISK = "cluster.routing.allocation.disk"
_LEAST_SHARE = 0.05


class _Total(msgspec.Struct):
    total_in_bytes: int = 0
    available_in_bytes: int = 0


class _Disks(msgspec.Struct):
    total: _Total = msgspec.field(default_factory=_Total)


class Node(msgspec.Struct):
    """One node of ``GET /_nodes/stats/fs``: its time in Unix milliseconds when it was asked, its roles and its disks."""

    name: str
    timestamp: int
    roles: list[str] = []
    fs: _Disks = msgspec.field(default_factory=_Disks)


class Nodes(msgspec.Struct):
    """``GET /_nodes/stats/fs``."""

    nodes: dict[str, Node]


class _IndexHealth(msgspec.Struct):
    status: str


class Health(msgspec.Struct):
    """``GET /_cluster/health``; `indices` with ``level=indices``."""

    status: str
    number_of_nodes: int
    number_of_data_nodes: int
    active_shards: int
    unassigned_shards: int = 0
    initializing_shards: int = 0
    indices: dict[str, _IndexHealth] = {}


def judge_health(chart: Chart, whole: Health, ours: Health) -> None:
    """Is every shard of ours there? `ours` is the health of our indexes; the rest of the cluster is not our concern."""
    nodes = f"{whole.number_of_data_nodes} of {whole.number_of_nodes} nodes hold data"
    sick = [name for name, index in sorted(ours.indices.items()) if index.status == "red"]
    if sick:
        chart.fail(
            "health",
            f"no primary shard of {', '.join(sick[:5])}{' and others' if len(sick) > 5 else ''}: what is there can neither be read nor written",
            "bring the nodes back that held it, or restore a snapshot",
            "GET /_cluster/allocation/explain says what keeps it from being placed",
        )
    elif ours.status == "yellow":
        few = [name for name, index in sorted(ours.indices.items()) if index.status == "yellow"]
        chart.warn(
            "health",
            f"copies are missing of {', '.join(few[:5])}{' and others' if len(few) > 5 else ''}; {nodes}",
            "bring back the nodes that are missing, or add one",
        )
    elif whole.status == "red":
        chart.ok("health", f"ours are all there, while others' indexes are not; {nodes}")
    else:
        chart.ok("health", f"{ours.status}; {nodes}")


def room_at(mark: str, total_bytes: int) -> int | None:
    """Bytes that are free on a disk that is just at a watermark: ``85%`` and ``0.85`` are what is used, ``50gb`` is what is free; None: neither."""
    text = mark.strip().lower()
    if match := re.fullmatch(r"(\d{1,3}(?:\.\d+)?)%", text):
        return int(total_bytes * (1 - min(float(match[1]), 100) / 100))
    if match := re.fullmatch(r"(\d{1,18}(?:\.\d+)?)\s*([kmgtp]?b)", text):
        return int(float(match[1]) * _UNITS[match[2]])
    if re.fullmatch(r"[01](?:\.\d{1,18})?", text) and float(text) <= 1:
        return int(total_bytes * (1 - float(text)))
    return None


def judge_disks(chart: Chart, nodes: Sequence[Node], settings: Mapping[str, str]) -> None:
    """Disks of the nodes that hold data against the three watermarks in the cluster's settings (dotted names)."""
    watched = settings.get(f"{_DISK}.threshold_enabled", "true") == "true"
    fine: list[str] = []
    for node in nodes:
        total, free = node.fs.total.total_in_bytes, node.fs.total.available_in_bytes
        if "data" not in node.roles or total <= 0:
            continue
        said = f"{size_in_words(free)} free of {size_in_words(total)}"
        if not watched:
            if free < total * _LEAST_SHARE:
                chart.fail(
                    "disk",
                    f"{node.name}: {said}, and the watermarks are turned off",
                    "make room, or add a disk or a node",
                )
            else:
                fine.append(f"{node.name} {said}")
            continue
        marks = [(name, settings.get(f"{_DISK}.watermark.{name}", "")) for name in ("flood_stage", "high", "low")]
        passed = [(name, mark) for name, mark in marks if (least := room_at(mark, total)) is not None and free <= least]
        if not passed:
            fine.append(f"{node.name} {said}")
            continue
        name, mark = passed[0]
        found = f"{node.name}: {said}, beyond the watermark {name} ({mark})"
        room = "make room on it (drop what is not needed), add a disk, or add a node"
        if name == "flood_stage":
            chart.fail("disk", f"{found}: its indexes take nothing more", room)
        else:
            flood = settings.get(f"{_DISK}.watermark.flood_stage", "flood_stage")
            chart.warn("disk", f"{found}: beyond {flood} its indexes take nothing more", room)
    if fine:
        chart.ok(
            "disk",
            f"{'; '.join(fine[:4])}{' …' if len(fine) > 4 else ''}{'' if watched else '; watermarks are turned off'}",
        )


def judge_shards(chart: Chart, health: Health, settings: Mapping[str, str], *, month: int) -> None:
    """Is there room for the shards of another month, `month` of them, within ``cluster.max_shards_per_node``?"""
    limit = int(settings.get("cluster.max_shards_per_node", "1000")) * health.number_of_data_nodes
    used = health.active_shards + health.unassigned_shards + health.initializing_shards
    found = f"{used:,} of {limit:,} shards that the data nodes may have"
    wanted = "cluster.max_shards_per_node"
    if used + month > limit:
        chart.fail(
            "shards",
            f"{found}: the next month's {month} are refused",
            f"fewer shards or indexes, more nodes, or a larger {wanted}",
        )
    elif used + month > 0.9 * limit:
        chart.warn("shards", found, f"fewer shards or indexes, more nodes, or a larger {wanted}")
    else:
        chart.ok("shards", found)


def judge_clocks(chart: Chart, nodes: Sequence[Node], *, began_ns: int, ended_ns: int) -> None:
    """Each node's clock against ours, which showed these times when they were asked and when they had answered."""
    for node in sorted(nodes, key=lambda one: one.name):
        judge_offset(
            chart,
            f"clock of {node.name}",
            # a node's time is cut to milliseconds
            least_seconds=node.timestamp / 1e3 - ended_ns / 1e9,
            most_seconds=(node.timestamp + 1) / 1e3 - began_ns / 1e9,
        )


def makes_by_itself(setting: str, index: str) -> bool:
    """Whether writing to a name makes an index of it, as ``action.auto_create_index`` says: a boolean, or patterns with + or -; the first that fits decides."""
    if setting in ("true", "false"):
        return setting == "true"
    for pattern in setting.split(","):
        name = pattern.strip()
        if fnmatchcase(index, name.lstrip("+-")):
            return not name.startswith("-")
    return False
