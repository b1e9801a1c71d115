"""Messages parsed: the examples of the RFCs, what senders write, and nothing but `Malformed` for anything else."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collector.errors import Malformed
from collector.receive import Arrival
from collector.receive.record import severity_of
from collector.receive.syslog.events import FACILITIES, SEVERITIES, arrival_of_syslog
from collector.receive.syslog.message import SyslogMessage, parse_message
from collector.receive.syslog.settings import zone_of

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def parse(data: str | bytes, zone: str = "UTC", now: datetime = NOW) -> SyslogMessage:
    return parse_message(data.encode() if isinstance(data, str) else data, now=now, zone=zone_of(zone))


def arrival(data: str | bytes, **more: str) -> Arrival:
    return arrival_of_syslog(parse(data), **more)  # type: ignore[arg-type]  # texts alone


# the examples of RFC 5424, section 6.5
EXAMPLE_1 = b"<34>1 2003-10-11T22:14:15.003Z mymachine.example.com su - ID47 - \xef\xbb\xbf'su root' failed for lonvick on /dev/pts/8"
EXAMPLE_2 = "<165>1 2003-08-24T05:14:15.000003-07:00 192.0.2.1 myproc 8710 - - %% It's time to make the do-nuts."
EXAMPLE_3 = (
    '<165>1 2003-10-11T22:14:15.003Z mymachine.example.com evntslog - ID47 [exampleSDID@32473 iut="3" '
    'eventSource="Application" eventID="1011"] An application event log entry...'
)
EXAMPLE_4 = (
    "<165>1 2003-10-11T22:14:15.003Z mymachine.example.com evntslog - ID47 "
    '[exampleSDID@32473 iut="3" eventSource="Application" eventID="1011"][examplePriority@32473 class="high"]'
)


def test_the_first_example_as_an_event() -> None:
    event = arrival(EXAMPLE_1, peer="192.0.2.9").event
    assert event.body == "'su root' failed for lonvick on /dev/pts/8"
    assert (event.time, event.event_name) == ("2003-10-11T22:14:15.003000000Z", "ID47")
    assert (event.severity_text, event.severity_number) == ("crit", 18)
    assert event.resource == {"host.name": "mymachine.example.com", "service.name": "su"}
    assert event.attributes == {"syslog.facility": "auth", "network.peer.address": "192.0.2.9"}
    assert event.marks == []
    assert event.origin is not None
    assert event.origin.receiver == "syslog"


def test_the_other_examples() -> None:
    second = parse(EXAMPLE_2)
    assert (second.time, second.process, second.facility, second.severity) == (
        "2003-08-24T12:14:15.000003000Z", "8710", 20, 5,
    )  # fmt: skip
    assert second.text == b"%% It's time to make the do-nuts."
    third = parse(EXAMPLE_3)
    assert third.structured == {
        "exampleSDID@32473": {"iut": [b"3"], "eventSource": [b"Application"], "eventID": [b"1011"]}
    }
    event = arrival(EXAMPLE_4).event
    assert event.body == ""
    assert event.attributes["syslog.exampleSDID@32473.eventSource"] == "Application"
    assert event.attributes["syslog.examplePriority@32473.class"] == "high"


def test_escapes_and_repeated_parameters() -> None:
    event = arrival(r'<14>1 - - - - - [a@1 x="1" x="\"\\\]\n" y=""] m').event
    assert event.attributes["syslog.a@1.x"] == ["1", '"\\]\\n']
    assert event.attributes["syslog.a@1.y"] == ""
    assert (event.time, event.resource, event.body) == ("", {}, "m")


@pytest.mark.parametrize(
    "bad",
    [
        "",
        "no priority",
        "<192>1 - - - - - - x",
        "<01>1 - - - - - - x",
        "<14>1 - - - -",
        "<14>1 yesterday - - - - - x",
        "<14>1 2026-02-30T00:00:00Z - - - - - x",
        "<14>1 - - - - - x",
        "<14>1 - - - - - [a x=1] m",
        '<14>1 - - - - - [a x="1" m',
        '<14>1 - - - - - [a x="1"]m',
        "<14>1 - - - - - []",
    ],
)
def test_what_is_no_message_is_refused(bad: str) -> None:
    with pytest.raises(Malformed) as caught:
        parse(bad)
    assert caught.value.label == "bad_syslog"
    assert "yesterday" not in str(caught.value)  # a reason never holds the input


def test_parameters_are_bounded() -> None:
    parse("<14>1 - - - - - [a" + ' x="1"' * 256 + "]")
    with pytest.raises(Malformed) as caught:
        parse("<14>1 - - - - - [a" + ' x="1"' * 257 + "]")
    assert caught.value.label == "too_large"


@pytest.mark.parametrize(
    ("data", "host", "app", "process", "text"),
    [
        # RFC 3164, section 5.4
        ("<34>Oct 11 22:14:15 mymachine su: 'su root' failed", "mymachine", "su", "", "'su root' failed"),
        ("<13>Feb  5 17:32:18 10.0.0.99 Use the BFG!", "10.0.0.99", "", "", "Use the BFG!"),
        ("<13>Nov 27 06:51:04 cron[812]: (root) CMD", "", "cron", "812", "(root) CMD"),
        ("<13>2026-01-01T00:00:00.5+01:00 db postgres[9]: ready", "db", "postgres", "9", "ready"),
        ("<13>just text at 10:20:30", "", "", "", "just text at 10:20:30"),
        ("<13>", "", "", "", ""),
    ],
)
def test_the_older_form(data: str, host: str, app: str, process: str, text: str) -> None:
    message = parse(data)
    assert (message.host, message.app, message.process, message.text) == (host, app, process, text.encode())
    assert message.marks[0] == "syslog_bsd"


@pytest.mark.parametrize(
    ("stated", "zone", "now", "time"),
    [
        ("Jan  2 03:00:00", "UTC", NOW, "2026-01-02T03:00:00.000000000Z"),
        ("Dec 31 23:59:59.25", "UTC", NOW, "2025-12-31T23:59:59.250000000Z"),
        (
            "Jan  1 00:30:00",
            "Europe/Berlin",
            datetime(2025, 12, 31, 23, 40, tzinfo=UTC),
            "2025-12-31T23:30:00.000000000Z",
        ),
        ("Jul  1 12:00:00", "Europe/Berlin", datetime(2026, 7, 1, 11, tzinfo=UTC), "2026-07-01T10:00:00.000000000Z"),
        ("Jul  1 12:00:00", "-05:30", datetime(2026, 7, 1, 11, tzinfo=UTC), "2026-07-01T17:30:00.000000000Z"),
        ("Feb 29 12:00:00", "UTC", datetime(2028, 3, 1, tzinfo=UTC), "2028-02-29T12:00:00.000000000Z"),
        ("Feb 29 12:00:00", "UTC", NOW, ""),
        ("Xyz 12 12:00:00", "UTC", NOW, ""),
    ],
)
def test_a_time_without_year_and_zone(stated: str, zone: str, now: datetime, time: str) -> None:
    message = parse(f"<13>{stated} host app: x", zone, now)
    assert message.time == time
    assert message.marks == (("syslog_bsd", "time_year_assumed") if time else ("syslog_bsd",))
    assert message.text == b"x" if time else b"app: x" in message.text


def test_json_is_a_record_also_behind_its_cookie() -> None:
    for text in ('{"msg":"paid","level":30,"service":"pay"}', '@cee: {"msg":"paid","level":30,"service":"pay"}'):
        event = arrival(f"<11>1 2026-01-01T00:00:00Z h app 7 PAY - {text}").event
        assert (event.body, event.service, event.event_name) == ("paid", "pay", "PAY")
        assert (event.severity_text, event.severity_number) == ("err", 17)
        assert event.attributes["level"] == 30
    assert arrival("<11>1 - - - - - - {no json").event.body == "{no json"
    named = arrival('<11>1 - - - - PAY - {"event.name":"paid","level":"info","time":"2026-01-01T00:00:00Z"}').event
    assert (named.event_name, named.severity_number, named.time) == ("paid", 9, "2026-01-01T00:00:00.000000000Z")


def test_json_does_not_say_where_it_came_from() -> None:
    text = '{"message":"login ok","network.peer.address":"10.0.0.1","syslog.facility":"kern","syslog.procid":"7"}'
    assert arrival(f"<34>1 - h app 7 - - {text}", peer="203.0.113.66").event.attributes == {
        "network.peer.address": "203.0.113.66",
        "network.peer.address.stated": "10.0.0.1",
        "syslog.facility": "auth",
        "syslog.facility.stated": "kern",
        "syslog.procid": "7",
    }


def test_bytes_that_are_no_text_are_kept() -> None:
    event = arrival(b"<11>1 - - - - - - caf\xe9").event
    assert event.attributes["log.record.original"] == b"caf\xe9"


def test_severities_are_open_telemetrys() -> None:
    assert [severity_of(word) for word, _ in SEVERITIES] == [number for _, number in SEVERITIES]
    assert len(FACILITIES) == 24


pieces = st.lists(
    st.sampled_from(
        [
            b"<14>",
            b"1 ",
            b"- ",
            b"- - - - ",
            b"[a@1 ",
            b'x="',
            b'"',
            b"]",
            b"\\",
            b"Jan  1 00:00:00 ",
            b"h ",
            b"app[1]: ",
            b"{",
            b"\xff",
            b"\0",
        ]
    ),
    max_size=12,
).map(b"".join)


@given(data=pieces | st.binary(max_size=80))
def test_anything_is_a_message_or_malformed(data: bytes) -> None:
    try:
        arrival_of_syslog(parse(data), service="s", peer="p")
    except Malformed:
        pass


@pytest.mark.parametrize("zone", ["", "Mars/Olympus", "../etc/passwd", "+25:00"])
def test_a_zone_that_is_none_is_refused(zone: str) -> None:
    with pytest.raises(ValueError, match=r"zone|offset"):
        zone_of(zone)
