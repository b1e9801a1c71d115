"""What a delivery of Pulsar becomes, and what makes two deliveries one message."""

from __future__ import annotations

from typing import Any

import pytest

from collector.receive.brokermessage import Reading, arrival_of_broker_message
from collector.receive.pulsar.message import Delivery, message_of_delivery, source_id

TOPIC = "persistent://public/default/orders-partition-2"
PLAIN: dict[str, Any] = {
    "topic": TOPIC,
    "subscription": "tallystick",
    "ledger": 7,
    "entry": 3,
    "partition": 2,
    "batch_index": 1,
    "value": b"x",
    "properties": {},
    "published_ms": 1_767_225_600_123,
}


def delivery(**other: Any) -> Delivery:
    return Delivery(**PLAIN | other)


def test_everything_that_a_message_says() -> None:
    whole = delivery(
        key="order-1",
        ordering_key="o",
        producer="shop-7",
        event_ms=1_767_225_600_000,
        properties={"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "Saga-Id": "saga-7"},
    )
    event = arrival_of_broker_message(message_of_delivery(whole), Reading(transaction_header="saga-id")).event
    assert event.attributes == {
        "messaging.system": "pulsar",
        "messaging.destination.name": TOPIC,
        "messaging.destination.partition.id": "2",
        "messaging.destination.subscription.name": "tallystick",
        "messaging.message.id": "7:3:2:1",
        "messaging.pulsar.message.key": "order-1",
        "messaging.pulsar.message.ordering_key": "o",
        "messaging.pulsar.message.publish_time": "2026-01-01T00:00:00.123000000Z",
        "messaging.pulsar.producer.name": "shop-7",
        "messaging.message.header.traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "messaging.message.header.Saga-Id": "saga-7",
    }
    assert (event.time, event.transaction) == ("2026-01-01T00:00:00.000000000Z", "saga-7")
    assert (event.trace_id, event.span_id) == ("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331")
    assert event.origin is not None
    assert (event.origin.receiver, event.origin.tag) == ("pulsar", TOPIC)


def test_what_a_message_does_not_say_is_not_there() -> None:
    message = message_of_delivery(delivery(partition=-1, published_ms=0))
    assert (message.time, message.value) == ("", b"x")
    assert "messaging.destination.partition.id" not in message.attributes
    assert not [name for name in message.attributes if name.startswith("messaging.pulsar")]
    tombstone = message_of_delivery(delivery(value=None))
    assert tombstone.value is None
    assert tombstone.attributes["messaging.pulsar.message.tombstone"] is True
    assert message_of_delivery(delivery(published_ms=2**62)).time == ""  # a year that no time has


def test_properties_that_cannot_be_read_are_marked() -> None:
    event = arrival_of_broker_message(message_of_delivery(delivery(properties=None)), Reading()).event
    assert (event.body, event.marks) == ("x", ["headers_cut"])


def test_a_message_has_one_name_whoever_delivers_it_and_how_often() -> None:
    name = source_id(delivery())
    assert (len(name), name[:7]) == (39, b"pulsar\0")
    again = delivery(subscription="other", producer="p", event_ms=5, properties={"a": "b"}, ordering_key="o")
    assert source_id(again) == name


@pytest.mark.parametrize(
    "other",
    [
        {"topic": TOPIC[:-1] + "3"},
        {"ledger": 8},
        {"entry": 4},
        {"batch_index": 2},
        {"published_ms": 1_767_225_600_124},
        {"key": "k"},
        {"value": b"y"},
        {"value": None},
        {"value": b""},
        {"topic": TOPIC + "k", "key": ""},
    ],
    ids=str,
)
def test_another_message_has_another_name(other: dict[str, Any]) -> None:
    assert source_id(delivery(**other)) != source_id(delivery())


def test_names_do_not_run_together() -> None:
    assert source_id(delivery(topic="ab", key="c")) != source_id(delivery(topic="a", key="bc"))
    assert source_id(delivery(value=None)) != source_id(delivery(value=b""))
    assert source_id(delivery(ledger=1, entry=2)) != source_id(delivery(ledger=2, entry=1))
