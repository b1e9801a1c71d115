"""A real rsyslog over TLS: what it wrote is what was sent, escaped or not; and it is sent again when it went away."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from audit_api.siem.record import Record
from audit_api.siem.settings import SyslogSettings
from audit_api.siem.syslog import SyslogSender
from collector.clienttls import client_tls
from collector.errors import Overloaded
from tests.audit_api.siem.test_wording import read_cef
from tests.servers.rsyslog import Rsyslog
from tests.support.ledgers import SmallLedger
from tests.support.siems import records_of

pytestmark = [pytest.mark.clients, pytest.mark.timeout(240)]


def sender(server: Rsyslog, certificate: str = "", key: str = "") -> SyslogSender:
    settings = SyslogSettings(
        name="s",
        host="127.0.0.1",
        port=server.port,
        enterprise_number=32_473,
        timeout_seconds=20,
        hostname="audit.example",
    )
    return SyslogSender(settings, tls=client_tls(str(server.authority.ca), certificate, key), hostname="")


def check(messages: Sequence[dict[str, str]], records: Sequence[Record]) -> None:
    assert [one["text"] for one in messages] == [one.data.decode() for one in records]
    for one, record in zip(messages, records, strict=True):
        assert (one["host"], one["message_id"]) == ("audit.example", record.row.entry.kind)
        assert int(one["priority"]) // 8 == 13
        assert f'id="{record.mark.id}"' in one["structured"]
        header, fields = read_cef(one["text"])
        assert header[0] == "CEF:0"
        assert fields["externalId"] == record.mark.id


def test_what_it_wrote_is_what_was_sent_and_a_restart_loses_nothing(difficult: SmallLedger) -> None:
    records = records_of(difficult, "cef", max_bytes=7_000)
    with Rsyslog() as server:
        to = sender(server)
        to.send(records[:20])
        assert len(server.until(20)) == 20
        server.stop()
        with pytest.raises(Overloaded, match="syslog"):
            to.send(records[20:])
        server.start()
        to.send(records[20:])
        check(server.until(len(records)), records)


def test_who_shows_no_certificate_is_not_taken_for_done(difficult: SmallLedger) -> None:
    records = records_of(difficult, "cef", max_bytes=7_000)[:5]
    with Rsyslog(clients=True) as server:
        with pytest.raises(Overloaded, match="syslog"):
            sender(server).send(records)
        certificate, key = server.authority.issue("tallystick")
        sender(server, str(certificate), str(key)).send(records)
        check(server.until(5), records)
