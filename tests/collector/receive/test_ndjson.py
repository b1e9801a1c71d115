"""JSON lines over HTTP."""

from __future__ import annotations

import asyncio
import gzip
import json
import time
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.requests import Request

from collector.errors import Malformed
from collector.event import Origin
from collector.receive import Arrival, Receipt
from collector.receive.body import BodyLimits
from collector.receive.json_lines import arrival_of_line
from collector.receive.ndjson import NdjsonReceiver
from collector.receive.record import span_uid
from collector.sender import OURSELVES, Sender
from tests.support.memory_intake import MemoryIntake, normalised

ND = {"content-type": "application/x-ndjson"}
TRACE = "2ffbc4a03bbc5600a45841d05e452454"
SPAN = "04ba577c01a08838"


def receiver(intake: MemoryIntake, **options: Any) -> NdjsonReceiver:
    return NdjsonReceiver(intake, clock=lambda: 1_700_000_000_000_000_000, **options)


def lines(*values: Any) -> bytes:
    return b"".join(json.dumps(value).encode() + b"\n" for value in values)


def test_each_line_is_accounted_for(intake: MemoryIntake, serve: Callable[..., None]) -> None:
    async def story(client: httpx.AsyncClient) -> None:
        body = (
            lines({"message": "a", "level": "error"}, {"body": "b", "transaction": "t-1"})
            + b"\r\n[1]\n{broken\n"
            + b'{"message":"last"}'
        )
        answer = await client.post("/v1/events", content=body, headers=ND)
        assert answer.status_code == 200
        assert answer.json() == {
            "lines": 5,
            "stored": 3,
            "duplicates": 0,
            "dead_lettered": 2,
            "errors": [
                {"line": 4, "reason": "line 4: not a JSON object"},
                {"line": 5, "reason": "line 5, column 2: not JSON"},
            ],
        }
        assert [event.body for event in intake.events] == ["a", "b", "last"]
        assert intake.events[1].transaction == "t-1"
        assert intake.events[0].observed == "2023-11-14T22:13:20.000000000Z"
        assert [(raw, origin.row) for raw, _, origin in intake.dead] == [(b"[1]", 4), (b"{broken", 5)]

    serve(receiver(intake).routes, story)


@pytest.mark.parametrize("empty", [b"\n", b"\r\n", b" \n"])
def test_millions_of_empty_lines_are_passed_over_together_and_counted(
    intake: MemoryIntake, serve: Callable[..., None], empty: bytes
) -> None:
    async def story(client: httpx.AsyncClient) -> None:
        body = b'{"n":1}\n' + empty * (8 * 2**20) + b"[1]"
        began = time.process_time()
        answer = await client.post(
            "/v1/events", content=gzip.compress(body, 1), headers={**ND, "content-encoding": "gzip"}
        )
        assert time.process_time() - began < 1.5  # a look at each would take longer
        assert answer.json()["errors"] == [
            {"line": 8 * 2**20 + 2, "reason": f"line {8 * 2**20 + 2}: not a JSON object"}
        ]
        assert answer.json()["stored"] == 1

    serve(receiver(intake).routes, story)


@given(
    st.lists(st.sampled_from([b"", b" ", b"\r", b"\t ", b'{"a":1}', b"broken", b' {"a":2}\r', b"x" * 30]), max_size=9),
    st.integers(1, 40),
    st.integers(1, 9),
)
def test_lines_and_their_numbers_do_not_depend_on_how_the_body_arrives(
    written: list[bytes], step: int, part_lines: int
) -> None:
    body = b"\n".join(written)

    async def told() -> tuple[MemoryIntake, Any]:
        intake = MemoryIntake()
        pieces = [body[at : at + step] for at in range(0, len(body), step)]

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": pieces.pop(0) if pieces else b"", "more_body": bool(pieces)}

        scope = {
            "type": "http",
            "method": "POST",
            "headers": [(b"content-type", b"application/x-ndjson")],
            "client": None,
        }
        answer = await receiver(intake, max_line_bytes=20, part_lines=part_lines).post(Request(scope, receive))
        return intake, json.loads(bytes(answer.body))

    intake, answer = asyncio.run(told())
    full = [(number, line[:21]) for number, line in enumerate(written, 1) if line.strip()]
    bad = [(number, line) for number, line in full if not line.strip().startswith(b"{")]
    assert [(origin.row, raw) for raw, _, origin in intake.dead] == bad
    assert (answer["lines"], answer["stored"]) == (len(full), len(full) - len(bad))


def test_an_idempotency_key_makes_a_repeated_request_all_duplicates(
    intake: MemoryIntake, serve: Callable[..., None]
) -> None:
    async def story(client: httpx.AsyncClient) -> None:
        body = lines(*[{"n": n} for n in range(25)])
        first = await client.post("/v1/events", content=body, headers={**ND, "idempotency-key": "k1"})
        assert first.json()["stored"] == 25
        again = await client.post("/v1/events", content=body, headers={**ND, "idempotency-key": "k1"})
        assert (again.json()["stored"], again.json()["duplicates"]) == (0, 25)
        await client.post("/v1/events", content=body, headers={**ND, "idempotency-key": "k2"})
        assert len(intake.events) == 50

    serve(receiver(intake, part_lines=10).routes, story)


def test_another_body_under_the_same_key_is_no_repeated_request(
    intake: MemoryIntake, serve: Callable[..., None]
) -> None:
    async def story(client: httpx.AsyncClient) -> None:
        headers = {**ND, "idempotency-key": "1"}
        for bodies in (["A"], ["B"], ["B"], ["B", "C"], ["D", "C"]):  # parts of one line each
            content = lines(*[{"message": body} for body in bodies])
            assert (await client.post("/v1/events", content=content, headers=headers)).status_code == 200
        assert [event.body for event in intake.events] == ["A", "B", "C", "D", "C"]
        for raw in (b"[1]", b"[2]", b"[2]"):
            await client.post("/v1/events", content=raw, headers=headers)
        assert [raw for raw, _, _ in intake.dead] == [b"[1]", b"[2]"]

    serve(receiver(intake, part_lines=1).routes, story)


def test_lines_refused_again_under_the_same_key_are_no_second_letters(
    intake: MemoryIntake, serve: Callable[..., None]
) -> None:
    async def story(client: httpx.AsyncClient) -> None:
        for key in ("k1", "k1", "k2"):
            answer = await client.post(
                "/v1/events", content=b'[1]\n{"n":1}\n[1]\n', headers={**ND, "idempotency-key": key}
            )
            assert answer.json()["dead_lettered"] == 2
        assert [origin.row for _, _, origin in intake.dead] == [1, 3, 1, 3]
        for _ in range(2):  # nothing says that this one is the other again
            await client.post("/v1/events", content=b"[1]\n", headers=ND)
        assert len(intake.dead) == 6

    serve(receiver(intake).routes, story)


class ThirdCallOverloads(MemoryIntake):
    calls = 0

    async def accept(
        self,
        arrivals: Sequence[Arrival],
        *,
        group_id: bytes | None = None,
        heard: bool = True,
        sender: Sender = OURSELVES,
    ) -> Receipt:
        self.calls += 1
        if self.calls == 3:
            self.overloaded = 1
        return await super().accept(arrivals, group_id=group_id, heard=heard, sender=sender)


def test_a_request_that_broke_off_goes_on_where_it_was(serve: Callable[..., None]) -> None:
    tight = ThirdCallOverloads()

    async def story(client: httpx.AsyncClient) -> None:
        body = lines(*[{"n": n} for n in range(25)])
        headers = {**ND, "idempotency-key": "k"}
        answer = await client.post("/v1/events", content=body, headers=headers)
        assert answer.status_code == 503
        assert int(answer.headers["retry-after"]) >= 1
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["taken"]["stored"] == 20
        answer = await client.post("/v1/events", content=body, headers=headers)
        assert (answer.json()["stored"], answer.json()["duplicates"]) == (5, 20)
        assert [event.attributes["n"] for event in tight.events] == list(range(25))

    serve(receiver(tight, part_lines=10).routes, story)


def test_an_overlong_line_is_a_dead_letter_and_the_rest_goes_on(
    intake: MemoryIntake, serve: Callable[..., None]
) -> None:
    async def story(client: httpx.AsyncClient) -> None:
        async def pieces() -> AsyncIterator[bytes]:
            yield b'{"message":"a"}\n{"message":"'
            for _ in range(50):
                yield b"x" * 100
            yield b'"}\n{"mess'
            yield b'age":"b"}'

        answer = await client.post("/v1/events", content=pieces(), headers=ND)
        assert (answer.json()["stored"], answer.json()["dead_lettered"]) == (2, 1)
        assert [event.body for event in intake.events] == ["a", "b"]
        assert intake.dead[0][1].label == "too_large"
        assert len(intake.dead[0][0]) == 1001

    serve(receiver(intake, max_line_bytes=1000).routes, story)


def test_a_compressed_body(intake: MemoryIntake, serve: Callable[..., None]) -> None:
    async def story(client: httpx.AsyncClient) -> None:
        headers = {**ND, "content-encoding": "gzip"}
        answer = await client.post("/v1/events", content=gzip.compress(lines({"message": "a"})), headers=headers)
        assert answer.json()["stored"] == 1
        answer = await client.post("/v1/events", content=gzip.compress(b"\n" * 1_000_000), headers=headers)
        assert answer.status_code == 413
        answer = await client.post("/v1/events", content=b"no gzip", headers=headers)
        assert answer.status_code == 400
        answer = await client.post("/v1/events", content=b"", headers={**ND, "content-encoding": "br"})
        assert answer.status_code == 415

    serve(receiver(intake, limits=BodyLimits(max_body_bytes=10_000, max_inflated_bytes=20_000)).routes, story)


def test_refusals_are_problem_details_and_counted(intake: MemoryIntake, serve: Callable[..., None]) -> None:
    reasons: list[str] = []

    async def story(client: httpx.AsyncClient) -> None:
        wrong = await client.post("/v1/events", content=b"{}", headers={"content-type": "application/json"})
        assert wrong.status_code == 415
        large = await client.post("/v1/events", content=b"x" * 2000, headers=ND)
        assert large.status_code == 413
        long_key = await client.post("/v1/events", content=b"{}", headers={**ND, "idempotency-key": "k" * 300})
        assert long_key.status_code == 400
        intake.overloaded = 1
        busy = await client.post("/v1/events", content=b"{}", headers=ND)
        assert busy.status_code == 503
        for answer in (wrong, large, long_key, busy, await client.get("/v1/events"), await client.get("/nothing")):
            assert answer.headers["content-type"] == "application/problem+json"
            assert answer.json()["status"] == answer.status_code
        assert reasons == ["media_type", "too_large", "idempotency_key", "overloaded"]
        assert intake.events == []

    serve(receiver(intake, limits=BodyLimits(max_body_bytes=1000), refused=reasons.append).routes, story)


# --------------------------------------------------------------------------------------------------------- one line
def event_of(line: bytes) -> Any:
    return normalised(arrival_of_line(line, origin=Origin(receiver="ndjson")).event)[0]


def test_a_line_with_only_event_fields_is_that_event() -> None:
    arrival = arrival_of_line(
        json.dumps(
            {
                "time": "2023-01-30T19:50:59+08:00",
                "trace_id": TRACE,
                "span_id": SPAN,
                "span": {"name": "GET /", "kind": "SERVER", "status": "ERROR"},
                "resource": {"service.name": "shop"},
                "keys": {"order": "7"},
                "transaction": "t",
            }
        ).encode(),
        origin=Origin(receiver="ndjson"),
    )
    assert arrival.event.time == "2023-01-30T11:50:59.000000000Z"
    assert arrival.event.span is not None
    assert arrival.event.keys == {"order": "7"}
    assert arrival.source_id == span_uid(TRACE, SPAN, kind="SERVER", time=arrival.event.time)


@pytest.mark.parametrize(
    "fields",
    [
        {"access": {"principal": "me", "action": "read"}},
        {"marks": ["card_masked"]},
        {"origin": {"receiver": "forward"}},
        {"observed": "2020-01-01T00:00:00Z"},
        {"severity_number": 99, "body": "x"},
        {"trace_id": "zz", "body": "x"},
        {"outcome": "maybe"},
        {"keys": {"a": 1}},
        {"span": {"name": "without ids"}},
    ],
)
def test_what_a_sender_may_not_say_of_an_event_is_kept_as_attributes(fields: dict[str, Any]) -> None:
    event = event_of(json.dumps(fields).encode())
    assert event.access is None
    assert event.marks == []
    assert event.observed == ""
    kept = {name: value for name, value in fields.items() if name != "body"}
    assert event.attributes == kept


def test_json_that_others_write() -> None:
    assert event_of(b'{"a": NaN, "b": -Infinity}').attributes == {"a": "NaN", "b": "-Infinity"}
    assert event_of(b'{"a": "\\ud800x"}').attributes == {"a": "\ufffdx"}
    assert event_of(b'{"a": "\xff"}').attributes == {"a": "\ufffd"}
    assert event_of(b'{"a": 1675079459971622667}').attributes == {"a": "1675079459971622667"}


@given(st.binary(max_size=60) | st.text(max_size=60).map(str.encode))
def test_any_bytes_are_an_arrival_or_malformed(line: bytes) -> None:
    try:
        arrival_of_line(line, origin=Origin())
    except Malformed:
        pass


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: (
            st.lists(inner) | st.dictionaries(st.text() | st.sampled_from(["time", "body", "span", "keys"]), inner)
        ),
        max_leaves=10,
    )
)
def test_any_json_is_an_arrival_or_malformed(value: Any) -> None:
    line = json.dumps(value).encode()
    if isinstance(value, dict):
        arrival_of_line(line, origin=Origin())
    else:
        with pytest.raises(Malformed):
            arrival_of_line(line, origin=Origin())


def test_deep_json_is_malformed() -> None:
    with pytest.raises(Malformed):
        arrival_of_line(b'{"a":' * 100_000, origin=Origin())
    with pytest.raises(Malformed):
        arrival_of_line(b'{"a":' * 100_000 + b"1" + b"}" * 100_000, origin=Origin())
