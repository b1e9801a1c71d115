"""Lines of container runtimes: decoded as their specifications say, and nothing but `Malformed` for anything else."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collector.errors import Malformed
from collector.receive.tail.events import arrival_of_message
from collector.receive.tail.formats import Form, form_of, part_of
from collector.receive.tail.lines import Line
from collector.receive.tail.messages import Assembler, Part, Position
from collector.receive.tail.settings import MultilineSettings

# the examples of the CRI logging format's own document
CRI_OUT = b"2016-10-06T00:17:09.669794202Z stdout P log content 1"
CRI_ERR = b"2016-10-06T00:17:09.669794203Z stderr F log content 2"


def line(data: bytes) -> Line:
    return Line(start=0, end=len(data) + 1, data=data, size=len(data))


def part(data: bytes, form: Form) -> Part:
    found = part_of(line(data), form, "utf-8")
    assert found is not None
    return found


def test_the_first_line_tells_the_format() -> None:
    assert form_of(CRI_OUT) == "cri"
    assert form_of(b'{"log":"x\\n","stream":"stdout","time":"2026-01-01T00:00:00Z"}') == "docker"
    assert form_of(b'{"log":"x"}') == "mixed"
    assert form_of(b"2026-01-01 something") == "mixed"


def test_cri() -> None:
    first, second = part(CRI_OUT, "cri"), part(CRI_ERR, "cri")
    assert (first.text, first.stream, first.whole) == ("log content 1", "stdout", False)
    assert first.time == "2016-10-06T00:17:09.669794202Z"
    assert (second.text, second.stream, second.whole) == ("log content 2", "stderr", True)
    zone = part(b"2026-02-03T04:05:06.7+01:00 stdout F:tag  indented", "cri")
    assert (zone.text, zone.time) == (" indented", "2026-02-03T03:05:06.700000000Z")
    assert part(b"2026-02-03T04:05:06.7Z stdout F ", "cri").text == ""
    assert part(b"2026-02-03T04:05:06.7Z stdout F", "cri").text == ""


@pytest.mark.parametrize("bad", [b"x", b"2026-02-03T04:05:06.7Z other F x", b"2026-02-03T04:05:06.7Z stdout X x"])
def test_what_is_not_cri_is_refused(bad: bytes) -> None:
    with pytest.raises(Malformed) as caught:
        part(bad, "cri")
    assert caught.value.label == "bad_cri"


def test_a_time_that_does_not_exist_is_kept_as_it_was_stated() -> None:
    odd = part(b"2026-13-45T04:05:06.7Z stdout F x", "cri")
    assert (odd.time, odd.others["cri.time"]) == ("", "2026-13-45T04:05:06.7Z")


def test_dockers_pieces_are_joined_and_read_as_the_services_own_json() -> None:
    time = '"stream":"stdout","time":"2026-01-01T00:00:0%d.5Z"}'
    pieces = [
        b'{"log":"{\\"msg\\":\\"pa",' + (time % 1).encode(),
        b'{"log":"id\\",\\"level\\":\\"error\\"}\\n",' + (time % 2).encode(),
    ]
    assembler = Assembler(MultilineSettings(), Position())
    found = [message for piece in pieces for message in assembler.add(part(piece, "docker"), 0.0)]
    (message,) = found
    arrival = arrival_of_message(
        message, form="docker", identity=b"i" * 16, path="/x.log", service="shop", resource={"k8s.pod.name": "shop-1"}
    )
    event = arrival.event
    assert (event.body, event.severity_number, event.time) == ("paid", 17, "2026-01-01T00:00:01.500000000Z")
    assert event.attributes == {"log.iostream": "stdout"}
    assert event.resource == {"k8s.pod.name": "shop-1", "service.name": "shop"}


def test_a_line_does_not_say_whose_file_it_stands_in() -> None:
    said = b'{"body":"paid","resource":{"k8s.namespace.name":"payments","service.name":"pay"}}'
    (message,) = Assembler(MultilineSettings(), Position()).add(part(said, "json"), 0.0)
    resource = {"k8s.namespace.name": "sandbox"}
    arrival = arrival_of_message(
        message, form="json", identity=b"i" * 16, path="/x.log", service="shop", resource=resource
    )
    assert arrival.event.resource == {
        "k8s.namespace.name": "sandbox",
        "k8s.namespace.name.stated": "payments",
        "service.name": "pay",
    }


@given(data=st.binary(max_size=200) | st.from_regex(rb"\d{4}-\d\d-\d\dT[0-9:.]{8,18}Z stdout [PF].*", fullmatch=True))
def test_anything_is_a_part_or_refused(data: bytes) -> None:
    form_of(data)
    for form in ("lines", "json", "cri", "docker", "mixed"):
        for encoding in ("utf-8", "latin-1"):
            try:
                found = part_of(line(data), form, encoding)
                if found is None:
                    continue
                for message in Assembler(MultilineSettings(), Position()).add(found, 0.0):
                    arrival_of_message(message, form=form, identity=b"", path="/x", service="", resource={})
            except Malformed:
                pass
