"""Has every listener an address of its own, and TLS where others reach it?"""

import ipaddress
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from collector.receive.listening import is_this_machine
from collector.settings import CollectorSettings
from deploy.config import Config
from deploy.examining import Chart
from deploy.sharding import shards_of

__all__ = ["judge_listeners"]

_NAMED = {"": ("0.0.0.0", "::"), "localhost": ("127.0.0.1", "::1")}  # noqa: S104 - to recognise them
_HERE = "127.0.0.1"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Listener:
    """`table` and `key` say its port; `shielded`: whether what is sent there can be read on the way, `udp`: whether it is no TCP port."""

    table: str
    key: str = "port"
    host: str
    port: int
    shielded: bool
    udp: bool = False


def judge_listeners(chart: Chart, config: Config, collectors: Mapping[str, CollectorSettings]) -> None:
    """Judge every listener that the settings turn on; `collectors` by their tables."""
    taken: defaultdict[tuple[int, bool], list[_Listener]] = defaultdict(list)
    for one in (*_of_collectors(collectors), *_of_others(config)):
        if one.port > 0:
            taken[one.port, one.udp].append(one)
        if one.port >= 0 and not one.shielded and not is_this_machine(one.host):
            chart.warn(
                "listeners",
                f"[{one.table}] listens on {one.host or 'every address'} without TLS: what it is sent, tokens too, can be read on the way",
                f'[{one.table}] host = "127.0.0.1" behind a proxy with TLS, or tls_certificate and tls_key',
            )
    for (port, _), users in taken.items():
        for at, one in enumerate(users):
            others = [other.table for other in users[:at] if _meet(one, other)]
            if others:
                chart.fail(
                    "listeners",
                    f"[{others[0]}] and [{one.table}] both listen on port {port}: the second does not start",
                    f"[{one.table}] {one.key} = another one; 0 chooses a free one",
                )
    if not any(check.name == "listeners" for check in chart.checks):
        chart.ok("listeners", "every listener has an address of its own, and TLS where others reach it")


def _of_collectors(collectors: Mapping[str, CollectorSettings]) -> Iterator[_Listener]:
    for table, settings in collectors.items():
        forward, syslog = settings.forward, settings.syslog
        shielded = bool(forward.tls_certificate or forward.shared_key_file)
        yield _Listener(table=f"{table}.forward", host=forward.host, port=forward.port, shielded=shielded)
        for name in ("http", "grpc", "elasticsearch", "beats"):
            way = getattr(settings, name)
            yield _Listener(table=f"{table}.{name}", host=way.host, port=way.port, shielded=bool(way.tls_certificate))
        for key in ("port", "tls_port", "udp_port"):
            yield _Listener(
                table=f"{table}.syslog",
                key=key,
                host=syslog.host,
                port=getattr(syslog, key),
                shielded=key == "tls_port",
                udp=key == "udp_port",
            )


def _of_others(config: Config) -> Iterator[_Listener]:
    api = config.audit_api
    yield _Listener(table="audit_api", host=api.host, port=api.port, shielded=bool(api.tls_certificate))
    metrics = {name: getattr(config, name).metrics_port for name in ("correlator", "detector", "siem", "incidents")}
    for table, first in metrics.items():
        # each shard's correlator takes the port behind the one before
        for at in range(len(shards_of(config)) if table == "correlator" else 1):
            yield _Listener(table=table, key="metrics_port", host=_HERE, port=first + at if first else 0, shielded=True)


def _meet(one: _Listener, other: _Listener) -> bool:
    """Whether both would have one address: of the same family (those of IPv6 are that alone, but gRPC's), and the same, or one of them every address."""
    return any(
        mine == theirs or (mine.version == theirs.version and (mine.is_unspecified or theirs.is_unspecified))
        for mine in _addresses(one)
        for theirs in _addresses(other)
    ) or (one.host == other.host)


def _addresses(one: _Listener) -> list[ipaddress.IPv4Address | ipaddress.IPv6Address]:
    """Where it listens; of a name nothing is known."""
    hosts = _NAMED.get(one.host, (one.host,))
    if one.host == "::" and one.table.endswith(".grpc"):
        hosts = _NAMED[""]
    try:
        return [ipaddress.ip_address(host) for host in hosts]
    except ValueError:
        return []
