"""CloudEvents in all modes of HTTP, and business events; what is recognised, refused, and answered."""

from __future__ import annotations

import base64
import gzip
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from collector.errors import Malformed
from collector.event import Origin
from collector.receive.body import BodyLimits
from collector.receive.business_events import BusinessEventReceiver
from collector.receive.cloudevent import arrival_of_cloudevent, context_of_headers, data_of_body
from tests.support.memory_intake import MemoryIntake, normalised

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
PAID = {
    "specversion": "1.0",
    "id": "A-1",
    "source": "/shops/17",
    "type": "com.example.paid",
    "time": "2026-01-02T03:04:05+01:00",
    "subject": "pay-1",
    "datacontenttype": "application/json",
    "traceparent": f"00-{TRACE}-{SPAN}-01",
    "transactionid": "pay-1",
    "sampled": True,
    "data": {"amount": 12.5},
}
STRUCTURED = {"content-type": "application/cloudevents+json; charset=utf-8"}
BATCHED = {"content-type": "application/cloudevents-batch+json"}
JSON = {"content-type": "application/json"}


def receiver(intake: MemoryIntake, **options: Any) -> BusinessEventReceiver:
    return BusinessEventReceiver(intake, clock=lambda: 1_700_000_000_000_000_000, **options)


def test_a_cloudevent_has_its_places_in_the_event(intake: MemoryIntake, serve: Callable[..., None]) -> None:
    async def story(client: httpx.AsyncClient) -> None:
        for expected in ({"stored": 1, "duplicates": 0}, {"stored": 0, "duplicates": 1}):
            answer = await client.post("/v1/cloudevents", json=PAID, headers=STRUCTURED)
            assert answer.status_code == 200
            assert answer.json() == {"events": 1, **expected, "dead_lettered": 0, "errors": []}
        (event,) = intake.events
        assert (event.time, event.event_name) == ("2026-01-02T02:04:05.000000000Z", "com.example.paid")
        assert (event.trace_id, event.span_id, event.service) == (TRACE, SPAN, "/shops/17")
        assert event.body == {"amount": 12.5}
        assert event.attributes == {
            "cloudevents.event_spec_version": "1.0",
            "cloudevents.event_id": "A-1",
            "cloudevents.event_source": "/shops/17",
            "cloudevents.event_type": "com.example.paid",
            "cloudevents.event_subject": "pay-1",
            "cloudevents.event_data_content_type": "application/json",
            "traceparent": f"00-{TRACE}-{SPAN}-01",
            "transactionid": "pay-1",
            "sampled": True,
        }
        assert event.origin == Origin(receiver="cloudevents")

    serve(receiver(intake).routes, story)


@pytest.mark.parametrize(
    ("content_type", "body", "data"),
    [
        ("application/json", b'{"a":1}', {"a": 1}),
        ("application/problem+json", b"[1]", [1]),
        ("text/plain; charset=utf-8", "caf\u00e9".encode(), "caf\u00e9"),
        ("application/octet-stream", b"\xff\x00", "/wA="),
        (None, b'"x"', "x"),
        ("application/json", b"", None),
    ],
)
def test_binary_mode_takes_data_of_any_kind(
    content_type: str | None, body: bytes, data: Any, intake: MemoryIntake, serve: Callable[..., None]
) -> None:
    async def story(client: httpx.AsyncClient) -> None:
        headers = {
            "ce-specversion": "1.0",
            "ce-id": "1",
            "CE-Source": "urn:a",
            "ce-type": "t",
            "ce-note": "Euro%20%E2%82%AC%F0%9F%98%80",
        }
        if content_type is not None:
            headers["content-type"] = content_type
        answer = await client.post("/v1/cloudevents", content=body, headers=headers)
        assert answer.json()["stored"] == 1, answer.text
        (event,) = intake.events
        assert event.body == data
        assert event.attributes["note"] == "Euro \u20ac\U0001f600"

    serve(receiver(intake).routes, story)


def test_of_a_batch_the_bad_ones_are_dead_letters_and_the_rest_is_taken(
    intake: MemoryIntake, serve: Callable[..., None]
) -> None:
    batch = [
        PAID,
        {**PAID, "id": ""},
        7,
        {**PAID, "id": "A-2", "data": {1: "never"}},
        {**PAID, "id": "A-3", "data_base64": "aGk="},
    ]

    async def story(client: httpx.AsyncClient) -> None:
        account: dict[str, Any] = {}
        for stored in (2, 0):
            answer = await client.post("/v1/cloudevents", json=batch, headers=BATCHED)
            account = answer.json()
            assert (answer.status_code, account["events"], account["stored"], account["dead_lettered"]) == (
                200,
                5,
                stored,
                3,
            )
        assert account["errors"] == [
            {"event": 1, "reason": "id: is missing, or no text"},
            {"event": 2, "reason": "not a JSON object"},
            {"event": 4, "reason": "data_base64: stands beside data"},
        ]
        assert [error.label for _, error, _ in intake.dead] == ["bad_cloudevent"] * 3, (
            "a re-send leaves no second letter"
        )

    serve(receiver(intake).routes, story)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"specversion": "0.3"}, "specversion: is not 1.0"),
        ({"source": 1}, "source: is missing"),
        ({"time": "noon"}, "time: is no RFC 3339 time"),
        ({"time": 1}, "time: is no text"),
        ({"Upper": "x"}, "Upper: is no attribute's name"),
        ({"list": []}, "list: is neither text, integer nor boolean"),
        ({"data": None, "data_base64": "?"}, "data_base64: is no base64"),
        ({"data": None, "data_base64": 1}, "data_base64: is no text"),
    ],
)
def test_what_is_no_cloudevent_says_why(change: dict[str, Any], reason: str) -> None:
    with pytest.raises(Malformed, match=reason):
        arrival_of_cloudevent({**PAID, **change}, origin=Origin())


def test_the_same_id_of_another_source_is_another_event() -> None:
    ids = {
        arrival_of_cloudevent({**PAID, "source": source, "id": identity}, origin=Origin()).source_id
        for source, identity in (("a", "bc"), ("ab", "c"), ("a", "b"))
    }
    assert len(ids) == 3


def test_data_in_base64_is_what_its_media_type_says() -> None:
    def body(content_type: str, data: bytes) -> Any:
        event = {**PAID, "data": None, "datacontenttype": content_type, "data_base64": base64.b64encode(data).decode()}
        return arrival_of_cloudevent(event, origin=Origin()).event.body

    assert body("application/json", b'{"a":1}') == {"a": 1}
    assert body("application/json", b"{broken") == b"{broken"
    assert body("text/plain", b"hi") == "hi"
    assert body("image/png", b"\x89PNG") == b"\x89PNG"


@pytest.mark.parametrize("body", [b"[" + b"0," * 131_072 + b"0]", b"[" + b"0," * (4 * 2**20) + b"0]"])
def test_a_small_request_with_very_many_events_is_refused_before_they_are_made(
    intake: MemoryIntake, serve: Callable[..., None], body: bytes
) -> None:
    async def story(client: httpx.AsyncClient) -> None:
        for path, headers in (("/v1/cloudevents", BATCHED), ("/api/v2/bizevents/ingest", JSON)):
            coded = {**headers, "content-encoding": "gzip"}
            answer = await client.post(path, content=gzip.compress(body), headers=coded)
            assert answer.status_code == 413
            assert "more than" in answer.text
        assert not intake.groups
        assert not intake.dead

    serve(receiver(intake).routes, story)


def test_requests_that_are_refused_whole(intake: MemoryIntake, serve: Callable[..., None]) -> None:
    reasons: list[str] = []

    async def story(client: httpx.AsyncClient) -> None:
        async def status(content: bytes, **headers: str) -> int:
            return (await client.post("/v1/cloudevents", content=content, headers=headers)).status_code

        structured = {"content-type": "application/cloudevents+json"}
        assert await status(b"{}", **JSON) == 415
        assert await status(b"{broken", **structured) == 400
        assert await status(b"{}", **BATCHED) == 400
        assert await status(b" " * 2_000, **structured) == 413
        assert await status(b"{}", **structured, **{"idempotency-key": "x" * 300}) == 400
        intake.overloaded = 1
        answer = await client.post("/v1/cloudevents", json=PAID, headers=STRUCTURED)
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
        assert not intake.events
        assert not intake.dead

    serve(receiver(intake, limits=BodyLimits(max_body_bytes=1_000), refused=reasons.append).routes, story)
    assert reasons == ["media_type", "bad_json", "bad_json", "too_large", "idempotency_key", "overloaded"]


def test_business_events_are_answered_as_their_api_does(intake: MemoryIntake, serve: Callable[..., None]) -> None:
    paid = {
        "event.type": "paid",
        "event.provider": "shop",
        "event.id": "1",
        "timestamp": "2026-01-01T00:00:00Z",
        "amount": 3,
    }

    async def story(client: httpx.AsyncClient) -> None:
        path = "/api/v2/bizevents/ingest"
        for _ in range(2):
            answer = await client.post(path, json=[paid, {**paid, "event.id": "2"}], headers=JSON)
            assert (answer.status_code, answer.content) == (202, b"")
        assert (await client.post(path, json=PAID, headers=STRUCTURED)).status_code == 202
        assert (await client.post(path, json={**paid, "event.id": None}, headers=JSON)).status_code == 202
        answer = await client.post(path, json=[{**paid, "event.id": "3"}, 7], headers=JSON)
        assert (answer.status_code, answer.json()["stored"], answer.json()["errors"]) == (
            400,
            1,
            [{"event": 1, "reason": "not a JSON object"}],
        )
        first = intake.events[0]
        assert (first.event_name, first.service, first.time) == ("paid", "shop", "2026-01-01T00:00:00.000000000Z")
        assert first.attributes == {"event.provider": "shop", "event.id": "1", "amount": 3}
        assert len(intake.events) == 5

    serve(receiver(intake).routes, story)


def test_what_else_is_called_the_name_of_a_business_event_is_kept(
    intake: MemoryIntake, serve: Callable[..., None]
) -> None:
    named = {"event.name": "Paid by card", "event_name": "x", "event.action": {"a": 1}}

    async def story(client: httpx.AsyncClient) -> None:
        for one in ({"event.type": "paid", **named}, named):
            await client.post("/api/v2/bizevents/ingest", json=one, headers=JSON)
        first, without = intake.events
        assert (first.event_name, first.attributes) == ("paid", named)
        assert (without.event_name, without.attributes) == (
            "x",
            {"event.name": "Paid by card", "event.action": {"a": 1}},
        )

    serve(receiver(intake).routes, story)


def test_a_request_with_an_idempotency_key_is_taken_once(intake: MemoryIntake, serve: Callable[..., None]) -> None:
    async def story(client: httpx.AsyncClient) -> None:
        for key, stored in (("k1", 2), ("k1", 0), ("k2", 2)):
            events = [{"event.type": "paid"}, {"event.type": "paid"}]  # no ids of their own
            answer = await client.post(
                "/api/v2/bizevents/ingest", json=events, headers={**JSON, "idempotency-key": key}
            )
            assert answer.status_code == 202
            assert len(intake.events) == {"k1": 2, "k2": 4}[key], stored
        other = [{"event.type": "paid"}, {"event.type": "paid", "amount": 7}]  # no re-send, whatever the key says
        await client.post("/api/v2/bizevents/ingest", json=other, headers={**JSON, "idempotency-key": "k1"})
        assert len(intake.events) == 6

    serve(receiver(intake).routes, story)


JSONS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
CONTEXT = st.fixed_dictionaries(
    {name: JSONS | st.just(PAID[name]) for name in ("specversion", "id", "source", "type")},
    optional=dict.fromkeys(("time", "subject", "data", "data_base64", "datacontenttype", "traceparent", "x"), JSONS),
)


@given(CONTEXT)
def test_any_object_is_a_cloudevent_or_malformed(event: dict[str, Any]) -> None:
    try:
        arrival = arrival_of_cloudevent(event, origin=Origin())
    except Malformed:
        return
    normalised(arrival.event)
    assert arrival.source_id is not None
    assert len(arrival.source_id) <= 64


@given(
    st.dictionaries(st.text(max_size=6).map(lambda name: f"ce-{name}"), st.text(max_size=20)),
    st.binary(max_size=30),
    st.text(max_size=20),
)
def test_any_headers_and_body_are_an_event_or_malformed(
    headers: dict[str, str], body: bytes, content_type: str
) -> None:
    context = context_of_headers({"ce-specversion": "1.0", "ce-id": "1", "ce-source": "s", "ce-type": "t", **headers})
    try:
        arrival = arrival_of_cloudevent({**context, "data": data_of_body(body, content_type)}, origin=Origin())
    except Malformed:
        return
    normalised(arrival.event)
