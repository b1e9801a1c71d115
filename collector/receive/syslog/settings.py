"""The settings of syslog: the table ``[collector.syslog]`` in ``tally.toml``."""

import re
from datetime import timedelta, timezone, tzinfo
from typing import Annotated
from zoneinfo import ZoneInfo

import msgspec

from collector.receive.listening import check_listening, is_this_machine

__all__ = ["SyslogSettings", "zone_of"]

_Port = Annotated[int, msgspec.Meta(ge=-1, le=65_535)]
_OFFSET = re.compile(r"([+-])(\d\d):(\d\d)", re.ASCII)


def zone_of(name: str) -> tzinfo:
    """The time zone of an IANA name or an offset like ``+01:00``; ValueError when there is none."""
    if match := _OFFSET.fullmatch(name):
        offset = timedelta(hours=int(match[2]), minutes=int(match[3]))
        return timezone(-offset if match[1] == "-" else offset)
    if name == "UTC":
        return timezone(timedelta(0))  # also where no zones are installed
    try:
        return ZoneInfo(name)
    except (OSError, KeyError, ValueError) as error:
        raise ValueError(f"zone: no time zone {name!r} here") from error


class SyslogSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Syslog. Nothing listens unless a port is given. No form of syslog has acknowledgements: what is lost when, is in docs/ways-in.md.

    Attributes:
        host: address to listen on.
        port: TCP port (601 by standard, 514 by habit); 0 chooses a free one, -1 turns it off.
        tls_port: TCP port with TLS (6514 by standard); likewise. It needs `tls_certificate` and `tls_key`.
        udp_port: UDP port (514 by standard); likewise. What does not fit is dropped, and what the network or the kernel drops nobody knows.
        tls_certificate, tls_key: PEM files; both or neither. TLS 1.2 or newer.
        tls_client_ca: PEM file with the authorities whose certificates senders must show; empty: none is demanded.
        unprotected: listen beyond this machine without TLS (`port`, `udp_port`), though anybody may send then and read along.
        zone: time zone of times that name none (RFC 3164): an IANA name, or an offset like `+01:00`.
        max_message_bytes: a longer message becomes a dead letter.
        max_connections: further ones are closed at once.
    """

    host: str = "127.0.0.1"
    port: _Port = -1
    tls_port: _Port = -1
    udp_port: _Port = -1
    tls_certificate: str = ""
    tls_key: str = ""
    tls_client_ca: str = ""
    unprotected: bool = False
    zone: str = "UTC"
    max_message_bytes: Annotated[int, msgspec.Meta(ge=2_048, le=1024**2)] = 64 * 1024
    max_connections: Annotated[int, msgspec.Meta(ge=1, le=65_536)] = 256

    def __post_init__(self) -> None:
        """Refuse a zone that is none, and TLS without a certificate."""
        zone_of(self.zone)
        check_listening(self, on=False)
        if self.tls_port >= 0 and not self.tls_certificate:
            raise ValueError("tls_port needs tls_certificate and tls_key")
        if max(self.port, self.udp_port) >= 0 and not (self.unprotected or is_this_machine(self.host)):
            raise ValueError(f"listening on {self.host} without TLS (port, udp_port) needs unprotected = true")
