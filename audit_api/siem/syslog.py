"""Sends syslog over TLS, or over TCP. One connection for each batch: how it ends is the only answer that syslog has.

Nothing in syslog acknowledges a message, and what the kernel took may be lost with the connection. So each batch is ended: by ``close_notify``, which
RFC 5425 section 4.4 has the receiver answer, and by the end of our half of the TCP connection. The cursor moves when the receiver's own ends have come,
ours is acknowledged, and nothing was reset: a receiver that closes with something unread resets (docs/decisions/0047).
"""

import os
import socket
import ssl
import sys
import time
from collections.abc import Sequence

from audit_api.siem.forms import own_version
from audit_api.siem.record import Record
from audit_api.siem.rfc5424 import SEVERITIES, framed, message, structured
from audit_api.siem.settings import SyslogSettings
from collector.errors import Overloaded

__all__ = ["HEADER_BYTES", "SyslogSender", "syslog_message"]

HEADER_BYTES = 800
"""Room that a message's header and structured data take at most, beside the record."""


def syslog_message(record: Record, settings: SyslogSettings, hostname: str) -> bytes:
    """A record as a message. Its time is when the entry was recorded: along a log that never goes back."""
    severity = record.severity
    level = "error" if severity >= 8 else "warning" if severity >= 6 else "notice" if severity >= 4 else "informational"
    elements = structured("origin", {"software": "tallystick", "swVersion": own_version()})
    if settings.enterprise_number:
        mine = {"id": record.mark.id[-255:], "leafHash": record.mark.leaf_hash}
        elements += structured(f"tally@{settings.enterprise_number}", mine)
    return message(
        facility=settings.facility,
        severity=SEVERITIES[level],
        time=record.row.entry.recorded,
        hostname=hostname,
        message_id=record.row.entry.kind,
        elements=elements,
        text=record.data,
    )


class SyslogSender:
    """A `Destination`.

    Args:
        settings: where it is.
        tls: None: plain TCP.
        hostname: of this machine, for where the settings have none.
    """

    def __init__(self, settings: SyslogSettings, *, tls: ssl.SSLContext | None, hostname: str) -> None:
        self._settings = settings
        self._tls = tls
        self._hostname = settings.hostname or hostname

    def send(self, records: Sequence[Record]) -> None:
        """See `Destination.send`."""
        if not records:
            return
        data = b"".join(framed(syslog_message(one, self._settings, self._hostname)) for one in records)
        place = (self._settings.host, self._settings.port)
        try:
            with socket.create_connection(place, timeout=self._settings.timeout_seconds) as plain:
                if self._tls is None:
                    _send_plain(plain, data)
                else:
                    _send_tls(self._tls, plain, data, self._settings.host)
        except OSError as error:  # a certificate that does not hold is one, too
            raise Overloaded(f"{self._settings.place}: {str(error) or type(error).__name__}") from error

    def close(self) -> None:
        """Nothing is open between two batches."""


def _send_plain(plain: socket.socket, data: bytes) -> None:
    plain.sendall(data)
    _refuse_early_end(plain)
    _end(plain)


def _send_tls(context: ssl.SSLContext, plain: socket.socket, data: bytes, host: str) -> None:
    with context.wrap_socket(plain, server_hostname=host) as tls:
        tls.sendall(data)
        _refuse_early_end(tls)
        with tls.unwrap() as bare:  # our close_notify, and its own
            _end(bare)


def _refuse_early_end(connection: socket.socket) -> None:
    """A receiver that has ended its half by itself did not do so for having read everything."""
    if _state(connection) in (_CLOSE_WAIT, _CLOSE):
        raise OSError("it ended the connection before it was done")


def _end(connection: socket.socket) -> None:
    """End our half, and wait until the receiver has closed with all of ours acknowledged: for anything unread its kernel resets."""
    connection.shutdown(socket.SHUT_WR)
    while connection.recv(4_096):  # a receiver of syslog says nothing; its end is the answer
        pass
    deadline = time.monotonic() + (connection.gettimeout() or 0.0)
    while (state := _state(connection)) not in (_CLOSE, None):
        if time.monotonic() > deadline:
            raise TimeoutError("the end of the connection was not acknowledged")
        time.sleep(0.001)  # of a round trip, at most
    if state is not None and (error := connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)):
        raise OSError(error, os.strerror(error))


def _state(connection: socket.socket) -> int | None:
    """What TCP says of the connection; None where the operating system does not tell."""
    if sys.platform != "linux":
        return None
    return connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0]


_CLOSE, _CLOSE_WAIT = 7, 8
"""Of Linux's ``tcp_states.h``: both ends are acknowledged, or it was reset; the other side alone has ended."""
