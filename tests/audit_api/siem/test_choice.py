"""Which entries a destination is sent."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from audit_api.siem.choice import Choice
from audit_api.siem.settings import SiemSettings, SyslogSettings
from correlator.entry import Entry, decode_entry
from tests.support.ledgers import SmallLedger


def taken(ledger: SmallLedger, **settings: Any) -> list[Entry]:
    choice = Choice(SyslogSettings(name="s", host="h", **settings))
    entries = [decode_entry(line) for line in ledger.reader.entries(0, ledger.reader.tree().size)]
    return [entry for leaf, entry in enumerate(entries) if choice.takes(entry, leaf)]


def test_all_unless_said_otherwise(ledger: SmallLedger) -> None:
    assert len(taken(ledger)) == ledger.reader.tree().size


@pytest.mark.parametrize(
    ("settings", "kinds"),
    [
        ({"entries": ("verdict",)}, {"verdict"}),
        ({"entries": ("verdict", "gap", "fork")}, {"verdict"}),
        ({"entries": ("verdict",), "flows": ("refund",)}, set()),
        ({"entries": ("verdict",), "flows": ("payment",)}, {"verdict"}),
        ({"filter": "service = ledger"}, {"event"}),
        ({"filter": "not service in (ledger, gateway)"}, {"batch", "link", "verdict", "enrolment"}),
        ({"filter": "kind = transaction"}, {"event", "link", "verdict"}),
        ({"filter": "status = incomplete or key.order_id = O-1"}, {"event", "link", "verdict"}),
        ({"filter": "event = http.request and time >= 2026-01-01T00:00:00Z"}, {"event"}),
        ({"tenants": ("acme",)}, set()),
    ],
)
def test_by_kind_flow_tenant_and_filter(ledger: SmallLedger, settings: dict[str, Any], kinds: set[str]) -> None:
    ledger.add_verdict("transaction/PAY-0", "incomplete")
    ledger.publish()
    found = taken(ledger, **settings)
    assert {one.kind for one in found} == kinds
    assert len(found) < ledger.reader.tree().size


def test_the_filter_is_asked_of_each_entry_alone(ledger: SmallLedger) -> None:
    names = {msgspec.json.decode(one.facts)["name"] for one in taken(ledger, filter="event = payment.requested")}
    assert names == {"payment.requested"}, "other events of the same trail are not meant"


SYSLOG = {"kind": "syslog", "name": "s", "host": "h"}
HTTP = {"kind": "http", "name": "w", "url": "https://siem.example/in"}
KAFKA = {"kind": "kafka", "name": "k", "brokers": ["b:9092"], "topic": "t"}


@pytest.mark.parametrize(
    ("table", "said"),
    [
        (SYSLOG | {"filter": "service ="}, "a value is wanted"),
        (SYSLOG | {"filter": "not (text ~ card)"}, "no entry can be asked"),
        (SYSLOG | {"tls": False, "ca_file": "ca.pem"}, "go with TLS"),
        (SYSLOG | {"client_key": "key.pem"}, "go together"),
        (SYSLOG | {"hostname": "a b"}, "printable ASCII"),
        (HTTP | {"url": "http://siem.example/in"}, "unencrypted"),
        (HTTP | {"url": "https://ann:secret@siem.example/"}, "credential"),
        (HTTP | {"url": "https://siem.example/?token=secret"}, "no query"),
        (HTTP | {"url": "siem.example"}, "none of the form"),
        (KAFKA | {"sasl": "PLAIN", "user": "u", "password_file": "p", "tls": False}, "needs tls"),
        (KAFKA | {"user": "u"}, "go together"),
        (HTTP | {"format": "cef"}, "cef"),
    ],
)
def test_settings_that_are_refused(table: dict[str, Any], said: str) -> None:
    assert msgspec.convert({"destinations": [SYSLOG, HTTP, KAFKA]}, SiemSettings).destinations
    with pytest.raises(msgspec.ValidationError, match=said) as raised:
        msgspec.convert({"destinations": [table]}, SiemSettings)
    assert "secret" not in str(raised.value)


def test_two_of_one_name() -> None:
    with pytest.raises(msgspec.ValidationError, match="same name"):
        msgspec.convert({"destinations": [SYSLOG, HTTP | {"name": "s"}]}, SiemSettings)
