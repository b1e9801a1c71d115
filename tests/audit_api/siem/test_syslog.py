"""Syslog: only the receiver's own end of the connection says that it has read everything."""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
import threading
from pathlib import Path

import pytest

from audit_api.siem.settings import SyslogSettings
from audit_api.siem.syslog import HEADER_BYTES, SyslogSender, syslog_message
from collector.errors import Overloaded
from tests.audit_api.siem.test_destinations import server_tls
from tests.servers.certificates import Authority
from tests.support.ledgers import SmallLedger
from tests.support.siems import records_of, syslog_sink


@pytest.mark.parametrize("encrypted", [False, True])
def test_a_connection_that_breaks_confirms_nothing(ledger: SmallLedger, tmp_path: Path, encrypted: bool) -> None:
    authority = Authority(tmp_path) if encrypted else None
    tls = ssl.create_default_context(cafile=str(authority.ca)) if authority else None
    records = records_of(ledger, "cef") * 40  # more than the kernel takes in one go
    with syslog_sink(tls=server_tls(authority) if authority else None, takes=lambda number: number > 0) as sink:
        host, port = sink.address
        settings = SyslogSettings(name="s", host=host, port=port, tls=encrypted)
        sender = SyslogSender(settings, tls=tls, hostname="here")
        with pytest.raises(Overloaded, match="syslog"):
            sender.send(records)
        assert sink.got == []
        sender.send(records)
        assert len(sink.got) == len(records)
    with pytest.raises(Overloaded, match="refused"):
        sender.send(records)


def test_a_receiver_that_is_not_who_it_should_be(ledger: SmallLedger, tmp_path: Path) -> None:
    ours, others = Authority(tmp_path / "ours"), Authority(tmp_path / "others")
    with syslog_sink(tls=server_tls(others)) as sink:
        host, port = sink.address
        settings = SyslogSettings(name="s", host=host, port=port)
        context = ssl.create_default_context(cafile=str(ours.ca))
        with pytest.raises(Overloaded, match="CERTIFICATE_VERIFY_FAILED"):
            SyslogSender(settings, tls=context, hostname="here").send(records_of(ledger)[:1])
        assert sink.got == []


def test_a_message(ledger: SmallLedger) -> None:
    settings = SyslogSettings(name="s", host="h", enterprise_number=32_473)
    one = records_of(ledger, "cef")[-1]
    made = syslog_message(one, settings, "audit.example")
    head, _, text = made.partition(b" [")
    assert head.startswith((b"<108>1 2026-01-01T00:00:0", b"<110>1 2026-01-01T00:00:0"))
    assert head.split(b" ")[2:] == [b"audit.example", b"tallystick", b"-", one.row.entry.kind.encode()]
    assert f'tally@32473 id="{one.mark.id}" leafHash="{one.mark.leaf_hash}"]'.encode() in text
    assert made.endswith(one.data)
    assert len(made) - len(one.data) < HEADER_BYTES


def test_a_goodbye_that_is_no_answer_confirms_nothing(ledger: SmallLedger, tmp_path: Path) -> None:
    """A receiver that shuts down, or does not like who we are, says close_notify as well, with everything unread."""
    authority = Authority(tmp_path)
    context = server_tls(authority)
    records = records_of(ledger, "cef")
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def say_goodbye() -> None:
            plain, _ = listening.accept()
            with context.wrap_socket(plain, server_side=True) as tls:
                assert select.select([tls], [], [], 30)[0], "the messages are there, and nobody reads them"
                tls.settimeout(0)
                with contextlib.suppress(OSError):
                    tls.unwrap()

        thread = threading.Thread(target=say_goodbye)
        thread.start()
        settings = SyslogSettings(name="s", host="127.0.0.1", port=listening.getsockname()[1])
        sender = SyslogSender(settings, tls=ssl.create_default_context(cafile=str(authority.ca)), hostname="here")
        with pytest.raises(Overloaded, match="syslog"):
            sender.send(records)
        thread.join()
