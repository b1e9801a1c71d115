"""A delivery's name, and what of it becomes the event."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from collector.receive.amqp.message import Delivery, message_of_delivery, source_id
from collector.receive.brokermessage import Reading, arrival_of_broker_message

DELIVERY = Delivery(queue="q", body=b"{}", headers={})


def test_a_message_is_recognised_by_id_sender_and_body_in_whatever_queue() -> None:
    assert source_id(DELIVERY) is None
    named = replace(DELIVERY, message_id="1", app_id="a")
    assert source_id(named) == source_id(replace(named, queue="other", routing_key="r"))
    assert len(source_id(named) or b"") == 41
    others = [replace(named, message_id="2"), replace(named, app_id=""), replace(named, body=b"")]
    others.append(replace(named, app_id="", message_id="a1"))
    assert len({source_id(one) for one in (named, *others)}) == 1 + len(others)


def test_headers_of_any_type() -> None:
    delivery = replace(
        DELIVERY, headers={"a": 1, "b": [{"c": b"\xff"}], "d": object, "e": None, "f": b"\xff", "g": "t"}
    )
    headers = dict(message_of_delivery(delivery).headers)
    assert (headers["a"], headers["b"], headers["e"], headers["f"]) == (b"1", b'[{"c":"/w=="}]', b"null", b"\xff")
    assert (headers["g"], headers["d"]) == (b"t", b"<class 'object'>")


def test_times() -> None:
    assert message_of_delivery(DELIVERY).time == ""
    stated = replace(DELIVERY, time=datetime(2026, 1, 1, tzinfo=UTC))
    assert message_of_delivery(stated).time == "2026-01-01T00:00:00.000000000Z"


values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.binary(), st.datetimes()),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


@given(st.dictionaries(st.text(max_size=9), values, max_size=3), st.text(max_size=9), st.datetimes())
def test_any_delivery_is_an_event(headers: dict[str, Any], text: str, time: datetime) -> None:
    delivery = replace(DELIVERY, headers=headers, message_id=text, app_id=text, routing_key=text, time=time)
    arrival_of_broker_message(message_of_delivery(delivery), Reading())
