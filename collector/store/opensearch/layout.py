"""Where things lie in OpenSearch: the names of the indexes, and the settings and mapping that each is made with. Pure.

    <prefix>-streams          which streams there are, and in which months they wrote        append-only
    <prefix>-batches          a signed header for each batch: what makes it stored           append-only
    <prefix>-events-2026.01   an event each, of batches first shipped in that month          append-only
    <prefix>-facts-2026.01    the facts of those batches, apart from bodies                  append-only
    <prefix>-acknowledged     up to where the log holds each stream: a number that grows     mutable

An append-only index refuses update, delete and overwriting, to an administrator too
(https://docs.opensearch.org/latest/im-plugin/append-only-index/).
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["Layout"]

_KEYWORD: Mapping[str, Any] = {"type": "keyword", "ignore_above": 1_024}
_NANOS: Mapping[str, Any] = {"type": "date_nanos", "ignore_malformed": True}
_LONG: Mapping[str, Any] = {"type": "long"}

_EVENT_FIELDS: Mapping[str, Any] = {
    "@timestamp": _NANOS,
    "observedTimestamp": _NANOS,
    "traceId": _KEYWORD,
    "spanId": _KEYWORD,
    "parentSpanId": _KEYWORD,
    "serviceName": _KEYWORD,
    "severityNumber": {"type": "byte"},
    "severityText": _KEYWORD,
    "name": _KEYWORD,
    "kind": _KEYWORD,
    "startTime": _NANOS,
    "endTime": _NANOS,
    "durationInNanos": _LONG,
    "status": {"properties": {"code": {"type": "byte"}, "message": {"type": "keyword", "ignore_above": 256}}},
    "traceGroup": _KEYWORD,
    "traceGroupFields": {"properties": {"endTime": _NANOS, "durationInNanos": _LONG, "statusCode": {"type": "byte"}}},
    # words can be searched; without positions and frequencies, which cost the server most
    "body": {"type": "match_only_text"},
    "transaction": _KEYWORD,
    "tenant": _KEYWORD,
    "keys": _KEYWORD,
    "actor": _KEYWORD,
    "outcome": _KEYWORD,
    "stream": _KEYWORD,
    "sequence": _LONG,
    "batch": _LONG,
    # the event itself, byte by byte as it was hashed: kept in _source, never looked into
    "event": {"type": "object", "enabled": False},
    "unindexed": {"type": "boolean"},
    "unindexedReason": {"type": "keyword", "ignore_above": 1_024},
    "raw": {"type": "binary"},
}
_BATCH_FIELDS: Mapping[str, Any] = {"stream": _KEYWORD, "number": _LONG, "header": {"type": "object", "enabled": False}}
_FACTS_FIELDS: Mapping[str, Any] = {"facts": {"type": "object", "enabled": False}, "raw": {"type": "binary"}}
_STREAM_FIELDS: Mapping[str, Any] = {"stream": _KEYWORD, "place": _KEYWORD}


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """Names and shapes.

    Args:
        prefix: what every name begins with.
        shards: primary shards of a month's indexes.
        replicas: copies beside the primary, of every index.
    """

    prefix: str
    shards: int
    replicas: int

    @property
    def streams(self) -> str:
        """Index of the streams and where they wrote."""
        return f"{self.prefix}-streams"

    @property
    def batches(self) -> str:
        """Index of the signed headers."""
        return f"{self.prefix}-batches"

    @property
    def acknowledged(self) -> str:
        """Index of what the log holds."""
        return f"{self.prefix}-acknowledged"

    def place(self, created: str) -> str:
        """Index of the events of a batch cut at this RFC 3339 time."""
        return self.of_month(f"{created[:4]}.{created[5:7]}")

    def of_month(self, month: str) -> str:
        """Index of the events of the batches of this month, ``2026.01``."""
        return f"{self.prefix}-events-{month}"

    def is_place(self, name: str) -> bool:
        """Whether this is the name of a month's index of events."""
        return re.fullmatch(rf"{re.escape(self.prefix)}-events-\d{{4}}\.\d\d", name, re.ASCII) is not None

    def facts(self, place: str) -> str:
        """Index of the facts that belong to the events at `place`."""
        return f"{self.prefix}-facts-{place[-7:]}"

    def fixed(self) -> tuple[str, ...]:
        """The indexes that there is one of."""
        return (self.streams, self.batches, self.acknowledged)

    def is_append_only(self, index: str) -> bool:
        """Whether nothing in this index may ever change."""
        return index != self.acknowledged

    def body(self, index: str) -> dict[str, Any]:
        """Settings and mapping that `index` is made with."""
        settings: dict[str, Any] = {
            # one shard keeps the order of arrival (streams), and is plenty for small documents
            "index.number_of_shards": 1 if index in self.fixed() else self.shards,
            "index.number_of_replicas": self.replicas,
            # synced before the answer: acknowledged is durable
            "index.translog.durability": "request",
            # copies index by themselves, so that a refresh means the same on each
            "index.replication.type": "DOCUMENT",
            # no pipeline of the cluster's may change a document
            "index.default_pipeline": "_none",
            "index.final_pipeline": "_none",
        }
        if self.is_append_only(index):
            settings["index.append_only.enabled"] = True
        return {"settings": settings, "mappings": {"dynamic": False, "properties": dict(self._fields(index))}}

    def _fields(self, index: str) -> Mapping[str, Any]:
        if index == self.streams:
            return _STREAM_FIELDS
        if index == self.batches:
            return _BATCH_FIELDS
        if index == self.acknowledged:
            return {"number": _LONG}
        return _EVENT_FIELDS if self.is_place(index) else _FACTS_FIELDS

    def templates(self) -> dict[str, dict[str, Any]]:
        """Index templates by name: so that an index of ours that anybody else makes by writing to it is as we would make it."""
        month = "2000.01"
        patterns = {
            "events": (f"{self.prefix}-events-*", self.body(f"{self.prefix}-events-{month}")),
            "facts": (f"{self.prefix}-facts-*", self.body(f"{self.prefix}-facts-{month}")),
        }
        for index in self.fixed():
            patterns[index.removeprefix(f"{self.prefix}-")] = (index, self.body(index))
        return {
            f"{self.prefix}-{name}": {"index_patterns": [pattern], "priority": 500, "template": body}
            for name, (pattern, body) in patterns.items()
        }
