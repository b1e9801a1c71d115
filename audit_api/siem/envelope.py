"""What is around records in the body of a request: nothing, Splunk's event collector, or the bulk API of Elasticsearch and OpenSearch. Pure.

https://help.splunk.com/en/data-management/get-data-in/ (Format events for HTTP Event Collector);
https://www.elastic.co/docs/api/doc/elasticsearch/operation/operation-bulk.
"""

from collections.abc import Sequence
from typing import Literal

import msgspec

from audit_api.siem.record import Record
from collector.errors import Malformed, Overloaded
from collector.event import parse_time

__all__ = ["CONTENT_TYPES", "body_of", "refused_in"]

Envelope = Literal["ndjson", "splunk", "bulk"]

CONTENT_TYPES: dict[Envelope, str] = {
    "ndjson": "application/x-ndjson",
    "splunk": "application/json",
    "bulk": "application/x-ndjson",
}

_TAKEN = 409
"""Of a document that is there already: a double, recognised by its id."""
_TOO_MANY = 429

_encode = msgspec.json.Encoder().encode


class _Item(msgspec.Struct):
    status: int


class _Bulk(msgspec.Struct):
    errors: bool
    items: list[dict[str, _Item]] = []


_decode_bulk = msgspec.json.Decoder(_Bulk).decode


def body_of(records: Sequence[Record], envelope: Envelope, *, source_type: str) -> bytes:
    """The body of a request. `source_type`: what Splunk files the records under."""
    if envelope == "ndjson":
        return b"".join(one.data + b"\n" for one in records)
    if envelope == "bulk":
        return b"".join(b'{"create":{"_id":%b}}\n%b\n' % (_encode(one.mark.id), one.data) for one in records)
    return b"".join(
        b'{"time":%b,"source":%b,"sourcetype":%b,"event":%b}\n'
        % (_seconds(one), _encode(one.row.log), _encode(source_type), one.data)
        for one in records
    )


def _seconds(record: Record) -> bytes:
    """Seconds since 1970 of when it happened, else of when it was recorded; as digits, because a float has too few."""
    for text in (record.row.facts().time, record.row.entry.recorded):
        try:
            return b"%d.%03d" % divmod(parse_time(text) // 1_000_000, 1_000)
        except Malformed:
            continue
    return b"0"


def refused_in(answer: bytes, records: Sequence[Record]) -> list[Record]:
    """Of a bulk request that was answered with 200: the records that were refused, one by one.

    Raises:
        Overloaded: some could not be taken now, or the answer is not that of a bulk request.
    """
    try:
        told = _decode_bulk(answer)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Overloaded(f"no answer to a bulk request: {error}") from error
    if not told.errors:
        return []
    statuses = [one.status for item in told.items for one in item.values()]
    if len(statuses) != len(records):
        raise Overloaded(f"{len(records)} records were sent, and the answer is about {len(statuses)}")
    if any(status == _TOO_MANY or status >= 500 for status in statuses):
        raise Overloaded("some records could not be taken now")
    return [one for one, status in zip(records, statuses, strict=True) if status >= 300 and status != _TAKEN]
